//! The `sessions` collection: logins, each a family of refresh tokens of which only hashes are kept.

use std::time::Duration;

use jiff::Timestamp;
use mongodb::{Collection, Database, IndexModel, bson::doc, options::IndexOptions};
use serde::{Deserialize, Serialize};
use shop_domain::id::{SessionId, UserId};

use crate::{StoreError, dates};

pub(crate) const COLLECTION: &str = "sessions";

/// A login.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Session {
    #[serde(rename = "_id")]
    pub id: SessionId,
    pub user_id: UserId,
    pub refresh: Refresh,
    #[serde(with = "dates")]
    pub created_at: Timestamp,
    #[serde(with = "dates")]
    pub last_used_at: Timestamp,
    /// When the database forgets the session, unless it is used before.
    #[serde(with = "dates")]
    pub expires_at: Timestamp,
    #[serde(default, with = "dates::optional", skip_serializing_if = "Option::is_none")]
    pub revoked_at: Option<Timestamp>,
}

/// The refresh token that is good now, and the one before it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Refresh {
    pub current_hash: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous_hash: Option<String>,
    #[serde(default, with = "dates::optional", skip_serializing_if = "Option::is_none")]
    pub rotated_at: Option<Timestamp>,
}

/// A step from one refresh token to its successor.
#[derive(Debug, Clone, Copy)]
pub struct Rotation<'a> {
    pub from_hash: &'a str,
    pub to_hash: &'a str,
    pub now: Timestamp,
    pub expires_at: Timestamp,
}

/// The sessions of the shop.
#[derive(Debug, Clone)]
pub struct Sessions {
    collection: Collection<Session>,
}

impl Sessions {
    pub(crate) fn new(database: &Database) -> Self {
        Self { collection: database.collection(COLLECTION) }
    }

    pub async fn create(&self, session: &Session) -> Result<(), StoreError> {
        self.collection.insert_one(session).await?;
        Ok(())
    }

    pub async fn find(&self, id: &SessionId) -> Result<Option<Session>, StoreError> {
        Ok(self.collection.find_one(doc! { "_id": id.as_str() }).await?)
    }

    /// Takes the step if the presented token is still the current one of a live session; false when it is not.
    pub async fn rotate(&self, id: &SessionId, rotation: Rotation<'_>) -> Result<bool, StoreError> {
        let live = doc! {
            "_id": id.as_str(),
            "refresh.currentHash": rotation.from_hash,
            "revokedAt": { "$exists": false },
        };
        let now = dates::bson(rotation.now);
        let step = doc! { "$set": {
            "refresh.currentHash": rotation.to_hash,
            "refresh.previousHash": rotation.from_hash,
            "refresh.rotatedAt": now,
            "lastUsedAt": now,
            "expiresAt": dates::bson(rotation.expires_at),
        } };
        Ok(self.collection.update_one(live, step).await?.matched_count == 1)
    }

    /// Ends a session and all its tokens. False when it was over before.
    pub async fn revoke(&self, id: &SessionId, now: Timestamp) -> Result<bool, StoreError> {
        let live = doc! { "_id": id.as_str(), "revokedAt": { "$exists": false } };
        let change = doc! { "$set": { "revokedAt": dates::bson(now) } };
        Ok(self.collection.update_one(live, change).await?.matched_count == 1)
    }

    /// Ends every session of a user; says how many.
    pub async fn revoke_all(&self, user: &UserId, now: Timestamp) -> Result<u64, StoreError> {
        let live = doc! { "userId": user.as_str(), "revokedAt": { "$exists": false } };
        let change = doc! { "$set": { "revokedAt": dates::bson(now) } };
        Ok(self.collection.update_many(live, change).await?.matched_count)
    }

    pub(crate) fn indexes() -> Vec<IndexModel> {
        let forget = IndexOptions::builder().expire_after(Duration::ZERO).build();
        vec![
            IndexModel::builder().keys(doc! { "userId": 1, "createdAt": -1 }).build(),
            IndexModel::builder().keys(doc! { "expiresAt": 1 }).options(forget).build(),
        ]
    }
}
