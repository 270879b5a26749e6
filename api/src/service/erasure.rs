//! Erasing accounts: the account goes, its orders stay without the address. Decides nothing about who may ask for it.

use jiff::SignedDuration;
use shop_domain::id::UserId;
use shop_runtime::clock::Clock;
use shop_store::{Store, StoreError};

use super::sessions::{SessionError, Sessions};

/// After this time no request can be under way that began while a session of the account was still known somewhere:
/// five seconds, and the longest that a request usually takes.
const SETTLED_AFTER: SignedDuration = SignedDuration::from_mins(1);

#[derive(Debug, thiserror::Error)]
pub enum ErasureError {
    #[error("cannot erase what is stored of the account")]
    Store(#[from] StoreError),
    #[error(transparent)]
    Session(#[from] SessionError),
}

/// Erases accounts, each in a first pass at once and in a second one when nobody can act for it any more.
#[derive(Clone)]
pub struct Erasure {
    store: Store,
    sessions: Sessions,
    clock: Clock,
}

impl Erasure {
    pub fn new(store: Store, sessions: Sessions, clock: Clock) -> Self {
        Self { store, sessions, clock }
    }

    /// Erases an account. Once this has begun it is brought to its end, also if this process is not there any more.
    pub async fn erase(&self, user: &UserId) -> Result<(), ErasureError> {
        self.store.erasures.begin(user, self.clock.now()).await?;
        self.pass(user).await?;
        tracing::info!(%user, "account erased");
        Ok(())
    }

    /// Ends the erasures that began a while ago. Replicas may do so at once: every step can be repeated.
    pub async fn finish_due(&self) -> Result<(), ErasureError> {
        let before = self.clock.now().saturating_sub(SETTLED_AFTER).unwrap_or_default();
        for user in self.store.erasures.begun_before(before).await? {
            self.pass(&user).await?;
            self.store.erasures.finish(&user).await?;
        }
        Ok(())
    }

    /// The account first: without it nobody can sign in, and its sessions are over.
    async fn pass(&self, user: &UserId) -> Result<(), ErasureError> {
        self.store.users.remove(user).await?;
        self.sessions.revoke_all(user).await?;
        self.store.sessions.remove_all(user).await?;
        self.store.password_resets.remove_all(user).await?;
        self.store.orders.anonymise(user).await?;
        Ok(())
    }
}
