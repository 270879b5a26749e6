//! What staff change in the catalogue. Each change is seen at once by this process, and within a second by every other.

use std::sync::atomic::Ordering;

use shop_domain::{id::ProductId, money::Money};
use shop_runtime::ids;
use shop_store::{
    StoreError,
    products::{Product, ProductFacts, Seen},
};

use super::{Catalogue, CatalogueError, Offer};

/// Others who change the same product at the same moment are met so often before the client is asked to try again.
const ATTEMPTS: u32 = 5;

/// The versions of a product that a change is meant for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Precondition {
    Any,
    Versions(Vec<i64>),
}

impl Precondition {
    fn admits(&self, version: i64) -> bool {
        match self {
            Self::Any => true,
            Self::Versions(versions) => versions.contains(&version),
        }
    }
}

/// What staff change of a product; the rest stays.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProductPatch {
    pub name: Option<String>,
    pub description: Option<String>,
    pub price: Option<Money>,
}

impl ProductPatch {
    fn onto(&self, product: &Product) -> ProductFacts {
        ProductFacts {
            name: self.name.clone().unwrap_or_else(|| product.name.clone()),
            description: self.description.clone().unwrap_or_else(|| product.description.clone()),
            price: self.price.unwrap_or(product.price),
        }
    }
}

impl Catalogue {
    /// Makes or replaces the product with this id; with a precondition only replaces.
    pub async fn put(
        &self,
        id: &ProductId,
        facts: &ProductFacts,
        wanted: Option<&Precondition>,
    ) -> Result<Offer, CatalogueError> {
        let product = match wanted {
            Some(wanted) => self.change(id, wanted, |_| facts.clone()).await?.ok_or(CatalogueError::Changed)?,
            None => self.upsert(id, facts).await?,
        };
        self.written(product).await
    }

    /// Makes a product under an id of its own.
    pub async fn create(&self, facts: &ProductFacts) -> Result<Offer, CatalogueError> {
        self.put(&ProductId::from_bits(ids::random_bytes()?), facts, None).await
    }

    /// Changes a product; None when there is none.
    pub async fn patch(
        &self,
        id: &ProductId,
        patch: &ProductPatch,
        wanted: &Precondition,
    ) -> Result<Option<Offer>, CatalogueError> {
        match self.change(id, wanted, |product| patch.onto(product)).await? {
            Some(product) => self.written(product).await.map(Some),
            None => Ok(None),
        }
    }

    /// Takes a product out of the catalogue; false when it was not there. Its stock and the orders of it stay.
    pub async fn archive(&self, id: &ProductId, wanted: &Precondition) -> Result<bool, CatalogueError> {
        for _ in 0..ATTEMPTS {
            let Some(product) = self.wanted(id, wanted).await? else { return Ok(false) };
            let seen = Seen { id, version: product.version, now: self.clock.now() };
            if self.store.products.archive(seen).await? {
                self.publish(id).await;
                tracing::info!(product = %id, "product archived");
                return Ok(true);
            }
        }
        Err(StoreError::Stale { what: "the product" }.into())
    }

    async fn upsert(&self, id: &ProductId, facts: &ProductFacts) -> Result<Product, StoreError> {
        let now = self.clock.now();
        match self.store.products.put(id, facts, now).await {
            Err(StoreError::Duplicate(_)) => self.store.products.put(id, facts, now).await,
            other => other,
        }
    }

    async fn change(
        &self,
        id: &ProductId,
        wanted: &Precondition,
        facts: impl Fn(&Product) -> ProductFacts,
    ) -> Result<Option<Product>, CatalogueError> {
        for _ in 0..ATTEMPTS {
            let Some(product) = self.wanted(id, wanted).await? else { return Ok(None) };
            let seen = Seen { id, version: product.version, now: self.clock.now() };
            if let Some(changed) = self.store.products.change(seen, &facts(&product)).await? {
                return Ok(Some(changed));
            }
        }
        Err(StoreError::Stale { what: "the product" }.into())
    }

    /// The product, if the change is meant for it as it is now.
    async fn wanted(&self, id: &ProductId, wanted: &Precondition) -> Result<Option<Product>, CatalogueError> {
        match self.store.products.find(id).await? {
            Some(product) if !wanted.admits(product.version) => Err(CatalogueError::Changed),
            found => Ok(found),
        }
    }

    async fn written(&self, product: Product) -> Result<Offer, CatalogueError> {
        self.publish(&product.id).await;
        tracing::info!(product = %product.id, version = product.version, "product written");
        let mut availability = self.store.products.availability(std::slice::from_ref(&product.id)).await?;
        Ok(Offer { available: availability.remove(&product.id).unwrap_or_default(), product })
    }

    /// Drops what the caches know from before.
    async fn publish(&self, id: &ProductId) {
        self.redis.invalidate().await;
        self.generation.fetch_add(1, Ordering::SeqCst);
        self.products.forget(id).await;
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case(Precondition::Any, true)]
    #[case(Precondition::Versions(vec![2, 3]), true)]
    #[case(Precondition::Versions(vec![2]), false)]
    #[case(Precondition::Versions(vec![]), false)]
    fn a_change_is_for_the_versions_it_names(#[case] wanted: Precondition, #[case] admitted: bool) {
        assert_eq!(wanted.admits(3), admitted);
    }
}
