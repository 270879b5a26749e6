//! The `password_resets` collection: requests for a new password, each with the mail it owes. Holds nothing with which
//! a password could be set: the token is made from the id and a key that is not in the database.

use jiff::Timestamp;
use mongodb::{Collection, Database, IndexModel, bson::doc};
use serde::{Deserialize, Serialize};
use shop_domain::id::{PasswordResetId, UserId};

use crate::{
    StoreError, dates, migrate,
    orders::BuyerEmail,
    outbox::{self, OutboxEntry},
};

pub(crate) const COLLECTION: &str = "password_resets";

/// A request for a new password. One for an address without an account has a user that does not exist, and owes no mail.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PasswordReset {
    #[serde(rename = "_id")]
    pub id: PasswordResetId,
    pub user_id: UserId,
    /// Tells whether the account still has the password it had at the request.
    pub password_mark: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub email: Option<BuyerEmail>,
    #[serde(with = "dates")]
    pub created_at: Timestamp,
    /// When the request ends, and the database forgets it together with a mail that was never sent.
    #[serde(with = "dates")]
    pub expires_at: Timestamp,
    #[serde(default)]
    pub outbox: Vec<OutboxEntry>,
}

/// The requests for new passwords.
#[derive(Debug, Clone)]
pub struct PasswordResets {
    collection: Collection<PasswordReset>,
}

impl PasswordResets {
    pub(crate) fn new(database: &Database) -> Self {
        Self { collection: database.collection(COLLECTION) }
    }

    pub async fn create(&self, reset: &PasswordReset) -> Result<(), StoreError> {
        self.collection.insert_one(reset).await?;
        Ok(())
    }

    /// The request, also one that has expired and is not forgotten yet.
    pub async fn find(&self, id: &PasswordResetId) -> Result<Option<PasswordReset>, StoreError> {
        Ok(self.collection.find_one(doc! { "_id": id.as_str() }).await?)
    }

    /// How many requests of the same user are younger, counted up to `limit`.
    pub async fn younger(&self, reset: &PasswordReset, limit: u64) -> Result<u64, StoreError> {
        let created_at = dates::bson(reset.created_at);
        let younger = doc! { "userId": reset.user_id.as_str(), "createdAt": { "$gt": created_at } };
        Ok(self.collection.count_documents(younger).limit(limit).await?)
    }

    /// Removes all that a user has asked for, and the mails that are owed with it. Idempotent.
    pub async fn remove_all(&self, user: &UserId) -> Result<(), StoreError> {
        self.collection.delete_many(doc! { "userId": user.as_str() }).await?;
        Ok(())
    }

    pub(crate) fn indexes() -> Vec<IndexModel> {
        vec![
            IndexModel::builder().keys(doc! { "userId": 1, "createdAt": -1 }).build(),
            migrate::forget_expired(),
            outbox::index(),
        ]
    }
}
