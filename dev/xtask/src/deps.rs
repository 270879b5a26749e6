//! `cargo xtask deps`: MongoDB, Redis, SQS and SES as containers beside the cluster, for pods and tests alike.
//! Their containers are `deps_containers.rs`, the images `deps_images.rs`. Nothing here knows what the shop keeps in them.

use std::fmt;
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};
use clap::{Args, Subcommand};
use serde::{Deserialize, Serialize};

use crate::cluster::Cluster;
use crate::context::{Context, arguments_from_env};
use crate::deps_containers::{Start, check, wait_healthy};
use crate::deps_images;
use crate::docker::Docker;
use crate::progress::Progress;

pub const MONGODB_USER: &str = "shop";
/// On containers and volumes of ours; on a container it is the key of what it was made from.
pub const LABEL: &str = "xhipment.key";

#[derive(Debug, Subcommand)]
pub enum Action {
    /// Start the four servers, or make them whole
    Up(Ports),
    /// Remove the four servers with their data
    Down {
        /// Keep the data and the credentials for the next up
        #[arg(long)]
        keep_data: bool,
    },
}

/// Where the servers listen on 127.0.0.1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Args, Serialize, Deserialize)]
pub struct Ports {
    #[arg(long = "mongodb-port", env = "XHIPMENT_MONGODB_PORT", default_value_t = 27117)]
    pub mongodb: u16,
    #[arg(long = "redis-port", env = "XHIPMENT_REDIS_PORT", default_value_t = 6390)]
    pub redis: u16,
    #[arg(long = "sqs-port", env = "XHIPMENT_SQS_PORT", default_value_t = 9324)]
    pub sqs: u16,
    #[arg(long = "ses-port", env = "XHIPMENT_SES_PORT", default_value_t = 8005)]
    pub ses: u16,
}

impl Ports {
    /// The ports as the environment and the defaults have them.
    pub fn from_env() -> Result<Self> {
        arguments_from_env()
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
        let settings = Settings::load(context)?.context("the servers are not up: run `cargo xtask deps up` first")?;
        Ok(settings.deps())
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
                .with_context(|| format!("reading {}; run down, then up", file.display())),
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
        write_private(&Self::file(context), &text)?;
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
        Action::Up(ports) => up(context, *ports).map(drop),
        Action::Down { keep_data } => {
            let data = if *keep_data { Data::Keep } else { Data::Remove };
            match Docker::running(context) {
                Some(docker) => remove(context, &docker, data)?,
                None => println!("No Docker daemon runs, so no server does."),
            }
            Ok(())
        }
    }
}

/// Starts the four servers or makes them whole; quick when they run.
pub fn up(context: &Context, ports: Ports) -> Result<Deps> {
    if let Some(Cluster::Current { context: name }) = Cluster::recorded(context)? {
        bail!("pods of {name} do not reach servers on this machine: point the shop's Secrets at servers of your own");
    }
    let steps = SERVERS.iter().map(|server| format!("image of {server}"));
    let mut progress =
        Progress::new(std::iter::once("container engine".to_owned()).chain(steps).chain(["servers".to_owned()]));
    let docker = progress.step(|| {
        let docker = Docker::ensure(context)?;
        docker.ensure_network()?;
        Ok(docker)
    })?;
    let mut images = Vec::new();
    for server in SERVERS {
        images.push((server, progress.step(|| deps_images::ensure(context, &docker, server))?));
    }
    if Settings::load(context)?.is_none() {
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
    match fs::remove_file(Settings::file(context)) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error).context("removing the credentials"),
        _ => Ok(()),
    }
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

pub fn write_private(file: &std::path::Path, text: &str) -> Result<()> {
    let mut options = fs::OpenOptions::new();
    let mut file = options
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(file)
        .with_context(|| format!("creating {}", file.display()))?;
    file.write_all(text.as_bytes()).context("writing credentials")
}

#[cfg(test)]
mod tests {
    use super::*;

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
