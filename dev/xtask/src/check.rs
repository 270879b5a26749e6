//! `cargo xtask check`: everything that needs no test to be wrong: format, lints, docs, generated files, charts, manifests.
//! Changes nothing in the checkout.

use anyhow::{Context as _, Result, bail};
use serde_json::json;

use crate::command::Run;
use crate::context::{Context, variable};
use crate::helm::{self, OPERATOR, Release};
use crate::images::Images;
use crate::monitoring;
use crate::progress::Progress;
use crate::sample::Sample;
use crate::stage::Stage;
use crate::target::Cluster;
use crate::tools::Tools;

pub fn run(context: &Context) -> Result<()> {
    let _lock = context.lock()?;
    let mut stage = Stage::open(context)?;
    let outcome = check(context, &mut stage);
    let struck = stage.strike(context);
    outcome.and(struck)
}

fn check(context: &Context, stage: &mut Stage) -> Result<()> {
    let mut progress = Progress::new([
        "format",
        "clippy, warnings are errors",
        "documentation",
        "generated files",
        "chart lint",
        "alert rules and dashboard",
        "manifests against the API server",
    ]);
    progress.step(|| cargo(context, &["fmt", "--all", "--check"]))?;
    progress.step(|| {
        cargo(context, &["clippy", "--locked", "--workspace", "--all-targets", "--quiet", "--", "-D", "warnings"])
    })?;
    progress.step(|| {
        let doc = cargo_run(context, &["doc", "--locked", "--workspace", "--no-deps", "--quiet"]);
        doc.env("RUSTDOCFLAGS", "-D warnings").log_to(&context.log("check"))
    })?;
    progress.step(|| generated(context))?;
    progress.step(|| {
        Tools::ensure(context)?;
        lint(context)
    })?;
    progress.step(|| monitoring::check(context))?;
    progress.step(|| {
        stage.cluster(context)?;
        dry_run(context)
    })
}

fn cargo_run(context: &Context, args: &[&str]) -> Run {
    Run::new(variable("CARGO").unwrap_or_else(|| "cargo".into())).dir(&context.repo).args(args)
}

fn cargo(context: &Context, args: &[&str]) -> Result<()> {
    cargo_run(context, args).log_to(&context.log("check"))
}

fn generated(context: &Context) -> Result<()> {
    cargo(context, &["run", "--locked", "--quiet", "--bin", "crdgen", "--", "--check"])
        .context("crds/ or docs/shopdeployment.md differs from operator/src/crd: run `cargo run --bin crdgen`")
}

/// Both charts with the values that `up` gives them, and the operator's with all that can be asked for besides.
fn charts(context: &Context) -> Result<[(Release<'static>, String); 3]> {
    let sample = Sample::load(context)?;
    let operator = helm::operator_values(&Images::from_registry("localhost/xhipment", "check"));
    let mut more = operator.clone();
    more["watchNamespace"] = json!("default");
    more["monitoring"] = json!({"rules": {"kind": "ConfigMap"}, "dashboard": {"enabled": true}});
    let shop = Release { name: "demo", chart: "shop", namespace: "default" };
    Ok([(OPERATOR, operator.to_string()), (OPERATOR, more.to_string()), (shop, sample.values().to_string())])
}

fn lint(context: &Context) -> Result<()> {
    let helm = Tools::linked(context)?.helm;
    for (release, values) in charts(context)? {
        let chart = context.repo.join("charts").join(release.chart);
        let run = Run::new(&helm).args(["lint", "--strict", "--values", "-"]).arg(chart);
        run.input(values).log_to(&context.log("check")).with_context(|| format!("chart {}", release.chart))?;
    }
    Ok(())
}

/// Every object that the charts render is accepted by the API server, field by field.
fn dry_run(context: &Context) -> Result<()> {
    let cluster = Cluster::load(context)?;
    for (release, values) in charts(context)? {
        let chart = context.repo.join("charts").join(release.chart);
        let render = cluster.helm(context)?.args(["template", release.name, "--namespace", "default", "--values", "-"]);
        let objects = render.arg(chart).input(values).read()?;
        if !objects.contains("kind:") {
            bail!("chart {} renders nothing", release.chart);
        }
        if release.chart == "shop-operator" {
            install_crds(context, &cluster)?;
        }
        let apply = [
            "apply",
            "--server-side",
            "--force-conflicts",
            "--dry-run=server",
            "--validate=strict",
            "-n",
            "default",
            "-f",
            "-",
        ];
        let run = cluster.kubectl(context)?.args(apply).input(objects);
        run.log_to(&context.log("check")).with_context(|| format!("objects of chart {}", release.chart))?;
    }
    Ok(())
}

/// A ShopDeployment can only be checked where its kind is known; a CRD that is there is left alone.
fn install_crds(context: &Context, cluster: &Cluster) -> Result<()> {
    let known = cluster.kubectl(context)?.args(["get", "crd", "shopdeployments.shop.xhipment.io"]).succeeds();
    if known {
        return Ok(());
    }
    crate::helm::install_crds(context, cluster)
}
