//! One received batch, from deliveries to settled receipts: merges repeats, keeps messages hidden while they are in
//! work, and deletes or gives back each one according to what became of its job.

mod conclude;
mod settle;
mod sort;

use std::time::{Duration, Instant};

use shop_store::{gate::Gate, order_cache::OrderCache};
use tokio_util::sync::CancellationToken;

use self::{settle::Settled, sort::sort_out};
use crate::{
    delivery::{Delivery, Inbox, Receipt},
    handle::Handler,
    metrics::{Outcome, WorkerMetrics},
    report::Activity,
};

/// What every batch is worked on with. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Workshop {
    pub inbox: Inbox,
    pub handler: Handler,
    pub cache: OrderCache,
    pub gate: Gate,
    pub activity: Activity,
    pub metrics: WorkerMetrics,
    pub limits: Limits,
    /// Cancelled when unfinished work must be handed back.
    pub deadline: CancellationToken,
}

/// Times and counts from the configuration.
#[derive(Debug, Clone)]
pub struct Limits {
    pub simulated_work: Duration,
    pub max_processing: Duration,
    pub max_receive_count: u32,
}

impl Workshop {
    /// Works on messages that were just received, until each is deleted or given back.
    pub async fn work(&self, deliveries: Vec<Delivery>) {
        let mut held = self.activity.begin(deliveries.len());
        let receipts: Vec<Receipt> = deliveries.iter().map(|delivery| delivery.receipt.clone()).collect();
        let started = Instant::now();
        let (jobs, strangers) = sort_out(deliveries);
        let mut settled = Settled::new();
        let in_time = tokio::select! {
            end = tokio::time::timeout(self.limits.max_processing, self.settle(&jobs, &mut settled)) => end.is_ok(),
            never = self.inbox.keep_hidden(&receipts) => match never {},
            () = self.deadline.cancelled() => return self.hand_back(&receipts).await,
        };
        held.worked();
        if !in_time {
            self.overran(&jobs, &mut settled);
        }
        let concluded = async {
            self.conclude(&jobs, settled, started.elapsed()).await;
            self.reject(&strangers).await;
        };
        if self.deadline.run_until_cancelled(concluded).await.is_none() {
            self.hand_back(&receipts).await;
        }
    }

    /// Leaves everything to another worker at once.
    async fn hand_back(&self, receipts: &[Receipt]) {
        tracing::warn!(messages = receipts.len(), "the worker must leave: unfinished messages are handed back");
        self.metrics.count(Outcome::HandedBack, receipts.len());
        self.inbox.give_back(receipts, Duration::ZERO).await;
    }
}
