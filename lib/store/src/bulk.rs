//! Many conditional updates in one `update` command, which every supported MongoDB has (client bulk writes need 8.0).

use mongodb::{
    Database,
    bson::{Bson, Document, doc},
};

use crate::{StoreError, transaction::Transaction};

/// One conditional update of at most one document.
pub struct Update {
    pub filter: Document,
    pub change: Document,
}

/// An update whose filter says what must still be true.
pub fn update(filter: Document, change: Document) -> Update {
    Update { filter, change }
}

/// Runs the updates in order, each by itself, acknowledged by the majority's journal. Returns how many matched.
pub async fn run(database: &Database, collection: &str, updates: Vec<Update>) -> Result<u64, StoreError> {
    if updates.is_empty() {
        return Ok(0);
    }
    let mut command = command(collection, updates, Missing::Skip);
    command.insert("writeConcern", doc! { "w": "majority", "j": true, "wtimeout": 10_000 });
    matched(&database.run_command(command).await?)
}

/// What an update does when no document matches.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Missing {
    Skip,
    Insert,
}

/// Runs the updates inside a transaction. Returns how many matched or were inserted.
pub async fn run_in(
    database: &Database,
    transaction: &mut Transaction,
    (collection, missing): (&str, Missing),
    updates: Vec<Update>,
) -> Result<u64, StoreError> {
    if updates.is_empty() {
        return Ok(0);
    }
    let command = command(collection, updates, missing);
    matched(&database.run_command(command).session(transaction.session()).await?)
}

fn command(collection: &str, updates: Vec<Update>, missing: Missing) -> Document {
    let upsert = missing == Missing::Insert;
    let updates: Vec<Bson> = updates
        .into_iter()
        .map(|update| doc! { "q": update.filter, "u": update.change, "upsert": upsert }.into())
        .collect();
    doc! { "update": collection, "updates": updates, "ordered": true }
}

fn matched(reply: &Document) -> Result<u64, StoreError> {
    let failure = reply.get_array("writeErrors").ok().and_then(|errors| errors.first()).and_then(Bson::as_document);
    if let Some(failure) = failure {
        let code = failure.get_i32("code").unwrap_or_default();
        let message = failure.get_str("errmsg").unwrap_or("no message").to_owned();
        return Err(StoreError::WriteRefused { code, message });
    }
    let n = reply.get("n").and_then(|n| n.as_i64().or_else(|| n.as_i32().map(i64::from))).unwrap_or_default();
    Ok(u64::try_from(n).unwrap_or_default())
}
