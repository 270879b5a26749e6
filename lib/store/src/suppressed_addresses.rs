//! The `suppressed_addresses` collection: addresses that the mail service does not send to. Keeps only a digest of each.

use std::collections::HashSet;

use futures::TryStreamExt;
use jiff::Timestamp;
use mongodb::{
    Collection, Database,
    bson::{Document, doc},
};
use serde::Deserialize;
use sha2::{Digest, Sha256};

use crate::{StoreError, dates, orders::BuyerEmail};

/// Keeps these digests apart from any other digest of an address.
const DOMAIN: &str = "suppressed-address\0";

/// The suppressed ones among the addresses that were asked for.
#[derive(Debug, Clone, Default)]
pub struct Suppressed(HashSet<String>);

impl Suppressed {
    pub fn contains(&self, address: &BuyerEmail) -> bool {
        self.0.contains(&key(address))
    }
}

/// The addresses that are not sent to.
#[derive(Debug, Clone)]
pub struct SuppressedAddresses {
    collection: Collection<Document>,
}

impl SuppressedAddresses {
    pub(crate) fn new(database: &Database) -> Self {
        Self { collection: database.collection("suppressed_addresses") }
    }

    /// Sends nothing to the address from now on. `reason` is the mail service's code.
    pub async fn suppress(&self, address: &BuyerEmail, reason: &str, now: Timestamp) -> Result<(), StoreError> {
        let first = doc! { "$setOnInsert": { "reason": reason, "since": dates::bson(now) } };
        self.collection.update_one(doc! { "_id": key(address) }, first).upsert(true).await?;
        Ok(())
    }

    /// Lets mails go to the address again. False when it was not suppressed.
    pub async fn clear(&self, address: &BuyerEmail) -> Result<bool, StoreError> {
        Ok(self.collection.delete_one(doc! { "_id": key(address) }).await?.deleted_count == 1)
    }

    pub async fn among(
        &self,
        addresses: impl IntoIterator<Item = &BuyerEmail> + Send,
    ) -> Result<Suppressed, StoreError> {
        #[derive(Deserialize)]
        struct Found {
            #[serde(rename = "_id")]
            key: String,
        }
        let keys: Vec<_> = addresses.into_iter().map(key).collect();
        let found = self.collection.clone_with_type::<Found>().find(doc! { "_id": { "$in": keys } }).await?;
        Ok(Suppressed(found.map_ok(|found| found.key).try_collect().await?))
    }
}

/// The same for every spelling of the address.
fn key(address: &BuyerEmail) -> String {
    let digest = Sha256::new_with_prefix(DOMAIN).chain_update(address.expose().trim().to_lowercase()).finalize();
    hex::encode(digest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_says_nothing_of_its_address_and_is_the_same_for_every_spelling() {
        let [one, same, other] =
            ["Ann@Example.com ", "ann@example.com", "bob@example.com"].map(|text| key(&BuyerEmail::new(text)));
        assert!(one == same && one != other && one.len() == 64 && !one.contains("ann"));
    }
}
