//! Settings of MongoDB, Redis and the log: all that making the indexes needs too.

use clap::Args;
use secrecy::{ExposeSecret, SecretString};
use shop_runtime::{
    parsers::{filled, trimmed, trimmed_secret},
    trust::{PrivateCa, TrustError},
};

use super::ConfigError;

#[derive(Debug, Clone, Args)]
pub struct StoreConfig {
    /// `mongodb://user:password@host:27017/?replicaSet=…`
    #[arg(long, env = "SHOP_MONGODB_URI", value_name = "SHOP_MONGODB_URI", hide_env_values = true,
          value_parser = trimmed_secret)]
    pub mongodb_uri: SecretString,
    #[arg(long, env = "SHOP_MONGODB_DATABASE", value_name = "SHOP_MONGODB_DATABASE", default_value = "xhipment")]
    pub mongodb_database: String,
    /// `redis://:password@host:6379` (optional: caches only).
    #[arg(long, env = "SHOP_REDIS_URL", value_name = "SHOP_REDIS_URL", hide_env_values = true,
          value_parser = trimmed_secret)]
    redis_url: Option<SecretString>,
    /// PEM file of a private CA that `MongoDB`, Redis and SQS may be certified by.
    #[arg(long, env = "SHOP_CA_FILE", value_name = "SHOP_CA_FILE", value_parser = trimmed)]
    ca_file: Option<String>,
    /// A level for the shop's own code, or directives such as `info,shop_api=debug`.
    #[arg(long, env = "SHOP_LOG_LEVEL", value_name = "SHOP_LOG_LEVEL", default_value = "info")]
    pub log_level: String,
}

impl StoreConfig {
    pub fn redis_url(&self) -> Option<&SecretString> {
        self.redis_url.as_ref().filter(|url| !url.expose_secret().is_empty())
    }

    /// The private CA, if there is one.
    pub fn ca(&self) -> Result<Option<PrivateCa>, TrustError> {
        filled(self.ca_file.as_ref()).map(|path| PrivateCa::load(path.as_ref())).transpose()
    }

    pub fn validate(&self) -> Result<(), ConfigError> {
        if self.mongodb_uri.expose_secret().is_empty() { Err(ConfigError::Store) } else { Ok(()) }
    }
}
