//! The catalogue: browsing through two caches, and what staff change. Prices for orders are never read here.

use std::{collections::HashMap, sync::Arc, time::Duration};

use moka::future::Cache;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use shop_domain::{catalogue::Location, id::ProductId, money::Currency};
use shop_runtime::{
    clock::Clock,
    ids::{self, NoRandomness},
};
use shop_store::{
    Store, StoreError,
    catalogue_cache::{CatalogueCache, Lookup},
    products::{Position, Search, StockFilter},
};

pub use shop_store::products::{Product, ProductFacts, Sort};

/// Longest name, in characters.
pub const MAX_NAME: usize = 200;
/// Longest description, in characters.
pub const MAX_DESCRIPTION: usize = 5_000;

/// Availability is at most a second old; the rest of the second is for reading it.
const PROCESS_TTL: Duration = Duration::from_millis(900);
const PRODUCTS_KEPT: u64 = 10_000;
const PAGES_KEPT: u64 = 1_000;

#[derive(Debug, thiserror::Error)]
pub enum CatalogueError {
    #[error("cannot write the catalogue")]
    Store(#[from] StoreError),
    #[error("cannot read the catalogue")]
    SharedRead(#[from] Arc<StoreError>),
    #[error(transparent)]
    Random(#[from] NoRandomness),
}

/// A product and what there is of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Offer {
    pub product: Product,
    /// Units per location.
    pub available: Vec<(Location, i64)>,
}

/// A page of offers.
#[derive(Debug, Clone, PartialEq)]
pub struct Page {
    pub offers: Vec<Offer>,
    /// Where the next page begins; None on the last.
    pub next: Option<Cursor>,
}

/// Where a page ended. Only good for the order it was made in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cursor {
    sort: Sort,
    after: Position,
}

/// What a client asks of the list.
#[derive(Debug, Clone)]
pub struct Browse {
    pub terms: Vec<String>,
    pub location: Option<Location>,
    pub in_stock: Option<bool>,
    pub min_price: Option<shop_domain::money::Money>,
    pub max_price: Option<shop_domain::money::Money>,
    pub sort: Sort,
    pub cursor: Option<Cursor>,
    pub limit: i64,
}

impl Cursor {
    /// Whether the cursor belongs to a list in this order.
    pub fn fits(&self, sort: Sort) -> bool {
        self.sort == sort && sort.fits(&self.after)
    }
}

impl Browse {
    /// A location alone means: in stock there.
    fn stock_filter(&self) -> Option<StockFilter> {
        match (self.location.clone(), self.in_stock) {
            (Some(location), Some(true) | None) => Some(StockFilter::At(location)),
            (Some(location), Some(false)) => Some(StockFilter::NotAt(location)),
            (None, Some(true)) => Some(StockFilter::Anywhere),
            (None, Some(false)) => Some(StockFilter::Nowhere),
            (None, None) => None,
        }
    }

    /// One entry more than asked for tells whether there is a next page.
    fn search(&self) -> Search {
        Search {
            terms: self.terms.clone(),
            stock: self.stock_filter(),
            min_price: self.min_price,
            max_price: self.max_price,
            sort: self.sort,
            after: self.cursor.as_ref().map(|cursor| cursor.after.clone()),
            limit: self.limit + 1,
        }
    }
}

/// The catalogue of the shop; clones share the process's caches.
#[derive(Clone)]
pub struct Catalogue {
    store: Store,
    redis: CatalogueCache,
    clock: Clock,
    pub currency: Currency,
    offers: Cache<ProductId, Option<Arc<Offer>>>,
    pages: Cache<String, Arc<Page>>,
}

impl Catalogue {
    pub fn new(store: Store, redis: CatalogueCache, clock: Clock, currency: Currency) -> Self {
        let offers = Cache::builder().max_capacity(PRODUCTS_KEPT).time_to_live(PROCESS_TTL).build();
        let pages = Cache::builder().max_capacity(PAGES_KEPT).time_to_live(PROCESS_TTL).build();
        Self { store, redis, clock, currency, offers, pages }
    }

    /// A product and its availability, at most a second old.
    pub async fn offer(&self, id: &ProductId) -> Result<Option<Arc<Offer>>, CatalogueError> {
        Ok(self.offers.try_get_with(id.clone(), self.read_offer(id)).await?)
    }

    /// A page of products and their availability, at most a second old.
    pub async fn browse(&self, browse: &Browse) -> Result<Arc<Page>, CatalogueError> {
        let search = browse.search();
        let name = name_of(&search);
        Ok(self.pages.try_get_with(name.clone(), self.read_page(search, name)).await?)
    }

    /// Makes or replaces the product with this id.
    pub async fn put(&self, id: &ProductId, facts: &ProductFacts) -> Result<Offer, CatalogueError> {
        let now = self.clock.now();
        let product = match self.store.products.put(id, facts, now).await {
            Err(StoreError::Duplicate(_)) => self.store.products.put(id, facts, now).await?,
            other => other?,
        };
        self.redis.invalidate().await;
        self.offers.invalidate(id).await;
        self.pages.invalidate_all();
        tracing::info!(product = %id, version = product.version, "product written");
        let mut availability = self.store.products.availability(std::slice::from_ref(id)).await?;
        Ok(Offer { product, available: availability.remove(id).unwrap_or_default() })
    }

    /// Makes a product under an id of its own.
    pub async fn create(&self, facts: &ProductFacts) -> Result<Offer, CatalogueError> {
        self.put(&ProductId::from_bits(ids::random_bytes()?), facts).await
    }

    async fn read_offer(&self, id: &ProductId) -> Result<Option<Arc<Offer>>, StoreError> {
        let product = match self.redis.get(&format!("product:{id}")).await {
            Lookup::Hit(product) => product,
            Lookup::Miss(slot) => {
                let product = self.store.products.find(id).await?;
                if product.is_some() {
                    self.redis.put(&slot, &product).await;
                }
                product
            }
            Lookup::Away => self.store.products.find(id).await?,
        };
        let Some(product) = product else { return Ok(None) };
        let mut availability = self.store.products.availability(std::slice::from_ref(id)).await?;
        Ok(Some(Arc::new(Offer { product, available: availability.remove(id).unwrap_or_default() })))
    }

    async fn read_page(&self, search: Search, name: String) -> Result<Arc<Page>, StoreError> {
        let mut products = self.read_products(&search, &name).await?;
        let page_length = usize::try_from(search.limit - 1).unwrap_or(0);
        let more = products.len() > page_length;
        products.truncate(page_length);
        let next = products.last().filter(|_| more);
        let next = next.map(|last| Cursor { sort: search.sort, after: search.sort.position(last) });
        let ids: Vec<_> = products.iter().map(|product| product.id.clone()).collect();
        let mut availability: HashMap<_, _> =
            if ids.is_empty() { HashMap::new() } else { self.store.products.availability(&ids).await? };
        let offer = |product: Product| {
            let available = availability.remove(&product.id).unwrap_or_default();
            Offer { product, available }
        };
        Ok(Arc::new(Page { offers: products.into_iter().map(offer).collect(), next }))
    }

    /// Pages that depend on stock are not kept in Redis: a sale would not drop them.
    async fn read_products(&self, search: &Search, name: &str) -> Result<Vec<Product>, StoreError> {
        if search.stock.is_some() {
            return self.store.products.search(search).await;
        }
        match self.redis.get(name).await {
            Lookup::Hit(products) => Ok(products),
            Lookup::Miss(slot) => {
                let products = self.store.products.search(search).await?;
                self.redis.put(&slot, &products).await;
                Ok(products)
            }
            Lookup::Away => self.store.products.search(search).await,
        }
    }
}

fn name_of(search: &Search) -> String {
    let text = serde_json::to_string(search).unwrap_or_default();
    format!("page:{}", hex::encode(Sha256::digest(text)))
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn browse(location: Option<&str>, in_stock: Option<bool>) -> Browse {
        Browse {
            terms: Vec::new(),
            location: location.map(|text| text.parse().unwrap()),
            in_stock,
            min_price: None,
            max_price: None,
            sort: Sort::Name,
            cursor: None,
            limit: 20,
        }
    }

    #[rstest]
    #[case(None, None, None)]
    #[case(None, Some(true), Some(StockFilter::Anywhere))]
    #[case(None, Some(false), Some(StockFilter::Nowhere))]
    #[case(Some("pune"), None, Some(StockFilter::At("pune".parse().unwrap())))]
    #[case(Some("pune"), Some(true), Some(StockFilter::At("pune".parse().unwrap())))]
    #[case(Some("pune"), Some(false), Some(StockFilter::NotAt("pune".parse().unwrap())))]
    fn location_and_stock_together_make_the_filter(
        #[case] location: Option<&str>,
        #[case] in_stock: Option<bool>,
        #[case] filter: Option<StockFilter>,
    ) {
        assert_eq!(browse(location, in_stock).stock_filter(), filter);
    }

    #[test]
    fn different_searches_have_different_names() {
        let (one, other) = (browse(None, None), Browse { limit: 21, ..browse(None, None) });
        assert_eq!(name_of(&one.search()), name_of(&one.search()));
        assert_ne!(name_of(&one.search()), name_of(&other.search()));
    }

    #[test]
    fn a_product_survives_the_cache() {
        let product = Product {
            id: "67c8830b7ef1b848ac52ebec".parse().unwrap(),
            name: "Mouse".into(),
            description: String::new(),
            price: 132_400.try_into().unwrap(),
            version: 3,
            created_at: jiff::Timestamp::from_millisecond(1_750_000_000_123).unwrap(),
            updated_at: jiff::Timestamp::from_millisecond(1_750_000_000_456).unwrap(),
        };
        let json = serde_json::to_string(&vec![product.clone()]).unwrap();
        assert_eq!(serde_json::from_str::<Vec<Product>>(&json).unwrap(), [product]);
    }
}
