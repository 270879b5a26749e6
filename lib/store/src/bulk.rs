//! Many conditional updates in one `update` command, which every supported MongoDB has (client bulk writes need 8.0).

use mongodb::{
    Database,
    bson::{Bson, Document, deserialize_from_document, doc},
    error::{Error, ErrorKind, WriteConcernError, WriteFailure},
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
    if let Ok(failure) = reply.get_document("writeConcernError") {
        return Err(unacknowledged(failure.clone()).into());
    }
    let n = reply.get("n").and_then(|n| n.as_i64().or_else(|| n.as_i32().map(i64::from))).unwrap_or_default();
    Ok(u64::try_from(n).unwrap_or_default())
}

/// The error that the driver makes of the same reply to a single write.
fn unacknowledged(failure: Document) -> Error {
    match deserialize_from_document::<WriteConcernError>(failure) {
        Ok(failure) => ErrorKind::Write(WriteFailure::WriteConcernError(failure)).into(),
        Err(error) => error.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_matched_documents_are_counted() {
        assert_eq!(matched(&doc! { "ok": 1, "n": 2, "nModified": 1 }).unwrap(), 2);
        assert_eq!(matched(&doc! { "ok": 1, "n": 2_i64 }).unwrap(), 2);
    }

    #[test]
    fn a_refused_write_is_a_failure() {
        let reply = doc! { "ok": 1, "n": 0, "writeErrors": [{ "index": 0, "code": 121, "errmsg": "invalid" }] };
        let refused = matched(&reply).unwrap_err();
        assert!(
            matches!(refused, StoreError::WriteRefused { code: 121, .. }) && !refused.is_transient(),
            "{refused:?}"
        );
    }

    #[test]
    fn a_write_that_the_majority_does_not_acknowledge_may_be_tried_again() {
        let timeout =
            doc! { "code": 64, "codeName": "WriteConcernFailed", "errmsg": "waiting for replication timed out" };
        let reply = doc! { "ok": 1, "n": 1, "writeConcernError": timeout };
        let unsure = matched(&reply).unwrap_err();
        assert!(matches!(unsure, StoreError::Unavailable(_)) && unsure.is_transient(), "{unsure:?}");
    }
}
