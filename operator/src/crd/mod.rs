//! The ShopDeployment resource: its types are the schema, its descriptions the manual (`kubectl explain shop.spec`).
//! Plain data; what is impossible to say in a schema is checked in `validate`.
#![expect(clippy::doc_markdown, reason = "the descriptions are read in a terminal, without markup")]
#![allow(rustdoc::bare_urls, reason = "the descriptions are read in a terminal: an address stands as it is typed")]

mod api;
mod bounds;
mod common;
mod identity;
mod images;
mod mail;
mod network;
mod pod;
mod queue;
mod scaling;
mod settings;
mod status;
mod stores;

pub use api::{Api, Ingress, IngressTls};
pub use common::{Amounts, CaSecretRef, EnvVar, NameRef, Resources, UriSecretRef, UrlSecretRef};
pub use identity::{Argon2, Auth, Aws};
pub use images::{Images, PullPolicy};
use kube::{CustomResource, KubeSchema};
pub use mail::Mail;
pub use network::{Monitoring, NetworkPolicy, Peer};
pub use pod::{Pod, TaintEffect, Toleration, TolerationOperator, TopologySpread, WhenUnsatisfiable};
pub use queue::{DeadLetter, DeletionPolicy, Management, Queue};
pub use scaling::{Autoscaling, Failure, FailurePolicy, Mode, ScaleDown, Worker};
use serde::{Deserialize, Serialize};
pub use settings::{Limits, LogLevel, Settings, Tracing};
pub use status::{
    AutoscalingStatus, KeyRotationStatus, MemoryStatus, PartStatus, QueueStatus, ShopDeploymentStatus, WorkerStatus,
};
pub use stores::{MongoDb, Redis};

/// A shop: an api behind an ingress and workers on a queue, kept as described here by the shop operator.
#[derive(CustomResource, KubeSchema, Clone, Debug, Deserialize, Serialize, PartialEq)]
#[kube(
    group = "shop.xhipment.io",
    version = "v1alpha1",
    kind = "ShopDeployment",
    plural = "shopdeployments",
    shortname = "shop",
    shortname = "shops",
    category = "all",
    namespaced,
    status = "ShopDeploymentStatus",
    derive = "PartialEq",
    doc = "A shop: an api behind an ingress and workers on a queue, kept as described here by the shop operator.",
    scale(
        spec_replicas_path = ".spec.worker.replicas",
        status_replicas_path = ".status.worker.ready",
        label_selector_path = ".status.worker.selector"
    ),
    printcolumn(name = "Ready", type_ = "string", json_path = r#".status.conditions[?(@.type=="Ready")].status"#),
    printcolumn(name = "Api", type_ = "string", json_path = ".status.api.summary", description = "ready/desired"),
    printcolumn(name = "Workers", type_ = "string", json_path = ".status.worker.summary", description = "ready/desired"),
    printcolumn(name = "Queue", type_ = "integer", json_path = ".status.queue.visible", description = "messages waiting"),
    printcolumn(
        name = "Wait",
        type_ = "string",
        json_path = ".status.autoscaling.wait",
        description = "predicted wait of the newest message"
    ),
    printcolumn(name = "Version", type_ = "string", json_path = ".status.version"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(
        name = "Reason",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Ready")].reason"#,
        priority = 1
    ),
    validation = Rule::new("self.metadata.name.matches('^[a-z]([-a-z0-9]{0,38}[a-z0-9])?$')")
        .message("metadata.name: at most 40 lower-case letters, digits and dashes, starting with a letter, \
                  because Services and other objects are named after it"),
)]
#[x_kube(validation = Rule::new("self.mongodb.database == oldSelf.mongodb.database")
    .message("mongodb.database cannot be changed: the orders would be left behind; create another shop instead"))]
#[x_kube(validation = Rule::new("has(self.queue.name) == has(oldSelf.queue.name) && has(self.queue.url) == has(oldSelf.queue.url)")
    .message("queue: name cannot be replaced by url, nor url by name: messages would be left behind; create another shop instead"))]
#[x_kube(validation = Rule::new("!has(self.queue.name) || !has(oldSelf.queue.name) || self.queue.name == oldSelf.queue.name")
    .message("queue.name cannot be changed: its messages would be left behind; create another shop instead"))]
#[x_kube(validation = Rule::new("!has(self.queue.url) || !has(oldSelf.queue.url) || self.queue.url == oldSelf.queue.url")
    .message("queue.url cannot be changed: its messages would be left behind; create another shop instead"))]
#[x_kube(validation = Rule::new("self.queue.fifo == oldSelf.queue.fifo")
    .message("queue.fifo cannot be changed: it says what kind of queue there is; create another shop instead"))]
#[serde(rename_all = "camelCase")]
pub struct ShopDeploymentSpec {
    /// The container images. Left out: the ones that belong to the operator's version.
    #[serde(default)]
    pub images: Images,
    /// Where the shop's data lives.
    pub mongodb: MongoDb,
    /// Caches and request limits shared between processes. Left out: no caches, limits per process.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub redis: Option<Redis>,
    /// The SQS queue between api and workers.
    pub queue: Queue,
    /// How mails leave (SES).
    pub mail: Mail,
    /// How the pods and the operator identify themselves to AWS. Left out: by the ambient identity.
    #[serde(default)]
    pub aws: Aws,
    /// Certificates of a private CA for MongoDB, Redis and SQS over TLS, for the pods and the operator. MongoDB and Redis must
    /// then show a certificate of this CA, so a public one of theirs belongs in here too; for SQS it is trusted besides the
    /// public ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_secret_ref: Option<CaSecretRef>,
    /// Signing keys, the staff account, token life, passwords.
    #[serde(default)]
    pub auth: Auth,
    /// The HTTP service.
    #[serde(default)]
    pub api: Api,
    /// The queue consumers.
    #[serde(default)]
    pub worker: Worker,
    /// Settings of the shop itself.
    #[serde(default)]
    pub settings: Settings,
    /// Who may connect to the pods.
    #[serde(default)]
    pub network_policy: NetworkPolicy,
    /// What makes Prometheus read the pods' metrics.
    #[serde(default)]
    pub monitoring: Monitoring,
    /// Observe only: the operator goes on reporting, and changes nothing.
    #[serde(default)]
    pub paused: bool,
    /// Zero api and worker pods; everything else is kept.
    #[serde(default)]
    pub suspended: bool,
}

#[cfg(test)]
mod tests;
