//! Looks for accepted work that nobody finishes, and puts it on its outbox again, a few times, then shows it as stuck.
//! Works only while the queue is empty: what waits there is not forgotten.

use std::{sync::atomic::AtomicU64, time::Duration};

use jiff::{SignedDuration, Timestamp};
use prometheus_client::metrics::{counter::Counter, gauge::Gauge};
use shop_domain::id::OutboxId;
use shop_runtime::{
    clock::Clock,
    ids::{self, NoRandomness},
    metrics::Metrics,
    queue::{Queue, QueueError},
    shutdown::Shutdown,
    telemetry::chain,
};
use shop_store::{
    StoreError,
    gate::Gate,
    outbox::{OutboxEntry, OutboxKind},
    unfinished::{Forgotten, Unfinished},
};

/// Work younger than this is left to the queue.
const AGE: SignedDuration = SignedDuration::from_mins(15);
const INTERVAL: Duration = Duration::from_mins(1);
/// How long a sweep has to take effect; after the last one the work is given up.
const PATIENCE: [SignedDuration; 3] =
    [SignedDuration::from_mins(15), SignedDuration::from_mins(30), SignedDuration::from_mins(60)];

/// What the sweeper works with.
#[derive(Debug, Clone)]
pub struct SweeperDeps {
    pub unfinished: Unfinished,
    pub gate: Gate,
    pub queue: Queue,
    pub clock: Clock,
    pub shutdown: Shutdown,
    pub metrics: Metrics,
}

/// Starts the sweeper: a look about every minute.
pub fn spawn(deps: SweeperDeps) {
    let shutdown = deps.shutdown.clone();
    shutdown.spawn(Sweeper::new(deps).run());
}

/// What to do with forgotten work.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    Revive { next_at: Timestamp },
    GiveUp,
}

/// After `sweeps` fruitless sweeps: another one, with more patience each time, or none.
fn step(sweeps: u32, now: Timestamp) -> Step {
    let patience = usize::try_from(sweeps).ok().and_then(|sweeps| PATIENCE.get(sweeps));
    match patience.map(|patience| now.saturating_add(*patience)) {
        Some(Ok(next_at)) => Step::Revive { next_at },
        Some(Err(_)) | None => Step::GiveUp,
    }
}

#[derive(Debug, thiserror::Error)]
pub enum SweepError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Queue(#[from] QueueError),
    #[error(transparent)]
    Random(#[from] NoRandomness),
    #[error("the clock is out of range")]
    Clock(#[from] jiff::Error),
}

/// One process's sweeper. Several may run: each change is conditional on what was seen.
pub struct Sweeper {
    deps: SweeperDeps,
    revived: Counter,
    stuck: Gauge<u64, AtomicU64>,
}

impl Sweeper {
    pub fn new(deps: SweeperDeps) -> Self {
        let (revived, stuck) = (Counter::default(), Gauge::default());
        deps.metrics.register(|registry| {
            registry.register("shop_sweeper_revived_entries", "Forgotten work sent again", revived.clone());
            registry.register("shop_sweeper_stuck_documents", "Work that was given up", stuck.clone());
        });
        Self { deps, revived, stuck }
    }

    async fn run(self) {
        let draining = self.deps.shutdown.draining();
        while draining.run_until_cancelled(tokio::time::sleep(INTERVAL)).await.is_some() {
            // Dropped at any point it does no harm: each change is conditional, and the next look finds the rest.
            if let Some(Err(error)) = self.deps.gate.while_open(self.sweep()).await {
                tracing::warn!(error = chain(&error), "sweep failed, trying again");
            }
        }
    }

    /// One look. Returns how many pieces of work were put on their outbox again.
    pub async fn sweep(&self) -> Result<u64, SweepError> {
        self.stuck.set(self.deps.unfinished.stuck().await?);
        let now = self.deps.clock.now();
        let forgotten = self.deps.unfinished.find(now.checked_sub(AGE)?, now).await?;
        if forgotten.is_empty() {
            return Ok(0);
        }
        let counts = self.deps.queue.counts().await?;
        if counts.visible > 0 || counts.delayed > 0 {
            return Ok(0);
        }
        let mut revived = 0;
        for work in &forgotten {
            revived += u64::from(self.attend(work, now).await?);
        }
        Ok(revived)
    }

    async fn attend(&self, work: &Forgotten, now: Timestamp) -> Result<bool, SweepError> {
        let Step::Revive { next_at } = step(work.sweeps, now) else {
            if self.deps.unfinished.give_up(work).await? {
                tracing::error!(id = work.message.group(), sweeps = work.sweeps, "work is stuck, staff must look");
            }
            return Ok(false);
        };
        let entry = OutboxEntry::due(OutboxId::from_bits(ids::random_bytes()?), OutboxKind::from(&work.message), now);
        let revived = self.deps.unfinished.revive(work, &entry, next_at).await?;
        if revived {
            tracing::warn!(id = work.message.group(), sweeps = work.sweeps + 1, "unfinished work is sent again");
            self.revived.inc();
        }
        Ok(revived)
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case(0, Some(15))]
    #[case(1, Some(30))]
    #[case(2, Some(60))]
    #[case(3, None)]
    #[case(u32::MAX, None)]
    fn work_is_revived_three_times(#[case] sweeps: u32, #[case] minutes: Option<i64>) {
        let expected = minutes.map_or(Step::GiveUp, |minutes| Step::Revive {
            next_at: Timestamp::UNIX_EPOCH + SignedDuration::from_mins(minutes),
        });
        assert_eq!(step(sweeps, Timestamp::UNIX_EPOCH), expected);
    }
}
