//! The jobs of a batch through the handler: all orders in one transaction, tried again when others were faster, and
//! one by one when that does not help.

use std::{collections::HashMap, sync::Arc, time::Duration};

use backon::{ExponentialBuilder, Retryable};
use shop_domain::{id::OrderId, message::Message};

use super::{Workshop, sort::Job};
use crate::handle::{HandleError, Handled};

/// Tries of a whole batch that meets others on the same rows; after that its orders go one by one.
const BATCH_TRIES: usize = 6;

/// What became of each job; jobs that failed together share the failure.
pub type Settled = HashMap<Message, Result<Handled, Arc<HandleError>>>;

impl Workshop {
    pub(super) async fn settle(&self, jobs: &[Job]) -> Settled {
        if !self.limits.simulated_work.is_zero() {
            tokio::time::sleep(self.limits.simulated_work).await;
        }
        let placed: Vec<OrderId> = jobs.iter().filter_map(|job| placed(&job.message)).collect();
        let mut settled = self.settle_orders(&placed).await;
        for job in jobs {
            let outcome = match &job.message {
                Message::OrderPlaced { .. } => continue,
                Message::OrderCancelled { order_id } => self.persist(|| self.handler.restock(order_id)).await,
                Message::StockAdjusted { adjustment_id } => {
                    self.persist(|| self.handler.adjustment(adjustment_id)).await
                }
            };
            settled.insert(job.message.clone(), outcome.map_err(Arc::new));
        }
        settled
    }

    async fn settle_orders(&self, ids: &[OrderId]) -> Settled {
        if ids.is_empty() {
            return Settled::new();
        }
        self.metrics.batch.observe(u32::try_from(ids.len()).map_or(f64::INFINITY, f64::from));
        let together = self.retried(pauses().with_max_times(BATCH_TRIES), || self.handler.orders(ids));
        match together.await {
            Ok(handled) => handled.into_iter().map(|handled| (handled.message.clone(), Ok(handled))).collect(),
            Err(error) if error.is_outage() => {
                let error = Arc::new(error);
                ids.iter().map(|id| (message(id), Err(Arc::clone(&error)))).collect()
            }
            Err(_) => self.settle_singly(ids).await,
        }
    }

    /// Finds out which order of a batch is the one that fails.
    async fn settle_singly(&self, ids: &[OrderId]) -> Settled {
        let mut settled = Settled::new();
        for id in ids {
            let single = self.persist(|| self.handler.orders(std::slice::from_ref(id))).await;
            match single {
                Ok(handled) => {
                    settled.extend(handled.into_iter().map(|handled| (handled.message.clone(), Ok(handled))));
                }
                Err(error) => {
                    settled.insert(message(id), Err(Arc::new(error)));
                }
            }
        }
        settled
    }

    /// Tries again while somebody else is faster, for half of the time that a message may take: a conflict says that
    /// others get on, so the message's turn comes, and giving it back would only cost it a delivery.
    async fn persist<T, F: Future<Output = Result<T, HandleError>>>(
        &self,
        attempt: impl FnMut() -> F,
    ) -> Result<T, HandleError> {
        let patience = self.limits.max_processing / 2;
        self.retried(pauses().without_max_times().with_total_delay(Some(patience)), attempt).await
    }

    async fn retried<T, F: Future<Output = Result<T, HandleError>>>(
        &self,
        pauses: ExponentialBuilder,
        attempt: impl FnMut() -> F,
    ) -> Result<T, HandleError> {
        attempt
            .retry(pauses)
            .when(HandleError::is_conflict)
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

fn placed(message: &Message) -> Option<OrderId> {
    match message {
        Message::OrderPlaced { order_id } => Some(order_id.clone()),
        Message::OrderCancelled { .. } | Message::StockAdjusted { .. } => None,
    }
}

fn message(id: &OrderId) -> Message {
    Message::OrderPlaced { order_id: id.clone() }
}
