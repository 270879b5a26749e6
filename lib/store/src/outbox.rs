//! The outboxes inside documents: what still has to be sent, claimed and removed entry by entry; `mails` has the mails' part.
//! An entry is removed only by its own id and claim, so a late clear can never erase a newer one.

use jiff::{Timestamp, ToSpan};
use mongodb::{
    Collection, Cursor, Database, IndexModel,
    bson::{Bson, Document, doc},
    options::IndexOptions,
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use shop_domain::{
    id::{ClaimId, OutboxId},
    message::Message,
};

use crate::{
    StoreError, adjustments, bulk, dates,
    orders::{self, ACCEPTOR_LEASE_SECONDS},
    password_resets,
};

/// What an entry asks for: a queue message or a mail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum OutboxKind {
    OrderPlaced,
    OrderCancelled,
    StockAdjusted,
    ConfirmationMail,
    FailureMail,
    CancellationMail,
    PasswordResetMail,
}

impl OutboxKind {
    fn message(self, document: &str) -> Option<Message> {
        match self {
            Self::OrderPlaced => document.parse().ok().map(|order_id| Message::OrderPlaced { order_id }),
            Self::OrderCancelled => document.parse().ok().map(|order_id| Message::OrderCancelled { order_id }),
            Self::StockAdjusted => document.parse().ok().map(|adjustment_id| Message::StockAdjusted { adjustment_id }),
            Self::ConfirmationMail | Self::FailureMail | Self::CancellationMail | Self::PasswordResetMail => None,
        }
    }
}

impl From<&Message> for OutboxKind {
    fn from(message: &Message) -> Self {
        match message {
            Message::OrderPlaced { .. } => Self::OrderPlaced,
            Message::OrderCancelled { .. } => Self::OrderCancelled,
            Message::StockAdjusted { .. } => Self::StockAdjusted,
        }
    }
}

/// One thing to send. Whoever holds `claim` owns it until `due_at`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OutboxEntry {
    pub id: OutboxId,
    pub kind: OutboxKind,
    #[serde(with = "dates")]
    pub due_at: Timestamp,
    /// How often it was taken for sending.
    pub attempts: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub claim: Option<ClaimId>,
    /// The span that caused it (W3C Trace Context), so that its sending is in the same trace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traceparent: Option<String>,
}

impl OutboxEntry {
    /// An entry that its maker sends under a claim of its own, and whoever polls when that did not happen in time.
    pub fn leased(id: OutboxId, kind: OutboxKind, claim: ClaimId, now: Timestamp) -> Self {
        let due_at = now.saturating_add(ACCEPTOR_LEASE_SECONDS.seconds()).unwrap_or(now);
        Self { id, kind, due_at: dates::whole_millis(due_at), attempts: 1, claim: Some(claim), traceparent: None }
    }

    /// An entry that anyone may take at once.
    pub fn due(id: OutboxId, kind: OutboxKind, now: Timestamp) -> Self {
        Self { id, kind, due_at: dates::whole_millis(now), attempts: 0, claim: None, traceparent: None }
    }

    /// The same entry as a part of a trace.
    #[must_use]
    pub fn caused_by(self, traceparent: Option<String>) -> Self {
        Self { traceparent, ..self }
    }
}

/// A claimed entry that goes to the queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PendingSend {
    pub message: Message,
    pub entry: OutboxId,
    pub claim: ClaimId,
    pub attempts: u32,
    /// See [`OutboxEntry::traceparent`].
    pub traceparent: Option<String>,
}

/// One taking of due entries.
#[derive(Debug, Clone)]
pub struct Taking {
    /// Fresh random bits for each taking.
    pub claim: ClaimId,
    pub now: Timestamp,
    /// Until when nobody else takes them.
    pub until: Timestamp,
    /// At most so many documents are looked at.
    pub limit: i64,
}

/// All outboxes of the shop.
#[derive(Debug, Clone)]
pub struct Outbox {
    database: Database,
}

const SENDS: [&str; 3] = ["OrderPlaced", "OrderCancelled", "StockAdjusted"];

#[derive(Deserialize)]
struct Holder {
    #[serde(rename = "_id")]
    id: String,
    outbox: Vec<OutboxEntry>,
}

impl Outbox {
    pub(crate) fn new(database: &Database) -> Self {
        Self { database: database.clone() }
    }

    /// Takes overdue queue entries of orders and adjustments, oldest first.
    pub async fn take_sends(&self, taking: &Taking) -> Result<Vec<PendingSend>, StoreError> {
        let mut sends = Vec::new();
        for collection in [orders::COLLECTION, adjustments::COLLECTION] {
            let holders: Vec<Holder> = self.take(collection, &SENDS, taking).await?;
            for holder in holders {
                let taken = holder.outbox.into_iter().filter(|entry| entry.claim.as_ref() == Some(&taking.claim));
                sends.extend(taken.filter_map(|entry| {
                    let message = entry.kind.message(&holder.id)?;
                    Some(PendingSend {
                        message,
                        entry: entry.id,
                        claim: taking.claim.clone(),
                        attempts: entry.attempts,
                        traceparent: entry.traceparent,
                    })
                }));
            }
        }
        Ok(sends)
    }

    /// Removes entries that the queue took. Returns how many were still ours to remove.
    pub async fn remove(&self, sent: &[PendingSend]) -> Result<u64, StoreError> {
        self.change(sent, |send| doc! { "$pull": { "outbox": own(&send.entry, &send.claim) } }).await
    }

    /// Leaves entries that could not be sent until `due_at`.
    pub async fn postpone(&self, unsent: &[PendingSend], due_at: Timestamp) -> Result<u64, StoreError> {
        self.change(unsent, |_| doc! { "$set": { "outbox.$.dueAt": dates::bson(due_at) } }).await
    }

    async fn change(
        &self,
        sends: &[PendingSend],
        change: impl Fn(&PendingSend) -> Document,
    ) -> Result<u64, StoreError> {
        let mut changed = 0;
        for collection in [orders::COLLECTION, adjustments::COLLECTION] {
            let updates = sends
                .iter()
                .filter(|send| collection_of(&send.message) == collection)
                .map(|send| bulk::update(ours(send.message.group(), &send.entry, &send.claim), change(send)))
                .collect();
            changed += bulk::run(&self.database, collection, updates).await?;
        }
        Ok(changed)
    }

    /// Leaves to whoever comes next what a taking has marked whose answer got lost. It counts as no attempt.
    pub async fn release(&self, taking: &Taking) -> Result<(), StoreError> {
        let claim = taking.claim.as_str();
        let marked = doc! { "outbox.dueAt": { "$lte": dates::bson(taking.until) }, "outbox.claim": claim };
        let change = doc! {
            "$set": { "outbox.$[entry].dueAt": dates::bson(taking.now) },
            "$inc": { "outbox.$[entry].attempts": -1 },
        };
        for collection in [orders::COLLECTION, adjustments::COLLECTION, password_resets::COLLECTION] {
            let ours = [doc! { "entry.claim": claim, "entry.dueAt": dates::bson(taking.until) }];
            let collection = self.collection::<Document>(collection);
            collection.update_many(marked.clone(), change.clone()).array_filters(ours).await?;
        }
        Ok(())
    }

    /// Marks due entries of `kinds` with the claim, each only if it is still as it was seen, and reads the marked ones.
    pub(crate) async fn take<D: DeserializeOwned + Send + Sync>(
        &self,
        collection: &str,
        kinds: &[&str],
        taking: &Taking,
    ) -> Result<Vec<D>, StoreError> {
        let now = dates::bson(taking.now);
        let kinds: Vec<&str> = kinds.to_vec();
        let due = doc! {
            "outbox.dueAt": { "$lte": now }, // for the index
            "outbox": { "$elemMatch": { "kind": { "$in": &kinds }, "dueAt": { "$lte": now } } },
        };
        let holders = self
            .collection::<Holder>(collection)
            .find(due)
            .projection(doc! { "outbox": 1 })
            .sort(doc! { "outbox.dueAt": 1 })
            .limit(taking.limit)
            .await?;
        let holders = readable(holders).await?;
        let marks = holders.iter().flat_map(|holder| marks(holder, &kinds, taking)).collect::<Vec<_>>();
        if marks.is_empty() || bulk::run(&self.database, collection, marks).await? == 0 {
            return Ok(Vec::new());
        }
        let ids: Vec<Bson> = holders.into_iter().map(|holder| holder.id.into()).collect();
        let marked = doc! { "_id": { "$in": ids }, "outbox.claim": taking.claim.as_str() };
        readable(self.collection(collection).find(marked).await?).await
    }

    fn collection<D: Send + Sync>(&self, name: &str) -> Collection<D> {
        self.database.collection(name)
    }
}

/// Reads each document by itself: one that cannot be read is logged and left out, so that it holds up no other.
async fn readable<D: DeserializeOwned>(mut cursor: Cursor<D>) -> Result<Vec<D>, StoreError> {
    let mut documents = Vec::new();
    while cursor.advance().await? {
        match cursor.deserialize_current() {
            Ok(document) => documents.push(document),
            Err(error) => {
                let id = cursor.current().get_str("_id").unwrap_or("unknown");
                tracing::error!(id, %error, "a stored document cannot be read: nothing is sent for it");
            }
        }
    }
    Ok(documents)
}

fn marks<'a>(holder: &'a Holder, kinds: &'a [&str], taking: &'a Taking) -> impl Iterator<Item = bulk::Update> + 'a {
    let due =
        holder.outbox.iter().filter(move |entry| entry.due_at <= taking.now && kinds.contains(&kind_name(entry.kind)));
    due.map(move |entry| {
        let seen = doc! { "id": entry.id.as_str(), "dueAt": dates::bson(entry.due_at) };
        let change = doc! {
            "$set": { "outbox.$.claim": taking.claim.as_str(), "outbox.$.dueAt": dates::bson(taking.until) },
            "$inc": { "outbox.$.attempts": 1 },
        };
        bulk::update(doc! { "_id": &holder.id, "outbox": { "$elemMatch": seen } }, change)
    })
}

pub(crate) fn kind_name(kind: OutboxKind) -> &'static str {
    match kind {
        OutboxKind::OrderPlaced => "OrderPlaced",
        OutboxKind::OrderCancelled => "OrderCancelled",
        OutboxKind::StockAdjusted => "StockAdjusted",
        OutboxKind::ConfirmationMail => "ConfirmationMail",
        OutboxKind::FailureMail => "FailureMail",
        OutboxKind::CancellationMail => "CancellationMail",
        OutboxKind::PasswordResetMail => "PasswordResetMail",
    }
}

fn collection_of(message: &Message) -> &'static str {
    match message {
        Message::OrderPlaced { .. } | Message::OrderCancelled { .. } => orders::COLLECTION,
        Message::StockAdjusted { .. } => adjustments::COLLECTION,
    }
}

pub(crate) fn own(entry: &OutboxId, claim: &ClaimId) -> Document {
    doc! { "id": entry.as_str(), "claim": claim.as_str() }
}

pub(crate) fn ours(document: &str, entry: &OutboxId, claim: &ClaimId) -> Document {
    doc! { "_id": document, "outbox": { "$elemMatch": own(entry, claim) } }
}

/// Finds due entries; documents with nothing to send are not in it.
pub(crate) fn index() -> IndexModel {
    let sparse = IndexOptions::builder().sparse(true).build();
    IndexModel::builder().keys(doc! { "outbox.dueAt": 1 }).options(sparse).build()
}
