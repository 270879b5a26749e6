//! The cluster in use, as `cluster up` wrote it down, and the programs aimed at it. Starts and removes nothing.

use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};
use serde::{Deserialize, Serialize};

use crate::command::Run;
use crate::context::{Context, read_state, remove_file, write_state};
use crate::docker::Docker;
use crate::tools::Tools;

/// Our own cluster's name in kind.
pub const NAME: &str = "xhipment";

/// The cluster in use, as written down by `up`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "cluster", rename_all = "lowercase")]
pub enum Cluster {
    /// Ours, with a kubeconfig of its own.
    Kind { http_port: u16, node_image: String },
    /// The user's: only this context of this kubeconfig is ever named, and only while it leads to this server.
    Current { context: String, server: String, kubeconfig: Option<String> },
}

impl Cluster {
    /// The cluster that an earlier `up` made or was pointed at.
    pub fn load(context: &Context) -> Result<Self> {
        let cluster = Self::recorded(context)?.context("there is no cluster: run `cargo xtask cluster up` first")?;
        cluster.verify(context)?;
        Ok(cluster)
    }

    /// Fails when the user's context leads to another server than the one that was agreed to.
    fn verify(&self, context: &Context) -> Result<()> {
        let Self::Current { context: name, server, .. } = self else { return Ok(()) };
        let now = server_of(self.kubectl(context)?)?;
        if now != *server {
            bail!(
                "the context {name} leads to {now} now, but {server} was agreed to: nothing was done. \
                 `cargo xtask cluster down` lets go of it"
            );
        }
        Ok(())
    }

    pub fn recorded(context: &Context) -> Result<Option<Self>> {
        read_state(&record(context))
    }

    /// Our own kubeconfig, or the user's where another one than kubectl's default was agreed to.
    pub fn kubeconfig(&self, context: &Context) -> Option<String> {
        match self {
            Self::Kind { .. } => Some(kubeconfig(context).display().to_string()),
            Self::Current { kubeconfig, .. } => kubeconfig.clone(),
        }
    }

    pub fn kubectl(&self, context: &Context) -> Result<Run> {
        Ok(self.aim(context, Run::new(Tools::linked(context)?.kubectl), "--context"))
    }

    pub fn helm(&self, context: &Context) -> Result<Run> {
        Ok(self.aim(context, Run::new(Tools::linked(context)?.helm), "--kube-context"))
    }

    fn aim(&self, context: &Context, run: Run, flag: &str) -> Run {
        let run = match self.kubeconfig(context) {
            Some(file) => run.env("KUBECONFIG", file),
            None => run.without_env("KUBECONFIG"),
        };
        match self {
            Self::Kind { .. } => run,
            Self::Current { context: name, .. } => run.args([flag, name]),
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

/// The address of the API server that a kubectl call would go to.
pub fn server_of(kubectl: Run) -> Result<String> {
    kubectl.args(["config", "view", "--minify", "-o", "jsonpath={.clusters[0].cluster.server}"]).read()
}

pub fn record(context: &Context) -> PathBuf {
    context.state().join("cluster.json")
}

pub fn kubeconfig(context: &Context) -> PathBuf {
    context.state().join("kubeconfig")
}

pub fn save(context: &Context, cluster: &Cluster) -> Result<()> {
    let text = serde_json::to_string_pretty(cluster).context("writing down the cluster")?;
    write_state(&record(context), &text)?;
    remove_file(&creating(context))
}

pub fn forget(context: &Context) -> Result<()> {
    [record(context), creating(context), kubeconfig(context)].iter().try_for_each(|file| remove_file(file))
}

/// There while a node is ours but not whole.
pub fn creating(context: &Context) -> PathBuf {
    context.state().join("cluster.creating")
}
