//! One received batch, from deliveries to settled receipts: merges repeats, keeps messages hidden while they are in
//! work, and deletes or gives back each one according to what became of its job.

mod conclude;
mod hold;
mod settle;
mod sort;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use shop_store::{gate::Gate, order_cache::OrderCache};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use self::{
    hold::Holding,
    settle::Settled,
    sort::{Job, sort_out},
};
use crate::{
    delivery::{Delivery, Inbox},
    handle::Handler,
    metrics::{Outcome, WorkerMetrics},
    report::{Activity, Held},
    simulated::SimulatedWork,
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
    /// One for each message that may be in work.
    pub benches: Arc<Semaphore>,
    /// Cancelled when unfinished work must be handed back.
    pub deadline: CancellationToken,
}

/// Times and counts from the configuration.
#[derive(Debug, Clone)]
pub struct Limits {
    pub simulated_work: SimulatedWork,
    pub max_processing: Duration,
    pub max_receive_count: u32,
}

/// How the work on a batch ended.
struct Worked {
    in_time: bool,
    service: Duration,
}

impl Workshop {
    /// Works on messages that were just received, until each is deleted or given back.
    pub async fn work(&self, deliveries: Vec<Delivery>) {
        let mut activity = self.activity.hold(deliveries.len());
        let mut held = Holding::of(&deliveries);
        let (jobs, strangers) = sort_out(deliveries);
        let mut settled = Settled::new();
        let Worked { in_time, service } = tokio::select! {
            worked = self.at_bench(&jobs, &mut settled, &mut activity) => worked,
            never = self.keep_hidden(&mut held) => match never {},
            () = self.deadline.cancelled() => return self.hand_back(&held).await,
        };
        if !in_time {
            self.overran(&jobs, &mut settled);
        }
        let concluded = async {
            self.conclude(&jobs, settled, (&mut held, service)).await;
            self.reject(&strangers, &mut held).await;
        };
        if self.deadline.run_until_cancelled(concluded).await.is_none() {
            self.hand_back(&held).await;
        }
    }

    /// Waits until the batch may be in work, then settles its jobs in the time that one message may take.
    async fn at_bench(&self, jobs: &[Job], settled: &mut Settled, activity: &mut Held) -> Worked {
        let _benches = self.benches.acquire_many(activity.messages()).await;
        activity.work();
        let started = Instant::now();
        let in_time = tokio::time::timeout(self.limits.max_processing, self.settle(jobs, settled)).await.is_ok();
        activity.worked();
        Worked { in_time, service: started.elapsed() }
    }

    /// Leaves what is still held to another worker at once.
    async fn hand_back(&self, held: &Holding) {
        let messages = held.all().len();
        if messages > 0 {
            tracing::warn!(messages, "the worker must leave: unfinished messages are handed back");
            self.metrics.count(Outcome::HandedBack, messages);
            self.inbox.give_back(held.all(), Duration::ZERO).await;
        }
    }
}
