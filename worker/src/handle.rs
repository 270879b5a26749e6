//! Settles jobs in MongoDB: one transaction per batch of orders, one per adjustment or restock. One attempt each;
//! whoever calls retries. Must never hold receipts, sleep or spawn.

use std::{collections::HashMap, time::Duration};

use jiff::Timestamp;
use shop_domain::{
    id::{AdjustmentId, OrderId, OutboxId},
    message::Message,
    order::Status,
};
use shop_runtime::{
    clock::Clock,
    ids::{self, NoRandomness},
};
use shop_store::{
    Store, StoreError,
    adjustments::{AdjustmentOutcome, AdjustmentStatus},
    orders::{OrderDocument, OrderView, Restock},
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
    pub async fn orders(&self, ids: &[OrderId]) -> Result<Vec<Handled>, HandleError> {
        let mut tx = self.store.begin().await?;
        let read = self.store.orders.read_in(&mut tx, ids).await;
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
            match self.settle(&mut tx, pending).await {
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
    ) -> Result<Vec<OrderDocument>, HandleError> {
        let rows = pending.iter().flat_map(decide::ordered_rows);
        let stock = self.store.stock.levels_in(tx, rows).await?;
        let entries = (0..pending.len()).map(|_| Ok(OutboxId::from_bits(ids::random_bytes()?)));
        let entries = entries.collect::<Result<Vec<_>, NoRandomness>>()?;
        let plan = decide::orders(&pending, &stock, &entries, self.clock.now());
        #[cfg(not(feature = "naive-allocation"))]
        self.move_stock(tx, &plan.stock).await?;
        #[cfg(feature = "naive-allocation")]
        crate::naive::overwrite_stock(&self.store, tx, (&stock, &plan.stock)).await?;
        self.store.orders.settle_in(tx, &plan.settlements).await?;
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

    /// Records that an order could not be handled, unless it is settled by now.
    pub async fn give_up(&self, id: &OrderId) -> Result<bool, HandleError> {
        let entry = OutboxId::from_bits(ids::random_bytes()?);
        let settlement = decide::gave_up(id.clone(), entry, self.clock.now());
        Ok(self.store.orders.settle(&settlement).await?)
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
