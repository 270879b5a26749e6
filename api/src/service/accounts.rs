//! Accounts: registering, signing in, and the staff account that the configuration names.

use jiff::{SignedDuration, Timestamp};
use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};
use shop_domain::{account::Role, id::UserId};
use shop_runtime::{
    clock::Clock,
    ids::{self, NoRandomness},
    telemetry,
};
use shop_store::{Store, StoreError, users::User};

use super::{
    email::{Email, InvalidEmail},
    sessions::{Grant, Origin, Principal, SessionError, Sessions},
};
use crate::{
    config::StaffAccount,
    passwords::{PasswordError, Passwords, Verdict},
};

/// Longest password, in bytes.
const MAX_PASSWORD_BYTES: usize = 1024;
/// An address from which an account was signed in to is known for this long.
const KNOWN_FOR: SignedDuration = SignedDuration::from_hours(30 * 24);
/// How old the last note of a known address may become before it is renewed.
const NOTED_FOR: SignedDuration = SignedDuration::from_hours(24);

#[derive(Debug, thiserror::Error)]
pub enum AccountError {
    #[error("the e-mail address is taken")]
    EmailTaken,
    #[error("wrong address or password")]
    WrongCredentials,
    /// Of someone who is signed in.
    #[error("wrong password")]
    WrongPassword,
    #[error("cannot read or write the account")]
    Store(#[from] StoreError),
    #[error(transparent)]
    Password(#[from] PasswordError),
    #[error(transparent)]
    Session(#[from] SessionError),
    #[error(transparent)]
    Random(#[from] NoRandomness),
}

#[derive(Debug, thiserror::Error)]
pub enum StaffError {
    #[error("SHOP_STAFF_EMAIL is no e-mail address")]
    Email(#[from] InvalidEmail),
    #[error("cannot make the staff account")]
    Account(#[from] AccountError),
}

/// A password that may be chosen: long enough, and not so long that it is an attack.
#[derive(Clone)]
pub struct NewPassword(SecretString);

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("must have at least {min} characters and at most {MAX_PASSWORD_BYTES} bytes")]
pub struct InvalidPassword {
    min: usize,
}

impl NewPassword {
    /// `min` is in characters.
    pub fn parse(text: String, min: usize) -> Result<Self, InvalidPassword> {
        let fits = text.chars().count() >= min && text.len() <= MAX_PASSWORD_BYTES;
        if fits { Ok(Self(text.into())) } else { Err(InvalidPassword { min }) }
    }

    /// The password itself: only for the pool that hashes it.
    pub fn into_secret(self) -> SecretString {
        self.0
    }
}

/// The accounts of the shop.
#[derive(Clone)]
pub struct Accounts {
    store: Store,
    sessions: Sessions,
    passwords: Passwords,
    clock: Clock,
}

impl Accounts {
    pub fn new(store: Store, sessions: Sessions, passwords: Passwords, clock: Clock) -> Self {
        Self { store, sessions, passwords, clock }
    }

    /// Makes a customer account and signs it in.
    pub async fn register(
        &self,
        email: &Email,
        password: NewPassword,
        origin: &Origin,
    ) -> Result<(User, Grant), AccountError> {
        let user = self.new_user(email, password.0, Role::Customer).await?;
        match self.store.users.create(&user).await {
            Ok(()) => {}
            Err(StoreError::Duplicate(_)) => return Err(AccountError::EmailTaken),
            Err(error) => return Err(error.into()),
        }
        tracing::info!(user = %user.id, "account made");
        let grant = self.enter(&user, origin).await?;
        Ok((user, grant))
    }

    /// Signs in. An unknown address and a wrong password take the same way and the same time.
    pub async fn login(&self, email: &str, password: SecretString, origin: &Origin) -> Result<Grant, AccountError> {
        let user = self.store.users.find_by_email(&Email::normalise(email)).await?;
        let stored = user.as_ref().map(|user| user.password_hash.clone());
        let verdict = self.passwords.verify(password.clone(), stored).await?;
        match (user, verdict) {
            (Some(user), Verdict::Right) => self.enter(&user, origin).await,
            (Some(user), Verdict::RightButOutdated) => {
                let hash = self.passwords.hash(password).await?;
                self.store.users.replace_hash(&user, &hash).await?;
                self.enter(&user, origin).await
            }
            (_, Verdict::Wrong) | (None, _) => Err(AccountError::WrongCredentials),
        }
    }

    /// Whether the account was signed in to from there within 30 days. An account that cannot be read knows nobody.
    pub async fn knows(&self, email: &str, origin: &Origin) -> bool {
        let Ok(Some(user)) = self.store.users.find_by_email(email).await else { return false };
        last_seen(&user, origin).is_some_and(|seen| self.clock.now().duration_since(seen) <= KNOWN_FOR)
    }

    /// Changes the password of someone who is signed in, and ends all their other sessions.
    pub async fn change_password(
        &self,
        principal: &Principal,
        current: SecretString,
        new: NewPassword,
    ) -> Result<(), AccountError> {
        let user = self.confirmed(principal, current).await?;
        let hash = self.passwords.hash(new.0).await?;
        let version = user.password_version + 1;
        let mut tx = self.store.begin().await?;
        if !self.store.users.change_password_in(&mut tx, &user, &hash).await? {
            tx.abort().await;
            return Err(AccountError::WrongPassword);
        }
        self.store.sessions.keep_in(&mut tx, &principal.session, version).await?;
        tx.commit().await?;
        tracing::info!(user = %user.id, "password changed");
        self.drop_outdated(&user.id, version).await;
        Ok(())
    }

    /// The account of someone who is signed in, if this is its password: always one hash.
    pub async fn confirmed(&self, principal: &Principal, password: SecretString) -> Result<User, AccountError> {
        let user = self.store.users.find(&principal.user).await?;
        let stored = user.as_ref().map(|user| user.password_hash.clone());
        let verdict = self.passwords.verify(password, stored).await?;
        user.filter(|_| verdict != Verdict::Wrong).ok_or(AccountError::WrongPassword)
    }

    /// Opens a session, and remembers from where.
    async fn enter(&self, user: &User, origin: &Origin) -> Result<Grant, AccountError> {
        let grant = self.sessions.open(user, origin).await?;
        self.remember(user, origin).await;
        Ok(grant)
    }

    /// Remembers from where someone proved to be the account's owner.
    pub(super) async fn remember(&self, user: &User, origin: &Origin) {
        let now = self.clock.now();
        let noted = last_seen(user, origin).is_some_and(|seen| now.duration_since(seen) <= NOTED_FOR);
        if let Some(digest) = digest(&user.id, origin).filter(|_| !noted)
            && let Err(error) = self.store.users.remember_address(&user.id, &digest, now).await
        {
            tracing::warn!(user = %user.id, error = telemetry::chain(&error), "an address is not remembered");
        }
    }

    /// Their password's version has ended these sessions: marking them only shortens lists and the time until all know.
    pub(super) async fn drop_outdated(&self, user: &UserId, password_version: i64) {
        match self.sessions.revoke_outdated(user, password_version).await {
            Ok(ended) => tracing::info!(%user, sessions_ended = ended, "sessions of the old password ended"),
            Err(error) => {
                let error = telemetry::chain(&error);
                tracing::warn!(%user, error, "sessions of the old password have ended, but are still listed");
            }
        }
    }

    /// Makes the configured staff account what the configuration says. A changed password ends its sessions.
    pub async fn ensure_staff(&self, staff: &StaffAccount) -> Result<(), StaffError> {
        let email = Email::parse(&staff.email)?;
        loop {
            let known = self.store.users.find_by_email(email.as_str()).await.map_err(AccountError::from)?;
            if self.is_staff_with(known.as_ref(), &staff.password).await? {
                return Ok(());
            }
            // Replicas start together: the one that comes second looks again, and finds what the first has set.
            let Some(user) = self.put_staff(&email, &staff.password, known).await? else { continue };
            tracing::info!(user = %user.id, "staff account set from the configuration");
            self.drop_outdated(&user.id, user.password_version).await;
            return Ok(());
        }
    }

    async fn is_staff_with(&self, known: Option<&User>, password: &SecretString) -> Result<bool, AccountError> {
        let Some(user) = known.filter(|user| user.role == Role::Staff) else { return Ok(false) };
        let verdict = self.passwords.verify(password.clone(), Some(user.password_hash.clone())).await?;
        Ok(verdict != Verdict::Wrong)
    }

    /// Makes or changes the account, if it is still as it was read. None when somebody else was faster.
    async fn put_staff(
        &self,
        email: &Email,
        password: &SecretString,
        known: Option<User>,
    ) -> Result<Option<User>, AccountError> {
        let new = self.new_user(email, password.clone(), Role::Staff).await?;
        if let Some(user) = known {
            return Ok(self.store.users.make_staff(&user, &new.password_hash).await?);
        }
        match self.store.users.create(&new).await {
            Ok(()) => Ok(Some(new)),
            Err(StoreError::Duplicate(_)) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    async fn new_user(&self, email: &Email, password: SecretString, role: Role) -> Result<User, AccountError> {
        let password_hash = self.passwords.hash(password).await?;
        Ok(User {
            id: UserId::from_bits(ids::random_bytes()?),
            email: email.as_str().to_owned(),
            password_hash,
            role,
            password_version: 0,
            known_addresses: Vec::new(),
            created_at: whole_millis(self.clock.now()),
        })
    }
}

/// When the account was last signed in to from there.
fn last_seen(user: &User, origin: &Origin) -> Option<Timestamp> {
    let digest = digest(&user.id, origin)?;
    user.known_addresses.iter().find(|known| known.digest == digest).map(|known| known.seen_at)
}

/// What the account keeps of an address: enough to know it again, and another one for every account.
fn digest(user: &UserId, origin: &Origin) -> Option<String> {
    let text = format!("{user} {}", origin.network?);
    Some(hex::encode(&Sha256::digest(text)[..16]))
}

/// The time as the database gives it back.
fn whole_millis(at: Timestamp) -> Timestamp {
    Timestamp::from_millisecond(at.as_millisecond()).unwrap_or(at)
}

impl std::fmt::Debug for NewPassword {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "NewPassword({} bytes)", self.0.expose_secret().len())
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("secret", true)]
    #[case("secre", false)]
    #[case("ééééé", false)] // ten bytes, but five characters
    #[case("éééééé", true)]
    fn a_password_has_its_least_length_in_characters(#[case] text: &str, #[case] valid: bool) {
        assert_eq!(NewPassword::parse(text.into(), 6).is_ok(), valid);
        assert!(NewPassword::parse("x".repeat(1024), 6).is_ok());
        assert!(NewPassword::parse("x".repeat(1025), 6).is_err());
    }
}
