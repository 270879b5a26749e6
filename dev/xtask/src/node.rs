//! The kind node: created, started again, replaced when it was left half made, removed. Which cluster is in use is `target.rs`.

use std::fs;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use crate::command::{Run, wait_until};
use crate::context::Context;
use crate::docker::Docker;
use crate::progress::note;
use crate::target::{Cluster, NAME, creating, forget, kubeconfig, save};
use crate::tools::Tools;
use crate::{net, sysctls};

const CONTAINER: &str = "xhipment-control-plane";

pub fn check_port(context: &Context, http_port: u16) -> Result<()> {
    let status = Docker::running(context).and_then(|docker| docker.container_status(CONTAINER));
    if status.as_deref() == Some("running") || net::is_free(http_port) {
        return Ok(());
    }
    let way_out = if Cluster::recorded(context)?.is_some() {
        "end it, or move the ingress with `cargo xtask cluster down` and `cargo xtask cluster up --http-port PORT`"
    } else {
        "end it, or choose another port for the ingress with --http-port or XHIPMENT_HTTP_PORT"
    };
    bail!("port {http_port} of 127.0.0.1 is in use by another program: {way_out}")
}

/// Creates the node, or starts the one there is again; a half-made one is replaced.
pub fn ensure(context: &Context, docker: &Docker, tools: &Tools, cluster: &Cluster) -> Result<()> {
    let recorded = Cluster::recorded(context)?;
    let status = docker.container_status(CONTAINER);
    if let (Some(Cluster::Kind { node_image, .. }), Some(status)) = (&recorded, &status) {
        if !matches!(cluster, Cluster::Kind { node_image: wanted, .. } if wanted == node_image) {
            note(format!("node: it runs on {node_image}; the image has changed, `down` and `up` moves it"));
        }
        if status != "running" {
            note(format!("node: it is {status}, so it is started again"));
            docker.run().args(["start", CONTAINER]).read()?;
        }
        match wait_until(Duration::from_mins(1), "the API server", || is_ready(context, cluster)) {
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

pub fn is_ready(context: &Context, cluster: &Cluster) -> Result<()> {
    let ready = r#"jsonpath={range .items[*]}{.status.conditions[?(@.type=="Ready")].status}{end}"#;
    let answer = cluster.kubectl(context)?.args(["get", "nodes", "--request-timeout=5s", "-o", ready]).read()?;
    if answer == "True" { Ok(()) } else { bail!("the node is not Ready") }
}

fn create(context: &Context, docker: &Docker, tools: &Tools, cluster: &Cluster) -> Result<()> {
    let Cluster::Kind { http_port, node_image } = cluster else { bail!("only our own cluster is created") };
    let file = if node_image.starts_with("localhost/") { "cluster-built.yaml" } else { "cluster.yaml" };
    let file = context.kind_dir().join(file);
    let config = fs::read_to_string(&file).with_context(|| format!("reading {}", file.display()))?;
    // The node is started again when the checkout may be gone.
    let policy = context.state().join("audit-policy.yaml");
    fs::copy(context.kind_dir().join("audit-policy.yaml"), &policy).context("copying the audit policy")?;
    let config = config.replace("@HTTP_PORT@", &http_port.to_string());
    let config = config.replace("@AUDIT_POLICY@", &policy.display().to_string());
    sysctls::save(context)?;
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
    if docker.container_status(CONTAINER).is_some() {
        let kind = docker.aim(Run::new(&tools.kind)).args(["delete", "cluster", "--name", NAME, "--kubeconfig"]);
        kind.arg(kubeconfig(context)).log_to(&context.log("cluster"))?;
    }
    forget(context)
}

pub fn remove(context: &Context, docker: &Docker) -> Result<()> {
    match Tools::linked(context) {
        Ok(tools) => delete(context, docker, &tools),
        // Without kind, the node is a container like any other.
        Err(_) => docker.remove_containers(&[CONTAINER]),
    }
}
