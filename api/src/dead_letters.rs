//! Work that was given up: shows it, puts it on its outbox anew, and has the queue bring its dead letters back.
//! Knows nothing of HTTP and nothing of what an order means.

use aws_sdk_sqs::types::QueueAttributeName;
use futures::{StreamExt, stream};
use serde::Deserialize;
use shop_domain::{
    id::{AdjustmentId, OrderId, OutboxId},
    message::Message,
};
use shop_runtime::{
    clock::Clock,
    ids::{self, NoRandomness},
    queue::{Queue, QueueError},
    telemetry::chain,
    trace,
};
use shop_store::{
    Store, StoreError,
    order_cache::OrderCache,
    orders::Viewer,
    outbox::{OutboxEntry, OutboxKind},
};

use crate::service::page;

pub use shop_store::dead_letters::{DeadCause, DeadLetter, DeadPosition};

/// How many are taken up again in one write.
const BATCH: i64 = 200;
/// How many orders are read at once to tell the caches of them.
const AT_ONCE: usize = 8;

/// What is to be taken up again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    Order(OrderId),
    Adjustment(AdjustmentId),
    /// Everything, and what is in the queue's dead letters.
    All,
}

/// What was started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Redriven {
    pub orders: u64,
    pub adjustments: u64,
    pub move_task: Option<MoveTask>,
}

/// What became of the wish to move the queue's dead letters back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MoveTask {
    Started,
    /// The queue keeps no dead letters.
    NoDeadLetterQueue,
    /// The queue did not start it; why is in the log. One may be running already.
    NotStarted,
}

#[derive(Debug, thiserror::Error)]
pub enum RedriveError {
    #[error("there is no such order or adjustment")]
    Unknown,
    #[error("it was not given up")]
    NotRedrivable,
    #[error("cannot read or write the dead letters")]
    Store(#[from] StoreError),
    #[error(transparent)]
    Random(#[from] NoRandomness),
}

/// Why the queue's dead letters are not moved.
#[derive(Debug, thiserror::Error)]
enum MoveError {
    #[error(transparent)]
    Queue(#[from] QueueError),
    #[error("the queue does not tell where its dead letters are")]
    Attributes(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("the queue did not start to move its dead letters")]
    Start(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// What the dead letters are read and revived with. Cheap to clone.
#[derive(Debug, Clone)]
pub struct DeadLetters {
    pub store: Store,
    pub cache: OrderCache,
    pub queue: Queue,
    pub clock: Clock,
}

impl DeadLetters {
    /// A page of dead letters, and where the next one begins.
    pub async fn list(
        &self,
        after: Option<&DeadPosition>,
        limit: i64,
    ) -> Result<(Vec<DeadLetter>, Option<DeadPosition>), StoreError> {
        let mut letters = self.store.dead_letters.list(after, page::asked(limit)).await?;
        let next = page::cut(&mut letters, limit, DeadPosition::after);
        Ok((letters, next))
    }

    /// Takes up again what was given up. Idempotent: what is no longer dead is left alone.
    pub async fn redrive(&self, target: &Target) -> Result<Redriven, RedriveError> {
        let redriven = match target {
            Target::Order(id) => {
                let letter = self.store.dead_letters.of_order(id.as_str()).await?;
                let known = letter.is_some() || !self.store.orders.versions(std::slice::from_ref(id)).await?.is_empty();
                self.one(letter, known).await?
            }
            Target::Adjustment(id) => {
                let letter = self.store.dead_letters.of_adjustment(id.as_str()).await?;
                let known = letter.is_some() || self.store.adjustments.find(id).await?.is_some();
                self.one(letter, known).await?
            }
            // The orders first: a message that comes back then finds its order pending.
            Target::All => {
                let revived = self.all().await?;
                Redriven { move_task: Some(self.move_back().await), ..revived }
            }
        };
        let Redriven { orders, adjustments, .. } = redriven;
        tracing::info!(orders, adjustments, "dead letters are taken up again");
        Ok(redriven)
    }

    async fn one(&self, letter: Option<DeadLetter>, known: bool) -> Result<Redriven, RedriveError> {
        let missing = if known { RedriveError::NotRedrivable } else { RedriveError::Unknown };
        let redriven = self.revive(vec![letter.ok_or(missing)?]).await?;
        // Somebody else was faster: it is being worked on.
        if redriven.orders + redriven.adjustments == 0 { Err(RedriveError::NotRedrivable) } else { Ok(redriven) }
    }

    async fn all(&self) -> Result<Redriven, RedriveError> {
        let (mut orders, mut adjustments) = (0, 0);
        let mut after = None;
        loop {
            let letters = self.store.dead_letters.list(after.as_ref(), BATCH).await?;
            let Some(last) = letters.last() else { break };
            after = Some(DeadPosition::after(last));
            let revived = self.revive(letters).await?;
            orders += revived.orders;
            adjustments += revived.adjustments;
        }
        Ok(Redriven { orders, adjustments, move_task: None })
    }

    async fn revive(&self, letters: Vec<DeadLetter>) -> Result<Redriven, RedriveError> {
        let now = self.clock.now();
        let entry = |letter: DeadLetter| {
            let id = OutboxId::from_bits(ids::random_bytes()?);
            let entry = OutboxEntry::due(id, OutboxKind::from(&letter.message), now).caused_by(trace::current());
            Ok((letter, entry))
        };
        let work = letters.into_iter().map(entry).collect::<Result<Vec<_>, NoRandomness>>()?;
        let (orders, adjustments) = self.store.dead_letters.redrive(&work, now).await?;
        let reopened = work.iter().filter_map(|(letter, _)| match &letter.message {
            Message::OrderPlaced { order_id } => Some(order_id.clone()),
            Message::OrderCancelled { .. } | Message::StockAdjusted { .. } => None,
        });
        stream::iter(reopened).for_each_concurrent(AT_ONCE, |id| self.tell_caches(id)).await;
        Ok(Redriven { orders, adjustments, move_task: None })
    }

    /// Best effort: the caches would show the order as failed for some minutes.
    async fn tell_caches(&self, id: OrderId) {
        match self.store.orders.find(&id, &Viewer::Staff).await {
            Ok(order) => {
                if let Some(order) = order {
                    self.cache.put(&order.view()).await;
                }
            }
            Err(error) => tracing::warn!(order = %id, error = chain(&error), "a reopened order cannot be read"),
        }
    }

    async fn move_back(&self) -> MoveTask {
        match self.start_moving().await {
            Ok(task) => task,
            Err(error) => {
                tracing::error!(error = chain(&error), "the queue's dead letters are not moved back");
                MoveTask::NotStarted
            }
        }
    }

    async fn start_moving(&self) -> Result<MoveTask, MoveError> {
        let Some(source) = self.dead_letter_queue().await? else { return Ok(MoveTask::NoDeadLetterQueue) };
        let started = self.queue.client().start_message_move_task().source_arn(source).send().await;
        started.map_err(|error| MoveError::Start(error.into()))?;
        Ok(MoveTask::Started)
    }

    /// The ARN of the queue's dead-letter queue, as its redrive policy says.
    async fn dead_letter_queue(&self) -> Result<Option<String>, MoveError> {
        let name = QueueAttributeName::RedrivePolicy;
        let request = self.queue.client().get_queue_attributes().queue_url(self.queue.url().await?);
        let answer = request.attribute_names(name.clone()).send().await;
        let answer = answer.map_err(|error| MoveError::Attributes(error.into()))?;
        let policy = answer.attributes().and_then(|all| all.get(&name)).filter(|policy| !policy.is_empty());
        policy.map(|policy| source_of(policy)).transpose()
    }
}

fn source_of(policy: &str) -> Result<String, MoveError> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct RedrivePolicy {
        dead_letter_target_arn: String,
    }
    let policy = serde_json::from_str::<RedrivePolicy>(policy);
    policy.map(|policy| policy.dead_letter_target_arn).map_err(|error| MoveError::Attributes(error.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_source_stands_in_the_redrive_policy() {
        let policy = r#"{"deadLetterTargetArn":"arn:aws:sqs:x:1:orders-dead","maxReceiveCount":"10"}"#;
        assert_eq!(source_of(policy).unwrap(), "arn:aws:sqs:x:1:orders-dead");
        assert!(matches!(source_of("{}"), Err(MoveError::Attributes(_))));
    }
}
