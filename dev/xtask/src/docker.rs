//! Which Docker daemon is used and why, and calls to it: images, containers, networks.
//! Our own daemon's life is daemon.rs.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use crate::command::Run;
use crate::context::{Context, write_state};
use crate::daemon;
use crate::host::{self, needed};
use crate::progress::note;

/// The network that kind puts its nodes on; ours are on it too, so that pods reach them by name.
pub const NETWORK: &str = "kind";
/// On containers, volumes and networks of ours; on a container it is the key of what it was made from.
pub const LABEL: &str = "xhipment.key";
const OURS: &str = "ours";
const PULL_PATIENCE: Duration = Duration::from_secs(20);

/// What the choice of an engine rests on.
#[expect(clippy::struct_excessive_bools, reason = "independent yes/no facts, the rows of a table")]
#[derive(Clone, Copy, Debug)]
pub struct Facts {
    pub ours_runs: bool,
    pub other_answers: bool,
    pub debian: bool,
    pub root: bool,
    pub dockerd_installed: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Choice {
    UseOurs,
    UseOther,
    StartOurs,
    InstallAndStartOurs,
    RefuseNotDebian,
    RefuseNotRoot,
}

/// Pure: which engine is taken on a machine like this.
pub fn choose(facts: Facts) -> Choice {
    match facts {
        Facts { ours_runs: true, .. } => Choice::UseOurs,
        Facts { other_answers: true, .. } => Choice::UseOther,
        Facts { debian: false, .. } => Choice::RefuseNotDebian,
        Facts { root: false, .. } => Choice::RefuseNotRoot,
        Facts { dockerd_installed: true, .. } => Choice::StartOurs,
        Facts { .. } => Choice::InstallAndStartOurs,
    }
}

/// A daemon that answers.
#[derive(Clone, Debug)]
pub struct Docker {
    /// Its `DOCKER_HOST`; `None` is the daemon that the client finds by itself.
    host: Option<String>,
    ours: bool,
}

impl Docker {
    /// The daemon that answers now, without starting one.
    pub fn running(context: &Context) -> Option<Self> {
        if daemon::is_alive(context) {
            return Some(Self::ours(context));
        }
        daemon::another_answers(context).then(|| Self::other(context))
    }

    fn ours(context: &Context) -> Self {
        Self { host: Some(daemon::address(context)), ours: true }
    }

    /// The daemon that the user's own client would talk to.
    fn other(context: &Context) -> Self {
        Self { host: daemon::others_address(context), ours: false }
    }

    /// `DOCKER_HOST` of our daemon.
    pub fn own_host(&self) -> Option<&str> {
        self.host.as_deref().filter(|_| self.ours)
    }

    /// A daemon that answers: the one there is, else ours.
    pub fn ensure(context: &Context) -> Result<Self> {
        let other = Self::other(context);
        let facts = Facts {
            ours_runs: daemon::is_alive(context),
            other_answers: daemon::another_answers(context),
            debian: host::is_debian(),
            root: host::is_root(),
            dockerd_installed: host::find("dockerd").is_some(),
        };
        let asked = other.host.clone().unwrap_or_else(|| "its default socket".to_owned());
        let choice = choose(facts);
        match choice {
            Choice::UseOther => {
                note(format!("docker: a daemon answers at {asked}, so that one is used"));
                daemon::clean_traces(context)?;
                return other.noted(context);
            }
            Choice::UseOurs => note("docker: our own daemon runs already"),
            Choice::RefuseNotDebian | Choice::RefuseNotRoot => bail!("{}", refusal(choice, &asked)),
            Choice::StartOurs => note(format!("docker: none answering at {asked}, so a daemon of ours is started")),
            Choice::InstallAndStartOurs => {
                note(format!(
                    "docker: none answering at {asked}, so docker.io is installed and a daemon of ours started"
                ));
            }
        }
        if choice != Choice::UseOurs {
            host::ensure_packages(
                context,
                &[needed("dockerd", "docker.io"), needed("iptables", "iptables"), needed("nft", "nftables")],
            )?;
            if choice == Choice::InstallAndStartOurs {
                host::disable_services(&["docker.service", "docker.socket", "containerd.service"]);
            }
            daemon::start(context)?;
        }
        Self::ours(context).noted(context)
    }

    /// Written down, so that what is on this daemon is found there again.
    fn noted(self, context: &Context) -> Result<Self> {
        write_state(&in_use(context), if self.ours { OURS } else { "another" })?;
        Ok(self)
    }

    /// The daemon that has what is to be removed: one of ours that ended is started again, for only it knows its containers
    /// and volumes. `None` where there is nothing to remove and no daemon.
    pub fn to_clean_up(context: &Context, something_left: bool) -> Result<Option<Self>> {
        let ended = !daemon::is_alive(context) && host::is_root();
        if ended && daemon::left_traces(context) {
            note("docker: our daemon did not end cleanly, so it is started to clean up");
            daemon::start(context)?;
        } else if ended && something_left && fs::read_to_string(in_use(context)).is_ok_and(|engine| engine == OURS) {
            note("docker: our daemon has what is left, so it is started to clean up");
            daemon::start(context)?;
        }
        match Self::running(context) {
            None if something_left => {
                bail!("Docker, which has what is to be removed, does not answer: start it and run again")
            }
            running => Ok(running),
        }
    }

    pub fn is_ours(&self) -> bool {
        self.ours
    }

    /// The docker client, aimed at this daemon.
    pub fn run(&self) -> Run {
        self.aim(Run::new("docker"))
    }

    /// Another program that talks to this daemon, such as kind.
    pub fn aim(&self, run: Run) -> Run {
        let run = match &self.host {
            Some(host) => run.env("DOCKER_HOST", host),
            None => run.without_env("DOCKER_HOST"),
        };
        // Debian's docker.io has no buildx: its classic builder is asked for by name.
        if self.ours { run.env("DOCKER_BUILDKIT", "0").without_env("DOCKER_CONTEXT") } else { run }
    }

    pub fn has_image(&self, image: &str) -> bool {
        self.run().args(["image", "inspect", image]).succeeds()
    }

    /// Pulls a public image; the error says why it cannot be had, after 20 s without an answer at the latest.
    pub fn pull(&self, context: &Context, image: &str) -> Result<()> {
        let log = context.log("pull");
        let alive = |text: &str| {
            ["Pulling fs layer", "Downloading", "Already exists", "complete"].iter().any(|word| text.contains(word))
        };
        self.run().args(["pull", image]).log_with_patience(&log, PULL_PATIENCE, alive)
    }

    /// Builds an image from a folder with a Dockerfile.
    pub fn build(&self, dir: &Path, image: &str, log: &Path) -> Result<()> {
        self.run().args(["build", "-t", image]).arg(dir).log_to(log)
    }

    /// `running`, `exited` and so on; `None` when there is no such container.
    pub fn container_status(&self, name: &str) -> Option<String> {
        self.run().args(["container", "inspect", "-f", "{{.State.Status}}", name]).read().ok()
    }

    /// A label of a container or volume; `None` when there is no such thing or no such label.
    pub fn label(&self, what: &str, name: &str, label: &str) -> Option<String> {
        let labels = if what == "container" { ".Config.Labels" } else { ".Labels" };
        let format = format!("{{{{with {labels}}}}}{{{{index . \"{label}\"}}}}{{{{end}}}}");
        self.run().args([what, "inspect", "-f", &format, name]).read().ok().filter(|value| !value.is_empty())
    }

    pub fn remove_containers(&self, names: &[&str]) -> Result<()> {
        let present: Vec<_> = names.iter().filter(|name| self.container_status(name).is_some()).collect();
        if present.is_empty() {
            return Ok(());
        }
        self.run().args(["rm", "-fv"]).args(present).read().map(drop)
    }

    /// Makes kind's network where there is none yet; IPv4 only.
    pub fn ensure_network(&self) -> Result<()> {
        if self.run().args(["network", "inspect", NETWORK]).succeeds() {
            return Ok(());
        }
        self.run()
            .args([
                "network",
                "create",
                "-d",
                "bridge",
                "-o",
                "com.docker.network.bridge.enable_ip_masquerade=true",
                "--label",
                &format!("{LABEL}=network"),
                NETWORK,
            ])
            .read()
            .map(drop)
            .context("creating the Docker network `kind`")
    }

    /// Removes kind's network if it was made here and nobody else is on it.
    pub fn remove_network(&self) {
        if self.label("network", NETWORK, LABEL).is_some() && !self.run().args(["network", "rm", NETWORK]).succeeds() {
            note(format!("docker: the network {NETWORK} stays, another container is on it"));
        }
    }
}

/// Which daemon `up` took last.
fn in_use(context: &Context) -> PathBuf {
    context.state().join("engine")
}

fn refusal(choice: Choice, asked: &str) -> String {
    let why = if choice == Choice::RefuseNotDebian {
        "only on Debian can it be installed for you"
    } else {
        "only root can have one installed and started"
    };
    format!(
        "no Docker daemon answers at {asked}, and {why}.\n\
         Start Docker (and let this user reach its socket), or run again as root on Debian 12."
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_engine_follows_from_the_facts() {
        let none = Facts { ours_runs: false, other_answers: false, debian: true, root: true, dockerd_installed: false };
        let table = [
            (none, Choice::InstallAndStartOurs),
            (Facts { dockerd_installed: true, ..none }, Choice::StartOurs),
            (Facts { other_answers: true, ..none }, Choice::UseOther),
            (Facts { other_answers: true, root: false, debian: false, ..none }, Choice::UseOther),
            (Facts { ours_runs: true, dockerd_installed: true, ..none }, Choice::UseOurs),
            (Facts { ours_runs: true, other_answers: true, ..none }, Choice::UseOurs),
            (Facts { root: false, ..none }, Choice::RefuseNotRoot),
            (Facts { root: false, dockerd_installed: true, ..none }, Choice::RefuseNotRoot),
            (Facts { debian: false, ..none }, Choice::RefuseNotDebian),
            (Facts { debian: false, root: false, ..none }, Choice::RefuseNotDebian),
        ];
        for (facts, expected) in table {
            assert_eq!(choose(facts), expected, "{facts:?}");
        }
    }
}
