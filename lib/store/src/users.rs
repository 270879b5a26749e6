//! The `users` collection: accounts. Never decides who may sign in.

use std::fmt;

use jiff::Timestamp;
use mongodb::{Collection, Database, IndexModel, bson::doc, options::IndexOptions};
use serde::{Deserialize, Serialize};
use shop_domain::{account::Role, id::UserId};

use crate::{StoreError, dates};

pub(crate) const COLLECTION: &str = "users";

/// An account. `email` is normalised; `password_hash` is a PHC string.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct User {
    #[serde(rename = "_id")]
    pub id: UserId,
    pub email: String,
    pub password_hash: String,
    pub role: Role,
    #[serde(with = "dates")]
    pub created_at: Timestamp,
}

impl fmt::Debug for User {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "User({}, {})", self.id, self.role.as_str())
    }
}

/// The accounts of the shop.
#[derive(Debug, Clone)]
pub struct Users {
    collection: Collection<User>,
}

impl Users {
    pub(crate) fn new(database: &Database) -> Self {
        Self { collection: database.collection(COLLECTION) }
    }

    /// Stores a new account. `Duplicate` when the address is taken.
    pub async fn create(&self, user: &User) -> Result<(), StoreError> {
        self.collection.insert_one(user).await?;
        Ok(())
    }

    pub async fn find(&self, id: &UserId) -> Result<Option<User>, StoreError> {
        Ok(self.collection.find_one(doc! { "_id": id.as_str() }).await?)
    }

    /// The account with this normalised address.
    pub async fn find_by_email(&self, email: &str) -> Result<Option<User>, StoreError> {
        Ok(self.collection.find_one(doc! { "email": email }).await?)
    }

    /// Replaces a password's hash, unless it is no longer the one that was read.
    pub async fn replace_hash(&self, user: &User, hash: &str) -> Result<(), StoreError> {
        let unchanged = doc! { "_id": user.id.as_str(), "passwordHash": &user.password_hash };
        self.collection.update_one(unchanged, doc! { "$set": { "passwordHash": hash } }).await?;
        Ok(())
    }

    /// Replaces a forgotten password's hash. False when the password is no longer the one that was read.
    pub async fn reset_password(&self, user: &User, hash: &str) -> Result<bool, StoreError> {
        let unchanged = doc! { "_id": user.id.as_str(), "passwordHash": &user.password_hash };
        // The version counts changes of the password: sessions that were opened before one are over.
        let change = doc! { "$set": { "passwordHash": hash }, "$inc": { "passwordVersion": 1_i64 } };
        Ok(self.collection.update_one(unchanged, change).await?.matched_count == 1)
    }

    /// Makes an account a staff account with this password. False when its password is no longer the one that was read.
    pub async fn make_staff(&self, user: &User, hash: &str) -> Result<bool, StoreError> {
        let unchanged = doc! { "_id": user.id.as_str(), "passwordHash": &user.password_hash };
        let change = doc! { "$set": { "role": Role::Staff.as_str(), "passwordHash": hash } };
        Ok(self.collection.update_one(unchanged, change).await?.matched_count == 1)
    }

    pub(crate) fn indexes() -> Vec<IndexModel> {
        let unique = IndexOptions::builder().unique(true).build();
        vec![IndexModel::builder().keys(doc! { "email": 1 }).options(unique).build()]
    }
}
