//! Replacing a forgotten password: asking for a token by mail, and using it once. Who asks never learns whether there is
//! an account.

use jiff::{SignedDuration, Timestamp};
use sha2::{Digest, Sha256};
use shop_domain::id::{OutboxId, PasswordResetId, UserId};
use shop_runtime::{
    clock::Clock,
    ids::{self, NoRandomness},
    trace,
};
use shop_store::{
    Store, StoreError,
    orders::BuyerEmail,
    outbox::{OutboxEntry, OutboxKind},
    password_resets::PasswordReset,
    users::User,
};

use super::{
    accounts::{Accounts, NewPassword},
    email::Email,
    sessions::Origin,
};
use crate::{
    passwords::{PasswordError, Passwords},
    reset_tokens::ResetTokens,
};

/// How long a token is good.
const LIFETIME: SignedDuration = SignedDuration::from_hours(1);
/// The newest tokens of an account that are good: one who asks twice may use either mail, and one who floods somebody
/// with mails leaves few tokens about.
const LIVE: u64 = 3;
/// Keeps the marks apart from any other digest.
const MARK: &str = "password-mark\0";

#[derive(Debug, thiserror::Error)]
pub enum ResetError {
    /// Wrong, used, expired, or of an account that is gone: which of these is nobody's business.
    #[error("the token is not valid")]
    InvalidToken,
    #[error("cannot read or write the request")]
    Store(#[from] StoreError),
    #[error(transparent)]
    Password(#[from] PasswordError),
    #[error(transparent)]
    Random(#[from] NoRandomness),
}

/// What the service works with.
pub struct PasswordResetDeps {
    pub store: Store,
    pub accounts: Accounts,
    pub passwords: Passwords,
    pub tokens: ResetTokens,
    pub clock: Clock,
}

/// The requests for new passwords.
pub struct PasswordResets(PasswordResetDeps);

impl PasswordResets {
    pub fn new(deps: PasswordResetDeps) -> Self {
        Self(deps)
    }

    /// Owes the account's owner a mail with a token. Without an account the same is read and written, but no mail owed.
    pub async fn request(&self, email: &Email) -> Result<(), ResetError> {
        let user = self.0.store.users.find_by_email(email.as_str()).await?;
        let reset = new_reset(user.as_ref(), self.0.clock.now())?;
        Ok(self.0.store.password_resets.create(&reset).await?)
    }

    /// Sets the password, which ends all sessions. The token is used up by that: its mark is no longer the password's.
    /// Who has it reads the account's mail: from there the owner may sign in also when strangers have used the limit up.
    pub async fn set(&self, token: &str, password: NewPassword, origin: &Origin) -> Result<(), ResetError> {
        let id = self.0.tokens.verify(token).ok_or(ResetError::InvalidToken)?;
        let user = self.holder(&id).await?.ok_or(ResetError::InvalidToken)?;
        let hash = self.0.passwords.hash(password.into_secret()).await?;
        if !self.0.store.users.reset_password(&user, &hash).await? {
            return Err(ResetError::InvalidToken);
        }
        tracing::info!(user = %user.id, "a forgotten password was replaced");
        self.0.accounts.drop_outdated(&user.id, user.password_version + 1).await;
        self.0.accounts.remember(&user, origin).await;
        Ok(())
    }

    /// Whose password the token of this request sets, if it still does.
    async fn holder(&self, id: &PasswordResetId) -> Result<Option<User>, ResetError> {
        let now = self.0.clock.now();
        let reset = self.0.store.password_resets.find(id).await?;
        let Some(reset) = reset.filter(|reset| reset.expires_at > now) else { return Ok(None) };
        if self.0.store.password_resets.younger(&reset, LIVE).await? >= LIVE {
            return Ok(None);
        }
        let user = self.0.store.users.find(&reset.user_id).await?;
        Ok(user.filter(|user| mark(&user.password_hash) == reset.password_mark))
    }
}

fn new_reset(user: Option<&User>, now: Timestamp) -> Result<PasswordReset, NoRandomness> {
    let entry = OutboxEntry::due(OutboxId::from_bits(ids::random_bytes()?), OutboxKind::PasswordResetMail, now)
        .caused_by(trace::current());
    let nobody = (UserId::from_bits(ids::random_bytes()?), ids::random_hex::<32>()?);
    let (user_id, password) = user.map_or(nobody, |user| (user.id.clone(), user.password_hash.clone()));
    Ok(PasswordReset {
        id: PasswordResetId::from_bits(ids::random_bytes()?),
        user_id,
        password_mark: mark(&password),
        email: user.map(|user| BuyerEmail::new(user.email.clone())),
        created_at: now,
        expires_at: now.saturating_add(LIFETIME).unwrap_or(now),
        outbox: user.map(|_| entry).into_iter().collect(),
    })
}

/// Tells a password's hash from its successor, and says nothing of either.
fn mark(password_hash: &str) -> String {
    hex::encode(Sha256::new_with_prefix(MARK).chain_update(password_hash).finalize())
}
