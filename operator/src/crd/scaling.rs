//! The worker part of a ShopDeployment's spec and how it scales.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    common::{EnvVar, Resources},
    pod::Pod,
};

/// The queue consumers.
#[derive(Clone, Debug, Deserialize, Serialize, KubeSchema, PartialEq)]
#[x_kube(validation = Rule::new("self.terminationGracePeriodSeconds >= 30 + self.maxProcessingSeconds")
    .message("worker: terminationGracePeriodSeconds must be at least maxProcessingSeconds + 30: \
              an open long poll (20 s), the work in hand, and 10 s to hand back"))]
#[x_kube(validation = Rule::new("!has(self.replicas) || self.autoscaling.mode == 'Manual'")
    .message("worker: replicas (and kubectl scale) needs autoscaling.mode Manual; otherwise the operator chooses between \
              autoscaling.min and autoscaling.max"))]
#[x_kube(validation = Rule::new("quantity(has(self.resources.requests.cpu) ? string(self.resources.requests.cpu) : '25m')\
        .compareTo(quantity(has(self.resources.limits.cpu) ? string(self.resources.limits.cpu) : '1')) <= 0 \
        && quantity(has(self.resources.requests.memory) ? string(self.resources.requests.memory) : '32Mi')\
        .compareTo(quantity(has(self.resources.limits.memory) ? string(self.resources.limits.memory) : '128Mi')) <= 0")
    .message("worker.resources: requests must not be above limits; left out, they are 25m and 32Mi, 1 and 128Mi"))]
#[serde(rename_all = "camelCase")]
pub struct Worker {
    /// Messages that one pod works on at once.
    #[serde(default = "Worker::concurrency")]
    #[schemars(range(min = 1, max = 1000))]
    pub concurrency: i32,
    /// Messages that one pod holds beyond those in work. They wait hidden from other pods: only for a slow way to SQS.
    #[serde(default)]
    #[schemars(range(min = 0, max = 1000))]
    pub prefetch: i32,
    /// Messages that are taken and decided together at most.
    #[serde(default = "Worker::batch_size")]
    #[schemars(range(min = 1, max = 10))]
    pub batch_size: i32,
    /// Longest time that one message may take.
    #[serde(default = "Worker::max_processing_seconds")]
    #[schemars(range(min = 1, max = 3600))]
    pub max_processing_seconds: i32,
    /// Time that a pod gets to finish what it holds when it is told to stop.
    #[serde(default = "Worker::grace")]
    #[schemars(range(min = 31, max = 7200))]
    pub termination_grace_period_seconds: i32,
    /// Number of pods, only with autoscaling.mode Manual; left out in the other modes. This is what `kubectl scale` sets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1000))]
    pub replicas: Option<i32>,
    /// CPU and memory. What is left out: requests 25m and 32Mi, limits 1 and 128Mi.
    #[serde(default)]
    pub resources: Resources,
    /// Further environment variables.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    #[x_kube(merge_strategy = kube::core::ListMerge::Map(vec!["name".into()]))]
    pub env: Vec<EnvVar>,
    /// How the number of pods follows the queue.
    #[serde(default)]
    pub autoscaling: Autoscaling,
    /// Where the pods may run.
    #[serde(default)]
    pub pod: Pod,
}

impl Worker {
    fn concurrency() -> i32 {
        10
    }

    fn batch_size() -> i32 {
        10
    }

    fn max_processing_seconds() -> i32 {
        30
    }

    fn grace() -> i32 {
        60
    }
}

impl Default for Worker {
    fn default() -> Self {
        Self {
            concurrency: Self::concurrency(),
            prefetch: 0,
            batch_size: Self::batch_size(),
            max_processing_seconds: Self::max_processing_seconds(),
            termination_grace_period_seconds: Self::grace(),
            replicas: None,
            resources: Resources::default(),
            env: Vec::new(),
            autoscaling: Autoscaling::default(),
            pod: Pod::default(),
        }
    }
}

/// How the number of workers follows the queue. The one number to choose is targetWaitSeconds.
#[derive(Clone, Debug, Deserialize, Serialize, KubeSchema, PartialEq)]
#[x_kube(validation = Rule::new("self.min <= self.max").message("worker.autoscaling: min must not be above max"))]
#[x_kube(validation = Rule::new("self.failure.policy != 'Static' || (has(self.failure.replicas) && self.failure.replicas >= self.min && self.failure.replicas <= self.max)")
    .message("worker.autoscaling.failure: policy Static needs replicas between min and max"))]
#[serde(rename_all = "camelCase")]
pub struct Autoscaling {
    /// DrainTime: by the wait target. Manual: worker.replicas, as `kubectl scale` sets it. Recommend: as DrainTime, but only
    /// written to the status.
    #[serde(default)]
    pub mode: Mode,
    /// A message should not wait longer than this.
    #[serde(default = "Autoscaling::target_wait_seconds")]
    #[schemars(range(min = 1, max = 86400))]
    pub target_wait_seconds: i32,
    /// Seconds between two looks at the queue while there is work, and for a minute after. Then idle workers tell when they take
    /// up work, and the queue is looked at every 20 s. Without workers it is looked at as often for ten minutes after the last
    /// work, then every 10 s. Never more often than this.
    #[serde(default = "Autoscaling::poll_seconds")]
    #[schemars(range(min = 1, max = 60))]
    pub poll_seconds: i32,
    /// Seconds of work per message, until it has been measured.
    #[serde(default = "Autoscaling::expected_seconds_per_message")]
    #[schemars(range(min = 0.001, max = 3600.0))]
    pub expected_seconds_per_message: f64,
    /// Fewest pods. 0 lets an idle shop have none.
    #[serde(default = "Autoscaling::min")]
    #[schemars(range(min = 0, max = 1000))]
    pub min: i32,
    /// Most pods.
    #[serde(default = "Autoscaling::max")]
    #[schemars(range(min = 1, max = 1000))]
    pub max: i32,
    /// From zero pods: start when more messages than this wait.
    #[serde(default)]
    #[schemars(range(min = 0, max = 1_000_000))]
    pub activation: i32,
    /// To zero pods: only so long after the last message was done.
    #[serde(default = "Autoscaling::to_zero_cooldown_seconds")]
    #[schemars(range(min = 0, max = 86400))]
    pub to_zero_cooldown_seconds: i32,
    /// How pods are taken away.
    #[serde(default)]
    pub scale_down: ScaleDown,
    /// What to do when the queue cannot be read.
    #[serde(default)]
    pub failure: Failure,
    /// Other bounds, or another target, at certain times. Of several that are open the least max, the largest min and the
    /// shortest target hold; a min above the max is the max.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    #[x_kube(merge_strategy = kube::core::ListMerge::Map(vec!["name".into()]))]
    pub schedules: Vec<Schedule>,
}

impl Autoscaling {
    fn poll_seconds() -> i32 {
        2
    }

    fn target_wait_seconds() -> i32 {
        30
    }

    fn expected_seconds_per_message() -> f64 {
        0.1
    }

    fn min() -> i32 {
        1
    }

    fn max() -> i32 {
        20
    }

    fn to_zero_cooldown_seconds() -> i32 {
        300
    }
}

impl Default for Autoscaling {
    fn default() -> Self {
        Self {
            mode: Mode::DrainTime,
            target_wait_seconds: Self::target_wait_seconds(),
            poll_seconds: Self::poll_seconds(),
            expected_seconds_per_message: Self::expected_seconds_per_message(),
            min: Self::min(),
            max: Self::max(),
            activation: 0,
            to_zero_cooldown_seconds: Self::to_zero_cooldown_seconds(),
            scale_down: ScaleDown::default(),
            failure: Failure::default(),
            schedules: Vec::new(),
        }
    }
}

#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
pub enum Mode {
    #[default]
    DrainTime,
    Manual,
    Recommend,
}

/// How pods are taken away.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "camelCase", default)]
pub struct ScaleDown {
    /// Take pods away only when none of the last so many seconds needed them.
    #[schemars(range(min = 0, max = 3600))]
    pub window_seconds: i32,
    /// Share of the pods that may go at once; at least one pod may.
    #[schemars(range(min = 1, max = 100))]
    pub max_percent: i32,
}

impl Default for ScaleDown {
    fn default() -> Self {
        Self { window_seconds: 180, max_percent: 25 }
    }
}

/// What to do when the queue cannot be read.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "camelCase", default)]
pub struct Failure {
    /// Seconds without a readable queue before the policy applies.
    #[schemars(range(min = 10, max = 86400))]
    pub after_seconds: i32,
    /// Hold: keep the pods there are. Static: the same, but have at least `replicas`. Neither takes a pod away.
    pub policy: FailurePolicy,
    /// Fewest pods, with policy Static, which needs it. Left out with policy Hold.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1000))]
    pub replicas: Option<i32>,
}

impl Default for Failure {
    fn default() -> Self {
        Self { after_seconds: 300, policy: FailurePolicy::Hold, replicas: None }
    }
}

#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
pub enum FailurePolicy {
    #[default]
    Hold,
    Static,
}

/// Bounds, or a target, of a window of time that comes again and again.
#[derive(Clone, Debug, Deserialize, Serialize, KubeSchema, PartialEq, Eq)]
#[x_kube(validation = Rule::new("has(self.min) || has(self.max) || has(self.targetWaitSeconds)")
    .message("worker.autoscaling.schedules: set at least one of min, max and targetWaitSeconds"))]
#[x_kube(validation = Rule::new("!has(self.min) || !has(self.max) || self.min <= self.max")
    .message("worker.autoscaling.schedules: a schedule's min must not be above its max"))]
#[serde(rename_all = "camelCase")]
pub struct Schedule {
    /// What it is called in the status.
    #[schemars(length(min = 1, max = 63), regex(pattern = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    pub name: String,
    /// When the window opens: minute, hour, day of month, month, day of week, as in 0 8 * * 1-5. Where the clock skips that
    /// time it opens as much later; where it comes twice, at the first.
    #[schemars(length(min = 9, max = 128))]
    pub cron: String,
    /// Whose clock cron is about, such as Europe/Berlin.
    #[serde(default = "Schedule::time_zone")]
    #[schemars(length(min = 1, max = 64))]
    pub time_zone: String,
    /// For how long the window is open.
    #[schemars(range(min = 1, max = 10080))]
    pub duration_minutes: i32,
    /// Fewest pods meanwhile. Left out, the autoscaling's own min.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1000))]
    pub min: Option<i32>,
    /// Most pods meanwhile. Left out, the autoscaling's own max.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1000))]
    pub max: Option<i32>,
    /// How long a message may wait meanwhile. Left out, as long as at other times.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 86400))]
    pub target_wait_seconds: Option<i32>,
}

impl Schedule {
    fn time_zone() -> String {
        "UTC".to_owned()
    }
}
