//! The catalogue: browsing through two caches, and what staff change. Prices for orders are never read here.

mod shelf;
mod write;

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use jiff::Timestamp;
use moka::future::Cache;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use shop_domain::{catalogue::Location, id::ProductId, money::Currency};
use shop_runtime::{clock::Clock, ids::NoRandomness};
use shop_store::{
    Store, StoreError,
    catalogue_cache::{CatalogueCache, Lookup},
    products::{Position, Search, StockFilter},
};

use self::shelf::{FRESH, Shelf};
pub use self::{
    shelf::{Miss, Served, tag},
    write::{Precondition, ProductPatch},
};
pub use shop_store::products::{Product, ProductFacts, Sort};

use super::page;

/// Longest name, in characters.
pub const MAX_NAME: usize = 200;
/// Longest description, in characters.
pub const MAX_DESCRIPTION: usize = 5_000;

/// Ids that are not in the catalogue, remembered for as long as an answer is fresh: apart from the products, which a scan of
/// invented ids must not drive out.
const UNKNOWN_KEPT: u64 = 1_000;

#[derive(Debug, thiserror::Error)]
pub enum CatalogueError {
    #[error("the product is not the one that the change was made for")]
    Changed,
    #[error("cannot write the catalogue")]
    Store(#[from] StoreError),
    #[error(transparent)]
    Read(#[from] Arc<Miss>),
    #[error(transparent)]
    Random(#[from] NoRandomness),
}

/// A product and what there is of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Offer {
    pub product: Product,
    /// Units per location.
    pub available: Vec<(Location, i64)>,
}

/// A page of offers. Kept in Redis, for when there is none to be had from MongoDB.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Page {
    pub offers: Vec<Offer>,
    /// Where the next page begins; None on the last.
    pub next: Option<Cursor>,
    /// When MongoDB was asked.
    read_at: Timestamp,
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

    fn search(&self) -> Search {
        Search {
            terms: self.terms.clone(),
            stock: self.stock_filter(),
            min_price: self.min_price,
            max_price: self.max_price,
            sort: self.sort,
            after: self.cursor.as_ref().map(|cursor| cursor.after.clone()),
            limit: page::asked(self.limit),
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
    products: Shelf<ProductId>,
    pages: Shelf<Search>,
    unknown: Cache<(u64, ProductId), ()>,
    /// One more with each write of this process.
    generation: Arc<AtomicU64>,
}

impl Catalogue {
    pub fn new(store: Store, redis: CatalogueCache, clock: Clock, currency: Currency) -> Self {
        let unknown = Cache::builder().max_capacity(UNKNOWN_KEPT).time_to_live(FRESH).build();
        let (products, pages, generation) = (Shelf::new(), Shelf::new(), Arc::default());
        Self { store, redis, clock, currency, products, pages, unknown, generation }
    }

    /// A product and its availability as `write` tells it: at most a second old while MongoDB answers, else the last
    /// known.
    pub async fn offer(
        &self,
        id: &ProductId,
        write: impl FnOnce(&Offer) -> serde_json::Result<Vec<u8>>,
    ) -> Result<Option<Arc<Served>>, CatalogueError> {
        let generation = self.generation.load(Ordering::SeqCst);
        if self.unknown.contains_key(&(generation, id.clone())) {
            return Ok(None);
        }
        let load = || async {
            let page = self.read(&format!("product:{id}"), self.find(id)).await?;
            let offer = page.offers.first().ok_or(Miss::Absent)?;
            Ok(Served::new(write(offer)?, Some(offer.product.version), page.read_at))
        };
        match self.products.get((generation, id), load).await {
            Ok(served) => Ok(Some(served)),
            Err(miss) if matches!(*miss, Miss::Absent) => {
                self.unknown.insert((generation, id.clone()), ()).await;
                Ok(None)
            }
            Err(miss) => Err(miss.into()),
        }
    }

    /// A page of products and their availability as `write` tells it: as old as an offer.
    pub async fn browse(
        &self,
        browse: &Browse,
        write: impl FnOnce(&Page) -> serde_json::Result<Vec<u8>>,
    ) -> Result<Arc<Served>, CatalogueError> {
        let search = browse.search();
        let load = || async {
            let page = match &search.stock {
                // Not kept in Redis: a sale would not drop it.
                Some(_) => self.ask(self.search(&search)).await?,
                None => self.read(&name_of(&search), self.search(&search)).await?,
            };
            Ok(Served::new(write(&page)?, None, page.read_at))
        };
        Ok(self.pages.get((self.generation.load(Ordering::SeqCst), &search), load).await?)
    }

    /// Whole seconds since the answer was read from MongoDB.
    pub fn age(&self, served: &Served) -> u64 {
        u64::try_from(self.clock.now().duration_since(served.read_at).as_secs()).unwrap_or(0)
    }

    /// Products from Redis with what there is of them now, else all from MongoDB.
    async fn read(
        &self,
        name: &str,
        ask: impl Future<Output = Result<(Vec<Product>, Option<Cursor>), StoreError>>,
    ) -> Result<Page, StoreError> {
        match self.redis.get::<Page>(name).await {
            Lookup::Hit(known) => self.restocked(known).await,
            Lookup::Miss(slot) => {
                let page = self.ask(ask).await?;
                // What is not there is asked for by whoever invents it: Redis need not remember that.
                if !page.offers.is_empty() {
                    self.redis.put(&slot, &page).await;
                }
                Ok(page)
            }
            Lookup::Away => self.ask(ask).await,
        }
    }

    /// The page with present availability; as it was when MongoDB is away.
    async fn restocked(&self, known: Page) -> Result<Page, StoreError> {
        let products: Vec<_> = known.offers.iter().map(|offer| offer.product.clone()).collect();
        match self.ask(async { Ok((products, known.next.clone())) }).await {
            Err(StoreError::Unavailable(_)) => Ok(known),
            page => page,
        }
    }

    /// Products from MongoDB with what there is of them.
    async fn ask(
        &self,
        ask: impl Future<Output = Result<(Vec<Product>, Option<Cursor>), StoreError>>,
    ) -> Result<Page, StoreError> {
        let read_at = self.clock.now();
        let read = async {
            let (products, next) = ask.await?;
            Ok(Page { offers: self.stocked(products).await?, next, read_at })
        };
        self.store.gate.guard(read).await
    }

    async fn find(&self, id: &ProductId) -> Result<(Vec<Product>, Option<Cursor>), StoreError> {
        Ok((self.store.products.find(id).await?.into_iter().collect(), None))
    }

    async fn search(&self, search: &Search) -> Result<(Vec<Product>, Option<Cursor>), StoreError> {
        let mut products = self.store.products.search(search).await?;
        let (sort, limit) = (search.sort, search.limit - 1);
        let next = page::cut(&mut products, limit, |last| Cursor { sort, after: sort.position(last) });
        Ok((products, next))
    }

    async fn stocked(&self, products: Vec<Product>) -> Result<Vec<Offer>, StoreError> {
        if products.is_empty() {
            return Ok(Vec::new());
        }
        let ids: Vec<_> = products.iter().map(|product| product.id.clone()).collect();
        let mut availability = self.store.products.availability(&ids).await?;
        let offer = |product: Product| {
            let available = availability.remove(&product.id).unwrap_or_default();
            Offer { product, available }
        };
        Ok(products.into_iter().map(offer).collect())
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
    fn a_page_survives_the_cache() {
        let product = Product {
            id: "67c8830b7ef1b848ac52ebec".parse().unwrap(),
            name: "Mouse".into(),
            description: String::new(),
            price: 132_400.try_into().unwrap(),
            version: 3,
            created_at: Timestamp::from_millisecond(1_750_000_000_123).unwrap(),
            updated_at: Timestamp::from_millisecond(1_750_000_000_456).unwrap(),
        };
        let next = Some(Cursor { sort: Sort::Newest, after: Sort::Newest.position(&product) });
        let offers = vec![Offer { product, available: vec![("pune".parse().unwrap(), 7)] }];
        let page = Page { offers, next, read_at: Timestamp::from_second(1_750_000_000).unwrap() };
        let json = serde_json::to_string(&page).unwrap();
        assert_eq!(serde_json::from_str::<Page>(&json).unwrap(), page);
    }
}
