//! `cargo xtask deps`: MongoDB, Redis, SQS and SES as containers beside the cluster, for pods and tests alike.
//! Their containers are `deps_containers.rs`, the images `deps_images.rs`. Nothing here knows what the shop keeps in them.

use std::fmt;
use std::fs;
use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};
use clap::{Args, Subcommand};
use serde::{Deserialize, Serialize};

use crate::cluster::Cluster;
use crate::context::{Context, arguments_from_env, remove_file, write_state};
use crate::deps_containers::{Start, check, wait_healthy};
use crate::deps_images;
use crate::docker::Docker;
use crate::progress::Progress;
use crate::{daemon, net, stage, sysctls};

pub const MONGODB_USER: &str = "shop";
/// On containers and volumes of ours; on a container it is the key of what it was made from.
pub const LABEL: &str = "xhipment.key";

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

/// Where the servers listen on 127.0.0.1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ports {
    pub mongodb: u16,
    pub redis: u16,
    pub sqs: u16,
    pub ses: u16,
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

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Server {
    Mongodb,
    Redis,
    Sqs,
    Ses,
}

pub const SERVERS: [Server; 4] = [Server::Mongodb, Server::Redis, Server::Sqs, Server::Ses];

impl Server {
    pub fn short(self) -> &'static str {
        match self {
            Self::Mongodb => "mongodb",
            Self::Redis => "redis",
            Self::Sqs => "sqs",
            Self::Ses => "ses",
        }
    }

    /// Also the name under which pods reach it.
    pub fn container(self) -> String {
        format!("shop-{}", self.short())
    }

    pub fn public_image(self) -> &'static str {
        match self {
            Self::Mongodb => "mongo:8",
            Self::Redis => "redis:7",
            Self::Sqs => "softwaremill/elasticmq-native:1.7.1",
            Self::Ses => "node:22-slim",
        }
    }

    pub fn volume(self) -> String {
        format!("{}-data", self.container())
    }

    /// Where its image keeps data.
    pub fn data_folder(self) -> &'static str {
        if self == Self::Mongodb { "/data/db" } else { "/data" }
    }

    pub fn inner_port(self) -> u16 {
        match self {
            Self::Mongodb => 27017,
            Self::Redis => 6379,
            Self::Sqs => 9324,
            Self::Ses => 8005,
        }
    }

    pub fn memory(self) -> &'static str {
        match self {
            Self::Mongodb => "1g",
            Self::Redis => "256m",
            Self::Sqs | Self::Ses => "512m",
        }
    }

    pub fn port(self, ports: Ports) -> u16 {
        match self {
            Self::Mongodb => ports.mongodb,
            Self::Redis => ports.redis,
            Self::Sqs => ports.sqs,
            Self::Ses => ports.ses,
        }
    }
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.short())
    }
}

/// The servers as one side reaches them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoints {
    /// Without a database: each user of it chooses its own.
    pub mongodb_uri: String,
    pub redis_url: String,
    pub sqs_endpoint: String,
    pub ses_endpoint: String,
}

/// The servers as this machine and as pods reach them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Deps {
    pub host: Endpoints,
    pub cluster: Endpoints,
}

impl Deps {
    /// The servers that an earlier `up` started.
    pub fn load(context: &Context) -> Result<Self> {
        Self::recorded(context)?.context("the servers are not up: run `cargo xtask deps up` first")
    }

    pub fn recorded(context: &Context) -> Result<Option<Self>> {
        Ok(Settings::load(context)?.map(|settings| settings.deps()))
    }
}

/// Ports and generated passwords; in a file that only this user reads.
#[derive(Debug, Serialize, Deserialize)]
pub struct Settings {
    pub ports: Ports,
    pub mongodb_password: String,
    pub redis_password: String,
}

impl Settings {
    fn file(context: &Context) -> PathBuf {
        context.state().join("deps.json")
    }

    fn load(context: &Context) -> Result<Option<Self>> {
        let file = Self::file(context);
        match fs::read_to_string(&file) {
            Ok(text) => serde_json::from_str(&text)
                .map(Some)
                .with_context(|| format!("{} is damaged: remove it, then run down and up", file.display())),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| format!("reading {}", file.display())),
        }
    }

    fn load_or_make(context: &Context, ports: Ports) -> Result<Self> {
        let settings = match Self::load(context)? {
            Some(old) => Self { ports, ..old },
            None => Self { ports, mongodb_password: random_hex()?, redis_password: random_hex()? },
        };
        let text = serde_json::to_string_pretty(&settings).context("writing the servers' settings")?;
        write_state(&Self::file(context), &text)?;
        Ok(settings)
    }

    fn deps(&self) -> Deps {
        let at = |address: &dyn Fn(Server) -> String| Endpoints {
            mongodb_uri: format!(
                "mongodb://{MONGODB_USER}:{}@{}/?authSource=admin&directConnection=true&retryWrites=true",
                self.mongodb_password,
                address(Server::Mongodb)
            ),
            redis_url: format!("redis://:{}@{}/0", self.redis_password, address(Server::Redis)),
            sqs_endpoint: format!("http://{}", address(Server::Sqs)),
            ses_endpoint: format!("http://{}", address(Server::Ses)),
        };
        Deps {
            host: at(&|server| format!("127.0.0.1:{}", server.port(self.ports))),
            cluster: at(&|server| format!("{}:{}", server.container(), server.inner_port())),
        }
    }
}

pub fn run(context: &Context, action: &Action) -> Result<()> {
    let _lock = context.lock()?;
    match action {
        Action::Up(ports) => {
            stage::keep(context)?;
            up(context, *ports).map(drop)
        }
        Action::Down { keep_data } => down(context, if *keep_data { Data::Keep } else { Data::Remove }),
    }
}

/// Whether an earlier `up` set the servers up and nobody has removed them since, running or not.
pub fn are_set_up(context: &Context) -> bool {
    Settings::file(context).exists()
}

/// Removes the servers, and our own daemon where nothing else needs it. Fine to repeat.
pub fn down(context: &Context, data: Data) -> Result<()> {
    if daemon::left_traces(context) && !daemon::is_alive(context) {
        // Containers and volumes are removed by the daemon that knows them.
        daemon::start(context)?;
    }
    match Docker::running(context) {
        Some(docker) => {
            remove(context, &docker, data)?;
            if Cluster::recorded(context)?.is_none() {
                docker.remove_network();
            }
        }
        None if are_set_up(context) => bail!("Docker, which has the servers, does not answer: start it and run again"),
        None => {}
    }
    if Cluster::recorded(context)?.is_none() {
        daemon::stop(context)?;
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

pub fn random_hex() -> Result<String> {
    let mut bytes = [0; 20];
    getrandom::fill(&mut bytes).map_err(|error| anyhow::anyhow!("reading random bytes: {error}"))?;
    Ok(hex::encode(bytes))
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

    #[test]
    fn both_sides_get_their_own_addresses() {
        let ports = Ports { mongodb: 1, redis: 2, sqs: 3, ses: 4 };
        let deps = Settings { ports, mongodb_password: "m".into(), redis_password: "r".into() }.deps();
        assert_eq!(
            deps.host.mongodb_uri,
            "mongodb://shop:m@127.0.0.1:1/?authSource=admin&directConnection=true&retryWrites=true"
        );
        assert_eq!(deps.cluster.redis_url, "redis://:r@shop-redis:6379/0");
        assert_eq!(deps.host.sqs_endpoint, "http://127.0.0.1:3");
        assert_eq!(deps.cluster.ses_endpoint, "http://shop-ses:8005");
    }
}
