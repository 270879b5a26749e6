//! What the operator reports about a shop.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::bounds;

/// What the operator reports. Numbers are written every 10 s at most; live ones are metrics.
#[derive(Clone, Debug, Default, Deserialize, Serialize, KubeSchema, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct ShopDeploymentStatus {
    /// The generation of the spec that everything here is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Ready sums up; Progressing, Degraded and Paused say how; the others are about one part each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "bounds::bounded::<Vec<Condition>>", length(max = 16))]
    #[x_kube(merge_strategy = kube::core::ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
    /// Version of the api's image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128))]
    pub version: Option<String>,
    /// The api pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub api: Option<PartStatus>,
    /// The worker pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub worker: Option<WorkerStatus>,
    /// The queue, as it was last read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue: Option<QueueStatus>,
    /// What the scaler decided last, and why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub autoscaling: Option<AutoscalingStatus>,
    /// The last rotation of the signing keys, asked for by the annotation shop.xhipment.io/rotate-keys.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_rotation: Option<KeyRotationStatus>,
}

#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
pub struct KeyRotationStatus {
    /// Accept: the pods are to accept the next key. Sign: they are to sign with it. Expire: the old key's last tokens expire.
    /// Done. Blocked: something is to be mended first. NotManaged: the keys are the owner's to rotate.
    #[schemars(length(max = 32))]
    pub step: String,
    /// Which key, and what is waited for.
    #[schemars(length(max = 1024))]
    pub message: String,
}

#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
pub struct PartStatus {
    /// Pods that are ready.
    pub ready: i32,
    /// Pods that there should be.
    pub desired: i32,
    /// ready/desired.
    #[schemars(length(max = 32))]
    pub summary: String,
    /// The image in use.
    #[schemars(length(max = 512))]
    pub image: String,
}

#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
pub struct WorkerStatus {
    /// Pods that are ready.
    pub ready: i32,
    /// Pods that there should be.
    pub desired: i32,
    /// ready/desired.
    #[schemars(length(max = 32))]
    pub summary: String,
    /// The image in use.
    #[schemars(length(max = 512))]
    pub image: String,
    /// Label selector of the worker pods.
    #[schemars(length(max = 512))]
    pub selector: String,
}

#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct QueueStatus {
    /// URL of the queue.
    #[schemars(length(max = 512))]
    pub url: String,
    /// URL of a Managed queue's dead-letter queue.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 512))]
    pub dead_letter_url: Option<String>,
    /// Messages that wait.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub visible: Option<i64>,
    /// Messages that workers hold.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub in_flight: Option<i64>,
    /// Messages that are not due yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delayed: Option<i64>,
}

#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct AutoscalingStatus {
    /// The number of workers that the scaler wants.
    pub desired: i32,
    /// Why, in one word.
    #[schemars(length(max = 32))]
    pub reason: String,
    /// Why, in one sentence.
    #[schemars(length(max = 512))]
    pub explain: String,
    /// Messages that arrive per second.
    pub arrivals_per_second: f64,
    /// Seconds of work per message, measured.
    pub seconds_per_message: f64,
    /// Predicted wait of the newest message, such as 3.5s.
    #[schemars(length(max = 32))]
    pub wait: String,
    /// When the number of workers was last changed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_scale_time: Option<Time>,
    /// What the scaler needs to go on after a restart of the operator.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<MemoryStatus>,
}

/// What the scaler needs to go on after a restart of the operator.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct MemoryStatus {
    /// Seconds of work per message, where it has been measured.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seconds_per_message: Option<f64>,
    /// Seconds from a pod's creation to its being ready, where it has been measured.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub startup_seconds: Option<f64>,
    /// Highest recommendation within the scale-down window.
    pub window_max: i32,
    /// When the number of workers was last changed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_scale_time: Option<Time>,
    /// Since when messages have waited.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub waiting_since: Option<Time>,
    /// When a worker that was taken away last had to leave work unfinished.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_busy_kill_time: Option<Time>,
}
