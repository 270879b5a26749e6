//! `cargo xtask deps`: MongoDB, Redis, SQS and SES as containers beside the cluster, for pods and tests alike.
//! Which and where is `servers.rs`, their containers are `deps_containers.rs`, the images `deps_images.rs`. Nothing here knows what the shop keeps in them.

use anyhow::{Result, bail};
use clap::{Args, Subcommand};

use crate::context::{Context, arguments_from_env, remove_file};
use crate::deps_containers::{Start, check, wait_healthy};
use crate::deps_images;
use crate::docker::{Docker, LABEL};
use crate::progress::Progress;
use crate::servers::{Deps, Ports, SERVERS, Server, Settings, are_set_up};
use crate::target::Cluster;
use crate::{daemon, net, started, sysctls};

#[derive(Debug, Subcommand)]
pub enum Action {
    /// Start the four servers, or make them whole
    Up(PortArgs),
    /// Remove the four servers with their data
    Down {
        /// Keep the data and the credentials for the next up
        #[arg(long)]
        keep_data: bool,
    },
}

/// The ports that are asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Args)]
pub struct PortArgs {
    /// MongoDB's port on 127.0.0.1 [default: where it runs, else 27117]
    #[arg(long = "mongodb-port", env = "XHIPMENT_MONGODB_PORT")]
    mongodb: Option<u16>,
    /// Redis' port on 127.0.0.1 [default: where it runs, else 6390]
    #[arg(long = "redis-port", env = "XHIPMENT_REDIS_PORT")]
    redis: Option<u16>,
    /// SQS' port on 127.0.0.1 [default: where it runs, else 9324]
    #[arg(long = "sqs-port", env = "XHIPMENT_SQS_PORT")]
    sqs: Option<u16>,
    /// SES' port on 127.0.0.1 [default: where it runs, else 8005]
    #[arg(long = "ses-port", env = "XHIPMENT_SES_PORT")]
    ses: Option<u16>,
}

impl PortArgs {
    /// As the environment asks.
    pub fn from_env() -> Result<Self> {
        arguments_from_env()
    }

    /// What is asked for, else what is in use, else the defaults.
    fn resolve(self, in_use: Option<Ports>) -> Ports {
        let other = in_use.unwrap_or(Ports { mongodb: 27117, redis: 6390, sqs: 9324, ses: 8005 });
        Ports {
            mongodb: self.mongodb.unwrap_or(other.mongodb),
            redis: self.redis.unwrap_or(other.redis),
            sqs: self.sqs.unwrap_or(other.sqs),
            ses: self.ses.unwrap_or(other.ses),
        }
    }
}

/// What becomes of the volumes and credentials.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Data {
    Keep,
    Remove,
}

pub fn run(context: &Context, action: &Action) -> Result<()> {
    let _lock = context.lock()?;
    match action {
        Action::Up(ports) => {
            started::keep(context)?;
            up(context, *ports).map(drop)
        }
        Action::Down { keep_data } => down(context, if *keep_data { Data::Keep } else { Data::Remove }),
    }
}

/// Removes the servers, and our own daemon where nothing else needs it. Fine to repeat.
pub fn down(context: &Context, data: Data) -> Result<()> {
    let alone = Cluster::recorded(context)?.is_none();
    if let Some(docker) = Docker::to_clean_up(context, are_set_up(context))? {
        remove(context, &docker, data)?;
        if alone {
            docker.remove_network();
        }
        if alone && docker.is_ours() {
            daemon::stop(context)?;
        }
    }
    if alone {
        sysctls::restore(context)?;
    }
    println!("The servers are gone{}.", if data == Data::Keep { "; their data is kept for the next up" } else { "" });
    Ok(())
}

/// Starts the four servers or makes them whole; quick when they run.
pub fn up(context: &Context, ports: PortArgs) -> Result<Deps> {
    if let Some(Cluster::Current { context: name, .. }) = Cluster::recorded(context)? {
        bail!("pods of {name} do not reach servers on this machine: point the shop's Secrets at servers of your own");
    }
    let steps = SERVERS.iter().map(|server| format!("image of {server}"));
    let mut progress =
        Progress::new(std::iter::once("container engine".to_owned()).chain(steps).chain(["servers".to_owned()]));
    let before = Settings::load(context)?.map(|settings| settings.ports);
    let ports = ports.resolve(before);
    let docker = progress.step(|| {
        let docker = Docker::ensure(context)?;
        docker.ensure_network()?;
        SERVERS.iter().try_for_each(|server| check_port(&docker, *server, (before, ports)))?;
        Ok(docker)
    })?;
    let mut images = Vec::new();
    for server in SERVERS {
        images.push((server, progress.step(|| deps_images::ensure(context, &docker, server))?));
    }
    if before.is_none() {
        // Data whose passwords are lost would lock us out.
        remove(context, &docker, Data::Remove)?;
    }
    let settings = Settings::load_or_make(context, ports)?;
    progress.step(|| {
        let start = Start { context, docker: &docker, settings: &settings };
        for (server, image) in &images {
            start.ensure_container(*server, image)?;
        }
        for (server, image) in &images {
            wait_healthy(&docker, &settings, *server, image)?;
        }
        Ok(())
    })?;
    let deps = settings.deps();
    println!(
        "The servers are ready: SQS {}, SES and its mails {}, MongoDB on port {}, Redis on port {}.",
        deps.host.sqs_endpoint, deps.host.ses_endpoint, ports.mongodb, ports.redis
    );
    Ok(deps)
}

/// Before anything is changed: a server that moves, or does not run, finds its port free.
fn check_port(docker: &Docker, server: Server, (before, wanted): (Option<Ports>, Ports)) -> Result<()> {
    let port = server.port(wanted);
    let runs = docker.container_status(&server.container()).as_deref() == Some("running")
        && docker.label("container", &server.container(), LABEL).is_some();
    let holds_it = runs && before.is_some_and(|before| server.port(before) == port);
    if holds_it || net::is_free(port) {
        return Ok(());
    }
    bail!(
        "port {port} of 127.0.0.1 is in use by another program: end it, or choose another port for {server} \
         with --{server}-port or XHIPMENT_{}_PORT",
        server.short().to_uppercase()
    )
}

/// Removes the servers; with `Data::Remove` also their volumes and credentials. Fine to repeat.
pub fn remove(context: &Context, docker: &Docker, data: Data) -> Result<()> {
    for server in SERVERS {
        // Others of the same name have no such label.
        if docker.label("container", &server.container(), LABEL).is_some() {
            docker.remove_containers(&[&server.container()])?;
        }
        if data == Data::Remove && docker.label("volume", &server.volume(), LABEL).is_some() {
            docker.run().args(["volume", "rm", &server.volume()]).read()?;
        }
    }
    if data == Data::Keep {
        return Ok(());
    }
    remove_file(&Settings::file(context))
}

/// One line for each server.
pub fn status(context: &Context, docker: Option<&Docker>) -> Result<()> {
    let settings = Settings::load(context)?;
    let (Some(docker), Some(settings)) = (docker, settings) else {
        println!("servers   none; `cargo xtask deps up` starts them");
        return Ok(());
    };
    for server in SERVERS {
        let state = docker.container_status(&server.container()).unwrap_or_else(|| "missing".to_owned());
        let health = check(&settings, server).map_or_else(|error| format!("{error:#}"), |()| "answers".to_owned());
        println!("{:<9} {state}, {health} on 127.0.0.1:{}", server.short(), server.port(settings.ports));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_the_one_asked_for_or_in_use_or_the_default() {
        let in_use = Ports { mongodb: 1, redis: 2, sqs: 3, ses: 4 };
        let asked = PortArgs { redis: Some(9), ..PortArgs::default() };
        assert_eq!(asked.resolve(Some(in_use)), Ports { redis: 9, ..in_use });
        assert_eq!(asked.resolve(None), Ports { mongodb: 27117, redis: 9, sqs: 9324, ses: 8005 });
    }
}
