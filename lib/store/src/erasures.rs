//! The `erasures` collection: accounts whose erasure has begun. An entry stays until everything of the account is gone,
//! so that no crash leaves half of it behind.

use futures::TryStreamExt;
use jiff::Timestamp;
use mongodb::{Collection, Database, IndexModel, bson::doc};
use serde::Deserialize;
use shop_domain::id::UserId;

use crate::{StoreError, dates};

pub(crate) const COLLECTION: &str = "erasures";

/// Accounts of one look.
const LIMIT: i64 = 100;

#[derive(Debug, Deserialize)]
struct Begun {
    #[serde(rename = "_id")]
    user: UserId,
}

/// The erasures of the shop that are not finished.
#[derive(Debug, Clone)]
pub struct Erasures {
    collection: Collection<Begun>,
}

impl Erasures {
    pub(crate) fn new(database: &Database) -> Self {
        Self { collection: database.collection(COLLECTION) }
    }

    /// Notes that an account is to be erased. Idempotent.
    pub async fn begin(&self, user: &UserId, now: Timestamp) -> Result<(), StoreError> {
        let note = doc! { "$setOnInsert": { "begunAt": dates::bson(now) } };
        self.collection.update_one(doc! { "_id": user.as_str() }, note).upsert(true).await?;
        Ok(())
    }

    /// Accounts whose erasure began before `before`, oldest first.
    pub async fn begun_before(&self, before: Timestamp) -> Result<Vec<UserId>, StoreError> {
        let begun = self.collection.find(doc! { "begunAt": { "$lt": dates::bson(before) } });
        let begun: Vec<Begun> = begun.sort(doc! { "begunAt": 1 }).limit(LIMIT).await?.try_collect().await?;
        Ok(begun.into_iter().map(|begun| begun.user).collect())
    }

    /// Forgets an erasure: nothing of the account is left.
    pub async fn finish(&self, user: &UserId) -> Result<(), StoreError> {
        self.collection.delete_one(doc! { "_id": user.as_str() }).await?;
        Ok(())
    }

    pub(crate) fn indexes() -> Vec<IndexModel> {
        vec![IndexModel::builder().keys(doc! { "begunAt": 1 }).build()]
    }
}
