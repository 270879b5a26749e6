//! One MongoDB transaction: handed to the collections' methods, then committed or aborted.

use std::fmt;

use mongodb::{ClientSession, error::UNKNOWN_TRANSACTION_COMMIT_RESULT};

use crate::StoreError;

/// Sends of a commit whose result stayed unknown before it is given up: the work is then delivered and decided again.
const COMMIT_ATTEMPTS: u32 = 3;

/// A running transaction. Dropping it aborts.
pub struct Transaction {
    session: ClientSession,
}

impl fmt::Debug for Transaction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Transaction").finish_non_exhaustive()
    }
}

impl Transaction {
    pub(crate) fn new(session: ClientSession) -> Self {
        Self { session }
    }

    pub(crate) fn session(&mut self) -> &mut ClientSession {
        &mut self.session
    }

    /// Commits. After `Unavailable` the outcome is unknown: read the documents again before deciding anything.
    pub async fn commit(mut self) -> Result<(), StoreError> {
        let mut attempt = 1;
        loop {
            match self.session.commit_transaction().await {
                Ok(()) => return Ok(()),
                Err(error) if attempt < COMMIT_ATTEMPTS && error.contains_label(UNKNOWN_TRANSACTION_COMMIT_RESULT) => {
                    attempt += 1;
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Gives the transaction up. A failure to say so is harmless: the server ends it by itself.
    pub async fn abort(mut self) {
        if let Err(error) = self.session.abort_transaction().await {
            tracing::debug!(%error, "abort was not acknowledged");
        }
    }
}
