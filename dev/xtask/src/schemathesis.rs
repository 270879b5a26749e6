//! The program that fuzzes the API from its own description: Schemathesis, from `PyPI`, in a virtual environment of the cache.
//! Installs it; how it is called is the business of the tests.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use crate::command::Run;
use crate::context::{Context, key_of};
use crate::host;
use crate::progress::note;

/// Where Schemathesis is, after installing it if need be.
pub fn ensure(context: &Context) -> Result<PathBuf> {
    let pins = context.repo.join("dev/xtask/schemathesis.txt");
    let folder = context.cache.join("build").join(format!("schemathesis-{}", key_of(std::slice::from_ref(&pins), "")?));
    let program = folder.join("bin/schemathesis");
    if Run::new(&program).arg("--version").succeeds() {
        return Ok(program);
    }
    install(context, &folder, &pins)
        .context("install Schemathesis: give the machine access to its package index, then run again")?;
    Ok(program)
}

fn install(context: &Context, folder: &Path, pins: &Path) -> Result<()> {
    // On Debian the module that makes virtual environments is a package of its own.
    if !Run::new("python3").args(["-c", "import ensurepip, venv"]).succeeds() {
        host::install(context, &["python3", "python3-venv"])?;
    }
    note("Schemathesis: installing with pip into the cache");
    if folder.exists() {
        fs::remove_dir_all(folder).with_context(|| format!("removing {}", folder.display()))?;
    }
    let log = context.log("schemathesis");
    Run::new("python3").args(["-m", "venv"]).arg(folder).log_to(&log)?;
    let pip =
        Run::new(folder.join("bin/pip")).args(["install", "--quiet", "--disable-pip-version-check", "--requirement"]);
    pip.arg(pins).log_to(&log)
}
