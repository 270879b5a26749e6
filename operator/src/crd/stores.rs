//! Where the data lives: `MongoDB` and Redis.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::common::{UriSecretRef, UrlSecretRef};

fn database() -> String {
    "xhipment".to_owned()
}

/// The MongoDB replica set (7 or later).
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct MongoDb {
    /// The Secret with the connection URI.
    pub uri_secret_ref: UriSecretRef,
    /// Name of the database. Cannot be changed.
    #[serde(default = "database")]
    #[schemars(length(min = 1, max = 63), regex(pattern = r"^[A-Za-z0-9_-]+$"))]
    pub database: String,
}

/// Caches and request limits shared between processes.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Redis {
    /// The Secret with the Redis URL.
    pub url_secret_ref: UrlSecretRef,
}
