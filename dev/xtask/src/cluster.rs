//! `cargo xtask cluster`: the kind cluster, or the current kubectl context when that is asked for.
//! Never touches an existing context, cluster or ~/.kube/config.

use std::fs;
use std::io::{BufRead as _, IsTerminal as _, Write as _};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use clap::{Args, Subcommand, ValueEnum};
use serde::{Deserialize, Serialize};

use crate::command::{Run, wait_until};
use crate::context::{Context, arguments_from_env};
use crate::docker::Docker;
use crate::node_image::{self, Image};
use crate::progress::{Progress, note};
use crate::tools::Tools;
use crate::{daemon, deps, host, ingress, net};

pub const NAME: &str = "xhipment";
const NODE: &str = "xhipment-control-plane";

#[derive(Debug, Subcommand)]
pub enum Action {
    /// Start the cluster, or make it whole
    Up(UpArgs),
    /// Remove the cluster, the servers beside it and all they left on this machine; built images stay
    Down,
    /// Say what runs
    Status,
}

#[derive(Clone, Debug, Args)]
pub struct UpArgs {
    /// Which cluster: one of our own, or the one that kubectl points at now
    #[arg(long, value_enum, default_value_t = Which::Kind)]
    pub cluster: Which,
    /// Answer yes to the question before the current context is used
    #[arg(long)]
    pub yes: bool,
    /// The port of the ingress on 127.0.0.1
    #[arg(long, env = "XHIPMENT_HTTP_PORT", default_value_t = 8080)]
    pub http_port: u16,
}

impl UpArgs {
    /// Our own cluster, as the environment and the defaults have it.
    pub fn from_env() -> Result<Self> {
        arguments_from_env()
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Which {
    Kind,
    Current,
}

/// The cluster in use, as written down by `up`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "cluster", rename_all = "lowercase")]
pub enum Cluster {
    /// Ours, with a kubeconfig of its own.
    Kind { http_port: u16, node_image: String },
    /// The user's: only this context of the user's own kubeconfig is ever named.
    Current { context: String },
}

impl Cluster {
    /// The cluster that an earlier `up` made or was pointed at.
    pub fn load(context: &Context) -> Result<Self> {
        Self::recorded(context)?.context("there is no cluster: run `cargo xtask cluster up` first")
    }

    pub fn recorded(context: &Context) -> Result<Option<Self>> {
        let file = record(context);
        match fs::read_to_string(&file) {
            Ok(text) => serde_json::from_str(&text)
                .map(Some)
                .with_context(|| format!("reading {}; run down, then up", file.display())),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| format!("reading {}", file.display())),
        }
    }

    /// Our own kubeconfig; `None` where the user's is used.
    pub fn kubeconfig(&self, context: &Context) -> Option<PathBuf> {
        matches!(self, Self::Kind { .. }).then(|| kubeconfig(context))
    }

    pub fn kubectl(&self, context: &Context) -> Result<Run> {
        Ok(self.aim(context, Run::new(Tools::linked(context)?.kubectl), "--context"))
    }

    pub fn helm(&self, context: &Context) -> Result<Run> {
        Ok(self.aim(context, Run::new(Tools::linked(context)?.helm), "--kube-context"))
    }

    fn aim(&self, context: &Context, run: Run, flag: &str) -> Run {
        match self {
            Self::Kind { .. } => run.env("KUBECONFIG", kubeconfig(context)),
            Self::Current { context: name } => run.args([flag, name]),
        }
    }

    /// Puts an image of our Docker daemon on the node.
    pub fn load_image(&self, context: &Context, docker: &Docker, image: &str) -> Result<()> {
        if matches!(self, Self::Current { .. }) {
            bail!("images cannot be put on a cluster that is not ours: push {image} to a registry it pulls from");
        }
        let kind = docker.aim(Run::new(Tools::linked(context)?.kind));
        kind.args(["load", "docker-image", "--name", NAME, image]).log_to(&context.log("load-image"))
    }
}

pub fn run(context: &Context, action: &Action) -> Result<()> {
    match action {
        Action::Up(args) => {
            let _lock = context.lock()?;
            up(context, args).map(drop)
        }
        Action::Down => {
            let _lock = context.lock()?;
            down(context)
        }
        Action::Status => status(context),
    }
}

/// Starts the cluster or makes it whole; quick when it runs.
pub fn up(context: &Context, args: &UpArgs) -> Result<Cluster> {
    match args.cluster {
        Which::Kind => up_kind(context, args.http_port),
        Which::Current => use_current(context, args.yes),
    }
}

fn up_kind(context: &Context, http_port: u16) -> Result<Cluster> {
    if let Some(Cluster::Current { context: name }) = Cluster::recorded(context)? {
        bail!("the context {name} is in use: `cargo xtask cluster down` lets go of it");
    }
    let mut progress = Progress::new([
        "container engine",
        "kind, kubectl and helm",
        "node image",
        "ingress image",
        "Kubernetes node",
        "cluster DNS and ingress",
    ]);
    let docker = progress.step(|| {
        check_port(context, http_port)?;
        Docker::ensure(context)
    })?;
    let tools = progress.step(|| Tools::ensure(context))?;
    let node = progress.step(|| node_image::ensure(context, &docker))?;
    let traefik = progress.step(|| ingress::ensure_image(context, &docker))?;
    let cluster = Cluster::Kind { http_port, node_image: node.name.clone() };
    progress.step(|| ensure_node(context, &docker, &tools, &cluster))?;
    progress.step(|| {
        put_ingress_image(context, &docker, &cluster, &traefik)?;
        ingress::apply(context, &cluster, &traefik)?;
        let log = context.log("cluster");
        let coredns = ["-n", "kube-system", "rollout", "status", "deployment/coredns", "--timeout=120s"];
        cluster.kubectl(context)?.args(coredns).log_to(&log)?;
        ingress::wait(context, &cluster, http_port)
    })?;
    println!("The cluster is ready: http://127.0.0.1:{http_port}, KUBECONFIG={}", kubeconfig(context).display());
    Ok(cluster)
}

/// A node that a public image was pulled for pulls Traefik by itself when it cannot be handed over.
fn put_ingress_image(context: &Context, docker: &Docker, cluster: &Cluster, image: &Image) -> Result<()> {
    match cluster.load_image(context, docker, &image.name) {
        Err(error) if image.built => Err(error),
        Err(_) => {
            note(format!("ingress: {} could not be handed to the node, so the node pulls it", image.name));
            Ok(())
        }
        Ok(()) => Ok(()),
    }
}

fn check_port(context: &Context, http_port: u16) -> Result<()> {
    let recorded = Cluster::recorded(context)?;
    if let Some(Cluster::Kind { http_port: now, .. }) = recorded
        && now != http_port
    {
        bail!("the cluster's ingress is on port {now}: run `cargo xtask cluster down` to move it to {http_port}");
    }
    let held_by_node = Docker::running(context).is_some_and(|docker| docker.container_status(NODE).is_some());
    if !held_by_node && !net::is_free(http_port) {
        bail!(
            "port {http_port} of 127.0.0.1 is in use by another program: end it, or choose another port for the \
             ingress with --http-port or XHIPMENT_HTTP_PORT"
        );
    }
    Ok(())
}

/// Creates the node, or starts the one there is again; a half-made one is replaced.
fn ensure_node(context: &Context, docker: &Docker, tools: &Tools, cluster: &Cluster) -> Result<()> {
    let recorded = Cluster::recorded(context)?;
    let status = docker.container_status(NODE);
    if let (Some(Cluster::Kind { node_image, .. }), Some(status)) = (&recorded, &status) {
        if !matches!(cluster, Cluster::Kind { node_image: wanted, .. } if wanted == node_image) {
            note(format!("node: it runs on {node_image}; the image has changed, `down` and `up` moves it"));
        }
        if status != "running" {
            note(format!("node: it is {status}, so it is started again"));
            docker.run().args(["start", NODE]).read()?;
        }
        match wait_until(Duration::from_mins(1), "the API server", || node_is_ready(context, cluster)) {
            Ok(()) => return Ok(()),
            Err(error) => note(format!("node: it does not come back ({error:#}), so it is made anew")),
        }
    } else if status.is_some() {
        if !creating(context).exists() {
            bail!(
                "there is a kind cluster named {NAME} that was not made from {}: if it is not needed, remove it with \
                 `kind delete cluster --name {NAME}`",
                context.cache.display()
            );
        }
        note("node: an interrupted run left one half made, so it is made anew");
    }
    delete(context, docker, tools)?;
    create(context, docker, tools, cluster)
}

fn node_is_ready(context: &Context, cluster: &Cluster) -> Result<()> {
    let ready = r#"jsonpath={range .items[*]}{.status.conditions[?(@.type=="Ready")].status}{end}"#;
    let answer = cluster.kubectl(context)?.args(["get", "nodes", "--request-timeout=5s", "-o", ready]).read()?;
    if answer == "True" { Ok(()) } else { bail!("the node is not Ready") }
}

fn create(context: &Context, docker: &Docker, tools: &Tools, cluster: &Cluster) -> Result<()> {
    let Cluster::Kind { http_port, node_image } = cluster else { bail!("only our own cluster is created") };
    let file = if node_image.starts_with("localhost/") { "cluster-built.yaml" } else { "cluster.yaml" };
    let file = context.kind_dir().join(file);
    let config = fs::read_to_string(&file).with_context(|| format!("reading {}", file.display()))?;
    let config = config.replace("@HTTP_PORT@", &http_port.to_string());
    // Made by us without IPv6, which pods do not have: their clients would try it first.
    docker.ensure_network()?;
    fs::write(creating(context), "").context("noting that a cluster is being made")?;
    docker
        .aim(Run::new(&tools.kind))
        .args([
            "create",
            "cluster",
            "--name",
            NAME,
            "--image",
            node_image,
            "--wait",
            "180s",
            "--config",
            "-",
            "--kubeconfig",
        ])
        .arg(kubeconfig(context))
        .input(config)
        .log_to(&context.log("cluster"))?;
    save(context, cluster)
}

fn delete(context: &Context, docker: &Docker, tools: &Tools) -> Result<()> {
    if docker.container_status(NODE).is_some() {
        let kind = docker.aim(Run::new(&tools.kind)).args(["delete", "cluster", "--name", NAME, "--kubeconfig"]);
        kind.arg(kubeconfig(context)).log_to(&context.log("cluster"))?;
    }
    forget(context)
}

fn record(context: &Context) -> PathBuf {
    context.state().join("cluster.json")
}

fn kubeconfig(context: &Context) -> PathBuf {
    context.state().join("kubeconfig")
}

/// There while a node is ours but not whole.
fn creating(context: &Context) -> PathBuf {
    context.state().join("cluster.creating")
}

fn save(context: &Context, cluster: &Cluster) -> Result<()> {
    let text = serde_json::to_string_pretty(cluster).context("writing down the cluster")?;
    fs::write(record(context), text).context("writing down the cluster")?;
    match fs::remove_file(creating(context)) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).context("noting that the cluster is whole")
        }
        _ => Ok(()),
    }
}

fn forget(context: &Context) -> Result<()> {
    for file in [record(context), creating(context), kubeconfig(context)] {
        match fs::remove_file(&file) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("removing {}", file.display()));
            }
            _ => {}
        }
    }
    Ok(())
}

fn use_current(context: &Context, yes: bool) -> Result<Cluster> {
    if let Some(Cluster::Kind { .. }) = Cluster::recorded(context)? {
        bail!("our own cluster is up: run `cargo xtask cluster down` before another one is used");
    }
    Tools::ensure(context)?;
    let kubectl = || Tools::linked(context).map(|tools| Run::new(tools.kubectl));
    let name = kubectl()?
        .args(["config", "current-context"])
        .read()
        .context("kubectl has no current context: choose one with `kubectl config use-context`")?;
    let server =
        kubectl()?.args(["config", "view", "--minify", "-o", "jsonpath={.clusters[0].cluster.server}"]).read()?;
    if !yes && !confirm(&format!("Install the shop into the context {name} ({server})?"))? {
        bail!("not confirmed: nothing was changed");
    }
    let cluster = Cluster::Current { context: name };
    cluster
        .kubectl(context)?
        .args(["version", "--request-timeout=10s"])
        .read()
        .context("the cluster does not answer")?;
    save(context, &cluster)?;
    note("not managed there: the ingress controller, the registry (push the images where the cluster can pull them),");
    note("and MongoDB, Redis, SQS and SES (the shop's Secrets point at yours). Only our namespaces are made.");
    Ok(cluster)
}

fn confirm(question: &str) -> Result<bool> {
    if !std::io::stdin().is_terminal() {
        bail!("{question} There is no terminal to ask on: pass --yes to agree");
    }
    print!("{question} [y/N] ");
    std::io::stdout().flush().context("asking")?;
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer).context("reading the answer")?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

/// Removes the cluster and the servers; with our own daemon also that and what it left. Fine to repeat.
pub fn down(context: &Context) -> Result<()> {
    if let Some(Cluster::Current { context: name }) = Cluster::recorded(context)? {
        forget(context)?;
        println!("Let go of the context {name}; nothing in it was removed.");
        return Ok(());
    }
    let ours = daemon::left_traces(context);
    if ours && !daemon::is_alive(context) && host::is_root() {
        // Containers and volumes are removed by the daemon that knows them.
        note("docker: our daemon did not end cleanly, so it is started to clean up");
        daemon::start(context)?;
    }
    if let Some(docker) = Docker::running(context) {
        deps::remove(context, &docker, deps::Data::Remove)?;
        if record(context).exists() || creating(context).exists() {
            remove_node(context, &docker)?;
        }
    }
    forget(context)?;
    if ours {
        daemon::stop(context)?;
    }
    println!(
        "The cluster and its servers are gone{}; built images stay in {}.",
        if ours { ", our Docker daemon too" } else { "" },
        context.cache.display()
    );
    Ok(())
}

fn remove_node(context: &Context, docker: &Docker) -> Result<()> {
    match Tools::linked(context) {
        Ok(tools) => delete(context, docker, &tools),
        // Without kind, the node is a container like any other.
        Err(_) => docker.remove_containers(&[NODE]),
    }
}

fn status(context: &Context) -> Result<()> {
    let docker = Docker::running(context);
    let engine = match &docker {
        Some(docker) if docker.is_ours() => "our own daemon".to_owned(),
        Some(_) => "the daemon that was there".to_owned(),
        None => "not running".to_owned(),
    };
    println!("docker    {engine}");
    match Cluster::recorded(context)? {
        None => println!("cluster   none; `cargo xtask cluster up` makes one"),
        Some(Cluster::Current { context: name }) => println!("cluster   the context {name}"),
        Some(cluster @ Cluster::Kind { http_port, .. }) => {
            let node =
                if node_is_ready(context, &cluster).is_ok() { "Ready" } else { "not ready, `cluster up` repairs it" };
            println!("cluster   kind-{NAME}: node {node}");
            let ingress = if net::http_get(http_port, "/").is_ok() { "answers" } else { "does not answer" };
            println!("ingress   http://127.0.0.1:{http_port} {ingress}");
            println!("          KUBECONFIG={}", kubeconfig(context).display());
        }
    }
    deps::status(context, docker.as_ref())
}
