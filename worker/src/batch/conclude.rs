//! What follows from a settled batch: the cache, the receipts, the counters, and what a failure costs.

use std::{sync::Arc, time::Duration};

use futures::{StreamExt, future::join_all, stream::FuturesUnordered};
use shop_domain::message::Message;
use shop_runtime::telemetry::chain;
use shop_store::orders::OrderView;

use super::{
    Workshop,
    hold::Holding,
    settle::{Settled, fail_rest},
    sort::Job,
};
use crate::{
    delivery::{Delivery, Receipt, back_off},
    handle::{HandleError, Handled, Verdict},
    metrics::Outcome,
};

/// What is only noted in MongoDB may take so long, lest a server that hangs holds up the messages.
const NOTE: Duration = Duration::from_secs(5);

impl Workshop {
    /// Deletes what is settled, each message after `service` of work, and gives the rest back. A message is released
    /// and counted when its end is certain: whoever cuts this short hands back exactly the others.
    pub(super) async fn conclude(&self, jobs: &[Job], settled: Settled, (held, service): (&mut Holding, Duration)) {
        let Ends { done, failed, orders } = ends(jobs, settled);
        join_all(orders.iter().map(|order| self.cache.put(order))).await;
        let receipts: Vec<Receipt> = done.iter().flat_map(|(job, _)| held.ours(&job.receipts)).collect();
        self.inbox.delete(&receipts).await;
        self.activity.complete(receipts.len(), service);
        for (job, outcome) in done {
            self.note(job, outcome, held.ours(&job.receipts).len());
        }
        held.release(&receipts);
        let mut failing: FuturesUnordered<_> =
            failed.iter().map(|(job, error)| self.fail(job, error.as_deref(), held.ours(&job.receipts))).collect();
        while let Some(given_back) = failing.next().await {
            held.release(&given_back);
        }
        join_all(jobs.iter().map(|job| self.note_repeats(job))).await;
    }

    /// Fails what could not be settled in time. MongoDB may hang: it must answer before anything more is received.
    pub(super) fn overran(&self, jobs: &[Job], settled: &mut Settled) {
        let seconds = self.limits.max_processing.as_secs();
        tracing::error!(seconds, jobs = jobs.len(), "a batch took longer than SHOP_WORKER_MAX_PROCESSING_SECONDS");
        self.gate.close();
        fail_rest(settled, jobs, HandleError::Overran(self.limits.max_processing));
    }

    /// Leaves messages that are not of this shop to the dead letters.
    pub(super) async fn reject(&self, strangers: &[Delivery], held: &mut Holding) {
        for stranger in strangers {
            let receipt = std::slice::from_ref(&stranger.receipt);
            tracing::error!(
                message_id = stranger.id,
                receive_count = stranger.receive_count,
                "a message cannot be read; after its last delivery it is among the dead letters"
            );
            self.inbox.give_back(&held.ours(receipt), self.delay(stranger.receive_count)).await;
            self.metrics.count(Outcome::Unparseable, 1);
            held.release(receipt);
        }
    }

    /// Gives the receipts of a job back, and returns them.
    async fn fail(&self, job: &Job, error: Option<&HandleError>, receipts: Vec<Receipt>) -> Vec<Receipt> {
        let id = job.message.group();
        match error {
            Some(error) if error.is_outage() => self.gate.close(),
            Some(error) => {
                tracing::error!(id, receive_count = job.receive_count, error = chain(error), "a job failed");
                if job.receive_count >= self.limits.max_receive_count {
                    self.record_last_failure(&job.message).await;
                }
            }
            None => {
                tracing::error!(id, receive_count = job.receive_count, "a message names a document that is not there");
            }
        }
        self.inbox.give_back(&receipts, self.delay(job.receive_count)).await;
        let outcome = if error.is_some() { Outcome::Failed } else { Outcome::Unknown };
        self.metrics.count(outcome, receipts.len());
        receipts
    }

    /// The queue moves the message to its dead letters next: the buyer must hear of it.
    async fn record_last_failure(&self, message: &Message) {
        let Message::OrderPlaced { order_id } = message else { return };
        match in_time(self.handler.give_up(order_id)).await {
            Ok(true) => tracing::error!(%order_id, "the order failed with its last delivery"),
            Ok(false) => {}
            Err(error) => tracing::error!(%order_id, error = chain(&error), "the order's failure is not recorded"),
        }
    }

    async fn note_repeats(&self, job: &Job) {
        let (Message::OrderPlaced { order_id } | Message::OrderCancelled { order_id }) = &job.message else { return };
        if job.receive_count > 1
            && let Err(error) = in_time(self.handler.note_repeats(order_id, job.receive_count)).await
        {
            tracing::debug!(%order_id, error = chain(&error), "the number of deliveries is not recorded");
        }
    }

    /// After the last delivery a message goes to the dead letters as soon as it is visible: no reason to wait.
    fn delay(&self, receive_count: u32) -> Duration {
        if receive_count >= self.limits.max_receive_count { Duration::ZERO } else { back_off(receive_count) }
    }

    fn note(&self, job: &Job, outcome: Outcome, messages: usize) {
        self.metrics.count(outcome, messages);
        if let Some(sent_at) = job.sent_at {
            self.metrics.age.observe(self.handler.now().duration_since(sent_at).as_secs_f64().max(0.0));
        }
    }
}

/// The jobs of a batch by how they ended.
#[derive(Default)]
struct Ends<'a> {
    done: Vec<(&'a Job, Outcome)>,
    /// Without an error where there is no such document.
    failed: Vec<(&'a Job, Option<Arc<HandleError>>)>,
    /// As they are now.
    orders: Vec<OrderView>,
}

fn ends(jobs: &[Job], mut settled: Settled) -> Ends<'_> {
    let mut ends = Ends::default();
    for job in jobs {
        match settled.remove(&job.message) {
            Some(Ok(Handled { verdict: Verdict::Unknown, .. })) | None => ends.failed.push((job, None)),
            Some(Ok(handled)) => {
                ends.done.push((job, outcome(handled.verdict)));
                ends.orders.extend(handled.order);
            }
            Some(Err(error)) => ends.failed.push((job, Some(error))),
        }
    }
    ends
}

async fn in_time<T>(note: impl Future<Output = Result<T, HandleError>>) -> Result<T, HandleError> {
    tokio::time::timeout(NOTE, note).await.unwrap_or(Err(HandleError::Overran(NOTE)))
}

fn outcome(verdict: Verdict) -> Outcome {
    match verdict {
        Verdict::Processed => Outcome::Processed,
        Verdict::OutOfStock => Outcome::OutOfStock,
        Verdict::AlreadySettled => Outcome::AlreadySettled,
        Verdict::Applied => Outcome::Applied,
        Verdict::Refused => Outcome::Refused,
        Verdict::Restocked => Outcome::Restocked,
        Verdict::Unknown => Outcome::Unknown,
    }
}
