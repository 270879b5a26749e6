//! The parts of a ShopDeployment's spec, apart from the worker and its scaling.

use std::collections::BTreeMap;

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::common::{EnvVar, NameRef, Pod, Resources, UriSecretRef, UrlSecretRef};

fn database() -> String {
    "xhipment".to_owned()
}

fn region() -> String {
    "ap-south-1".to_owned()
}

fn yes() -> bool {
    true
}

/// The container images.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Images {
    /// Image of the api. Left out: the operator's own version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512))]
    pub api: Option<String>,
    /// Image of the worker. Left out: the operator's own version. A new worker image waits until the api's rollout is done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512))]
    pub worker: Option<String>,
    /// When the kubelet pulls.
    #[serde(default)]
    pub pull_policy: PullPolicy,
    /// Secrets with registry credentials.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    pub pull_secrets: Vec<NameRef>,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
pub enum PullPolicy {
    Always,
    #[default]
    IfNotPresent,
    Never,
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

#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Redis {
    /// The Secret with the Redis URL.
    pub url_secret_ref: UrlSecretRef,
}

/// The SQS queue. A queue belongs to one shop.
#[derive(Clone, Debug, Deserialize, Serialize, KubeSchema, PartialEq, Eq)]
#[x_kube(validation = Rule::new("has(self.url) != has(self.name)").message("queue: set exactly one of url and name"))]
#[x_kube(validation = Rule::new("self.management != 'Managed' || has(self.name)")
    .message("queue: a Managed queue is created by its name; set name in place of url"))]
#[x_kube(validation = Rule::new("self.management == 'Managed' || self.deletionPolicy == 'Retain'")
    .message("queue: deletionPolicy Delete needs management Managed; the operator deletes only queues that it made"))]
#[serde(rename_all = "camelCase")]
pub struct Queue {
    /// Name of the queue; the dead-letter queue of a Managed one is called NAME-dlq. Cannot be changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 76), regex(pattern = r"^[A-Za-z0-9_-]+$"))]
    pub name: Option<String>,
    /// URL of an Existing queue, in place of its name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512), regex(pattern = r"^https?://[^/ ]+/.+$"))]
    pub url: Option<String>,
    /// AWS region of the queue.
    #[serde(default = "region")]
    #[schemars(length(min = 1, max = 32), regex(pattern = r"^[a-z0-9-]+$"))]
    pub region: String,
    /// Another address than AWS's own, such as a local stand-in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256), regex(pattern = r"^https?://[^/ ]+/?$"))]
    pub endpoint: Option<String>,
    /// Managed: the operator creates the queue and its dead-letter queue, tags them and repairs their attributes; a queue
    /// that is there already and does not carry this shop's tag is refused. Existing: it only reads them.
    #[serde(default)]
    pub management: Management,
    /// How long a received message stays hidden before another worker may get it. Workers extend it while they work.
    #[serde(default = "Queue::visibility")]
    #[schemars(range(min = 10, max = 43200))]
    pub visibility_timeout_seconds: i32,
    /// What happens to messages that fail again and again.
    #[serde(default)]
    pub dead_letter: DeadLetter,
    /// What happens to a Managed queue when the ShopDeployment is deleted. Delete: the api is stopped, the workers drain the
    /// queue, then queue and dead-letter queue are deleted; a queue that still has messages is never deleted: the
    /// ShopDeployment stays and says so, until they are gone or this is set to Retain.
    #[serde(default)]
    pub deletion_policy: DeletionPolicy,
}

impl Queue {
    fn visibility() -> i32 {
        60
    }
}

#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
pub enum Management {
    #[default]
    Existing,
    Managed,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
pub enum DeletionPolicy {
    #[default]
    Retain,
    Delete,
}

#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct DeadLetter {
    /// Failed deliveries of a message before it is put aside in the dead-letter queue.
    #[serde(default = "DeadLetter::count")]
    #[schemars(range(min = 1, max = 1000))]
    pub max_receive_count: i32,
}

impl DeadLetter {
    fn count() -> i32 {
        10
    }
}

impl Default for DeadLetter {
    fn default() -> Self {
        Self { max_receive_count: Self::count() }
    }
}

#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Mail {
    /// Sender address, verified in SES.
    #[schemars(length(min = 3, max = 254), regex(pattern = r"^[^@\s]+@[^@\s]+$"))]
    pub from: String,
    /// AWS region of SES.
    #[serde(default = "region")]
    #[schemars(length(min = 1, max = 32), regex(pattern = r"^[a-z0-9-]+$"))]
    pub region: String,
    /// Another address than AWS's own, such as a local stand-in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256), regex(pattern = r"^https?://[^/ ]+/?$"))]
    pub endpoint: Option<String>,
    /// Mails a second at most: the account's SES sending rate.
    #[serde(default = "Mail::rate")]
    #[schemars(range(min = 1, max = 10000))]
    pub per_second: i32,
}

impl Mail {
    fn rate() -> i32 {
        14
    }
}

#[derive(Clone, Debug, Default, Deserialize, Serialize, KubeSchema, PartialEq, Eq)]
#[x_kube(validation = Rule::new("!has(self.credentialsSecretRef) || !has(self.serviceAccountAnnotations)")
    .message("aws: set at most one of credentialsSecretRef and serviceAccountAnnotations"))]
#[serde(rename_all = "camelCase")]
pub struct Aws {
    /// A Secret with the keys accessKeyId and secretAccessKey; the operator uses it for this shop's queue too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credentials_secret_ref: Option<NameRef>,
    /// Annotations of the pods' ServiceAccounts, for workload identity (such as eks.amazonaws.com/role-arn).
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 16, "additionalProperties" = { "type": "string", "maxLength": 4096 }))]
    pub service_account_annotations: BTreeMap<String, String>,
}

#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Auth {
    /// A Secret whose key keys.json holds the signing keys. Left out: the operator makes one, once, called SHOP-keys.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keys_secret_ref: Option<NameRef>,
    /// A Secret with the keys email and password: the first staff account. Left out: there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub staff_secret_ref: Option<NameRef>,
    /// Life of an access token.
    #[serde(default = "Auth::minutes")]
    #[schemars(range(min = 1, max = 1440))]
    pub access_token_minutes: i32,
}

impl Auth {
    fn minutes() -> i32 {
        15
    }
}

impl Default for Auth {
    fn default() -> Self {
        Self { keys_secret_ref: None, staff_secret_ref: None, access_token_minutes: Self::minutes() }
    }
}

/// The HTTP service.
#[derive(Clone, Debug, Default, Deserialize, Serialize, KubeSchema, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Api {
    /// Number of pods. Left out: one at first, and then yours or a HorizontalPodAutoscaler's to change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100))]
    pub replicas: Option<i32>,
    /// CPU and memory. What is left out: requests 50m and 64Mi, limits 2 and 256Mi (a login takes 19 MiB while it is checked).
    #[serde(default)]
    pub resources: Resources,
    /// Further environment variables.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    #[x_kube(merge_strategy = kube::core::ListMerge::Map(vec!["name".into()]))]
    pub env: Vec<EnvVar>,
    /// The way in from outside the cluster.
    #[serde(default)]
    pub ingress: Ingress,
    /// Where the pods may run.
    #[serde(default)]
    pub pod: Pod,
}

#[derive(Clone, Debug, Default, Deserialize, Serialize, KubeSchema, PartialEq, Eq)]
#[x_kube(validation = Rule::new("!has(self.tls) || has(self.host)").message("api.ingress: tls needs host"))]
#[serde(rename_all = "camelCase")]
pub struct Ingress {
    /// Whether there is an Ingress.
    #[serde(default)]
    pub enabled: bool,
    /// Name of the IngressClass. Left out: the cluster's default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub class_name: Option<String>,
    /// Host name. Left out: every name that reaches the ingress.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub host: Option<String>,
    /// Serve HTTPS with the certificate in a Secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<IngressTls>,
    /// Annotations for the ingress controller.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 32, "additionalProperties" = { "type": "string", "maxLength": 4096 }))]
    pub annotations: BTreeMap<String, String>,
}

#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct IngressTls {
    /// A TLS Secret of the same namespace.
    #[schemars(length(min = 1, max = 253))]
    pub secret_name: String,
}

/// Settings of the shop itself.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Settings {
    /// Name of the shop in mails and on its pages.
    #[serde(default = "Settings::display_name")]
    #[schemars(length(min = 1, max = 80))]
    pub display_name: String,
    /// ISO 4217 code of the prices.
    #[serde(default = "Settings::currency")]
    #[schemars(regex(pattern = r"^[A-Z]{3}$"), length(min = 3, max = 3))]
    pub currency: String,
    /// Shortest password that a new account may have.
    #[serde(default = "Settings::password_min_length")]
    #[schemars(range(min = 6, max = 64))]
    pub password_min_length: i32,
    /// Cookies only over HTTPS. False only where the shop is served over plain HTTP.
    #[serde(default = "yes")]
    pub cookie_secure: bool,
    /// How much the pods log.
    #[serde(default)]
    pub log_level: LogLevel,
    /// Requests that one caller may make.
    #[serde(default)]
    pub limits: Limits,
    /// Networks (CIDR) whose X-Forwarded-For is believed: the ingress controller's.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), inner(length(min = 1, max = 49)))]
    pub trusted_proxies: Vec<String>,
    /// Origins whose pages may call the api from a browser.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), inner(length(min = 1, max = 253), regex(pattern = r"^https?://[^,/ ]+$")))]
    pub cors_origins: Vec<String>,
}

impl Settings {
    fn display_name() -> String {
        "Xhipment".to_owned()
    }

    fn currency() -> String {
        "INR".to_owned()
    }

    fn password_min_length() -> i32 {
        6
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            display_name: Self::display_name(),
            currency: Self::currency(),
            password_min_length: Self::password_min_length(),
            cookie_secure: true,
            log_level: LogLevel::default(),
            limits: Limits::default(),
            trusted_proxies: Vec::new(),
            cors_origins: Vec::new(),
        }
    }
}

#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum LogLevel {
    Error,
    Warn,
    #[default]
    Info,
    Debug,
    Trace,
}

#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "camelCase", default)]
pub struct Limits {
    /// Registrations and logins per address in 15 minutes.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub auth_per15_minutes: i32,
    /// Writes per user and minute.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub writes_per_minute: i32,
    /// Reads per user and minute.
    #[schemars(range(min = 1, max = 10_000_000))]
    pub reads_per_minute: i32,
    /// Requests of any kind per address and minute.
    #[schemars(range(min = 1, max = 10_000_000))]
    pub address_per_minute: i32,
}

impl Default for Limits {
    fn default() -> Self {
        Self { auth_per15_minutes: 10, writes_per_minute: 60, reads_per_minute: 1200, address_per_minute: 3000 }
    }
}

/// Ingress rules of the pods; they work where the cluster's network enforces NetworkPolicies.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct NetworkPolicy {
    /// Whether there are NetworkPolicies.
    #[serde(default = "yes")]
    pub enabled: bool,
    /// Who may call the api's port 3000. Left out: everyone.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub ingress_from: Vec<Peer>,
    /// Who may read metrics on port 9090, besides the operator.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub metrics_from: Vec<Peer>,
}

impl Default for NetworkPolicy {
    fn default() -> Self {
        Self { enabled: true, ingress_from: Vec::new(), metrics_from: Vec::new() }
    }
}

/// Pods by labels of their namespace and their own. Both left out: all pods of the shop's namespace.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Peer {
    /// Labels of the namespace. Left out: the shop's own namespace.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 8, "additionalProperties" = { "type": "string", "maxLength": 63 }))]
    pub namespace_labels: BTreeMap<String, String>,
    /// Labels of the pods. Left out: all.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 8, "additionalProperties" = { "type": "string", "maxLength": 63 }))]
    pub pod_labels: BTreeMap<String, String>,
}
