//! The session cache in Redis: what MongoDB said of a session, and when it was asked. Optional at run time: any failure
//! is a miss. An answer is never believed for longer than [`MAX_STALENESS`], whatever a clock or a late write says.

use std::{sync::LazyLock, time::Duration};

use jiff::{SignedDuration, Timestamp};
use redis::Script;
use serde::{Deserialize, Serialize};
use shop_domain::{
    account::Role,
    id::{SessionId, UserId},
};

use crate::redis_link::RedisLink;

/// A session that ended is refused everywhere after this time: the bound for all caches together.
pub const MAX_STALENESS: SignedDuration = SignedDuration::from_secs(5);
/// The mark of a session that was ended must outlive every answer that was asked for before.
const MARK_TTL: Duration = Duration::from_secs(15);
/// What stands in the place of an answer when the session was ended. No session ever comes back.
const ENDED: &str = "ended";

/// Keeps an answer unless one that was asked for later is there, or the mark: KEYS[1]; ARGV asked at (milliseconds),
/// answer, milliseconds to live, mark. Stored as `asked at:answer`.
static PUT: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
local old = redis.call('GET', KEYS[1])
if old == ARGV[4] then return 0 end
if old then
  local asked = tonumber(string.match(old, '^(%d+):'))
  if asked and asked >= tonumber(ARGV[1]) then return 0 end
end
redis.call('SET', KEYS[1], ARGV[1] .. ':' .. ARGV[2], 'PX', ARGV[3])
return 1
",
    )
});

/// Reads what is kept and for how long it still is: KEYS[1].
static GET: LazyLock<Script> =
    LazyLock::new(|| Script::new("return {redis.call('GET', KEYS[1]), redis.call('PTTL', KEYS[1])}"));

/// Whose session it is.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Holder {
    pub user: UserId,
    pub role: Role,
    pub email: String,
    pub created_at: Timestamp,
}

impl std::fmt::Debug for Holder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Holder({}, {})", self.user, self.role.as_str())
    }
}

/// What the database said of a session, and when it was asked. Without a holder the session is over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionAnswer {
    pub holder: Option<Holder>,
    pub asked_at: Timestamp,
}

/// The cache of one shop. Cheap to clone.
#[derive(Debug, Clone)]
pub struct SessionCache(Option<RedisLink>);

impl SessionCache {
    /// A cache without Redis: every read is a miss.
    pub fn disabled() -> Self {
        Self(None)
    }

    pub fn new(link: RedisLink) -> Self {
        Self(Some(link))
    }

    /// The answer that is kept, if it may still be believed. The caller must compare its holder with the token's.
    pub async fn get(&self, id: &SessionId, now: Timestamp) -> Option<SessionAnswer> {
        let link = self.0.as_ref()?;
        let mut connection = link.connection();
        let read = GET.key(key(link, id));
        let read = read.invoke_async::<(Option<String>, i64)>(&mut connection);
        let (kept, left_millis) = link.attempt(read).await?;
        let kept = kept?;
        if kept == ENDED {
            return Some(SessionAnswer { holder: None, asked_at: now });
        }
        let (asked_at, json) = kept.split_once(':')?;
        let asked_at = believable(Timestamp::from_millisecond(asked_at.parse().ok()?).ok()?, left_millis, now)?;
        Some(SessionAnswer { holder: Some(serde_json::from_str(json).ok()?), asked_at })
    }

    /// Keeps the answer that the session is alive for as long as it may be believed. That it is over is kept only by
    /// [`SessionCache::mark_ended`]: a clock that is ahead must not end sessions for others.
    pub async fn put(&self, id: &SessionId, answer: &SessionAnswer, now: Timestamp) {
        let (Some(link), Some(holder)) = (self.0.as_ref(), &answer.holder) else { return };
        let Ok(json) = serde_json::to_string(holder) else { return };
        let left = MAX_STALENESS - now.duration_since(answer.asked_at);
        let left = left.clamp(SignedDuration::ZERO, MAX_STALENESS).as_millis();
        if left <= 0 {
            return;
        }
        let mut connection = link.connection();
        let mut put = PUT.key(key(link, id));
        put.arg(answer.asked_at.as_millisecond()).arg(json).arg(i64::try_from(left).unwrap_or(0)).arg(ENDED);
        let _kept: Option<i64> = link.attempt(put.invoke_async(&mut connection)).await;
    }

    /// Marks sessions as ended, against whatever was or will be kept of them from before.
    pub async fn mark_ended(&self, ids: &[SessionId]) {
        let Some(link) = self.0.as_ref().filter(|_| !ids.is_empty()) else { return };
        let millis = u64::try_from(MARK_TTL.as_millis()).unwrap_or(u64::MAX);
        let mut marks = redis::pipe();
        for id in ids {
            marks.cmd("SET").arg(key(link, id)).arg(ENDED).arg("PX").arg(millis).ignore();
        }
        let mut connection = link.connection();
        let _marked: Option<()> = link.attempt(marks.query_async(&mut connection)).await;
    }
}

fn key(link: &RedisLink, id: &SessionId) -> String {
    link.key(&format!("session:{id}"))
}

/// Since when an answer counts: the earlier of what its writer's clock said and what is left of its life by Redis'
/// clock. None when that is too long ago, or in the future: the writer's clock cannot be compared with ours.
fn believable(asked_at: Timestamp, left_millis: i64, now: Timestamp) -> Option<Timestamp> {
    let left = SignedDuration::from_millis(left_millis);
    let by_redis = now.checked_sub(MAX_STALENESS - left).ok()?;
    let in_time = asked_at <= now && (SignedDuration::ZERO..=MAX_STALENESS).contains(&left);
    Some(asked_at.min(by_redis)).filter(|since| in_time && now.duration_since(*since) <= MAX_STALENESS)
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::fresh(0, 5_000, Some(0))]
    #[case::old_by_its_writer(3_000, 5_000, Some(3_000))]
    #[case::old_by_redis(0, 1_000, Some(4_000))] // the writer's clock is ahead
    #[case::at_the_bound(5_000, 5_000, Some(5_000))]
    #[case::too_old(5_001, 5_000, None)] // a write that came late
    #[case::from_the_future(-1, 5_000, None)]
    #[case::kept_for_ever(0, -1, None)]
    #[case::gone_meanwhile(0, -2, None)]
    #[case::kept_too_long(0, 60_000, None)]
    fn an_answer_is_believed_for_five_seconds(
        #[case] millis_ago: i64,
        #[case] left_millis: i64,
        #[case] age_millis: Option<i64>,
    ) {
        let now = Timestamp::from_second(1_000).unwrap();
        let ago = |millis| now.checked_sub(SignedDuration::from_millis(millis)).unwrap();
        assert_eq!(believable(ago(millis_ago), left_millis, now), age_millis.map(ago));
    }
}
