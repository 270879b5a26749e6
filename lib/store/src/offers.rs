//! The one read at acceptance: what the ordered products cost now and what is in stock at the location.

use std::collections::BTreeMap;

use futures::TryStreamExt;
use mongodb::{
    Collection, Database,
    bson::{Document, doc},
};
use serde::Deserialize;
use shop_domain::{catalogue::Location, id::ProductId, money::Money, order::Offer, stock::Stock};

use crate::{
    StoreError,
    stock::{self, StockRow, StockRows},
};

/// Prices and stock as of one read.
#[derive(Debug, Clone)]
pub struct OffersAndStock {
    /// The products that exist and are not archived.
    pub offers: BTreeMap<ProductId, Offer>,
    /// Their rows at the location.
    pub stock: Stock,
    /// Whether anything has ever been stocked at the location.
    pub location_known: bool,
}

/// Reads for acceptance; never cached.
#[derive(Debug, Clone)]
pub struct Offers {
    products: Collection<Document>,
    stock: StockRows,
}

#[derive(Deserialize)]
struct Offered {
    #[serde(rename = "_id")]
    id: ProductId,
    name: String,
    price: Money,
    rows: Vec<StockRow>,
}

impl Offers {
    pub(crate) fn new(database: &Database) -> Self {
        Self { products: database.collection("products"), stock: StockRows::new(database) }
    }

    /// Prices of `products` and their stock at `location`, by one aggregation.
    pub async fn at(
        &self,
        location: &Location,
        products: impl IntoIterator<Item = &ProductId>,
    ) -> Result<OffersAndStock, StoreError> {
        let ids: Vec<&str> = products.into_iter().map(ProductId::as_str).collect();
        let at = format!("@{}", location.as_str());
        let pipeline = [
            doc! { "$match": { "_id": { "$in": ids }, "archivedAt": { "$exists": false } } },
            doc! { "$addFields": { "row": { "$concat": ["$_id", { "$literal": at }] } } },
            doc! { "$lookup": { "from": stock::COLLECTION, "localField": "row", "foreignField": "_id", "as": "rows" } },
            doc! { "$project": { "name": 1, "price": 1, "rows": 1 } },
        ];
        let found: Vec<Offered> = self.products.aggregate(pipeline).with_type().await?.try_collect().await?;
        let mut answer = OffersAndStock { offers: BTreeMap::new(), stock: Stock::new(), location_known: false };
        for offered in found {
            answer.offers.insert(offered.id, Offer { name: offered.name, price: offered.price });
            answer.stock.extend(offered.rows.into_iter().map(StockRow::into_level));
        }
        answer.location_known = !answer.stock.is_empty() || self.stock.is_location(location).await?;
        Ok(answer)
    }
}
