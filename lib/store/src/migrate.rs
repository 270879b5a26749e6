//! The indexes of all collections. Idempotent: an index that is there already stays.

use std::time::Duration;

use futures::TryStreamExt;
use mongodb::{
    Database, IndexModel,
    bson::{Bson, Document, doc},
    error::{Error, ErrorKind},
    options::IndexOptions,
};

use crate::{
    StoreError,
    adjustments::{self, Adjustments},
    erasures::{self, Erasures},
    orders::{self, Orders},
    password_resets::{self, PasswordResets},
    products::{self, Products},
    sessions::{self, Sessions},
    stock::{self, StockRows},
    users::{self, Users},
};

/// Every collection that has indexes besides `_id`.
fn plan() -> Vec<(&'static str, Vec<IndexModel>)> {
    vec![
        (orders::COLLECTION, Orders::indexes()),
        (adjustments::COLLECTION, Adjustments::indexes()),
        (stock::COLLECTION, StockRows::indexes()),
        (stock::MOVEMENTS, StockRows::movement_indexes()),
        (products::COLLECTION, Products::indexes()),
        (users::COLLECTION, Users::indexes()),
        (sessions::COLLECTION, Sessions::indexes()),
        (erasures::COLLECTION, Erasures::indexes()),
        (password_resets::COLLECTION, PasswordResets::indexes()),
    ]
}

/// The database forgets a document when its `expiresAt` has passed.
pub fn forget_expired() -> IndexModel {
    let at_once = IndexOptions::builder().expire_after(Duration::ZERO).build();
    IndexModel::builder().keys(doc! { "expiresAt": 1 }).options(at_once).build()
}

pub async fn run(database: &Database) -> Result<(), StoreError> {
    for (collection, indexes) in plan() {
        database.collection::<Document>(collection).create_indexes(indexes).await?;
    }
    Ok(())
}

/// What [`run`] would make, as `collection: keys`.
pub async fn missing(database: &Database) -> Result<Vec<String>, StoreError> {
    let mut missing = Vec::new();
    for (collection, indexes) in plan() {
        let there = existing(database, collection).await?;
        let absent = indexes.iter().filter(|index| !there.iter().any(|other| is_same(index, other)));
        missing.extend(absent.map(|index| format!("{collection}: {}", index.keys)));
    }
    Ok(missing)
}

async fn existing(database: &Database, collection: &str) -> Result<Vec<IndexModel>, StoreError> {
    match database.collection::<Document>(collection).list_indexes().await {
        Ok(indexes) => Ok(indexes.try_collect().await?),
        Err(error) if is_absent(&error) => Ok(Vec::new()),
        Err(error) => Err(error.into()),
    }
}

/// The collection is not there.
fn is_absent(error: &Error) -> bool {
    matches!(error.kind.as_ref(), ErrorKind::Command(command) if command.code == 26)
}

/// Servers return the directions of keys as any type of number.
fn is_same(one: &IndexModel, other: &IndexModel) -> bool {
    let keys = |index: &IndexModel| -> Vec<(String, Option<i64>)> {
        index.keys.iter().map(|(field, direction)| (field.clone(), number(direction))).collect()
    };
    let unique = |index: &IndexModel| index.options.as_ref().and_then(|options| options.unique).unwrap_or(false);
    let expiry = |index: &IndexModel| index.options.as_ref().and_then(|options| options.expire_after);
    keys(one) == keys(other) && unique(one) == unique(other) && expiry(one) == expiry(other)
}

#[expect(clippy::cast_possible_truncation, reason = "1 or -1")]
fn number(direction: &Bson) -> Option<i64> {
    let whole = direction.as_i64().or_else(|| direction.as_i32().map(i64::from));
    whole.or_else(|| direction.as_f64().map(|direction| direction as i64))
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn index(keys: Document, options: IndexOptions) -> IndexModel {
        IndexModel::builder().keys(keys).options(options).build()
    }

    #[rstest]
    #[case::as_a_server_may_return_it(index(doc! { "expiresAt": 1.0 }, expiring(0)), true)]
    #[case::of_another_field(index(doc! { "createdAt": 1 }, expiring(0)), false)]
    #[case::of_another_direction(index(doc! { "expiresAt": -1 }, expiring(0)), false)]
    #[case::that_forgets_later(index(doc! { "expiresAt": 1 }, expiring(60)), false)]
    #[case::that_forgets_nothing(index(doc! { "expiresAt": 1 }, IndexOptions::default()), false)]
    fn an_index_is_there_only_with_its_keys_and_its_expiry(#[case] there: IndexModel, #[case] is_it: bool) {
        assert_eq!(is_same(&forget_expired(), &there), is_it);
    }

    fn expiring(seconds: u64) -> IndexOptions {
        IndexOptions::builder().expire_after(Duration::from_secs(seconds)).build()
    }
}
