//! Sessions: opening, refreshing, checking and ending them. Knows nothing of passwords.

use std::{net::IpAddr, sync::Arc, time::Duration};

use jiff::{SignedDuration, Timestamp};
use moka::future::Cache;
use shop_domain::{
    account::Role,
    id::{SessionId, UserId},
};
use shop_runtime::{
    clock::Clock,
    ids::{self, NoRandomness},
};
use shop_store::{
    Store, StoreError,
    session_cache::{Holder, MAX_STALENESS, SessionAnswer, SessionCache},
    sessions::{Refresh, Rotation},
    users::User,
};

pub use shop_store::sessions::Session;

use crate::tokens::{Bearer, RefreshToken, SigningError, Tokens};

/// A refresh token is good for this long, and each use begins the time anew.
pub const REFRESH_LIFETIME: SignedDuration = SignedDuration::from_hours(7 * 24);
/// A repeated presentation within this time gets the same successor: tabs, and answers that got lost.
const REPLAY_GRACE: SignedDuration = SignedDuration::from_secs(10);
/// The times of answers are compared with [`MAX_STALENESS`]; this only keeps the process's cache small, and answers from
/// staying if the clock is set back.
const CACHE_TTL: Duration = Duration::from_secs(5);
const CACHE_CAPACITY: u64 = 100_000;

/// Who is calling, as the database said at most five seconds ago.
#[derive(Clone, PartialEq, Eq)]
pub struct Principal {
    pub user: UserId,
    pub session: SessionId,
    pub role: Role,
    pub email: String,
    pub created_at: Timestamp,
}

impl std::fmt::Debug for Principal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Principal({}, {})", self.user, self.role.as_str())
    }
}

/// Where a session is opened from, as its owner may recognise it. Never logged.
#[derive(Clone, Default)]
pub struct Origin {
    /// The `User-Agent`, shortened.
    pub device: Option<String>,
    pub address: Option<IpAddr>,
    /// What counts as the same address: see `ClientAddress::bucket`.
    pub network: Option<IpAddr>,
}

/// What a client gets when it signs in or refreshes.
pub struct Grant {
    pub access: String,
    pub refresh: RefreshToken,
}

/// What names the session that is to end.
#[derive(Clone)]
pub enum SessionProof {
    Refresh(RefreshToken),
    Access(String),
}

impl std::fmt::Debug for SessionProof {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Refresh(_) => "a refresh token",
            Self::Access(_) => "an access token",
        })
    }
}

#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    #[error("the token is not valid, or its session is over")]
    Invalid,
    #[error("cannot read or write the session")]
    Store(#[from] StoreError),
    #[error("cannot read the session")]
    SharedRead(#[source] Arc<StoreError>),
    #[error(transparent)]
    Signing(#[from] SigningError),
    #[error(transparent)]
    Random(#[from] NoRandomness),
}

/// The sessions of the shop; clones share their cache.
#[derive(Clone)]
pub struct Sessions {
    store: Store,
    tokens: Tokens,
    redis: SessionCache,
    clock: Clock,
    answers: Cache<SessionId, SessionAnswer>,
}

impl Sessions {
    pub fn new(store: Store, tokens: Tokens, redis: SessionCache, clock: Clock) -> Self {
        let answers = Cache::builder().max_capacity(CACHE_CAPACITY).time_to_live(CACHE_TTL).build();
        Self { store, tokens, redis, clock, answers }
    }

    /// Opens a session for a user who has proved who they are, as read before the proof: if the password changes
    /// meanwhile the session is over before it begins.
    pub async fn open(&self, user: &User, origin: &Origin) -> Result<Grant, SessionError> {
        let now = self.clock.now();
        let id = SessionId::from_bits(ids::random_bytes()?);
        let refresh = self.tokens.first(id.clone())?;
        let session = Session {
            id: id.clone(),
            user_id: user.id.clone(),
            refresh: Refresh { current_hash: refresh.hash(), previous_hash: None, rotated_at: None },
            password_version: user.password_version,
            device: origin.device.clone(),
            address: origin.address.map(|address| address.to_string()),
            created_at: now,
            last_used_at: now,
            expires_at: expiry(now),
            revoked_at: None,
        };
        self.store.sessions.create(&session).await?;
        let access = self.tokens.issue(&Bearer { user: user.id.clone(), session: id }, user.role, now)?;
        Ok(Grant { access, refresh })
    }

    /// Exchanges a refresh token for its successor and a new access token.
    pub async fn refresh(&self, presented: &RefreshToken) -> Result<Grant, SessionError> {
        let now = self.clock.now();
        let session = self.live(&presented.session, now).await?.ok_or(SessionError::Invalid)?;
        let user = self.store.users.find(&session.user_id).await?.ok_or(SessionError::Invalid)?;
        // Read again after the user: a change of the password keeps one session, and moves both on at once.
        let session = self.live(&session.id, now).await?.ok_or(SessionError::Invalid)?;
        if session.password_version < user.password_version {
            return Err(SessionError::Invalid);
        }
        let refresh = self.succeed(presented, session, now).await?;
        let bearer = Bearer { user: user.id, session: presented.session.clone() };
        let access = self.tokens.issue(&bearer, user.role, now)?;
        Ok(Grant { access, refresh })
    }

    /// Ends the session that the proof names. Whether there was one is not told.
    pub async fn close(&self, proof: &SessionProof) -> Result<(), SessionError> {
        let now = self.clock.now();
        let id = match proof {
            SessionProof::Refresh(token) => self.holder(token, now).await?,
            SessionProof::Access(token) => self.tokens.verify(token, now).ok().map(|bearer| bearer.session),
        };
        match id {
            Some(id) => self.revoke(&id, now).await,
            None => Ok(()),
        }
    }

    /// Who holds this access token: the token is good, and its session was alive at most five seconds ago.
    pub async fn authenticate(&self, token: &str) -> Result<Principal, SessionError> {
        let bearer = self.tokens.verify(token, self.clock.now()).map_err(|_| SessionError::Invalid)?;
        let answer = self.answer(&bearer).await?;
        let holder = answer.holder.filter(|holder| holder.user == bearer.user).ok_or(SessionError::Invalid)?;
        let Holder { user, role, email, created_at } = holder;
        Ok(Principal { user, session: bearer.session, role, email, created_at })
    }

    /// The live sessions of a user, newest first.
    pub async fn list(&self, user: &UserId) -> Result<Vec<Session>, SessionError> {
        Ok(self.store.sessions.live_of(user, self.clock.now()).await?)
    }

    /// Ends one session of a user. False when the user has no such session.
    pub async fn revoke_of(&self, user: &UserId, id: SessionId) -> Result<bool, SessionError> {
        let revoked = self.store.sessions.revoke_of(user, &id, self.clock.now()).await?;
        if revoked {
            self.forget(&[id]).await;
        }
        Ok(revoked)
    }

    /// Ends every session of a user; known everywhere within five seconds.
    pub async fn revoke_all(&self, user: &UserId) -> Result<u64, SessionError> {
        let revoked = self.store.sessions.revoke_all(user, self.clock.now()).await?;
        self.forget(&revoked).await;
        Ok(revoked.len() as u64)
    }

    /// Marks sessions as ended that a change of the password has ended, so that nobody goes on listing them.
    pub async fn revoke_outdated(&self, user: &UserId, password_version: i64) -> Result<u64, SessionError> {
        let revoked = self.store.sessions.revoke_outdated(user, password_version, self.clock.now()).await?;
        self.forget(&revoked).await;
        Ok(revoked.len() as u64)
    }

    /// What is known of a session for at most five seconds: here, in Redis, or in the database.
    async fn answer(&self, bearer: &Bearer) -> Result<SessionAnswer, SessionError> {
        for _ in 0..2 {
            let read = self.answers.try_get_with(bearer.session.clone(), self.look_up(bearer));
            let answer = read.await.map_err(SessionError::SharedRead)?;
            if self.clock.now().duration_since(answer.asked_at) <= MAX_STALENESS {
                return Ok(answer);
            }
            self.answers.invalidate(&bearer.session).await;
        }
        // The database takes longer to answer than an answer may be kept.
        Ok(self.ask(bearer).await?)
    }

    async fn look_up(&self, bearer: &Bearer) -> Result<SessionAnswer, StoreError> {
        if let Some(answer) = self.redis.get(&bearer.session, self.clock.now()).await {
            return Ok(answer);
        }
        let answer = self.ask(bearer).await?;
        self.redis.put(&bearer.session, &answer, self.clock.now()).await;
        Ok(answer)
    }

    /// Several may wait for this one answer: it must not outlast an outage.
    async fn ask(&self, bearer: &Bearer) -> Result<SessionAnswer, StoreError> {
        self.store.gate.guard(self.read(bearer)).await
    }

    /// The user is read before the session: a change of the password keeps one session, and moves both on at once.
    async fn read(&self, bearer: &Bearer) -> Result<SessionAnswer, StoreError> {
        let asked_at = self.clock.now();
        let over = SessionAnswer { holder: None, asked_at };
        let Some(user) = self.store.users.find(&bearer.user).await? else { return Ok(over) };
        let Some(session) = self.live(&bearer.session, asked_at).await? else { return Ok(over) };
        if session.user_id != user.id || session.password_version < user.password_version {
            return Ok(over);
        }
        let holder = Holder { user: user.id, role: user.role, email: user.email, created_at: user.created_at };
        Ok(SessionAnswer { holder: Some(holder), asked_at })
    }

    /// The session, unless it was revoked or has expired (the database forgets expired ones only once a minute).
    async fn live(&self, id: &SessionId, now: Timestamp) -> Result<Option<Session>, StoreError> {
        let session = self.store.sessions.find(id).await?;
        Ok(session.filter(|session| session.revoked_at.is_none() && session.expires_at > now))
    }

    async fn succeed(
        &self,
        presented: &RefreshToken,
        session: Session,
        now: Timestamp,
    ) -> Result<RefreshToken, SessionError> {
        let hash = presented.hash();
        let successors = self.tokens.successors(presented);
        let next = successors.first().cloned().ok_or(SessionError::Invalid)?;
        let mut refresh = session.refresh;
        if refresh.current_hash == hash {
            let rotation = Rotation { from_hash: &hash, to_hash: &next.hash(), now, expires_at: expiry(now) };
            if self.store.sessions.rotate(&session.id, rotation).await? {
                return Ok(next);
            }
            // Someone else presented it at the same moment: look again what it became.
            refresh = self.live(&session.id, now).await?.ok_or(SessionError::Invalid)?.refresh;
        }
        match decide(&refresh, &hash, now) {
            Replay::Repeated => {
                let same = successors.into_iter().find(|token| token.hash() == refresh.current_hash);
                same.ok_or(SessionError::Invalid)
            }
            // The session's id is no secret: a guess must not be able to end it.
            Replay::Stolen if !self.tokens.is_ours(presented) => Err(SessionError::Invalid),
            Replay::Stolen => {
                tracing::warn!(session = %session.id, "a used refresh token was presented: session revoked");
                self.revoke(&session.id, now).await?;
                Err(SessionError::Invalid)
            }
        }
    }

    /// The session of a refresh token that is, or just was, the current one.
    async fn holder(&self, token: &RefreshToken, now: Timestamp) -> Result<Option<SessionId>, SessionError> {
        let hash = token.hash();
        let session = self.live(&token.session, now).await?;
        let known = |refresh: &Refresh| refresh.current_hash == hash || refresh.previous_hash.as_ref() == Some(&hash);
        Ok(session.filter(|session| known(&session.refresh)).map(|session| session.id))
    }

    async fn revoke(&self, id: &SessionId, now: Timestamp) -> Result<(), SessionError> {
        self.store.sessions.revoke(id, now).await?;
        self.forget(std::slice::from_ref(id)).await;
        Ok(())
    }

    /// Makes the caches drop sessions that have ended.
    async fn forget(&self, ids: &[SessionId]) {
        for id in ids {
            self.answers.invalidate(id).await;
        }
        self.redis.mark_ended(ids).await;
    }
}

fn expiry(now: Timestamp) -> Timestamp {
    now.saturating_add(REFRESH_LIFETIME).unwrap_or(Timestamp::MAX)
}

/// What it means that a token was presented which is not the current one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Replay {
    /// By its holder, once more: its successor is unused and young.
    Repeated,
    Stolen,
}

fn decide(refresh: &Refresh, presented: &str, now: Timestamp) -> Replay {
    let is_previous = refresh.previous_hash.as_deref() == Some(presented);
    let young = refresh.rotated_at.is_some_and(|at| now.duration_since(at) <= REPLAY_GRACE);
    if is_previous && young { Replay::Repeated } else { Replay::Stolen }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case(Some("old"), Some(0), Replay::Repeated)]
    #[case(Some("old"), Some(10), Replay::Repeated)]
    #[case(Some("old"), Some(11), Replay::Stolen)]
    #[case(Some("older"), Some(0), Replay::Stolen)]
    #[case(None, None, Replay::Stolen)]
    fn only_a_prompt_repetition_is_harmless(
        #[case] previous: Option<&str>,
        #[case] seconds_ago: Option<i64>,
        #[case] replay: Replay,
    ) {
        let now = Timestamp::from_second(1_000).unwrap();
        let refresh = Refresh {
            current_hash: "new".into(),
            previous_hash: previous.map(Into::into),
            rotated_at: seconds_ago.map(|ago| Timestamp::from_second(1_000 - ago).unwrap()),
        };
        assert_eq!(decide(&refresh, "old", now), replay);
    }
}
