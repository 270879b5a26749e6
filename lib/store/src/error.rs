//! Why a query failed, sorted by what the caller can do about it.

use mongodb::error::{Error, ErrorKind, TRANSIENT_TRANSACTION_ERROR, WriteFailure};

/// Why the store could not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// No usable server, or a write that the majority did not acknowledge (it may have happened all the same):
    /// wait until [`crate::Store::ping`] succeeds, then ask again.
    #[error("MongoDB cannot be reached")]
    Unavailable(#[source] Error),
    /// Another transaction touched the same documents: run the whole transaction again.
    #[error("another transaction was faster")]
    Conflict(#[source] Error),
    /// A conditional write matched fewer documents than were read: read and decide again.
    #[error("{what} changed since they were read")]
    Stale { what: &'static str },
    /// A unique index has this value already.
    #[error("already stored")]
    Duplicate(#[source] Error),
    /// A document does not have the shape this version knows.
    #[error("a stored document cannot be read")]
    Unreadable(#[source] Error),
    /// The server refused; asking again will not help.
    #[error("MongoDB refused the request")]
    Refused(#[source] Error),
    /// Some writes of a command were refused by the server.
    #[error("MongoDB refused a write: {message} (code {code})")]
    WriteRefused { code: i32, message: String },
    /// The connection string cannot be used. Without the driver's own words: they may repeat a part of the password.
    #[error(
        "SHOP_MONGODB_URI is no usable MongoDB connection string; in user and password, `:/?#[]@%` must be encoded"
    )]
    InvalidUri,
}

const DUPLICATE_KEY: i32 = 11_000;

impl StoreError {
    /// Whether the same request may succeed later, without any change to it.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Unavailable(_) | Self::Conflict(_) | Self::Stale { .. })
    }
}

impl From<Error> for StoreError {
    fn from(error: Error) -> Self {
        match error.kind.as_ref() {
            ErrorKind::ServerSelection { .. }
            | ErrorKind::Io(_)
            | ErrorKind::ConnectionPoolCleared { .. }
            | ErrorKind::DnsResolve { .. }
            | ErrorKind::Authentication { .. }
            | ErrorKind::Write(WriteFailure::WriteConcernError(_))
            | ErrorKind::Shutdown => Self::Unavailable(error),
            _ if error.contains_label(TRANSIENT_TRANSACTION_ERROR) => Self::Conflict(error),
            _ if is_duplicate(&error) => Self::Duplicate(error),
            ErrorKind::BsonDeserialization(_) | ErrorKind::Bson(_) => Self::Unreadable(error),
            ErrorKind::Command(command) if is_failover(command.code) => Self::Unavailable(error),
            _ => Self::Refused(error),
        }
    }
}

fn is_duplicate(error: &Error) -> bool {
    match error.kind.as_ref() {
        ErrorKind::Write(WriteFailure::WriteError(failure)) => failure.code == DUPLICATE_KEY,
        ErrorKind::InsertMany(failure) => {
            failure.write_errors.iter().flatten().any(|failure| failure.code == DUPLICATE_KEY)
        }
        ErrorKind::Command(command) => command.code == DUPLICATE_KEY,
        _ => false,
    }
}

/// Codes of a server that is starting, stopping or handing over its role, after the driver's own retry.
/// Source: MongoDB specification "Server Discovery and Monitoring", not-writable-primary and node-is-recovering errors.
fn is_failover(code: i32) -> bool {
    matches!(code, 91 | 189 | 10_058 | 10_107 | 11_600 | 11_602 | 13_435 | 13_436)
}
