//! One MongoDB transaction: handed to the collections' methods, then committed or aborted.
//! What MongoDB was not told of, as it was away, it is told when it is back: it would hold the documents for a minute.

use std::fmt;

use mongodb::{ClientSession, bson::doc, error::UNKNOWN_TRANSACTION_COMMIT_RESULT};
use tokio::task::JoinHandle;

use crate::{StoreError, gate::Gate};

/// Sends of a commit whose result stayed unknown before it is given up: the work is then delivered and decided again.
const COMMIT_ATTEMPTS: u32 = 3;
/// Tries to end what was cut off; after them MongoDB's own limit does.
const KILL_ATTEMPTS: u32 = 3;

/// A running transaction. Dropping it aborts.
pub struct Transaction {
    /// There until the end.
    session: Option<ClientSession>,
    gate: Gate,
}

impl fmt::Debug for Transaction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Transaction").finish_non_exhaustive()
    }
}

impl Transaction {
    pub(crate) fn new(session: ClientSession, gate: Gate) -> Self {
        Self { session: Some(session), gate }
    }

    pub(crate) fn session(&mut self) -> &mut ClientSession {
        self.session.as_mut().unwrap_or_else(|| unreachable!("what ends a transaction consumes it"))
    }

    /// Commits. After `Unavailable` the outcome is unknown: read the documents again before deciding anything.
    pub async fn commit(mut self) -> Result<(), StoreError> {
        let mut attempt = 1;
        loop {
            match self.session().commit_transaction().await {
                Ok(()) => {
                    self.session = None;
                    return Ok(());
                }
                Err(error) if attempt < COMMIT_ATTEMPTS && error.contains_label(UNKNOWN_TRANSACTION_COMMIT_RESULT) => {
                    attempt += 1;
                }
                Err(error) => {
                    let error = StoreError::from(error);
                    if !matches!(error, StoreError::Unavailable(_)) {
                        // MongoDB has answered, and ended it.
                        self.session = None;
                    }
                    return Err(error);
                }
            }
        }
    }

    /// Gives the transaction up; while MongoDB is away, without waiting for it.
    pub async fn abort(mut self) {
        if let Some(ending) = self.end() {
            self.gate.while_open(ending).await;
        }
    }

    fn end(&mut self) -> Option<JoinHandle<()>> {
        self.session.take().map(|session| tokio::spawn(end(session, self.gate.clone())))
    }
}

impl Drop for Transaction {
    fn drop(&mut self) {
        // Goes on by itself.
        drop(self.end());
    }
}

/// Ends what MongoDB may have open.
async fn end(mut session: ClientSession, gate: Gate) {
    // The driver tries twice and hides whether it was heard, but the gate shuts before it gives up. Once a commit was
    // tried it refuses to abort.
    if !matches!(gate.while_open(session.abort_transaction().into_future()).await, Some(Ok(()))) {
        kill(&session, &gate).await;
    }
}

/// Ends the session on the server and its transaction with it, as soon as MongoDB can be reached; nothing if it is over.
/// Everybody may end their own sessions.
async fn kill(session: &ClientSession, gate: &Gate) {
    let admin = session.client().database("admin");
    for _ in 0..KILL_ATTEMPTS {
        gate.not_shut().await;
        let ended = admin.run_command(doc! { "killSessions": [session.id().clone()] });
        match gate.while_open(ended.into_future()).await {
            Some(Ok(_)) => return,
            Some(Err(error)) => tracing::debug!(%error, "a transaction that was cut off is not ended yet"),
            None => {}
        }
    }
}
