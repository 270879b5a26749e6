//! Reading the ledger `stock_movements` page by page. Its lines are written in `stock`.

use futures::TryStreamExt;
use jiff::Timestamp;
use mongodb::{
    Collection, Database,
    bson::{Document, doc},
};
use serde::{Deserialize, Serialize};
use shop_domain::{catalogue::Location, id::ProductId};

use crate::{
    StoreError, dates,
    stock::{Cause, MOVEMENTS},
};

/// A line of the ledger as stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LedgerLine {
    #[serde(rename = "_id")]
    pub id: String,
    pub product_id: ProductId,
    pub location: Location,
    pub delta: i64,
    pub cause: Cause,
    pub cause_id: String,
    #[serde(with = "dates")]
    pub at: Timestamp,
}

/// Which lines a listing shows, newest first.
#[derive(Debug, Clone)]
pub struct LedgerSearch {
    pub product: Option<ProductId>,
    pub location: Option<Location>,
    /// The last line of the page before, by time and id.
    pub after: Option<(Timestamp, String)>,
    pub limit: i64,
}

/// The ledger, for reading.
#[derive(Debug, Clone)]
pub struct Ledger {
    collection: Collection<LedgerLine>,
}

impl Ledger {
    pub(crate) fn new(database: &Database) -> Self {
        Self { collection: database.collection(MOVEMENTS) }
    }

    /// A page of the ledger.
    pub async fn list(&self, search: &LedgerSearch) -> Result<Vec<LedgerLine>, StoreError> {
        let mut filter = Document::new();
        if let Some(product) = &search.product {
            filter.insert("productId", product.as_str());
        }
        if let Some(location) = &search.location {
            filter.insert("location", location.as_str());
        }
        if let Some((at, id)) = &search.after {
            let at = dates::bson(*at);
            filter.insert("$or", [doc! { "at": { "$lt": at } }, doc! { "at": at, "_id": { "$lt": id } }].to_vec());
        }
        let newest = doc! { "at": -1, "_id": -1 };
        Ok(self.collection.find(filter).sort(newest).limit(search.limit).await?.try_collect().await?)
    }
}
