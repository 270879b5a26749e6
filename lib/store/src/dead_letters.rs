//! Work that nobody will finish by itself: what the worker gave up and what the sweeper gave up, in `orders` and
//! `adjustments`. Shows it and puts it on the outbox anew; when to do so is decided by the caller.

use futures::TryStreamExt;
use jiff::Timestamp;
use mongodb::{
    Database,
    bson::{Document, doc},
};
use serde::{Deserialize, Serialize};
use shop_domain::{
    message::Message,
    order::{Reason, Status},
};

use crate::{
    StoreError, adjustments, bulk, dates,
    orders::{self, LastFailure, Settlement},
    outbox::OutboxEntry,
};

/// One piece of dead work. Its message says what is to be done when it is taken up again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetter {
    pub message: Message,
    pub cause: DeadCause,
    /// Where it was recorded: why the worker gave up, and when.
    pub failure: Option<LastFailure>,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
}

/// Who gave the work up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeadCause {
    /// The worker, with the last delivery.
    Failed,
    /// The sweeper: the message got lost again and again.
    Stuck,
}

/// The last dead letter of the page before. Orders come first, then adjustments, each by id.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum DeadPosition {
    Order(String),
    Adjustment(String),
}

/// The dead letters of the shop.
#[derive(Debug, Clone)]
pub struct DeadLetters {
    database: Database,
}

/// What is read of a document: not its lines, which may be what cannot be read.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Dead {
    #[serde(rename = "_id")]
    id: String,
    #[serde(default)]
    restock: Option<orders::Restock>,
    #[serde(default)]
    failure: Option<LastFailure>,
    #[serde(default)]
    stuck: bool,
    #[serde(with = "dates")]
    created_at: Timestamp,
    #[serde(default, with = "dates::optional")]
    updated_at: Option<Timestamp>,
}

impl DeadLetters {
    pub(crate) fn new(database: &Database) -> Self {
        Self { database: database.clone() }
    }

    /// A page of dead letters: at most `limit` after `after`.
    pub async fn list(&self, after: Option<&DeadPosition>, limit: i64) -> Result<Vec<DeadLetter>, StoreError> {
        let mut letters = Vec::new();
        if !matches!(after, Some(DeadPosition::Adjustment(_))) {
            let from = after.map(DeadPosition::id);
            letters = self.read(orders::COLLECTION, page(dead_orders(), from), limit).await?;
        }
        let room = limit.saturating_sub(i64::try_from(letters.len()).unwrap_or(limit));
        if room > 0 {
            let from = after.filter(|after| matches!(after, DeadPosition::Adjustment(_))).map(DeadPosition::id);
            letters.extend(self.read(adjustments::COLLECTION, page(dead_adjustments(), from), room).await?);
        }
        Ok(letters)
    }

    /// The dead letter about this order, if it is dead.
    pub async fn of_order(&self, id: &str) -> Result<Option<DeadLetter>, StoreError> {
        let filter = doc! { "$and": [{ "_id": id }, dead_orders()] };
        Ok(self.read(orders::COLLECTION, filter, 1).await?.pop())
    }

    /// The dead letter about this adjustment, if it is dead.
    pub async fn of_adjustment(&self, id: &str) -> Result<Option<DeadLetter>, StoreError> {
        let filter = doc! { "$and": [{ "_id": id }, dead_adjustments()] };
        Ok(self.read(adjustments::COLLECTION, filter, 1).await?.pop())
    }

    /// Puts dead work on its outbox again, each with its fresh entry, and takes every mark of its death away. A failed
    /// order is pending again. Returns how many orders and how many adjustments were still dead.
    pub async fn redrive(&self, work: &[(DeadLetter, OutboxEntry)], now: Timestamp) -> Result<(u64, u64), StoreError> {
        let (mut of_orders, mut of_adjustments) = (Vec::new(), Vec::new());
        for (letter, entry) in work {
            let updates = match letter.message {
                Message::StockAdjusted { .. } => &mut of_adjustments,
                Message::OrderPlaced { .. } | Message::OrderCancelled { .. } => &mut of_orders,
            };
            updates.push(reviving(letter, entry, now)?);
        }
        let revived = bulk::run(&self.database, orders::COLLECTION, of_orders).await?;
        Ok((revived, bulk::run(&self.database, adjustments::COLLECTION, of_adjustments).await?))
    }

    async fn read(&self, collection: &str, filter: Document, limit: i64) -> Result<Vec<DeadLetter>, StoreError> {
        let seen = doc! { "restock": 1, "failure": 1, "stuck": 1, "createdAt": 1, "updatedAt": 1 };
        let documents = self.database.collection::<Dead>(collection);
        let found = documents.find(filter).projection(seen).sort(doc! { "_id": 1 }).limit(limit).await?;
        let dead: Vec<Dead> = found.try_collect().await?;
        Ok(dead.into_iter().filter_map(|dead| letter(collection, dead)).collect())
    }
}

impl DeadPosition {
    /// Where the page after this letter begins.
    pub fn after(letter: &DeadLetter) -> Self {
        let id = letter.message.group().to_owned();
        match letter.message {
            Message::StockAdjusted { .. } => Self::Adjustment(id),
            Message::OrderPlaced { .. } | Message::OrderCancelled { .. } => Self::Order(id),
        }
    }

    fn id(&self) -> &str {
        match self {
            Self::Order(id) | Self::Adjustment(id) => id,
        }
    }
}

fn letter(collection: &str, dead: Dead) -> Option<DeadLetter> {
    let message = match (collection, dead.restock) {
        (adjustments::COLLECTION, _) => Message::StockAdjusted { adjustment_id: dead.id.parse().ok()? },
        (_, Some(orders::Restock::Owed)) => Message::OrderCancelled { order_id: dead.id.parse().ok()? },
        _ => Message::OrderPlaced { order_id: dead.id.parse().ok()? },
    };
    let cause = if dead.stuck { DeadCause::Stuck } else { DeadCause::Failed };
    let (created_at, failure) = (dead.created_at, dead.failure);
    let updated_at = dead.updated_at.or(failure.as_ref().map(|failure| failure.at)).unwrap_or(created_at);
    Some(DeadLetter { message, cause, failure, created_at, updated_at })
}

fn dead_orders() -> Document {
    let failed = doc! { "reason": Reason::ProcessingFailed.as_str(), "status": Status::Failed.as_str() };
    let stuck = doc! { "stuck": true, "status": Status::Pending.as_str() };
    let not_restocked = doc! { "restock": "Owed", "$or": [{ "stuck": true }, { "failure": { "$exists": true } }] };
    doc! { "$or": [failed, stuck, not_restocked] }
}

fn dead_adjustments() -> Document {
    doc! { "status": "Pending", "$or": [{ "stuck": true }, { "failure": { "$exists": true } }] }
}

fn page(dead: Document, after: Option<&str>) -> Document {
    match after {
        Some(id) => doc! { "$and": [{ "_id": { "$gt": id } }, dead] },
        None => dead,
    }
}

fn reviving(letter: &DeadLetter, entry: &OutboxEntry, now: Timestamp) -> Result<bulk::Update, StoreError> {
    let id = letter.message.group();
    if let (Message::OrderPlaced { order_id }, DeadCause::Failed) = (&letter.message, letter.cause) {
        return orders::settling(&Settlement {
            id: order_id.clone(),
            from: Status::Failed,
            to: Status::Pending,
            reason: Some(Reason::Reopened),
            shortages: Vec::new(),
            outbox: vec![entry.clone()],
            at: now,
        });
    }
    let dead = match letter.message {
        Message::StockAdjusted { .. } => dead_adjustments(),
        Message::OrderPlaced { .. } | Message::OrderCancelled { .. } => dead_orders(),
    };
    let change = doc! {
        "$push": { "outbox": orders::to_bson(entry)? },
        "$unset": { "stuck": "", "sweeps": "", "failure": "" },
    };
    Ok(bulk::update(doc! { "$and": [{ "_id": id }, dead] }, change))
}
