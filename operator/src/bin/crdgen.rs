//! Writes crds/shopdeployments.yaml from the types; `--check` only compares, and fails on a difference.

use std::path::PathBuf;

use anyhow::{Context, bail};
use clap::Parser;

#[derive(Debug, Parser)]
#[command(about = "Generates the CRD from the operator's types")]
struct Options {
    /// Compare with the file in place of writing it.
    #[arg(long)]
    check: bool,
}

fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../crds/shopdeployments.yaml");
    let wanted = shop_operator::crd_yaml().context("cannot turn the CRD into YAML")?;
    if !options.check {
        return std::fs::write(&path, wanted).with_context(|| format!("cannot write {}", path.display()));
    }
    let found = std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    if found != wanted {
        bail!("{} differs from the types: run `cargo run --bin crdgen`", path.display());
    }
    Ok(())
}
