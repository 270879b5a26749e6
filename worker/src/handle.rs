//! Settles jobs in MongoDB: one transaction per batch of orders, one per adjustment or restock. One attempt each;
//! whoever calls retries. Must never hold receipts, sleep or spawn.

use std::{collections::HashMap, time::Duration};

use jiff::Timestamp;
use shop_domain::{
    id::{AdjustmentId, OrderId, OutboxId},
    message::Message,
    order::{FailureClass, Status},
};
use shop_runtime::{
    clock::Clock,
    ids::{self, NoRandomness},
    trace,
};
use shop_store::{
    Store, StoreError,
    adjustments::{AdjustmentOutcome, AdjustmentStatus},
    orders::{LastFailure, OrderDocument, OrderView, Restock, Settlement},
    transaction::Transaction,
};

use crate::decide::{self, StockChange};

/// What became of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Processed,
    OutOfStock,
    /// An earlier delivery had settled it.
    AlreadySettled,
    Applied,
    Refused,
    Restocked,
    /// There is no such document.
    Unknown,
}

/// An order to be settled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placed {
    pub id: OrderId,
    /// The span that settles it, for the mail that follows (W3C Trace Context).
    pub traceparent: Option<String>,
}

/// A settled job, and its order as it is now.
#[derive(Debug, Clone)]
pub struct Handled {
    pub message: Message,
    pub verdict: Verdict,
    pub order: Option<OrderView>,
}

/// Why a job was not settled.
#[derive(Debug, thiserror::Error)]
pub enum HandleError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Random(#[from] NoRandomness),
    #[error("it took longer than {} s", .0.as_secs())]
    Overran(Duration),
}

impl HandleError {
    /// Whether MongoDB was away: nothing can be settled at present.
    pub fn is_outage(&self) -> bool {
        matches!(self, Self::Store(StoreError::Unavailable(_)))
    }

    /// What staff are told of it.
    pub fn class(&self) -> FailureClass {
        match self {
            Self::Store(StoreError::Unreadable(_)) => FailureClass::Unreadable,
            Self::Store(StoreError::Unavailable(_)) => FailureClass::StoreUnavailable,
            Self::Store(StoreError::Refused(_) | StoreError::WriteRefused { .. }) => FailureClass::StoreRefused,
            Self::Store(StoreError::Conflict(_) | StoreError::Stale { .. } | StoreError::Duplicate(_)) => {
                FailureClass::Conflict
            }
            Self::Overran(_) => FailureClass::Timeout,
            Self::Store(StoreError::InvalidUri) | Self::Random(_) => FailureClass::Internal,
        }
    }

    /// Whether the same attempt may succeed at once: somebody else was faster.
    pub fn is_conflict(&self) -> bool {
        // A ledger line that is there already means that another delivery has just committed.
        matches!(self, Self::Store(StoreError::Conflict(_) | StoreError::Stale { .. } | StoreError::Duplicate(_)))
    }
}

/// Settles jobs. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Handler {
    store: Store,
    clock: Clock,
}

impl Handler {
    pub fn new(store: Store, clock: Clock) -> Self {
        Self { store, clock }
    }

    /// Settles a batch of distinct orders together, in the order given.
    pub async fn orders(&self, placed: &[Placed]) -> Result<Vec<Handled>, HandleError> {
        let ids: Vec<OrderId> = placed.iter().map(|order| order.id.clone()).collect();
        let mut tx = self.store.begin().await?;
        let read = self.store.orders.read_in(&mut tx, &ids).await;
        let found: HashMap<OrderId, OrderDocument> = match read {
            Ok(orders) => orders.into_iter().map(|order| (order.id.clone(), order)).collect(),
            Err(error) => return abort(tx, error).await,
        };
        let pending = ids.iter().filter_map(|id| found.get(id)).filter(|order| order.status == Status::Pending);
        let pending: Vec<OrderDocument> = pending.cloned().collect();
        let settled = if pending.is_empty() {
            tx.abort().await;
            Vec::new()
        } else {
            match self.settle(&mut tx, pending, placed).await {
                Ok(settled) => tx.commit().await.map(|()| settled)?,
                Err(error) => return abort(tx, error).await,
            }
        };
        let settled: HashMap<_, _> = settled.into_iter().map(|order| (order.id.clone(), order)).collect();
        Ok(ids.iter().map(|id| handled(id, settled.get(id), found.get(id))).collect())
    }

    async fn settle(
        &self,
        tx: &mut Transaction,
        pending: Vec<OrderDocument>,
        placed: &[Placed],
    ) -> Result<Vec<OrderDocument>, HandleError> {
        let rows = pending.iter().flat_map(decide::ordered_rows);
        let stock = self.store.stock.levels_in(tx, rows).await?;
        let entries = (0..pending.len()).map(|_| Ok(OutboxId::from_bits(ids::random_bytes()?)));
        let entries = entries.collect::<Result<Vec<_>, NoRandomness>>()?;
        let mut plan = decide::orders(&pending, &stock, &entries, self.clock.now());
        for settlement in &mut plan.settlements {
            let cause = placed.iter().find(|order| order.id == settlement.id);
            trace(settlement, cause.and_then(|order| order.traceparent.as_ref()));
        }
        #[cfg(not(feature = "naive-allocation"))]
        self.move_stock(tx, &plan.stock).await?;
        self.store.orders.settle_in(tx, &plan.settlements).await?;
        // Last, so that a batch that has to begin again has taken no stock.
        #[cfg(feature = "naive-allocation")]
        crate::naive::overwrite_stock(&self.store, tx, (&stock, &plan.stock)).await?;
        let settled = pending.into_iter().zip(&plan.settlements).map(|(order, settlement)| order.settled(settlement));
        Ok(settled.collect())
    }

    /// Applies or refuses an adjustment.
    pub async fn adjustment(&self, id: &AdjustmentId) -> Result<Handled, HandleError> {
        let mut tx = self.store.begin().await?;
        let message = Message::StockAdjusted { adjustment_id: id.clone() };
        match self.adjust(&mut tx, id).await {
            Ok((verdict, Work::Done)) => {
                tx.commit().await?;
                Ok(Handled { message, verdict, order: None })
            }
            Ok((verdict, Work::None)) => {
                tx.abort().await;
                Ok(Handled { message, verdict, order: None })
            }
            Err(error) => abort(tx, error).await,
        }
    }

    async fn adjust(&self, tx: &mut Transaction, id: &AdjustmentId) -> Result<(Verdict, Work), HandleError> {
        let Some(wanted) = self.store.adjustments.read_in(tx, id).await? else {
            return Ok((Verdict::Unknown, Work::None));
        };
        if wanted.status != AdjustmentStatus::Pending {
            return Ok((Verdict::AlreadySettled, Work::None));
        }
        let now = self.clock.now();
        let stock = self.store.stock.levels_in(tx, decide::adjusted_rows(&wanted)).await?;
        let (outcome, change) = decide::adjustment(&wanted, &stock, now);
        self.move_stock(tx, &change).await?;
        self.store.adjustments.settle_in(tx, id, (&outcome, now)).await?;
        let verdict = match outcome {
            AdjustmentOutcome::Applied => Verdict::Applied,
            AdjustmentOutcome::Refused(_) => Verdict::Refused,
        };
        Ok((verdict, Work::Done))
    }

    /// Puts the stock of a cancelled order back, once.
    pub async fn restock(&self, id: &OrderId) -> Result<Handled, HandleError> {
        let mut tx = self.store.begin().await?;
        let message = Message::OrderCancelled { order_id: id.clone() };
        match self.put_back(&mut tx, id).await {
            Ok((order, verdict, Work::Done)) => {
                tx.commit().await?;
                Ok(Handled { message, verdict, order })
            }
            Ok((order, verdict, Work::None)) => {
                tx.abort().await;
                Ok(Handled { message, verdict, order })
            }
            Err(error) => abort(tx, error).await,
        }
    }

    async fn put_back(
        &self,
        tx: &mut Transaction,
        id: &OrderId,
    ) -> Result<(Option<OrderView>, Verdict, Work), HandleError> {
        let Some(order) = self.store.orders.read_in(tx, std::slice::from_ref(id)).await?.pop() else {
            return Ok((None, Verdict::Unknown, Work::None));
        };
        let view = Some(order.view());
        if order.status != Status::Cancelled || order.restock != Some(Restock::Owed) {
            return Ok((view, Verdict::AlreadySettled, Work::None));
        }
        let stock = self.store.stock.levels_in(tx, decide::ordered_rows(&order)).await?;
        self.move_stock(tx, &decide::restock(&order, &stock, self.clock.now())).await?;
        self.store.orders.record_restock_in(tx, id).await?;
        Ok((view, Verdict::Restocked, Work::Done))
    }

    /// Records that work could not be done until its last delivery, and why; false when it is done by now.
    pub async fn give_up(&self, message: &Message, failure: &LastFailure) -> Result<bool, HandleError> {
        Ok(match message {
            Message::OrderPlaced { order_id } => {
                let entry = OutboxId::from_bits(ids::random_bytes()?);
                let mut settlement = decide::gave_up(order_id.clone(), entry, failure.at);
                trace(&mut settlement, trace::current().as_ref());
                self.store.orders.give_up(&settlement, failure).await?
            }
            Message::OrderCancelled { order_id } => self.store.orders.record_failed_restock(order_id, failure).await?,
            Message::StockAdjusted { adjustment_id } => {
                self.store.adjustments.record_failure(adjustment_id, failure).await?
            }
        })
    }

    /// Records that an order's message was delivered more than once.
    pub async fn note_repeats(&self, id: &OrderId, deliveries: u32) -> Result<(), HandleError> {
        Ok(self.store.orders.record_deliveries(id, deliveries).await?)
    }

    /// The present time, for ages.
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    async fn move_stock(&self, tx: &mut Transaction, change: &StockChange) -> Result<(), StoreError> {
        self.store.stock.move_in(tx, &change.deltas).await?;
        self.store.stock.record_in(tx, &change.movements).await?;
        self.store.stock.mark_in(tx, &change.crossings).await
    }
}

/// The mails that follow belong to the trace of their cause.
fn trace(settlement: &mut Settlement, traceparent: Option<&String>) {
    for entry in &mut settlement.outbox {
        entry.traceparent = traceparent.cloned();
    }
}

/// Whether a transaction has anything to commit.
enum Work {
    Done,
    None,
}

async fn abort<T>(tx: Transaction, error: impl Into<HandleError>) -> Result<T, HandleError> {
    tx.abort().await;
    Err(error.into())
}

fn handled(id: &OrderId, settled: Option<&OrderDocument>, found: Option<&OrderDocument>) -> Handled {
    let verdict = match (settled.map(|order| order.status), found) {
        (Some(Status::Processed), _) => Verdict::Processed,
        (Some(_), _) => Verdict::OutOfStock,
        (None, Some(_)) => Verdict::AlreadySettled,
        (None, None) => Verdict::Unknown,
    };
    let order = settled.or(found).map(OrderDocument::view);
    Handled { message: Message::OrderPlaced { order_id: id.clone() }, verdict, order }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case(HandleError::Overran(Duration::from_secs(1)), FailureClass::Timeout)]
    #[case(StoreError::Stale { what: "orders" }.into(), FailureClass::Conflict)]
    #[case(StoreError::WriteRefused { code: 121, message: "secret".into() }.into(), FailureClass::StoreRefused)]
    #[case(StoreError::InvalidUri.into(), FailureClass::Internal)]
    fn staff_are_told_the_class_of_a_failure(#[case] error: HandleError, #[case] class: FailureClass) {
        assert_eq!(error.class(), class);
    }
}
