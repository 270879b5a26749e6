//! Schema types that several parts of a ShopDeployment share.

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What a Deployment would be refused for is refused here.
const QUANTITY: &str = r"^[0-9]+(\.[0-9]+)?(m|k|M|G|T|Ki|Mi|Gi|Ti)?$";

fn uri() -> String {
    "uri".to_owned()
}

fn url() -> String {
    "url".to_owned()
}

fn ca() -> String {
    "ca.crt".to_owned()
}

pub(super) fn region() -> String {
    "ap-south-1".to_owned()
}

pub(super) fn yes() -> bool {
    true
}

/// A Secret of the same namespace and the key in it that holds a connection URI.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
pub struct UriSecretRef {
    /// Name of the Secret.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Key in the Secret.
    #[serde(default = "uri")]
    #[schemars(length(min = 1, max = 253))]
    pub key: String,
}

/// A Secret of the same namespace and the key in it that holds a URL.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
pub struct UrlSecretRef {
    /// Name of the Secret.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Key in the Secret.
    #[serde(default = "url")]
    #[schemars(length(min = 1, max = 253))]
    pub key: String,
}

/// A Secret of the same namespace and the key in it that holds certificates as PEM.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
pub struct CaSecretRef {
    /// Name of the Secret.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Key in the Secret.
    #[serde(default = "ca")]
    #[schemars(length(min = 1, max = 253))]
    pub key: String,
}

/// A Secret of the same namespace, by name.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
pub struct NameRef {
    /// Name of the Secret.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
}

/// One environment variable. For secrets use the typed fields, which take them from Secrets.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
pub struct EnvVar {
    /// Its name. What the operator sets itself is refused: use the typed field.
    #[schemars(length(min = 1, max = 128), regex(pattern = r"^[A-Za-z_][A-Za-z0-9_]*$"))]
    pub name: String,
    /// Its value.
    #[schemars(length(max = 4096))]
    pub value: String,
}

/// CPU and memory of one container.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq)]
pub struct Resources {
    /// What the scheduler sets aside.
    #[serde(default)]
    pub requests: Amounts,
    /// What the container may use at most.
    #[serde(default)]
    pub limits: Amounts,
}

/// Amounts of both.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq)]
pub struct Amounts {
    /// Cores, such as 500m or 2. Left out: as said of resources.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("maxLength" = 32, "pattern" = QUANTITY))]
    pub cpu: Option<Quantity>,
    /// Bytes, such as 128Mi. Left out: as said of resources.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("maxLength" = 32, "pattern" = QUANTITY))]
    pub memory: Option<Quantity>,
}
