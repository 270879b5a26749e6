//! Writes crds/shopdeployments.yaml and docs/shopdeployment.md from the types; `--check` only compares, and fails on a
//! difference.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::Parser;

#[derive(Debug, Parser)]
#[command(about = "Generates the CRD and its manual from the operator's types")]
struct Options {
    /// Compare with the files in place of writing them.
    #[arg(long)]
    check: bool,
}

fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..");
    let crd = shop_operator::crd_yaml().context("cannot turn the CRD into YAML")?;
    let manual = shop_operator::manual::manual().context("cannot turn the CRD into JSON")?;
    for (path, wanted) in [("crds/shopdeployments.yaml", crd), ("docs/shopdeployment.md", manual)] {
        let path = folder.join(path);
        if options.check {
            compare(&path, &wanted)?;
        } else {
            std::fs::write(&path, wanted).with_context(|| format!("cannot write {}", path.display()))?;
        }
    }
    Ok(())
}

fn compare(path: &Path, wanted: &str) -> anyhow::Result<()> {
    let found = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    if found != wanted {
        bail!("{} differs from the types: run `cargo run --bin crdgen`", path.display());
    }
    Ok(())
}
