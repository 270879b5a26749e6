//! The `sessions` collection: logins, each a family of refresh tokens of which only hashes are kept.

use futures::TryStreamExt;
use jiff::Timestamp;
use mongodb::{
    Collection, Database, IndexModel,
    bson::{Document, doc},
};
use serde::{Deserialize, Serialize};
use shop_domain::id::{SessionId, UserId};

use crate::{StoreError, dates, migrate, transaction::Transaction};

pub(crate) const COLLECTION: &str = "sessions";

/// Sessions that one user can list: more than anyone has devices.
const LISTED: i64 = 100;

/// A login.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Session {
    #[serde(rename = "_id")]
    pub id: SessionId,
    pub user_id: UserId,
    pub refresh: Refresh,
    /// The account's password version when the session was opened: one that is behind is over.
    #[serde(default)]
    pub password_version: i64,
    /// What it was opened with, and from where, as its owner may recognise it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
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
        self.revoke_one(doc! { "_id": id.as_str() }, now).await
    }

    /// Ends a session if it is the user's. False when it is not, or was over before.
    pub async fn revoke_of(&self, user: &UserId, id: &SessionId, now: Timestamp) -> Result<bool, StoreError> {
        self.revoke_one(doc! { "_id": id.as_str(), "userId": user.as_str() }, now).await
    }

    /// Ends every session of a user; says which.
    pub async fn revoke_all(&self, user: &UserId, now: Timestamp) -> Result<Vec<SessionId>, StoreError> {
        self.revoke_where(doc! { "userId": user.as_str() }, now).await
    }

    /// Ends the sessions of a user that were opened with an older password; says which.
    pub async fn revoke_outdated(
        &self,
        user: &UserId,
        password_version: i64,
        now: Timestamp,
    ) -> Result<Vec<SessionId>, StoreError> {
        // Not `$lt`: sessions of earlier versions of the shop have no such field.
        let outdated = doc! { "userId": user.as_str(), "passwordVersion": { "$not": { "$gte": password_version } } };
        self.revoke_where(outdated, now).await
    }

    /// Removes all that is kept of a user's sessions: end them before, so that the caches hear of it. Idempotent.
    pub async fn remove_all(&self, user: &UserId) -> Result<(), StoreError> {
        self.collection.delete_many(doc! { "userId": user.as_str() }).await?;
        Ok(())
    }

    async fn revoke_one(&self, mut filter: Document, now: Timestamp) -> Result<bool, StoreError> {
        filter.extend(not_revoked());
        Ok(self.collection.update_one(filter, revocation(now)).await?.matched_count == 1)
    }

    async fn revoke_where(&self, mut filter: Document, now: Timestamp) -> Result<Vec<SessionId>, StoreError> {
        filter.extend(not_revoked());
        let sessions: Vec<Session> = self.collection.find(filter.clone()).await?.try_collect().await?;
        self.collection.update_many(filter, revocation(now)).await?;
        Ok(sessions.into_iter().map(|session| session.id).collect())
    }

    /// A user's live sessions, newest first.
    pub async fn live_of(&self, user: &UserId, now: Timestamp) -> Result<Vec<Session>, StoreError> {
        let live = doc! {
            "userId": user.as_str(),
            "revokedAt": { "$exists": false },
            "expiresAt": { "$gt": dates::bson(now) },
        };
        let newest = doc! { "createdAt": -1 };
        Ok(self.collection.find(live).sort(newest).limit(LISTED).await?.try_collect().await?)
    }

    /// Lets a session outlive a change of the password that is made in the same transaction.
    pub async fn keep_in(&self, tx: &mut Transaction, id: &SessionId, password_version: i64) -> Result<(), StoreError> {
        let change = doc! { "$set": { "passwordVersion": password_version } };
        self.collection.update_one(doc! { "_id": id.as_str() }, change).session(tx.session()).await?;
        Ok(())
    }

    pub(crate) fn indexes() -> Vec<IndexModel> {
        vec![IndexModel::builder().keys(doc! { "userId": 1, "createdAt": -1 }).build(), migrate::forget_expired()]
    }
}

fn not_revoked() -> Document {
    doc! { "revokedAt": { "$exists": false } }
}

fn revocation(now: Timestamp) -> Document {
    doc! { "$set": { "revokedAt": dates::bson(now) } }
}
