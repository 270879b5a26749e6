//! Sends what the outboxes owe the queue: the acceptor's own entries at once, overdue ones whoever takes them first.
//! Knows nothing of HTTP and nothing of what an order means.

mod metrics;
mod pace;
mod send;

use std::{sync::Arc, time::Duration};

use backon::{ExponentialBuilder, Retryable};
use jiff::{SignedDuration, Timestamp};
use shop_domain::id::ClaimId;
use shop_runtime::{
    clock::Clock,
    ids::{self, NoRandomness},
    metrics::Metrics,
    queue::Queue,
    shutdown::Shutdown,
    telemetry::chain,
};
use shop_store::{
    StoreError,
    gate::Gate,
    outbox::{Outbox, PendingSend, Taking},
};
use tokio::sync::{Semaphore, mpsc};
use tokio_util::sync::CancellationToken;

use self::{metrics::RelayMetrics, pace::Pace};

/// Entries that wait in memory for the direct way; what does not fit is found by the poller 5 s later.
const WAITING: usize = 4_096;
/// Entries of one `SendMessageBatch`, as SQS limits it.
const BATCH: usize = 10;
/// Batches under way at once.
const AT_ONCE: usize = 4;
/// How long an incomplete batch waits for more, when there is much to send.
const LINGER: Duration = Duration::from_millis(200);
/// Documents looked at in one round of the poller, and how long their entries are ours.
const ROUND: i64 = 100;
const LEASE: SignedDuration = SignedDuration::from_secs(30);

/// What the relay works with.
#[derive(Debug, Clone)]
pub struct RelayDeps {
    pub outbox: Outbox,
    pub gate: Gate,
    pub queue: Queue,
    pub clock: Clock,
    pub shutdown: Shutdown,
    pub metrics: Metrics,
}

/// The way in for whoever has just stored an entry under their own claim.
#[derive(Debug, Clone)]
pub struct RelayHandle(mpsc::Sender<PendingSend>);

impl RelayHandle {
    /// Hands an entry over. Never waits: an entry that finds no room is sent by the poller when its lease is over.
    pub fn offer(&self, entry: PendingSend) {
        if self.0.try_send(entry).is_err() {
            tracing::debug!("relay is full, the entry waits for the poller");
        }
    }
}

/// Starts the direct sender and the poller.
pub fn spawn(deps: RelayDeps) -> RelayHandle {
    let (sender, receiver) = mpsc::channel(WAITING);
    let shutdown = deps.shutdown.clone();
    let relay = Relay { metrics: RelayMetrics::register(&deps.metrics), deps };
    // Not waited for: what is not sent when the process ends is in the outbox.
    shutdown.spawn_detached(relay.clone().send_offered(receiver));
    shutdown.spawn(relay.poll());
    RelayHandle(sender)
}

#[derive(Clone)]
struct Relay {
    deps: RelayDeps,
    metrics: RelayMetrics,
}

#[derive(Debug, thiserror::Error)]
enum RelayError {
    #[error("cannot take overdue entries")]
    Take(#[from] StoreError),
    #[error(transparent)]
    Random(#[from] NoRandomness),
    #[error("the clock is out of range")]
    Clock(#[from] jiff::Error),
}

impl Relay {
    async fn send_offered(self, mut offered: mpsc::Receiver<PendingSend>) {
        let permits = Arc::new(Semaphore::new(AT_ONCE));
        let mut pace = Pace::default();
        while let Some(first) = offered.recv().await {
            let mut batch = vec![first];
            pace.note(self.deps.clock.now());
            let deadline = tokio::time::Instant::now() + LINGER;
            while batch.len() < BATCH {
                let next = if pace.is_busy(self.deps.clock.now()) {
                    tokio::time::timeout_at(deadline, offered.recv()).await.ok().flatten()
                } else {
                    offered.try_recv().ok()
                };
                let Some(next) = next else { break };
                pace.note(self.deps.clock.now());
                batch.push(next);
            }
            let Ok(permit) = permits.clone().acquire_owned().await else { return };
            let relay = self.clone();
            self.deps.shutdown.spawn(async move {
                relay.dispatch(batch).await;
                drop(permit);
            });
        }
    }

    async fn poll(self) {
        let draining = self.deps.shutdown.draining();
        while draining.run_until_cancelled(tokio::time::sleep(pace::poll_interval())).await.is_some() {
            if let Err(error) = self.send_overdue(&draining).await {
                tracing::warn!(error = chain(&error), "outbox poll failed, trying again");
            }
        }
    }

    /// Sends until nothing is overdue, until the queue does not answer, or until the process must leave: the rest is then
    /// sent when its lease is over.
    async fn send_overdue(&self, draining: &CancellationToken) -> Result<(), RelayError> {
        while !draining.is_cancelled() {
            let taken = self.take_overdue().await?;
            if taken.is_empty() {
                break;
            }
            tracing::info!(entries = taken.len(), "sending overdue outbox entries");
            let mut rest = taken.as_slice();
            while !rest.is_empty() && !draining.is_cancelled() {
                let (batch, later) = rest.split_at(rest.len().min(BATCH));
                rest = later;
                if !self.dispatch(batch.to_vec()).await {
                    // Each of the others would wait as long to find the same.
                    self.postpone(rest, pace::away_until(self.deps.clock.now())).await;
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    async fn take_overdue(&self) -> Result<Vec<PendingSend>, RelayError> {
        let now = self.deps.clock.now();
        let claim = ClaimId::from_bits(ids::random_bytes()?);
        let taking = Taking { claim, now, until: now.checked_add(LEASE)?, limit: ROUND };
        let taken = self.deps.gate.guard(self.deps.outbox.take_sends(&taking)).await;
        if taken.is_err() {
            self.release(&taking).await;
        }
        Ok(taken?)
    }

    /// The entries may have been taken, and only the answer got lost: they are not to wait until the lease is over.
    async fn release(&self, taking: &Taking) {
        let draining = self.deps.shutdown.draining();
        while let Err(error) = self.deps.gate.guard(self.deps.outbox.release(taking)).await {
            let pause = draining.run_until_cancelled(tokio::time::sleep(pace::poll_interval()));
            if !error.is_transient() || pause.await.is_none() {
                tracing::warn!(error = chain(&error), "entries that were taken in vain keep their lease");
                return;
            }
        }
    }

    /// Sends one batch; removes what the queue took and leaves the rest for later. Whether the queue answered.
    async fn dispatch(&self, batch: Vec<PendingSend>) -> bool {
        let report = send::send(&self.deps.queue, batch).await;
        self.metrics.count(&report);
        if let Some(error) = &report.error {
            tracing::warn!(error = error.as_str(), entries = report.unsent.len(), "queue did not take outbox entries");
        }
        let Self { deps: RelayDeps { outbox, gate, .. }, .. } = self;
        let remove = || gate.guard(outbox.remove(&report.sent));
        if let Err(error) = remove.retry(while_leased()).when(StoreError::is_transient).await {
            // They are sent again when their lease is over; the worker settles an order once.
            tracing::warn!(error = chain(&error), entries = report.sent.len(), "sent entries stay in the outbox");
        }
        let now = self.deps.clock.now();
        if report.is_away {
            self.postpone(&report.unsent, pace::away_until(now)).await;
        }
        for refused in report.unsent.iter().filter(|_| !report.is_away) {
            self.postpone(std::slice::from_ref(refused), pace::retry_at(now, refused.attempts)).await;
        }
        !report.is_away
    }

    async fn postpone(&self, unsent: &[PendingSend], due_at: Timestamp) {
        if let Err(error) = self.deps.gate.guard(self.deps.outbox.postpone(unsent, due_at)).await {
            tracing::debug!(error = chain(&error), entries = unsent.len(), "unsent entries keep their lease");
        }
    }
}

/// Removing is idempotent: it is tried again, from 100 ms up to 2 s apart, for as long as the entries may be ours.
fn while_leased() -> ExponentialBuilder {
    ExponentialBuilder::default()
        .with_min_delay(Duration::from_millis(100))
        .with_max_delay(Duration::from_secs(2))
        .without_max_times()
        .with_total_delay(Some(LEASE.unsigned_abs()))
}
