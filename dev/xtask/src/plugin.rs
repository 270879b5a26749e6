//! `kubectl shop` on PATH: built from this checkout, linked beside kubectl, also under the name by which kubectl asks for completions.
//! Says nothing on its way: `env` prints exports and nothing else.

use std::path::PathBuf;

use anyhow::Result;

use crate::context::Context;
use crate::images::{binary_named, cargo_build};
use crate::tools::{Tools, link};

const PLUGIN: &str = "kubectl-shop";
const COMPLETION: &str = "kubectl_complete-shop";

/// The program's link in the folder that is put first on PATH.
pub fn ensure(context: &Context) -> Result<PathBuf> {
    let binaries = cargo_build(context, &[PLUGIN.to_owned()], "kubectl-shop")?;
    let program = binary_named(&binaries, PLUGIN)?;
    link(context, COMPLETION, program)?;
    link(context, PLUGIN, program)?;
    Ok(Tools::dir(context).join(PLUGIN))
}
