//! What the worker counts: messages by outcome, their age when finished, batches and retries.

use prometheus_client::{
    encoding::{EncodeLabelSet, EncodeLabelValue},
    metrics::{counter::Counter, family::Family, histogram::Histogram},
};
use shop_runtime::metrics::Metrics;

/// What became of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelValue)]
pub enum Outcome {
    Processed,
    OutOfStock,
    AlreadySettled,
    Applied,
    Refused,
    Restocked,
    /// No document has the message's id.
    Unknown,
    /// The body is no message of this shop.
    Unparseable,
    /// Given back after a failure.
    Failed,
    /// Given back unfinished when the worker had to leave.
    HandedBack,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    outcome: Outcome,
}

/// The worker's metrics. Cheap to clone.
#[derive(Debug, Clone)]
pub struct WorkerMetrics {
    messages: Family<Labels, Counter>,
    pub age: Histogram,
    pub batch: Histogram,
    pub retries: Counter,
    pub lost: Counter,
}

impl WorkerMetrics {
    pub fn register(metrics: &Metrics) -> Self {
        let ages = [0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3_600.0];
        let new = Self {
            messages: Family::default(),
            age: Histogram::new(ages),
            batch: Histogram::new((1..=10).map(f64::from)),
            retries: Counter::default(),
            lost: Counter::default(),
        };
        metrics.register(|registry| {
            registry.register("shop_worker_messages", "Messages by outcome", new.messages.clone());
            registry.register("shop_worker_age_seconds", "Age of a message when finished", new.age.clone());
            registry.register("shop_worker_batch_messages", "Messages decided together", new.batch.clone());
            let lost = "Messages that the queue gave to another worker while they were in work";
            registry.register("shop_worker_lost_messages", lost, new.lost.clone());
            registry.register("shop_worker_retries", "Transactions tried again", new.retries.clone());
        });
        new
    }

    pub fn count(&self, outcome: Outcome, messages: usize) {
        self.messages.get_or_create(&Labels { outcome }).inc_by(messages as u64);
    }
}
