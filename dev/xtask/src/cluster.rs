//! `cargo xtask cluster`: the kind cluster, or the current kubectl context when that is asked for.
//! Never touches an existing context, cluster or ~/.kube/config.

use std::io::{BufRead as _, IsTerminal as _, Write as _};

use anyhow::{Context as _, Result, bail};
use clap::{Args, Subcommand, ValueEnum};

use crate::command::Run;
use crate::context::{Context, arguments_from_env, variable};
use crate::docker::Docker;
use crate::node_image::{self, Image};
use crate::progress::{Progress, note};
use crate::target::{Cluster, NAME, creating, forget, kubeconfig, record, save, server_of};
use crate::tools::Tools;
use crate::{daemon, deps, host, ingress, net, node, servers, started, sysctls};

const HTTP_PORT: u16 = 8080;

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
    /// The port of the ingress on 127.0.0.1 [default: the running cluster's, else 8080]
    #[arg(long, env = "XHIPMENT_HTTP_PORT")]
    http_port: Option<u16>,
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

pub fn run(context: &Context, action: &Action) -> Result<()> {
    match action {
        Action::Up(args) => {
            let _lock = context.lock()?;
            started::keep(context)?;
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
        Which::Kind => up_kind(context, port(context, args)?),
        Which::Current => use_current(context, args.yes),
    }
}

fn port(context: &Context, args: &UpArgs) -> Result<u16> {
    let recorded = Cluster::recorded(context)?;
    match (recorded, args.http_port) {
        (Some(Cluster::Kind { http_port: now, .. }), Some(asked)) if now != asked => {
            bail!("the cluster's ingress is on port {now}: run `cargo xtask cluster down` to move it to {asked}")
        }
        (Some(Cluster::Kind { http_port: now, .. }), _) => Ok(now),
        (_, asked) => Ok(asked.unwrap_or(HTTP_PORT)),
    }
}

fn up_kind(context: &Context, http_port: u16) -> Result<Cluster> {
    if let Some(Cluster::Current { context: name, .. }) = Cluster::recorded(context)? {
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
        node::check_port(context, http_port)?;
        Docker::ensure(context)
    })?;
    let tools = progress.step(|| Tools::ensure(context))?;
    let node = progress.step(|| node_image::ensure(context, &docker))?;
    let traefik = progress.step(|| ingress::ensure_image(context, &docker))?;
    let cluster = Cluster::Kind { http_port, node_image: node.name.clone() };
    progress.step(|| node::ensure(context, &docker, &tools, &cluster))?;
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

fn use_current(context: &Context, yes: bool) -> Result<Cluster> {
    let recorded = Cluster::recorded(context)?;
    if let Some(Cluster::Kind { .. }) = recorded {
        bail!("our own cluster is up: run `cargo xtask cluster down` before another one is used");
    }
    Tools::ensure(context)?;
    let kubectl = || Tools::linked(context).map(|tools| Run::new(tools.kubectl));
    let name = kubectl()?
        .args(["config", "current-context"])
        .read()
        .context("kubectl has no current context: choose one with `kubectl config use-context`")?;
    let server = server_of(kubectl()?)?;
    let cluster =
        Cluster::Current { context: name.clone(), server: server.clone(), kubeconfig: variable("KUBECONFIG") };
    match recorded {
        Some(recorded) if recorded == cluster => {}
        Some(Cluster::Current { context: other, server, .. }) => {
            bail!(
                "the context {other} ({server}) is in use: `cargo xtask down` removes our releases there and lets go of it"
            )
        }
        _ if yes || confirm(&format!("Install the shop into the context {name} ({server})?"))? => {}
        _ => bail!("not confirmed: nothing was changed"),
    }
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
    if let Some(Cluster::Current { context: name, .. }) = Cluster::recorded(context)? {
        forget(context)?;
        println!("Let go of the context {name}.");
        return Ok(());
    }
    let has_node = record(context).exists() || creating(context).exists();
    let docker = Docker::to_clean_up(context, has_node || servers::are_set_up(context))?;
    if let Some(docker) = &docker {
        deps::remove(context, docker, deps::Data::Remove)?;
        if has_node {
            node::remove(context, docker)?;
        }
        docker.remove_network();
    }
    let ours = docker.is_some_and(|docker| docker.is_ours());
    forget(context)?;
    if ours {
        daemon::stop(context)?;
    }
    if host::is_root() {
        daemon::unmount_below(&context.cache)?;
        host::finish_interrupted_install();
    }
    sysctls::restore(context)?;
    started::keep(context)?;
    println!(
        "The cluster and its servers are gone{}; built images stay in {}.",
        if ours { ", our Docker daemon too" } else { "" },
        context.cache.display()
    );
    Ok(())
}

/// Removes the node; the servers and their engine stay.
pub fn remove_alone(context: &Context) -> Result<()> {
    if let Some(docker) = Docker::running(context) {
        node::remove(context, &docker)?;
    }
    forget(context)
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
        Some(Cluster::Current { context: name, server, .. }) => println!("cluster   the context {name} ({server})"),
        Some(cluster @ Cluster::Kind { http_port, .. }) => {
            let node =
                if node::is_ready(context, &cluster).is_ok() { "Ready" } else { "not ready, `cluster up` repairs it" };
            println!("cluster   kind-{NAME}: node {node}");
            let ingress = if net::http_get(http_port, "/").is_ok() { "answers" } else { "does not answer" };
            println!("ingress   http://127.0.0.1:{http_port} {ingress}");
            println!("          KUBECONFIG={}", kubeconfig(context).display());
        }
    }
    deps::status(context, docker.as_ref())
}
