//! What a decision is made from: the owner's policy and one observation. Plain data.

use std::borrow::Cow;

use jiff::Timestamp;

use super::schedule::Schedule;
use crate::validate::ValidatedShop;

/// What may be changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Pause {
    #[default]
    No,
    /// Growing only.
    Down,
    /// Nothing.
    All,
}

/// The owner's wishes, in seconds, pods and messages.
#[derive(Clone, Debug, PartialEq)]
pub struct Policy {
    pub target_wait: f64,
    /// Seconds of work per message, until measured.
    pub expected_service: f64,
    /// Messages one pod works on at once.
    pub concurrency: f64,
    pub min: u32,
    pub max: u32,
    pub activation: u64,
    pub to_zero_cooldown: f64,
    pub window: f64,
    pub max_percent: u32,
    pub failure_after: f64,
    /// Fewest pods after so long without a readable queue; `None` holds.
    pub fallback: Option<u32>,
    pub pause: Pause,
    pub schedules: Vec<Schedule>,
}

/// The schedules whose bounds hold at the moment, by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scheduled {
    pub min: Option<String>,
    pub max: Option<String>,
}

impl Policy {
    pub fn of(shop: &ValidatedShop) -> Self {
        let scaling = &shop.scaling;
        Self {
            target_wait: f64::from(scaling.target_wait_seconds),
            expected_service: scaling.expected_seconds_per_message,
            concurrency: f64::from(shop.concurrency),
            min: scaling.min,
            max: scaling.max,
            activation: scaling.activation,
            to_zero_cooldown: f64::from(scaling.to_zero_cooldown_seconds),
            window: f64::from(scaling.window_seconds),
            max_percent: scaling.max_percent,
            failure_after: f64::from(scaling.failure_after_seconds),
            fallback: scaling.fallback,
            pause: scaling.pause,
            schedules: scaling.schedules.clone(),
        }
    }

    /// The policy as it is at this moment, in seconds since 1970, and whose bounds these are. An open schedule's word takes the
    /// place of the owner's standing one; of several the least max, the largest min and the shortest target. A min above the max
    /// is the max: what may not be exceeded goes before what is nice to have.
    pub fn at(&self, now: f64) -> (Cow<'_, Self>, Scheduled) {
        let mut scheduled = Scheduled::default();
        if self.schedules.is_empty() {
            return (Cow::Borrowed(self), scheduled);
        }
        #[expect(clippy::cast_possible_truncation, reason = "what is out of range is no time")]
        let now = Timestamp::from_millisecond((now * 1000.0) as i64).unwrap_or_default();
        let open: Vec<_> = self.schedules.iter().filter(|schedule| schedule.is_open(now)).collect();
        let mut policy = self.clone();
        let max = open.iter().filter_map(|schedule| Some((schedule.max?, &schedule.name)));
        if let Some((max, name)) = max.min() {
            (policy.max, scheduled.max) = (max, Some(name.clone()));
        }
        let min = open.iter().filter_map(|schedule| Some((schedule.min?, std::cmp::Reverse(&schedule.name))));
        if let Some((min, std::cmp::Reverse(name))) = min.max() {
            (policy.min, scheduled.min) = (min, Some(name.clone()));
        }
        if policy.min > policy.max {
            (policy.min, scheduled.min) = (policy.max, scheduled.max.clone());
        }
        let target = open.iter().filter_map(|schedule| schedule.target_wait).reduce(f64::min);
        policy.target_wait = target.unwrap_or(policy.target_wait);
        (Cow::Owned(policy), scheduled)
    }
}

/// The queue's own counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Depth {
    pub visible: u64,
    pub in_flight: u64,
    pub delayed: u64,
}

impl Depth {
    pub fn is_empty(self) -> bool {
        self == Self::default()
    }

    #[expect(clippy::cast_precision_loss, reason = "sizes need no more than 53 bits")]
    pub fn total(self) -> f64 {
        self.visible as f64 + self.in_flight as f64 + self.delayed as f64
    }
}

/// One look at queue and pods.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sample {
    /// Seconds on a clock that may jump.
    pub at: f64,
    /// `None`: the queue could not be read.
    pub depth: Option<Depth>,
    /// The Deployment's `spec.replicas`.
    pub current: u32,
    /// Ready pods of the newest template.
    pub ready: u32,
    /// Pods of the newest template that are not ready yet.
    pub pending: u32,
    /// Pods of an older template exist, or are still to be replaced.
    pub rolling: bool,
    /// Pods that report work in hand, or do not report.
    pub busy_pods: u32,
    /// Messages being worked on, by the reports.
    pub busy: u64,
    /// Pods that answered.
    pub reporting: u32,
    /// Messages completed since the last sample.
    pub completed: u64,
    /// Seconds of work that they took together.
    pub service_seconds: f64,
    /// Create → Ready of the pods that became ready since the last sample, on average.
    pub startup_seconds: Option<f64>,
    /// Pods taken away since the last sample that had to leave work unfinished.
    pub cut_off: u32,
}
