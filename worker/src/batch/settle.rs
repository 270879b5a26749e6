//! The jobs of a batch through the handler: all orders in one transaction, tried again when others were faster, and
//! one by one when that does not help.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use backon::{ExponentialBuilder, Retryable};
use shop_domain::message::Message;
use tracing::Instrument;

use super::{Workshop, sort::Job};
use crate::handle::{HandleError, Handled, Placed};

/// Tries of a whole batch that meets others on the same rows; after that its orders go one by one.
const BATCH_TRIES: usize = 6;

/// What became of each job; jobs that failed together share the failure.
pub type Settled = HashMap<Message, Result<Handled, Arc<HandleError>>>;

/// Fails the jobs that have no outcome.
pub fn fail_rest(settled: &mut Settled, jobs: &[Job], error: HandleError) {
    let error = Arc::new(error);
    for job in jobs {
        settled.entry(job.message.clone()).or_insert_with(|| Err(Arc::clone(&error)));
    }
}

impl Workshop {
    /// Puts the outcome of each job into `settled` as soon as there is one: what is committed counts, whatever comes next.
    pub(super) async fn settle(&self, jobs: &[Job], settled: &mut Settled) {
        let work = self.limits.simulated_work.of(jobs.iter().map(|job| &job.message));
        if !work.is_zero() {
            tokio::time::sleep(work).await;
        }
        let patience = self.patience(work);
        let placed: Vec<Placed> = jobs.iter().filter_map(placed).collect();
        self.settle_orders(&placed, settled, patience).await;
        for job in jobs {
            let span = job.span.clone();
            let outcome = match &job.message {
                Message::OrderPlaced { .. } => continue,
                Message::OrderCancelled { order_id } => {
                    self.persist(patience, || self.handler.restock(order_id)).instrument(span).await
                }
                Message::StockAdjusted { adjustment_id } => {
                    self.persist(patience, || self.handler.adjustment(adjustment_id)).instrument(span).await
                }
            };
            settled.insert(job.message.clone(), outcome.map_err(Arc::new));
        }
    }

    async fn settle_orders(&self, placed: &[Placed], settled: &mut Settled, patience: Instant) {
        if placed.is_empty() {
            return;
        }
        self.metrics.batch.observe(u32::try_from(placed.len()).map_or(f64::INFINITY, f64::from));
        let pauses = pauses().with_max_times(BATCH_TRIES);
        match self.retried(pauses, patience, || self.handler.orders(placed)).await {
            Ok(handled) => settled.extend(handled.into_iter().map(|handled| (handled.message.clone(), Ok(handled)))),
            Err(error) if error.is_outage() => {
                let error = Arc::new(error);
                settled.extend(placed.iter().map(|order| (message(order), Err(Arc::clone(&error)))));
            }
            Err(_) => self.settle_singly(placed, settled, patience).await,
        }
    }

    /// Finds out which order of a batch is the one that fails.
    async fn settle_singly(&self, placed: &[Placed], settled: &mut Settled, patience: Instant) {
        for order in placed {
            match self.persist(patience, || self.handler.orders(std::slice::from_ref(order))).await {
                Ok(handled) => {
                    settled.extend(handled.into_iter().map(|handled| (handled.message.clone(), Ok(handled))));
                }
                Err(error) => {
                    settled.insert(message(order), Err(Arc::new(error)));
                }
            }
        }
    }

    /// Until when a batch waits for others: half of its time, so that the rest is left for one attempt at each job.
    fn patience(&self, worked: Duration) -> Instant {
        Instant::now() + self.limits.max_processing.saturating_sub(worked) / 2
    }

    /// Tries again while somebody else is faster, for as long as the batch has patience: a conflict says that others get
    /// on, so the message's turn comes, and giving it back would only cost it a delivery.
    async fn persist<T, F: Future<Output = Result<T, HandleError>>>(
        &self,
        patience: Instant,
        attempt: impl FnMut() -> F,
    ) -> Result<T, HandleError> {
        self.retried(pauses().without_max_times(), patience, attempt).await
    }

    async fn retried<T, F: Future<Output = Result<T, HandleError>>>(
        &self,
        pauses: ExponentialBuilder,
        patience: Instant,
        attempt: impl FnMut() -> F,
    ) -> Result<T, HandleError> {
        attempt
            .retry(pauses)
            .when(|error| error.is_conflict() && Instant::now() < patience)
            .notify(|_, _| {
                self.metrics.retries.inc();
            })
            .await
    }
}

/// Growing random pauses, so that those who met do not meet again.
fn pauses() -> ExponentialBuilder {
    ExponentialBuilder::default()
        .with_min_delay(Duration::from_millis(5))
        .with_max_delay(Duration::from_millis(200))
        .with_jitter()
}

fn placed(job: &Job) -> Option<Placed> {
    match &job.message {
        Message::OrderPlaced { order_id } => {
            Some(Placed { id: order_id.clone(), traceparent: Some(job.context.to_string()) })
        }
        Message::OrderCancelled { .. } | Message::StockAdjusted { .. } => None,
    }
}

fn message(order: &Placed) -> Message {
    Message::OrderPlaced { order_id: order.id.clone() }
}

#[cfg(test)]
mod tests {
    use shop_domain::id::OrderId;

    use super::*;
    use crate::{delivery::tests::delivery, handle::Verdict};

    #[test]
    fn an_overrun_fails_only_what_is_not_settled() {
        let [done, open] = [[1; 12], [2; 12]].map(|bits| Message::OrderPlaced { order_id: OrderId::from_bits(bits) });
        let job = |message: &Message| Job::new(message.clone(), delivery("", 1));
        let handled = Handled { message: done.clone(), verdict: Verdict::Processed, order: None };
        let mut settled = Settled::from([(done.clone(), Ok(handled))]);
        fail_rest(&mut settled, &[job(&done), job(&open)], HandleError::Overran(Duration::from_secs(1)));
        assert!(matches!(&settled[&done], Ok(Handled { verdict: Verdict::Processed, .. })));
        assert!(matches!(&settled[&open], Err(error) if matches!(**error, HandleError::Overran(_))));
    }
}
