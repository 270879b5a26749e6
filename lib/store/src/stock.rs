//! The `stock` rows and their ledger `stock_movements`: the sum of a row's movements is its stock.
//! Written only inside a transaction, together with what caused the change.

use std::collections::BTreeMap;

use futures::TryStreamExt;
use jiff::Timestamp;
use mongodb::{
    Collection, Database, IndexModel,
    bson::{Document, doc},
};
use serde::{Deserialize, Serialize};
use shop_domain::{
    catalogue::Location,
    id::ProductId,
    stock::{Stock, StockKey},
};

use crate::{
    StoreError,
    bulk::{self, Missing},
    dates,
    transaction::Transaction,
};

#[cfg(feature = "naive-allocation")]
mod naive;

pub(crate) const COLLECTION: &str = "stock";
pub(crate) const MOVEMENTS: &str = "stock_movements";
const PRODUCTS: &str = "products";

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct StockRow {
    pub product_id: ProductId,
    pub location: Location,
    pub stock: i64,
}

impl StockRow {
    pub fn into_level(self) -> (StockKey, i64) {
        (StockKey { product: self.product_id, location: self.location }, self.stock)
    }
}

/// What moved stock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Cause {
    Order,
    Cancel,
    Adjustment,
}

impl Cause {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Order => "Order",
            Self::Cancel => "Cancel",
            Self::Adjustment => "Adjustment",
        }
    }
}

/// One line of the ledger. Its key is made of cause, cause id and row, so one cause moves a row once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Movement {
    pub row: StockKey,
    pub delta: i64,
    pub cause: Cause,
    pub cause_id: String,
    pub at: Timestamp,
}

/// The stock of the shop.
#[derive(Debug, Clone)]
pub struct StockRows {
    rows: Collection<StockRow>,
    movements: Collection<Document>,
    database: Database,
}

impl StockRows {
    pub(crate) fn new(database: &Database) -> Self {
        Self {
            rows: database.collection(COLLECTION),
            movements: database.collection(MOVEMENTS),
            database: database.clone(),
        }
    }

    /// Whether any product has ever been stocked there.
    pub async fn is_location(&self, location: &Location) -> Result<bool, StoreError> {
        Ok(self.rows.find_one(doc! { "location": location.as_str() }).await?.is_some())
    }

    /// The rows as the transaction sees them; rows that do not exist are left out.
    pub async fn levels_in(
        &self,
        tx: &mut Transaction,
        keys: impl IntoIterator<Item = StockKey>,
    ) -> Result<Stock, StoreError> {
        let ids: Vec<String> = keys.into_iter().map(|key| key.to_string()).collect();
        let mut cursor = self.rows.find(doc! { "_id": { "$in": ids } }).session(tx.session()).await?;
        Ok(cursor.stream(tx.session()).map_ok(StockRow::into_level).try_collect().await?)
    }

    /// Adds each delta to its row, in key order; a row that gains and does not exist is made.
    /// `Stale` when a row has less than is taken from it.
    pub async fn move_in(&self, tx: &mut Transaction, deltas: &BTreeMap<StockKey, i64>) -> Result<(), StoreError> {
        let (takes, gains): (Vec<_>, Vec<_>) = deltas.iter().partition(|(_, delta)| **delta < 0);
        let takes: Vec<_> = takes.into_iter().map(take).collect();
        let gains: Vec<_> = gains.into_iter().map(gain).collect();
        let expected = deltas.len() as u64;
        let mut matched = bulk::run_in(&self.database, tx, (COLLECTION, Missing::Skip), takes).await?;
        matched += bulk::run_in(&self.database, tx, (COLLECTION, Missing::Insert), gains).await?;
        if matched == expected { Ok(()) } else { Err(StoreError::Stale { what: "stock rows" }) }
    }

    /// Writes the ledger lines of what [`StockRows::move_in`] did. `Duplicate` when the cause has moved a row before.
    pub async fn record_in(&self, tx: &mut Transaction, movements: &[Movement]) -> Result<(), StoreError> {
        if movements.is_empty() {
            return Ok(());
        }
        let lines: Vec<Document> = movements.iter().map(line).collect();
        self.movements.insert_many(lines).session(tx.session()).await?;
        Ok(())
    }

    /// Keeps `products.inStockAt` in step with rows that came above zero or went to zero.
    pub async fn mark_in(&self, tx: &mut Transaction, crossings: &[Crossing]) -> Result<(), StoreError> {
        let updates = crossings
            .iter()
            .map(|crossing| {
                let (operator, key) = match crossing {
                    Crossing::Came(key) => ("$addToSet", key),
                    Crossing::Went(key) => ("$pull", key),
                };
                let change = doc! { operator: { "inStockAt": key.location.as_str() } };
                bulk::update(doc! { "_id": key.product.as_str() }, change)
            })
            .collect();
        bulk::run_in(&self.database, tx, (PRODUCTS, Missing::Skip), updates).await?;
        Ok(())
    }

    pub(crate) fn indexes() -> Vec<IndexModel> {
        vec![
            IndexModel::builder().keys(doc! { "productId": 1, "location": 1 }).build(),
            IndexModel::builder().keys(doc! { "location": 1 }).build(),
        ]
    }

    pub(crate) fn movement_indexes() -> Vec<IndexModel> {
        vec![
            IndexModel::builder().keys(doc! { "productId": 1, "location": 1, "at": -1 }).build(),
            IndexModel::builder().keys(doc! { "at": -1, "_id": -1 }).build(),
        ]
    }
}

/// A row that crossed zero.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Crossing {
    Came(StockKey),
    Went(StockKey),
}

fn take((key, delta): (&StockKey, &i64)) -> bulk::Update {
    let filter = doc! { "_id": key.to_string(), "stock": { "$gte": delta.saturating_neg() } };
    bulk::update(filter, doc! { "$inc": { "stock": *delta } })
}

fn gain((key, delta): (&StockKey, &i64)) -> bulk::Update {
    let new = doc! { "productId": key.product.as_str(), "location": key.location.as_str() };
    bulk::update(doc! { "_id": key.to_string() }, doc! { "$inc": { "stock": *delta }, "$setOnInsert": new })
}

fn line(movement: &Movement) -> Document {
    let cause = movement.cause.as_str();
    doc! {
        "_id": format!("{cause}:{}:{}", movement.cause_id, movement.row),
        "productId": movement.row.product.as_str(),
        "location": movement.row.location.as_str(),
        "delta": movement.delta,
        "cause": cause,
        "causeId": &movement.cause_id,
        "at": dates::bson(movement.at),
    }
}
