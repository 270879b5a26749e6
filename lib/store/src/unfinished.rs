//! Work that was accepted long ago and never finished: pending orders and adjustments, cancelled orders whose stock is
//! not back. Finds it and puts it on the outbox again; when to do so is decided by the caller.

use futures::TryStreamExt;
use jiff::Timestamp;
use mongodb::{
    Database, IndexModel,
    bson::{Document, doc},
    options::IndexOptions,
};
use serde::Deserialize;
use shop_domain::message::Message;

use crate::{StoreError, adjustments, bulk, dates, orders, orders::Sweeps, outbox::OutboxEntry};

/// One piece of forgotten work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Forgotten {
    pub message: Message,
    /// How often it was put on the outbox again before.
    pub sweeps: u32,
}

/// Finds and revives forgotten work.
#[derive(Debug, Clone)]
pub struct Unfinished {
    database: Database,
}

#[derive(Deserialize)]
struct Swept {
    #[serde(rename = "_id")]
    id: String,
    #[serde(default)]
    sweeps: Option<Sweeps>,
}

impl Unfinished {
    pub(crate) fn new(database: &Database) -> Self {
        Self { database: database.clone() }
    }

    /// Work accepted, or taken up again, before `before`, not waiting in an outbox, not given up, and whose next sweep is due at `now`.
    pub async fn find(&self, before: Timestamp, now: Timestamp) -> Result<Vec<Forgotten>, StoreError> {
        let mut found = Vec::new();
        for (collection, wanted, message) in [
            (
                orders::COLLECTION,
                doc! { "status": "Pending", "updatedAt": { "$lte": dates::bson(before) } },
                placed as fn(&str) -> Option<Message>,
            ),
            (orders::COLLECTION, doc! { "restock": "Owed", "updatedAt": { "$lte": dates::bson(before) } }, cancelled),
            (
                adjustments::COLLECTION,
                doc! { "status": "Pending", "createdAt": { "$lte": dates::bson(before) } },
                adjusted,
            ),
        ] {
            let filter = doc! { "$and": [wanted, idle(now)] };
            let swept: Vec<Swept> = self
                .database
                .collection(collection)
                .find(filter)
                .projection(doc! { "sweeps": 1 })
                .limit(PAGE)
                .await?
                .try_collect()
                .await?;
            found.extend(swept.into_iter().filter_map(|swept| {
                let sweeps = swept.sweeps.map_or(0, |sweeps| sweeps.count);
                Some(Forgotten { message: message(&swept.id)?, sweeps })
            }));
        }
        Ok(found)
    }

    /// Puts forgotten work on its outbox again. False when another sweeper was faster.
    pub async fn revive(&self, work: &Forgotten, entry: &OutboxEntry, next_at: Timestamp) -> Result<bool, StoreError> {
        let sweeps = doc! { "count": work.sweeps + 1, "nextAt": dates::bson(next_at) };
        self.change(work, doc! { "$push": { "outbox": orders::to_bson(entry)? }, "$set": { "sweeps": sweeps } }).await
    }

    /// Gives forgotten work up: it is shown to staff and never revived again. False when another sweeper was faster.
    pub async fn give_up(&self, work: &Forgotten) -> Result<bool, StoreError> {
        self.change(work, doc! { "$set": { "stuck": true } }).await
    }

    /// How many orders and adjustments were given up.
    pub async fn stuck(&self) -> Result<u64, StoreError> {
        let mut stuck = 0;
        for collection in [orders::COLLECTION, adjustments::COLLECTION] {
            let given_up = doc! { "stuck": true };
            stuck += self.database.collection::<Document>(collection).count_documents(given_up).await?;
        }
        Ok(stuck)
    }

    async fn change(&self, work: &Forgotten, change: Document) -> Result<bool, StoreError> {
        let collection = match work.message {
            Message::StockAdjusted { .. } => adjustments::COLLECTION,
            Message::OrderPlaced { .. } | Message::OrderCancelled { .. } => orders::COLLECTION,
        };
        let unfinished = match work.message {
            Message::OrderCancelled { .. } => doc! { "restock": "Owed" },
            Message::OrderPlaced { .. } | Message::StockAdjusted { .. } => doc! { "status": "Pending" },
        };
        let seen = match work.sweeps {
            0 => doc! { "sweeps": { "$exists": false } },
            count => doc! { "sweeps.count": count },
        };
        let filter = doc! { "_id": work.message.group(), "$and": [unfinished, seen] };
        Ok(bulk::run(&self.database, collection, vec![bulk::update(filter, change)]).await? == 1)
    }
}

/// Enough for one round; the next finds the rest.
const PAGE: i64 = 200;

/// Finds what was given up; documents that were not are not in it.
pub(crate) fn index() -> IndexModel {
    let sparse = IndexOptions::builder().sparse(true).build();
    IndexModel::builder().keys(doc! { "stuck": 1 }).options(sparse).build()
}

fn idle(now: Timestamp) -> Document {
    let due = [doc! { "sweeps": { "$exists": false } }, doc! { "sweeps.nextAt": { "$lte": dates::bson(now) } }];
    let sends = ["OrderPlaced", "OrderCancelled", "StockAdjusted"].to_vec();
    doc! { "stuck": { "$ne": true }, "outbox.kind": { "$nin": sends }, "$or": due.to_vec() }
}

fn placed(id: &str) -> Option<Message> {
    id.parse().ok().map(|order_id| Message::OrderPlaced { order_id })
}

fn cancelled(id: &str) -> Option<Message> {
    id.parse().ok().map(|order_id| Message::OrderCancelled { order_id })
}

fn adjusted(id: &str) -> Option<Message> {
    id.parse().ok().map(|adjustment_id| Message::StockAdjusted { adjustment_id })
}
