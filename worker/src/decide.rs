//! What a batch of orders or an adjustment changes: computed from what was read, without IO.

use std::collections::BTreeMap;

use jiff::Timestamp;
use shop_domain::{
    id::{OrderId, OutboxId},
    order::Status,
    stock::{self, Outcome, Stock, StockKey},
};
use shop_store::{
    adjustments::{AdjustmentDocument, AdjustmentOutcome},
    orders::{OrderDocument, Reason, Settlement},
    outbox::{OutboxEntry, OutboxKind},
    stock::{Cause, Crossing, Movement},
};

/// Changes of stock that belong together, with their ledger lines.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct StockChange {
    /// Per row, merged, in key order.
    pub deltas: BTreeMap<StockKey, i64>,
    pub movements: Vec<Movement>,
    pub crossings: Vec<Crossing>,
}

impl StockChange {
    fn new(stock: &Stock, movements: Vec<Movement>) -> Self {
        let mut deltas = BTreeMap::new();
        for movement in &movements {
            *deltas.entry(movement.row.clone()).or_insert(0) += movement.delta;
        }
        Self::of(stock, deltas, movements)
    }

    fn of(stock: &Stock, deltas: BTreeMap<StockKey, i64>, movements: Vec<Movement>) -> Self {
        let crossings = crossings(stock, &deltas);
        Self { deltas, movements, crossings }
    }
}

/// What becomes of a batch of orders.
#[derive(Debug)]
pub struct OrderPlan {
    /// One per pending order, in the order of arrival.
    pub settlements: Vec<Settlement>,
    pub stock: StockChange,
}

/// Shares the stock among pending orders in the order given. `entries` are fresh ids for their mails, one per order.
pub fn orders(pending: &[OrderDocument], stock: &Stock, entries: &[OutboxId], now: Timestamp) -> OrderPlan {
    let demands: Vec<_> = pending.iter().map(OrderDocument::demand).collect();
    let allocation = stock::allocate(stock, &demands);
    let mut movements = Vec::new();
    let mut settlements = Vec::with_capacity(pending.len());
    for ((order, entry), (_, outcome)) in pending.iter().zip(entries).zip(allocation.outcomes) {
        if outcome == Outcome::Allocated {
            movements.extend(lines(order, -1).map(|(row, delta)| movement(row, delta, (Cause::Order, &order.id), now)));
        }
        settlements.push(settlement(order, outcome, entry, now));
    }
    let deltas = allocation.taken.into_iter().map(|(row, units)| (row, -units)).collect();
    OrderPlan { settlements, stock: StockChange::of(stock, deltas, movements) }
}

fn settlement(order: &OrderDocument, outcome: Outcome, entry: &OutboxId, now: Timestamp) -> Settlement {
    let (to, reason, shortages, mail) = match outcome {
        Outcome::Allocated => (Status::Processed, None, Vec::new(), OutboxKind::ConfirmationMail),
        Outcome::Short(short) => (Status::Failed, Some(Reason::OutOfStock), short, OutboxKind::FailureMail),
    };
    let outbox = vec![OutboxEntry::due(entry.clone(), mail, now)];
    Settlement { id: order.id.clone(), from: order.status, to, reason, shortages, outbox, at: now }
}

/// The end of an order that the worker could not handle until the queue's last delivery.
pub fn gave_up(order_id: OrderId, entry: OutboxId, now: Timestamp) -> Settlement {
    Settlement {
        id: order_id,
        from: Status::Pending,
        to: Status::Failed,
        reason: Some(Reason::ProcessingFailed),
        shortages: Vec::new(),
        outbox: vec![OutboxEntry::due(entry, OutboxKind::FailureMail, now)],
        at: now,
    }
}

/// What a cancelled order gives back.
pub fn restock(order: &OrderDocument, stock: &Stock, now: Timestamp) -> StockChange {
    let back = lines(order, 1).map(|(row, delta)| movement(row, delta, (Cause::Cancel, &order.id), now));
    StockChange::new(stock, back.collect())
}

/// What becomes of an adjustment: all of its lines or none.
pub fn adjustment(wanted: &AdjustmentDocument, stock: &Stock, now: Timestamp) -> (AdjustmentOutcome, StockChange) {
    let deltas = wanted.deltas();
    if let Err(refused) = stock::adjust(stock, &wanted.location, &deltas) {
        return (AdjustmentOutcome::Refused(refused), StockChange::default());
    }
    let movements = deltas.into_iter().map(|(product, delta)| {
        let row = StockKey { product, location: wanted.location.clone() };
        Movement { row, delta, cause: Cause::Adjustment, cause_id: wanted.id.to_string(), at: now }
    });
    (AdjustmentOutcome::Applied, StockChange::new(stock, movements.collect()))
}

/// The rows that an adjustment touches.
pub fn adjusted_rows(wanted: &AdjustmentDocument) -> impl Iterator<Item = StockKey> {
    wanted.lines.iter().map(|line| StockKey { product: line.product_id.clone(), location: wanted.location.clone() })
}

/// The rows that an order touches.
pub fn ordered_rows(order: &OrderDocument) -> impl Iterator<Item = StockKey> {
    lines(order, 1).map(|(row, _)| row)
}

fn lines(order: &OrderDocument, sign: i64) -> impl Iterator<Item = (StockKey, i64)> {
    order.lines.iter().map(move |line| {
        let row = StockKey { product: line.product_id.clone(), location: order.location.clone() };
        (row, sign * i64::from(line.quantity))
    })
}

fn movement(row: StockKey, delta: i64, (cause, id): (Cause, &OrderId), at: Timestamp) -> Movement {
    Movement { row, delta, cause, cause_id: id.to_string(), at }
}

/// The rows that come above zero or go to zero by `deltas`.
fn crossings(stock: &Stock, deltas: &BTreeMap<StockKey, i64>) -> Vec<Crossing> {
    let crossing = |(key, delta): (&StockKey, &i64)| {
        let before = stock.get(key).copied().unwrap_or(0);
        match (before > 0, before.saturating_add(*delta) > 0) {
            (false, true) => Some(Crossing::Came(key.clone())),
            (true, false) => Some(Crossing::Went(key.clone())),
            _ => None,
        }
    };
    deltas.iter().filter_map(crossing).collect()
}

#[cfg(test)]
mod tests;
