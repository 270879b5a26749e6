//! Calls helm. Values go through standard input.

use std::{
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use serde_json::Value;

/// One of this checkout's charts.
pub fn chart(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../charts").join(name)
}

/// A chart as it was released with version 0.1.0.
pub fn released(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("fixtures/charts/{name}-0.1.0.tgz"))
}

#[expect(clippy::disallowed_methods, reason = "tests take the programs' places from the environment")]
fn program() -> String {
    std::env::var("SHOP_TEST_HELM").unwrap_or_else(|_| "helm".to_owned())
}

/// What helm printed; the error carries what it complained about.
pub fn helm(args: &[&str], values: &Value) -> Result<String> {
    let mut command = Command::new(program());
    command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    if !values.is_null() {
        command.args(["--values", "-"]);
    }
    let mut child = command.spawn().context("no helm: run `cargo xtask test e2e`, or set SHOP_TEST_HELM")?;
    child.stdin.take().context("helm has no input")?.write_all(values.to_string().as_bytes())?;
    let output = child.wait_with_output()?;
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    ensure!(output.status.success(), "helm {}: {err}{out}", args.join(" "));
    Ok(out.into_owned())
}

/// The objects that a chart renders.
pub fn render(name: &str, values: &Value) -> Result<Vec<Value>> {
    let folder = chart(name);
    let args = ["template", "demo", &folder.to_string_lossy(), "--namespace", "here"];
    let text = helm(&args, values)?;
    let objects = serde_yaml::Deserializer::from_str(&text).map(Value::deserialize);
    let objects = objects.collect::<Result<Vec<_>, _>>().with_context(|| format!("not YAML: {text}"))?;
    Ok(objects.into_iter().filter(|object| !object.is_null()).collect())
}
