//! The indexes of all collections. Idempotent: an index that is there already stays.

use mongodb::{Database, IndexModel, bson::Document};

use crate::{
    StoreError,
    adjustments::{self, Adjustments},
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
        (password_resets::COLLECTION, PasswordResets::indexes()),
    ]
}

pub async fn run(database: &Database) -> Result<(), StoreError> {
    for (collection, indexes) in plan() {
        database.collection::<Document>(collection).create_indexes(indexes).await?;
    }
    Ok(())
}
