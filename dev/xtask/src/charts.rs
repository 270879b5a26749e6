//! `cargo xtask charts`: keeps a released version of the charts as a fixture, for the tests of upgrades from it.

use anyhow::{Context as _, Result, bail};

use crate::command::Run;
use crate::context::Context;
use crate::tools::Tools;

const CHARTS: [&str; 2] = ["shop-operator", "shop"];

#[derive(Debug, clap::Subcommand)]
pub enum Action {
    /// Package both charts into dev/e2e/fixtures/charts
    Package,
}

pub fn run(context: &Context, action: &Action) -> Result<()> {
    match action {
        Action::Package => CHARTS.iter().try_for_each(|chart| package(context, chart)),
    }
}

fn package(context: &Context, chart: &str) -> Result<()> {
    let fixtures = context.repo.join("dev/e2e/fixtures/charts");
    let folder = context.repo.join("charts").join(chart);
    let helm = Tools::ensure(context)?.helm;
    let version = Run::new(&helm).args(["show", "chart"]).arg(&folder).read()?;
    let version =
        version.lines().find_map(|line| line.strip_prefix("version: ")).context("the chart has no version")?;
    let file = fixtures.join(format!("{chart}-{version}.tgz"));
    if file.exists() {
        bail!("{} is there already and stays as it was released: raise the chart's version", file.display());
    }
    Run::new(&helm).arg("package").arg(&folder).arg("--destination").arg(&fixtures).log_to(&context.log("helm"))?;
    println!("{}", file.display());
    Ok(())
}
