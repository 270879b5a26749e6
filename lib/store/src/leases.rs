//! The `leases` collection: one holder at a time for work that must not run twice.

use jiff::Timestamp;
use mongodb::{
    Collection, Database,
    bson::{Document, doc},
};

use crate::{StoreError, dates};

/// Named leases. They expire by the holders' clocks, so a lease must be many times longer than these differ.
#[derive(Debug, Clone)]
pub struct Leases {
    collection: Collection<Document>,
}

/// A wish to hold a lease.
#[derive(Debug, Clone)]
pub struct LeaseRequest {
    pub name: &'static str,
    /// Unique per process.
    pub holder: String,
    pub now: Timestamp,
    pub until: Timestamp,
}

impl Leases {
    pub(crate) fn new(database: &Database) -> Self {
        Self { collection: database.collection("leases") }
    }

    /// Takes or renews a lease. False when another holder has it.
    pub async fn hold(&self, wish: &LeaseRequest) -> Result<bool, StoreError> {
        let free = [doc! { "holder": &wish.holder }, doc! { "expiresAt": { "$lte": dates::bson(wish.now) } }];
        let filter = doc! { "_id": wish.name, "$or": free.to_vec() };
        let change = doc! { "$set": { "holder": &wish.holder, "expiresAt": dates::bson(wish.until) } };
        match self.collection.update_one(filter, change).upsert(true).await.map_err(StoreError::from) {
            Ok(_) => Ok(true),
            // The upsert met the other holder's document.
            Err(StoreError::Duplicate(_)) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Gives a lease back, so that the next holder need not wait for its end.
    pub async fn release(&self, name: &str, holder: &str) -> Result<(), StoreError> {
        self.collection.delete_one(doc! { "_id": name, "holder": holder }).await?;
        Ok(())
    }
}
