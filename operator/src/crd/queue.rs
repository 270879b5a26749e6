//! The SQS queue.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::common::region;

/// The SQS queue. A queue belongs to one shop.
#[derive(Clone, Debug, Deserialize, Serialize, KubeSchema, PartialEq, Eq)]
#[x_kube(validation = Rule::new("has(self.url) != has(self.name)").message("queue: set exactly one of url and name"))]
#[x_kube(validation = Rule::new("self.management != 'Managed' || has(self.name)")
    .message("queue: a Managed queue is created by its name; set name in place of url"))]
#[x_kube(validation = Rule::new("self.management == 'Managed' || self.deletionPolicy == 'Retain'")
    .message("queue: deletionPolicy Delete needs management Managed; the operator deletes only queues that it made"))]
#[x_kube(validation = Rule::new("self.fifo == ((has(self.name) && self.name.endsWith('.fifo')) || (has(self.url) && self.url.endsWith('.fifo')))")
    .message("queue: fifo must be true where the queue's name or url ends in .fifo, and only there"))]
#[serde(rename_all = "camelCase")]
pub struct Queue {
    /// Name of the queue; the dead-letter queue of a Managed one is called NAME-dlq (NAME-dlq.fifo).
    /// Left out: by its url. Cannot be changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 76), regex(pattern = r"^[A-Za-z0-9_-]+(\.fifo)?$"))]
    pub name: Option<String>,
    /// URL of an Existing queue, in place of its name. Left out: by its name. Cannot be changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512), regex(pattern = r"^https?://[^/ ]+/.+$"))]
    pub url: Option<String>,
    /// AWS region of the queue.
    #[serde(default = "region")]
    #[schemars(length(min = 1, max = 32), regex(pattern = r"^[a-z0-9-]+$"))]
    pub region: String,
    /// Another address than AWS's own, such as a local stand-in. Left out: AWS's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256), regex(pattern = r"^https?://[^/ ]+/?$"))]
    pub endpoint: Option<String>,
    /// A FIFO queue: the messages of one order stay in order, at a lower throughput. Its name ends in .fifo. Cannot be changed.
    #[serde(default)]
    pub fifo: bool,
    /// Managed: the operator creates the queue and its dead-letter queue, tags them and repairs their attributes; a queue
    /// that is there already and does not carry this shop's tag is refused. Existing: it only reads them.
    #[serde(default)]
    pub management: Management,
    /// How long a message in work stays hidden from other workers. Workers hide what they receive for 3 s, and extend that
    /// to this time, again and again, while they work.
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

/// What happens to messages that fail again and again.
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
