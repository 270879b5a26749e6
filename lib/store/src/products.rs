//! The `products` collection, and the reads of stock that go with browsing. Prices for orders are read in `offers`.

use std::collections::{HashMap, HashSet};

use futures::TryStreamExt;
use jiff::Timestamp;
use mongodb::{
    Collection, Database, IndexModel,
    bson::{Bson, Document, doc},
    options::ReturnDocument,
};
use serde::{Deserialize, Serialize};
use shop_domain::{
    catalogue::{self, Location},
    id::ProductId,
    money::Money,
};

use crate::{
    StoreError, dates,
    stock::{self, StockRow},
};

pub(crate) const COLLECTION: &str = "products";

/// A product of the catalogue.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Product {
    #[serde(rename = "_id")]
    pub id: ProductId,
    pub name: String,
    pub description: String,
    pub price: Money,
    /// 1 when made, one more with each change.
    pub version: i64,
    #[serde(with = "dates")]
    pub created_at: Timestamp,
    #[serde(with = "dates")]
    pub updated_at: Timestamp,
}

/// What staff say of a product.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProductFacts {
    pub name: String,
    pub description: String,
    pub price: Money,
}

/// The product that a change was decided from, and when.
#[derive(Debug, Clone, Copy)]
pub struct Seen<'a> {
    pub id: &'a ProductId,
    pub version: i64,
    pub now: Timestamp,
}

impl Seen<'_> {
    fn filter(&self) -> Document {
        doc! { "_id": self.id.as_str(), "version": self.version, "archivedAt": { "$exists": false } }
    }
}

/// The orders in which products can be listed; products that are equal follow their ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Sort {
    Name,
    NameDown,
    Price,
    PriceDown,
    Oldest,
    Newest,
}

/// The last product of the page before: what it is sorted by, and its id.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Position {
    pub key: SortKey,
    pub id: ProductId,
}

/// What a product is sorted by.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum SortKey {
    Name(String),
    Price(Money),
    CreatedAt(Timestamp),
}

/// Where products must be in stock, or must not.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum StockFilter {
    At(Location),
    NotAt(Location),
    Anywhere,
    Nowhere,
}

/// Which products a listing shows.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Search {
    /// Each must be among the product's search terms.
    pub terms: Vec<String>,
    pub stock: Option<StockFilter>,
    pub min_price: Option<Money>,
    pub max_price: Option<Money>,
    pub sort: Sort,
    pub after: Option<Position>,
    pub limit: i64,
}

/// Units per product and location.
pub type Availability = HashMap<ProductId, Vec<(Location, i64)>>;

impl Sort {
    fn field(self) -> (&'static str, i32) {
        match self {
            Self::Name => ("name", 1),
            Self::NameDown => ("name", -1),
            Self::Price => ("price", 1),
            Self::PriceDown => ("price", -1),
            Self::Oldest => ("createdAt", 1),
            Self::Newest => ("createdAt", -1),
        }
    }

    /// Where `product` stands in this order.
    pub fn position(self, product: &Product) -> Position {
        let key = match self {
            Self::Name | Self::NameDown => SortKey::Name(product.name.clone()),
            Self::Price | Self::PriceDown => SortKey::Price(product.price),
            Self::Oldest | Self::Newest => SortKey::CreatedAt(product.created_at),
        };
        Position { key, id: product.id.clone() }
    }

    /// Whether a position was taken in this order.
    pub fn fits(self, position: &Position) -> bool {
        matches!(
            (self, &position.key),
            (Self::Name | Self::NameDown, SortKey::Name(_))
                | (Self::Price | Self::PriceDown, SortKey::Price(_))
                | (Self::Oldest | Self::Newest, SortKey::CreatedAt(_))
        )
    }
}

impl Search {
    fn filter(&self) -> Document {
        let mut all = vec![doc! { "archivedAt": { "$exists": false } }];
        if !self.terms.is_empty() {
            all.push(doc! { "terms": { "$all": &self.terms } });
        }
        all.extend(self.stock.as_ref().map(|stock| match stock {
            StockFilter::At(location) => doc! { "inStockAt": location.as_str() },
            StockFilter::NotAt(location) => doc! { "inStockAt": { "$ne": location.as_str() } },
            StockFilter::Anywhere => doc! { "inStockAt.0": { "$exists": true } },
            StockFilter::Nowhere => doc! { "inStockAt.0": { "$exists": false } },
        }));
        all.extend(self.min_price.map(|price| doc! { "price": { "$gte": price.minor() } }));
        all.extend(self.max_price.map(|price| doc! { "price": { "$lte": price.minor() } }));
        all.extend(self.after.as_ref().map(|after| beyond(self.sort, after)));
        doc! { "$and": all }
    }
}

fn beyond(sort: Sort, after: &Position) -> Document {
    let (field, direction) = sort.field();
    let comparison = if direction > 0 { "$gt" } else { "$lt" };
    let key = match &after.key {
        SortKey::Name(name) => Bson::from(name.as_str()),
        SortKey::Price(price) => Bson::from(price.minor()),
        SortKey::CreatedAt(at) => Bson::from(dates::bson(*at)),
    };
    let later = doc! { field: { comparison: key.clone() } };
    let equal = doc! { field: key, "_id": { comparison: after.id.as_str() } };
    doc! { "$or": [later, equal] }
}

fn facts_of(facts: &ProductFacts, now: Timestamp) -> Document {
    doc! {
        "$set": {
            "name": &facts.name,
            "description": &facts.description,
            "price": facts.price.minor(),
            "terms": catalogue::search_terms(&facts.name, &facts.description),
            "updatedAt": dates::bson(now),
        },
        "$inc": { "version": 1_i64 },
    }
}

/// The products of the shop.
#[derive(Debug, Clone)]
pub struct Products {
    collection: Collection<Product>,
    stock: Collection<StockRow>,
}

impl Products {
    pub(crate) fn new(database: &Database) -> Self {
        Self { collection: database.collection(COLLECTION), stock: database.collection(stock::COLLECTION) }
    }

    /// The product, unless it is archived.
    pub async fn find(&self, id: &ProductId) -> Result<Option<Product>, StoreError> {
        let listed = doc! { "_id": id.as_str(), "archivedAt": { "$exists": false } };
        Ok(self.collection.find_one(listed).await?)
    }

    /// A page of products.
    pub async fn search(&self, search: &Search) -> Result<Vec<Product>, StoreError> {
        let (field, direction) = search.sort.field();
        let sort = doc! { field: direction, "_id": direction };
        Ok(self.collection.find(search.filter()).sort(sort).limit(search.limit).await?.try_collect().await?)
    }

    /// Units of each product at each location that has a row for it, in the order of the locations' names.
    pub async fn availability(&self, products: &[ProductId]) -> Result<Availability, StoreError> {
        let ids: Vec<&str> = products.iter().map(ProductId::as_str).collect();
        let rows =
            self.stock.find(doc! { "productId": { "$in": ids } }).sort(doc! { "productId": 1, "location": 1 }).await?;
        let rows: Vec<StockRow> = rows.try_collect().await?;
        let mut availability = Availability::new();
        for row in rows {
            availability.entry(row.product_id).or_default().push((row.location, row.stock));
        }
        Ok(availability)
    }

    /// Those of `products` that were ever made: what is archived may still be in stock.
    pub async fn known(&self, products: &[ProductId]) -> Result<HashSet<ProductId>, StoreError> {
        #[derive(Deserialize)]
        struct Known {
            #[serde(rename = "_id")]
            id: ProductId,
        }
        let ids: Vec<&str> = products.iter().map(ProductId::as_str).collect();
        let ids_only = self.collection.clone_with_type::<Known>();
        let found = ids_only.find(doc! { "_id": { "$in": ids } }).projection(doc! { "_id": 1 }).await?;
        Ok(found.map_ok(|known| known.id).try_collect().await?)
    }

    /// Writes a product under a given id: makes it, changes it, or brings it back from the archive.
    /// `Duplicate` when another call made it at the same moment: call again.
    pub async fn put(&self, id: &ProductId, facts: &ProductFacts, now: Timestamp) -> Result<Product, StoreError> {
        let mut change = facts_of(facts, now);
        change.insert("$unset", doc! { "archivedAt": "" });
        change.insert("$setOnInsert", doc! { "createdAt": dates::bson(now), "inStockAt": [] });
        let put = self.collection.find_one_and_update(doc! { "_id": id.as_str() }, change).upsert(true);
        let put = put.return_document(ReturnDocument::After).await?;
        put.ok_or(StoreError::Stale { what: "products" })
    }

    /// Changes the product if it still has the version of `seen`, and is not archived; None when it has not.
    pub async fn change(&self, seen: Seen<'_>, facts: &ProductFacts) -> Result<Option<Product>, StoreError> {
        let changed = self.collection.find_one_and_update(seen.filter(), facts_of(facts, seen.now));
        Ok(changed.return_document(ReturnDocument::After).await?)
    }

    /// Takes the product out of the catalogue if it still has the version of `seen`; false when it has not. Its stock
    /// and the orders of it stay.
    pub async fn archive(&self, seen: Seen<'_>) -> Result<bool, StoreError> {
        let now = dates::bson(seen.now);
        let change = doc! { "$set": { "archivedAt": now, "updatedAt": now }, "$inc": { "version": 1_i64 } };
        Ok(self.collection.update_one(seen.filter(), change).await?.matched_count == 1)
    }

    pub(crate) fn indexes() -> Vec<IndexModel> {
        let sorted = |field: &str| IndexModel::builder().keys(doc! { field: 1, "_id": 1 }).build();
        vec![
            sorted("name"),
            sorted("price"),
            sorted("createdAt"),
            IndexModel::builder().keys(doc! { "terms": 1 }).build(),
            IndexModel::builder().keys(doc! { "inStockAt": 1 }).build(),
        ]
    }
}
