//! The `users` collection: accounts. Never decides who may sign in.

use std::fmt;

use futures::TryStreamExt;
use jiff::Timestamp;
use mongodb::{
    Collection, Database, IndexModel,
    bson::{Document, doc},
    options::{IndexOptions, ReturnDocument},
};
use serde::{Deserialize, Serialize};
use shop_domain::{account::Role, id::UserId};

use crate::{StoreError, dates, transaction::Transaction};

pub(crate) const COLLECTION: &str = "users";

/// Addresses that an account knows: enough for home, work, and a phone's changing ones.
const KNOWN_ADDRESSES: i32 = 20;

/// An account. `email` is normalised; `password_hash` is a PHC string.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct User {
    #[serde(rename = "_id")]
    pub id: UserId,
    pub email: String,
    pub password_hash: String,
    pub role: Role,
    /// One more with each change of the password: sessions that were opened before are over.
    #[serde(default)]
    pub password_version: i64,
    /// From where the account was signed in to, the latest last.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub known_addresses: Vec<KnownAddress>,
    #[serde(with = "dates")]
    pub created_at: Timestamp,
}

/// An address from which an account was signed in to, as a digest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct KnownAddress {
    pub digest: String,
    #[serde(with = "dates")]
    pub seen_at: Timestamp,
}

/// Which accounts a listing shows, in the order of their addresses.
#[derive(Debug, Clone)]
pub struct UserListing {
    /// What the address begins with.
    pub prefix: String,
    /// The address of the last account of the page before.
    pub after: Option<String>,
    pub limit: i64,
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
        self.collection.update_one(unchanged(user), doc! { "$set": { "passwordHash": hash } }).await?;
        Ok(())
    }

    /// Replaces a forgotten password's hash, which ends the account's sessions. False when it is no longer the one that was
    /// read.
    pub async fn reset_password(&self, user: &User, hash: &str) -> Result<bool, StoreError> {
        Ok(self.collection.update_one(unchanged(user), new_password(hash)).await?.matched_count == 1)
    }

    /// Makes an account a staff account with this password, which ends its sessions. The account as it is then; None when
    /// its password is no longer the one that was read.
    pub async fn make_staff(&self, user: &User, hash: &str) -> Result<Option<User>, StoreError> {
        let change = doc! {
            "$set": { "role": Role::Staff.as_str(), "passwordHash": hash },
            "$inc": { "passwordVersion": 1_i64 },
        };
        let made = self.collection.find_one_and_update(unchanged(user), change);
        Ok(made.return_document(ReturnDocument::After).await?)
    }

    /// Changes the password, which ends the account's sessions. False when it is no longer the one that was read.
    pub async fn change_password_in(&self, tx: &mut Transaction, user: &User, hash: &str) -> Result<bool, StoreError> {
        Ok(self.collection.update_one(unchanged(user), new_password(hash)).session(tx.session()).await?.matched_count
            == 1)
    }

    /// Gives an account a role. The account as it is then; None when there is none.
    pub async fn set_role(&self, id: &UserId, role: Role) -> Result<Option<User>, StoreError> {
        let change = doc! { "$set": { "role": role.as_str() } };
        let changed = self.collection.find_one_and_update(doc! { "_id": id.as_str() }, change);
        Ok(changed.return_document(ReturnDocument::After).await?)
    }

    /// Remembers an address from which the account was signed in to, and forgets the oldest beyond twenty.
    pub async fn remember_address(&self, id: &UserId, digest: &str, now: Timestamp) -> Result<(), StoreError> {
        let now = dates::bson(now);
        let known = doc! { "_id": id.as_str(), "knownAddresses.digest": digest };
        let seen = doc! { "$set": { "knownAddresses.$.seenAt": now } };
        if self.collection.update_one(known, seen).await?.matched_count == 1 {
            return Ok(());
        }
        let unknown = doc! { "_id": id.as_str(), "knownAddresses.digest": { "$ne": digest } };
        let latest = [doc! { "digest": digest, "seenAt": now }].to_vec();
        let add = doc! { "$push": { "knownAddresses": {
            "$each": latest, "$sort": { "seenAt": 1 }, "$slice": -KNOWN_ADDRESSES,
        } } };
        self.collection.update_one(unknown, add).await?;
        Ok(())
    }

    /// A page of accounts.
    pub async fn list(&self, listing: &UserListing) -> Result<Vec<User>, StoreError> {
        // All that begins with the prefix lies between it and the prefix followed by the last character there is.
        let mut range = doc! { "$gte": &listing.prefix, "$lte": format!("{}{}", listing.prefix, char::MAX) };
        if let Some(after) = &listing.after {
            range.insert("$gt", after);
        }
        let page = self.collection.find(doc! { "email": range }).sort(doc! { "email": 1 }).limit(listing.limit);
        Ok(page.await?.try_collect().await?)
    }

    /// Removes an account; its address is free again. Idempotent.
    pub async fn remove(&self, id: &UserId) -> Result<(), StoreError> {
        self.collection.delete_one(doc! { "_id": id.as_str() }).await?;
        Ok(())
    }

    pub(crate) fn indexes() -> Vec<IndexModel> {
        let unique = IndexOptions::builder().unique(true).build();
        vec![IndexModel::builder().keys(doc! { "email": 1 }).options(unique).build()]
    }
}

/// The account, if its password is still the one that was read.
fn unchanged(user: &User) -> Document {
    doc! { "_id": user.id.as_str(), "passwordHash": &user.password_hash }
}

/// Sessions that were opened with the password before are behind, and so over.
fn new_password(hash: &str) -> Document {
    doc! { "$set": { "passwordHash": hash }, "$inc": { "passwordVersion": 1_i64 } }
}
