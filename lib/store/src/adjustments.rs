//! The `adjustments` collection: changes of stock that staff asked for, and what became of them.

use std::collections::BTreeMap;

use jiff::Timestamp;
use mongodb::{Collection, Database, IndexModel, bson::doc};
use serde::{Deserialize, Serialize};
use shop_domain::{
    catalogue::Location,
    id::{AdjustmentId, ClaimId, OutboxId, ProductId, UserId},
    message::Message,
    stock::RefusedLine,
};

use crate::{
    StoreError,
    bulk::{self, Missing},
    dates,
    orders::{LastFailure, Sweeps, to_bson},
    outbox::{self, OutboxEntry, OutboxKind, PendingSend},
    transaction::Transaction,
    unfinished,
};

pub(crate) const COLLECTION: &str = "adjustments";

/// Where an adjustment stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum AdjustmentStatus {
    Pending,
    Applied,
    Refused,
}

/// A change of one product's stock.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AdjustmentLine {
    pub product_id: ProductId,
    pub delta: i64,
}

/// An adjustment as stored. Each product stands in at most one line.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AdjustmentDocument {
    #[serde(rename = "_id")]
    pub id: AdjustmentId,
    pub location: Location,
    pub reason: String,
    pub lines: Vec<AdjustmentLine>,
    pub status: AdjustmentStatus,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub refused: Vec<RefusedLine>,
    pub by: UserId,
    #[serde(default)]
    pub outbox: Vec<OutboxEntry>,
    #[serde(with = "dates")]
    pub created_at: Timestamp,
    #[serde(default, with = "dates::optional", skip_serializing_if = "Option::is_none")]
    pub settled_at: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sweeps: Option<Sweeps>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub stuck: bool,
    /// Set when the worker gave up, until the work is taken up again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<LastFailure>,
}

impl AdjustmentDocument {
    /// The change per product.
    pub fn deltas(&self) -> BTreeMap<ProductId, i64> {
        self.lines.iter().map(|line| (line.product_id.clone(), line.delta)).collect()
    }
}

/// What a new adjustment is made of. `entry` and `claim` are random.
#[derive(Debug, Clone)]
pub struct NewAdjustment {
    pub id: AdjustmentId,
    pub location: Location,
    pub reason: String,
    pub lines: BTreeMap<ProductId, i64>,
    pub by: UserId,
    pub entry: OutboxId,
    pub claim: ClaimId,
    pub now: Timestamp,
    /// The span that accepts it (W3C Trace Context).
    pub traceparent: Option<String>,
}

/// What became of an adjustment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AdjustmentOutcome {
    Applied,
    Refused(Vec<RefusedLine>),
}

/// The adjustments of the shop.
#[derive(Debug, Clone)]
pub struct Adjustments {
    collection: Collection<AdjustmentDocument>,
    database: Database,
}

impl Adjustments {
    pub(crate) fn new(database: &Database) -> Self {
        Self { collection: database.collection(COLLECTION), database: database.clone() }
    }

    /// Stores a new adjustment together with its message to the worker. The acceptor may send the returned entry at once.
    pub async fn accept(&self, new: &NewAdjustment) -> Result<PendingSend, StoreError> {
        self.collection.insert_one(pending(new)).await?;
        let message = Message::StockAdjusted { adjustment_id: new.id.clone() };
        let (entry, claim, traceparent) = (new.entry.clone(), new.claim.clone(), new.traceparent.clone());
        Ok(PendingSend { message, entry, claim, attempts: 1, traceparent })
    }

    pub async fn find(&self, id: &AdjustmentId) -> Result<Option<AdjustmentDocument>, StoreError> {
        Ok(self.collection.find_one(doc! { "_id": id.as_str() }).await?)
    }

    /// The adjustment as the transaction sees it.
    pub async fn read_in(
        &self,
        tx: &mut Transaction,
        id: &AdjustmentId,
    ) -> Result<Option<AdjustmentDocument>, StoreError> {
        Ok(self.collection.find_one(doc! { "_id": id.as_str() }).session(tx.session()).await?)
    }

    /// Records what became of a pending adjustment. `Stale` when it was settled before.
    pub async fn settle_in(
        &self,
        tx: &mut Transaction,
        id: &AdjustmentId,
        (outcome, at): (&AdjustmentOutcome, Timestamp),
    ) -> Result<(), StoreError> {
        let mut set = doc! { "status": "Applied", "settledAt": dates::bson(at) };
        if let AdjustmentOutcome::Refused(lines) = outcome {
            set.insert("status", "Refused");
            set.insert("refused", to_bson(lines)?);
        }
        let update = bulk::update(doc! { "_id": id.as_str(), "status": "Pending" }, doc! { "$set": set });
        match bulk::run_in(&self.database, tx, (COLLECTION, Missing::Skip), vec![update]).await? {
            0 => Err(StoreError::Stale { what: "adjustments" }),
            _ => Ok(()),
        }
    }

    /// Records why a pending adjustment could not be handled; false when it is settled.
    pub async fn record_failure(&self, id: &AdjustmentId, failure: &LastFailure) -> Result<bool, StoreError> {
        let filter = doc! { "_id": id.as_str(), "status": "Pending" };
        let update = bulk::update(filter, doc! { "$set": { "failure": to_bson(failure)? } });
        Ok(bulk::run(&self.database, COLLECTION, vec![update]).await? == 1)
    }

    pub(crate) fn indexes() -> Vec<IndexModel> {
        let by_status = IndexModel::builder().keys(doc! { "status": 1, "createdAt": 1 }).build();
        vec![by_status, outbox::index(), unfinished::index()]
    }
}

fn pending(new: &NewAdjustment) -> AdjustmentDocument {
    let entry = OutboxEntry::leased(new.entry.clone(), OutboxKind::StockAdjusted, new.claim.clone(), new.now)
        .caused_by(new.traceparent.clone());
    let line =
        |(product_id, delta): (&ProductId, &i64)| AdjustmentLine { product_id: product_id.clone(), delta: *delta };
    AdjustmentDocument {
        id: new.id.clone(),
        location: new.location.clone(),
        reason: new.reason.clone(),
        lines: new.lines.iter().map(line).collect(),
        status: AdjustmentStatus::Pending,
        refused: Vec::new(),
        by: new.by.clone(),
        outbox: vec![entry],
        created_at: dates::whole_millis(new.now),
        settled_at: None,
        sweeps: None,
        stuck: false,
        failure: None,
    }
}
