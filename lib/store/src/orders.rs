//! The `orders` collection: accepting, finding and settling orders.

use futures::TryStreamExt;
use jiff::Timestamp;
use mongodb::{
    Collection, Database, IndexModel,
    bson::{Bson, Document, doc, serialize_to_bson},
    options::IndexOptions,
};
use serde::Deserialize;
use shop_domain::{
    id::{OrderId, UserId},
    message::Message,
    order::Status,
};

use crate::{
    StoreError, bulk, dates,
    outbox::{OutboxEntry, OutboxKind, PendingSend},
    transaction::Transaction,
};

mod document;
pub use document::{
    BuyerEmail, HistoryEntry, Idempotency, LastFailure, NewOrderDocument, OrderDocument, OrderView, Restock,
    Settlement, Sweeps, ViewedMail, ViewedStep,
};
pub use shop_domain::order::Reason;

pub(crate) const COLLECTION: &str = "orders";

/// Who asks: the owner sees only what is theirs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Viewer {
    Owner(UserId),
    Staff,
}

/// Which orders a listing shows, newest first.
#[derive(Debug, Clone)]
pub struct Listing {
    pub viewer: Viewer,
    pub status: Option<Status>,
    /// The last order of the page before, by creation time and id.
    pub after: Option<(Timestamp, OrderId)>,
    pub limit: i64,
}

/// An accepted order and the entry of its outbox that the acceptor may send at once.
#[derive(Debug, Clone)]
pub struct Accepted {
    pub document: OrderDocument,
    pub send: PendingSend,
}

/// Why an order was not accepted.
#[derive(Debug, thiserror::Error)]
pub enum AcceptError {
    /// An order of this user has the same idempotency key: look it up with [`Orders::find_by_key`].
    #[error("an order with this idempotency key exists")]
    DuplicateKey,
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The orders of the shop.
#[derive(Debug, Clone)]
pub struct Orders {
    collection: Collection<OrderDocument>,
    database: Database,
}

/// How long the acceptor has for itself to send the entry it has just stored; after that whoever polls may.
pub const ACCEPTOR_LEASE_SECONDS: i64 = 5;

impl Orders {
    pub(crate) fn new(database: &Database) -> Self {
        Self { collection: database.collection(COLLECTION), database: database.clone() }
    }

    /// Stores a new order together with its message to the worker: one document, one insert.
    pub async fn accept(&self, new: &NewOrderDocument) -> Result<Accepted, AcceptError> {
        let document = document::pending(new);
        match self.collection.insert_one(&document).await.map_err(StoreError::from) {
            Ok(_) => {}
            Err(StoreError::Duplicate(_)) if new.idempotency.is_some() => return Err(AcceptError::DuplicateKey),
            Err(error) => return Err(error.into()),
        }
        let send = PendingSend {
            message: Message::OrderPlaced { order_id: new.id.clone() },
            entry: new.entry.clone(),
            claim: new.claim.clone(),
            attempts: 1,
            traceparent: new.traceparent.clone(),
        };
        Ok(Accepted { document, send })
    }

    /// The order, if there is one and the viewer may see it.
    pub async fn find(&self, id: &OrderId, viewer: &Viewer) -> Result<Option<OrderDocument>, StoreError> {
        let mut filter = doc! { "_id": id.as_str() };
        restrict(&mut filter, viewer);
        Ok(self.collection.find_one(filter).await?)
    }

    /// The order that a user placed with this idempotency key.
    pub async fn find_by_key(&self, user: &UserId, key: &str) -> Result<Option<OrderDocument>, StoreError> {
        Ok(self.collection.find_one(doc! { "userId": user.as_str(), "idempotency.key": key }).await?)
    }

    /// A page of orders, newest first.
    pub async fn list(&self, listing: &Listing) -> Result<Vec<OrderDocument>, StoreError> {
        let mut filter = Document::new();
        restrict(&mut filter, &listing.viewer);
        if let Some(status) = listing.status {
            filter.insert("status", status.as_str());
        }
        if let Some((at, id)) = &listing.after {
            let at = dates::bson(*at);
            filter.insert(
                "$or",
                [doc! { "createdAt": { "$lt": at } }, doc! { "createdAt": at, "_id": { "$lt": id.as_str() } }].to_vec(),
            );
        }
        let newest = doc! { "createdAt": -1, "_id": -1 };
        Ok(self.collection.find(filter).sort(newest).limit(listing.limit).await?.try_collect().await?)
    }

    /// The orders with these ids as the transaction sees them, in no order; unknown ids are left out.
    pub async fn read_in(&self, tx: &mut Transaction, ids: &[OrderId]) -> Result<Vec<OrderDocument>, StoreError> {
        let ids: Vec<&str> = ids.iter().map(OrderId::as_str).collect();
        let mut cursor = self.collection.find(doc! { "_id": { "$in": ids } }).session(tx.session()).await?;
        Ok(cursor.stream(tx.session()).try_collect().await?)
    }

    /// Writes decisions: each order must still have the status it was decided from, else `Stale`.
    pub async fn settle_in(&self, tx: &mut Transaction, settlements: &[Settlement]) -> Result<(), StoreError> {
        let updates = settlements.iter().map(settling).collect::<Result<Vec<_>, _>>()?;
        let matched = bulk::run_in(&self.database, tx, (COLLECTION, bulk::Missing::Skip), updates).await?;
        if matched == settlements.len() as u64 { Ok(()) } else { Err(StoreError::Stale { what: "orders" }) }
    }

    /// Records that the stock of a cancelled order is back. `Stale` when that was recorded before.
    pub async fn record_restock_in(&self, tx: &mut Transaction, id: &OrderId) -> Result<(), StoreError> {
        let filter = doc! { "_id": id.as_str(), "status": "Cancelled", "restock": { "$ne": "Done" } };
        let update = bulk::update(filter, doc! { "$set": { "restock": "Done" } });
        match bulk::run_in(&self.database, tx, (COLLECTION, bulk::Missing::Skip), vec![update]).await? {
            0 => Err(StoreError::Stale { what: "orders" }),
            _ => Ok(()),
        }
    }

    /// Records how often an order's message was delivered, if that was more often than recorded before.
    pub async fn record_deliveries(&self, id: &OrderId, deliveries: u32) -> Result<(), StoreError> {
        let change = doc! { "$max": { "deliveries": deliveries } };
        self.collection.update_one(doc! { "_id": id.as_str() }, change).await?;
        Ok(())
    }

    /// Settles one order outside a transaction; false when its status is no longer the one it was decided from.
    pub async fn settle(&self, settlement: &Settlement) -> Result<bool, StoreError> {
        Ok(bulk::run(&self.database, COLLECTION, vec![settling(settlement)?]).await? == 1)
    }

    /// Takes the address out of all orders of a user, and the mails that they owe with it. Idempotent.
    pub async fn anonymise(&self, user: &UserId) -> Result<(), StoreError> {
        let change = doc! {
            "$set": { "email": BuyerEmail::erased().expose() },
            "$pull": { "outbox": { "kind": { "$in": crate::mails::OF_ORDERS.to_vec() } } },
        };
        self.collection.update_many(doc! { "userId": user.as_str() }, change).await?;
        Ok(())
    }

    /// Settles an order that the worker gives up, and records why; false when it was settled otherwise before.
    pub async fn give_up(&self, settlement: &Settlement, failure: &LastFailure) -> Result<bool, StoreError> {
        let mut update = settling(settlement)?;
        record(&mut update.change, to_bson(failure)?);
        Ok(bulk::run(&self.database, COLLECTION, vec![update]).await? == 1)
    }

    /// Records why the stock of a cancelled order could not be put back; false when it is back.
    pub async fn record_failed_restock(&self, id: &OrderId, failure: &LastFailure) -> Result<bool, StoreError> {
        let filter = doc! { "_id": id.as_str(), "restock": "Owed" };
        let update = bulk::update(filter, doc! { "$set": { "failure": to_bson(failure)? } });
        Ok(bulk::run(&self.database, COLLECTION, vec![update]).await? == 1)
    }

    /// The versions of the orders among these that there are, in no order. At most 1,000 at once.
    pub async fn versions(&self, ids: &[OrderId]) -> Result<Vec<(OrderId, i64)>, StoreError> {
        #[derive(Deserialize)]
        struct Versioned {
            #[serde(rename = "_id")]
            id: OrderId,
            version: i64,
        }
        let ids: Vec<&str> = ids.iter().map(OrderId::as_str).collect();
        let orders = self.collection.clone_with_type::<Versioned>();
        let found = orders.find(doc! { "_id": { "$in": ids } }).projection(doc! { "version": 1 }).await?;
        Ok(found.map_ok(|order| (order.id, order.version)).try_collect().await?)
    }

    pub(crate) fn indexes() -> Vec<IndexModel> {
        let only = |field: &str, value: Bson| {
            let partial = IndexOptions::builder().partial_filter_expression(doc! { field: value }).build();
            IndexModel::builder().keys(doc! { field: 1, "_id": 1 }).options(partial).build()
        };
        let once_per_key = IndexOptions::builder()
            .unique(true)
            .partial_filter_expression(doc! { "idempotency.key": { "$exists": true } })
            .build();
        vec![
            IndexModel::builder().keys(doc! { "userId": 1, "idempotency.key": 1 }).options(once_per_key).build(),
            IndexModel::builder().keys(doc! { "userId": 1, "createdAt": -1, "_id": -1 }).build(),
            IndexModel::builder().keys(doc! { "status": 1, "createdAt": -1, "_id": -1 }).build(),
            IndexModel::builder().keys(doc! { "createdAt": -1, "_id": -1 }).build(),
            crate::outbox::index(),
            only("reason", Reason::ProcessingFailed.as_str().into()),
            only("stuck", true.into()),
            IndexModel::builder()
                .keys(doc! { "restock": 1 })
                .options(IndexOptions::builder().sparse(true).build())
                .build(),
        ]
    }
}

fn restrict(filter: &mut Document, viewer: &Viewer) {
    if let Viewer::Owner(user) = viewer {
        filter.insert("userId", user.as_str());
    }
}

pub(crate) fn settling(settlement: &Settlement) -> Result<bulk::Update, StoreError> {
    let Some(row) = settlement.from.move_to(settlement.to) else {
        return Err(StoreError::Stale { what: "orders" });
    };
    let at = dates::bson(settlement.at);
    let mut set = doc! { "status": settlement.to.as_str(), "updatedAt": at };
    let mut history = doc! { "status": settlement.to.as_str(), "at": at };
    let mut unset = doc! { "stuck": "", "sweeps": "", "failure": "" };
    if let Some(reason) = settlement.reason {
        set.insert("reason", reason.as_str());
        history.insert("reason", reason.as_str());
    } else {
        unset.insert("reason", "");
    }
    if settlement.owes_restock() {
        set.insert("restock", "Owed");
    }
    if !settlement.shortages.is_empty() {
        set.insert("shortages", to_bson(&settlement.shortages)?);
    }
    let entries = settlement.outbox.iter().map(to_bson).collect::<Result<Vec<_>, _>>()?;
    let change = doc! {
        "$set": set,
        "$unset": unset,
        "$inc": { "version": 1_i64 },
        "$push": { "history": history, "outbox": { "$each": entries } },
    };
    let mut filter = doc! { "_id": settlement.id.as_str(), "status": settlement.from.as_str() };
    if let Some(reason) = row.only_if {
        filter.insert("reason", reason.as_str());
    }
    Ok(bulk::update(filter, change))
}

/// Sets the failure in an update that would else erase it.
fn record(change: &mut Document, failure: Bson) {
    if let Ok(unset) = change.get_document_mut("$unset") {
        unset.remove("failure");
    }
    if let Ok(set) = change.get_document_mut("$set") {
        set.insert("failure", failure);
    }
}

pub(crate) fn to_bson<T: serde::Serialize>(value: &T) -> Result<Bson, StoreError> {
    serialize_to_bson(value).map_err(|error| StoreError::Unreadable(error.into()))
}

/// The first entry of an accepted order.
pub(crate) fn placed_entry(new: &NewOrderDocument) -> OutboxEntry {
    OutboxEntry::leased(new.entry.clone(), OutboxKind::OrderPlaced, new.claim.clone(), new.now)
        .caused_by(new.traceparent.clone())
}
