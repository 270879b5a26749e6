//! Not for any shop: the write of a read-then-write allocation, for the worker's feature `naive-allocation`.

use std::collections::BTreeMap;

use mongodb::bson::doc;
use shop_domain::stock::{Stock, StockKey};

use super::StockRows;
use crate::StoreError;

impl StockRows {
    /// Writes `read + delta` into each row, in no transaction and whatever the row holds by now.
    pub async fn overwrite(&self, read: &Stock, deltas: &BTreeMap<StockKey, i64>) -> Result<(), StoreError> {
        for (key, delta) in deltas {
            let level = read.get(key).copied().unwrap_or(0) + delta;
            self.rows.update_one(doc! { "_id": key.to_string() }, doc! { "$set": { "stock": level } }).await?;
        }
        Ok(())
    }
}
