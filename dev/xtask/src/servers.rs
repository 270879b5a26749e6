//! The four servers that the shop needs: which they are, where they listen, and how each side reaches them.
//! Starts nothing; what is written down here is made by `deps.rs`.

use std::fmt;
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

use crate::context::{Context, read_state, write_state};

pub const MONGODB_USER: &str = "shop";
/// Where the servers listen on 127.0.0.1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ports {
    pub mongodb: u16,
    pub redis: u16,
    pub sqs: u16,
    pub ses: u16,
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
    pub fn file(context: &Context) -> PathBuf {
        context.state().join("deps.json")
    }

    pub fn load(context: &Context) -> Result<Option<Self>> {
        read_state(&Self::file(context))
    }

    pub fn load_or_make(context: &Context, ports: Ports) -> Result<Self> {
        let settings = match Self::load(context)? {
            Some(old) => Self { ports, ..old },
            None => Self { ports, mongodb_password: random_hex()?, redis_password: random_hex()? },
        };
        let text = serde_json::to_string_pretty(&settings).context("writing the servers' settings")?;
        write_state(&Self::file(context), &text)?;
        Ok(settings)
    }

    pub fn deps(&self) -> Deps {
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

/// Whether an earlier `up` set the servers up and nobody has removed them since, running or not.
pub fn are_set_up(context: &Context) -> bool {
    Settings::file(context).exists()
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
