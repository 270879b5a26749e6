//! The receipts of a batch that are still ours. They are kept hidden while the batch is in work; one that the queue
//! no longer knows is neither extended, deleted nor given back.

use std::convert::Infallible;

use shop_runtime::telemetry::chain;

use super::Workshop;
use crate::delivery::{CLAIM, Delivery, Receipt};

/// Receipts of messages that are neither deleted, given back nor lost.
#[derive(Debug)]
pub struct Holding(Vec<Receipt>);

impl Holding {
    pub fn of(deliveries: &[Delivery]) -> Self {
        Self(deliveries.iter().map(|delivery| delivery.receipt.clone()).collect())
    }

    pub fn all(&self) -> &[Receipt] {
        &self.0
    }

    /// Those of `receipts` that are still ours.
    pub fn ours(&self, receipts: &[Receipt]) -> Vec<Receipt> {
        receipts.iter().filter(|receipt| self.0.contains(receipt)).cloned().collect()
    }

    /// These are ours no longer.
    pub fn release(&mut self, receipts: &[Receipt]) {
        self.0.retain(|receipt| !receipts.contains(receipt));
    }
}

impl Workshop {
    /// Keeps the messages hidden for as long as it is polled: first for what a receive hides them, then for the
    /// visibility. After a request that failed the next one comes soon.
    pub(super) async fn keep_hidden(&self, held: &mut Holding) -> Infallible {
        let mut hidden = CLAIM.min(self.inbox.visibility());
        let mut pause = hidden / 3;
        loop {
            tokio::time::sleep(pause).await;
            pause = match tokio::time::timeout(hidden / 3, self.inbox.extend(held.all())).await {
                Ok(Ok(lost)) => {
                    self.lose(held, &lost);
                    hidden = self.inbox.visibility();
                    hidden / 3
                }
                Ok(Err(error)) => {
                    tracing::warn!(error = chain(&error), "cannot extend the messages in work; they may come twice");
                    hidden / 12
                }
                Err(_) => {
                    tracing::warn!("SQS is too slow to extend the messages in work; they may come twice");
                    hidden / 12
                }
            };
        }
    }

    /// The work on them may finish: what another worker settles first, or second, is settled once.
    fn lose(&self, held: &mut Holding, lost: &[Receipt]) {
        if !lost.is_empty() {
            tracing::warn!(messages = lost.len(), "messages in work were lost: the queue has given them to others");
            self.metrics.lost.inc_by(lost.len() as u64);
            held.release(lost);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::delivery::tests::delivery;

    #[test]
    fn what_is_released_is_ours_no_longer() {
        let deliveries = [delivery("a", 1), delivery("b", 2), delivery("c", 3)];
        let [a, b, c] = deliveries.clone().map(|delivery| delivery.receipt);
        let mut held = Holding::of(&deliveries);
        held.release(std::slice::from_ref(&b));
        assert_eq!(held.all(), [a.clone(), c.clone()]);
        assert_eq!(held.ours(&[b, c.clone()]), [c]);
    }
}
