//! `cargo xtask up`: from a fresh machine, or from whatever is there, to a shop that takes orders. Each step can be repeated.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

use crate::accounts::Accounts;
use crate::cluster::{self, Which};
use crate::command::wait_until;
use crate::context::Context;
use crate::deps;
use crate::docker::Docker;
use crate::helm::{self, OPERATOR};
use crate::images::{self, Images};
use crate::net;
use crate::progress::{Progress, note};
use crate::sample::{Metadata, Sample};
use crate::servers::Deps;
use crate::shop::Shop;
use crate::target::Cluster;
use crate::{env, plugin, secrets, seed, started};

/// From the last write to a shop that is ready: pods start in seconds, a laptop under load takes longer.
const READY_LIMIT: Duration = Duration::from_mins(3);

#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    cluster: cluster::UpArgs,
    #[command(flatten)]
    ports: deps::PortArgs,
    /// With --cluster current: the registry and folder that hold the images api, worker and operator
    #[arg(long, value_name = "REGISTRY/FOLDER")]
    images_from: Option<String>,
    /// With --cluster current: the images' tag
    #[arg(long, default_value = env!("CARGO_PKG_VERSION"))]
    tag: String,
    /// With --cluster current: values of chart `shop` for your own shop
    #[arg(long, value_name = "FILE")]
    shop_values: Option<PathBuf>,
}

pub fn run(context: &Context, args: &Args) -> Result<()> {
    let _lock = context.lock()?;
    started::keep(context)?;
    match args.cluster.cluster {
        Which::Kind => on_kind(context, args),
        Which::Current => on_current(context, args),
    }
}

fn on_kind(context: &Context, args: &Args) -> Result<()> {
    if args.images_from.is_some() || args.shop_values.is_some() {
        bail!(
            "--images-from and --shop-values are for --cluster current: on kind the images are built from this checkout"
        );
    }
    let mut progress = Progress::new([
        "cluster: Kubernetes and its ingress",
        "servers: MongoDB, Redis, SQS and SES",
        "images: compile api, worker, operator and kubectl shop",
        "operator",
        "demo shop",
        "catalogue and accounts",
    ]);
    let cluster = progress.step(|| cluster::up(context, &args.cluster))?;
    let servers = progress.step(|| deps::up(context, args.ports))?;
    let images = progress.step(|| {
        plugin::ensure(context)?;
        make_images(context)
    })?;
    progress.step(|| install_operator(context, &cluster, &images))?;
    let sample = Sample::load(context)?;
    let accounts = progress.step(|| {
        let accounts = secrets::apply(context, &cluster, &servers)?;
        install_shop(&Target { context, cluster: &cluster, sample: &sample }, &images)?;
        Ok(accounts)
    })?;
    let url = env::shop_url(&cluster).context("the demo shop has no URL")?;
    progress.step(|| {
        seed::fill(context, &url)?;
        Shop::new(&url).register(&accounts.customer)
    })?;
    summary(context, &url, &accounts)
}

/// Builds the images of this checkout and puts them on the node.
pub fn make_images(context: &Context) -> Result<Images> {
    let docker = Docker::running(context).context("the Docker daemon that ran the cluster has gone: run `up` again")?;
    let images = images::build(context, &docker)?;
    images::load(context, &docker, &images)?;
    Ok(images)
}

/// Installs or upgrades the operator and waits until it runs.
pub fn install_operator(context: &Context, cluster: &Cluster, images: &Images) -> Result<()> {
    let mut values = helm::operator_values(images);
    if matches!(cluster, Cluster::Kind { .. }) {
        // One node has nobody to hand over to.
        values["replicas"] = 1.into();
    }
    helm::install(context, cluster, OPERATOR, &values)?;
    cluster
        .kubectl(context)?
        .args(["-n", OPERATOR.namespace, "rollout", "status", "deployment/shop-operator", "--timeout=120s"])
        .log_to(&context.log("operator"))
        .with_context(|| {
            format!("the operator does not start: `kubectl -n {} describe pods` tells why", OPERATOR.namespace)
        })
}

/// Where the demo shop goes.
struct Target<'a> {
    context: &'a Context,
    cluster: &'a Cluster,
    sample: &'a Sample,
}

fn install_shop(target: &Target<'_>, images: &Images) -> Result<()> {
    let Target { context, cluster, sample } = *target;
    helm::install(context, cluster, sample.release(), &sample.values_with(images))?;
    wait_until(READY_LIMIT, "the demo shop", || is_ready(target, images))?;
    let Cluster::Kind { http_port, .. } = cluster else { return Ok(()) };
    wait_until(Duration::from_secs(30), "the shop behind the ingress", || {
        let (status, _) = net::http_get(*http_port, "/health")?;
        ensure!(status == 200, "http://127.0.0.1:{http_port}/health answers {status}");
        Ok(())
    })
}

/// Ready for this very spec, with these very images; the error says what is not.
fn is_ready(target: &Target<'_>, images: &Images) -> Result<()> {
    let Metadata { name, namespace } = &target.sample.metadata;
    let shop =
        target.cluster.kubectl(target.context)?.args(["-n", namespace, "get", "shop", name, "-o", "json"]).read()?;
    let shop: Value = serde_json::from_str(&shop).context("reading the ShopDeployment")?;
    let status = &shop["status"];
    ensure!(
        status["observedGeneration"] == shop["metadata"]["generation"],
        "the operator has not seen the newest spec yet"
    );
    let conditions = status["conditions"].as_array().map(Vec::as_slice).unwrap_or_default();
    let ready = conditions.iter().any(|condition| condition["type"] == "Ready" && condition["status"] == "True");
    ensure!(ready, "it is not Ready. Its conditions:{}", told(conditions));
    ensure!(
        status["api"]["image"] == *images.api && status["worker"]["image"] == *images.worker,
        "its pods still run other images; `kubectl -n {namespace} get pods` shows the rollout"
    );
    Ok(())
}

fn told(conditions: &[Value]) -> String {
    let word = |condition: &Value, key: &str| condition[key].as_str().unwrap_or("-").to_owned();
    let line = |c: &Value| {
        format!("\n    {} {} {}: {}", word(c, "type"), word(c, "status"), word(c, "reason"), word(c, "message"))
    };
    conditions.iter().map(line).collect()
}

fn on_current(context: &Context, args: &Args) -> Result<()> {
    let Some(registry) = &args.images_from else {
        bail!(
            "give the images with --images-from REGISTRY/FOLDER: an image built here cannot be put on a cluster that is not ours"
        );
    };
    let cluster = cluster::up(context, &args.cluster)?;
    let images = Images::from_registry(registry, &args.tag);
    let mut progress = Progress::new(["operator", "shop"]);
    progress.step(|| install_operator(context, &cluster, &images))?;
    progress.step(|| {
        let Some(file) = &args.shop_values else {
            note("none asked for: write its values (charts/shop/values.yaml has an example) and pass them with --shop-values");
            return Ok(());
        };
        let text = std::fs::read_to_string(file).with_context(|| format!("reading {}", file.display()))?;
        let values: Value = serde_yaml::from_str(&text).with_context(|| format!("{} is no YAML", file.display()))?;
        helm::install(context, &cluster, Sample::load(context)?.release(), &values)
    })
}

fn summary(context: &Context, url: &str, accounts: &Accounts) -> Result<()> {
    let sample = Sample::load(context)?;
    let mails = Deps::load(context)?.host.ses_endpoint;
    let Metadata { name, namespace } = &sample.metadata;
    println!(
        "
The shop is open.
  shop        {url}
  api docs    {url}/docs
  mails       {mails}
  staff       {} / {}
  customer    {} / {}
  KUBECONFIG  {}

Three things to try:
  eval \"$(cargo xtask env)\"; kubectl shop -n {namespace} status {name} --watch
  cargo xtask demo --orders 500        a burst of orders: watch the workers grow, then shrink
  README.md                            an order by hand with curl: paid for in stock, confirmed by mail
`cargo xtask down` removes it all.",
        accounts.staff.email,
        accounts.staff.password,
        accounts.customer.email,
        accounts.customer.password,
        context.state().join("kubeconfig").display(),
    );
    Ok(())
}
