//! The receive loop: long polls, never more messages held than allowed, none while MongoDB is away, none after the
//! signal to stop. An open receive is awaited, not aborted: dropping it would strand what it was about to bring.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use shop_runtime::{shutdown::Shutdown, telemetry::chain};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

use crate::{batch::Workshop, delivery::Delivery, pace::Pace};

/// The receiving side of a worker.
#[derive(Debug)]
pub struct Consumer {
    pub workshop: Workshop,
    pub intake: Intake,
    pub shutdown: Shutdown,
}

/// How many messages are taken.
#[derive(Debug, Clone, Copy)]
pub struct Intake {
    /// Held at once: in work, or received and waiting for it.
    pub held: usize,
    /// In one receive; no more than can be in work at once.
    pub batch: usize,
}

impl Consumer {
    /// Receives until the drain begins. Batches in work go on by themselves.
    pub async fn run(self) {
        let draining = self.shutdown.draining();
        let (slots, mut pace) = (Arc::new(Semaphore::new(self.intake.held)), Pace::default());
        if draining.run_until_cancelled(self.queue_found()).await.is_none() {
            return;
        }
        let mut failures = 0;
        loop {
            let free = self.free_slots(&slots, pace.room());
            let Some(permits) = draining.run_until_cancelled(free).await.flatten() else { break };
            match self.workshop.inbox.receive(permits.num_permits()).await {
                Ok(deliveries) => {
                    failures = 0;
                    let (brought, asked) = (deliveries.len(), permits.num_permits());
                    let linger = pace.after(Instant::now(), brought, (asked, self.intake.batch));
                    self.start(deliveries, permits);
                    draining.run_until_cancelled(tokio::time::sleep(linger)).await;
                }
                Err(error) => {
                    drop(permits);
                    failures += 1;
                    tracing::warn!(error = chain(&error), failures, "cannot receive, trying again");
                    draining.run_until_cancelled(tokio::time::sleep(pause(failures))).await;
                }
            }
        }
    }

    /// Waits until the queue can be used; a queue that is made later is found then.
    async fn queue_found(&self) {
        let mut failures = 0;
        while let Err(error) = self.workshop.inbox.queue().counts().await {
            failures += 1;
            tracing::warn!(error = chain(&error), failures, "the queue cannot be used, trying again");
            tokio::time::sleep(pause(failures)).await;
        }
        tracing::info!("the queue answers");
    }

    /// Waits for room for at least one message and for MongoDB; takes what room there is, up to a full batch. It may wait
    /// `patience` for the rest of a batch: room that comes one by one would make nothing but batches of one.
    async fn free_slots(&self, slots: &Arc<Semaphore>, patience: Duration) -> Option<OwnedSemaphorePermit> {
        let mut permits = Arc::clone(slots).acquire_owned().await.ok()?;
        let rest = Arc::clone(slots).acquire_many_owned(u32::try_from(self.intake.batch - 1).ok()?);
        if let Ok(Ok(rest)) = tokio::time::timeout(patience, rest).await {
            permits.merge(rest);
        }
        // Last: the batch that has just made room may have found that MongoDB is away.
        self.workshop.gate.opened().await;
        while permits.num_permits() < self.intake.batch {
            let Ok(another) = Arc::clone(slots).try_acquire_owned() else { break };
            permits.merge(another);
        }
        Some(permits)
    }

    fn start(&self, deliveries: Vec<Delivery>, mut permits: OwnedSemaphorePermit) {
        let Some(in_work) = permits.split(deliveries.len()).filter(|_| !deliveries.is_empty()) else { return };
        drop(permits);
        let workshop = self.workshop.clone();
        self.shutdown.spawn(async move {
            workshop.work(deliveries).await;
            drop(in_work);
        });
    }
}

/// Cancelled `after` the drain began.
pub fn deadline(shutdown: &Shutdown, after: Duration) -> CancellationToken {
    let (draining, deadline) = (shutdown.draining(), CancellationToken::new());
    let reached = deadline.clone();
    shutdown.spawn_detached(async move {
        draining.cancelled().await;
        tokio::time::sleep(after).await;
        reached.cancel();
    });
    deadline
}

/// 1 s after the first failure, doubled up to 4 s: the end of an outage is noticed soon, however long it was.
fn pause(failures: u32) -> Duration {
    Duration::from_secs(1 << (failures.clamp(1, 3) - 1))
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case(0, 1)]
    #[case(1, 1)]
    #[case(3, 4)]
    #[case(4, 4)]
    #[case(u32::MAX, 4)]
    fn pauses_grow_to_four_seconds(#[case] failures: u32, #[case] seconds: u64) {
        assert_eq!(pause(failures), Duration::from_secs(seconds));
    }

    #[tokio::test]
    async fn work_is_handed_back_some_time_after_the_drain_began() {
        let shutdown = Shutdown::manual();
        let after = Duration::from_millis(100);
        let deadline = deadline(&shutdown, after);
        let too_early = tokio::time::timeout(after * 2, deadline.cancelled()).await;
        assert!(too_early.is_err(), "without a drain there is no deadline");

        let began = std::time::Instant::now();
        shutdown.drain();
        tokio::time::timeout(Duration::from_secs(10), deadline.cancelled()).await.unwrap();
        assert!(began.elapsed() >= after);
    }
}
