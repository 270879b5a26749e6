//! Rate limits that all replicas share, in Redis. Optional at run time: without an answer the caller counts by itself.

use std::{sync::LazyLock, time::Duration};

use redis::Script;

use crate::redis_link::RedisLink;

/// One step of GCRA (the generic cell rate algorithm, ITU-T I.371, as virtual scheduling): what is kept is the theoretical
/// arrival time of the next call. KEYS[1]; ARGV microseconds per call, microseconds of the whole quota.
/// Times are Redis' own, in microseconds; one that lies further ahead than the quota comes from a clock that was set back.
/// Answers {allowed, microseconds until the next call may come, microseconds until the whole quota is back}.
static STEP: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local interval, whole = tonumber(ARGV[1]), tonumber(ARGV[2])
local due = math.max(tonumber(redis.call('GET', KEYS[1]) or now), now)
due = math.min(due, now + whole)
local after = due + interval
local wait = after - whole - now
if wait > 0 then return {0, wait, due - now} end
redis.call('SET', KEYS[1], string.format('%.0f', after), 'PX', math.ceil((after - now) / 1000))
return {1, 0, after - now}
",
    )
});

/// How often something may be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rule {
    /// Names the limit; part of the key.
    pub policy: &'static str,
    /// Calls per window, all of which may come at once. At least 1.
    pub quota: u32,
    pub window: Duration,
}

/// What a call came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Step {
    pub allowed: bool,
    /// Until the next call may come; zero when this one was allowed.
    pub wait: Duration,
    /// Until the whole quota is there again.
    pub reset: Duration,
}

/// The shared limits of one shop. Cheap to clone.
#[derive(Debug, Clone)]
pub struct SharedLimits(Option<RedisLink>);

impl SharedLimits {
    /// No limit is shared.
    pub fn disabled() -> Self {
        Self(None)
    }

    pub fn new(link: RedisLink) -> Self {
        Self(Some(link))
    }

    /// Counts a call of `caller`, which must not be personal: it becomes part of a key. None when Redis does not answer
    /// at once.
    pub async fn count(&self, rule: &Rule, caller: &str) -> Option<Step> {
        let link = self.0.as_ref()?;
        let whole = u64::try_from(rule.window.as_micros()).unwrap_or(u64::MAX);
        let interval = (whole / u64::from(rule.quota.max(1))).max(1);
        let mut step = STEP.key(link.key(&format!("limit:{}:{caller}", rule.policy)));
        step.arg(interval).arg(interval.saturating_mul(u64::from(rule.quota)));
        let mut connection = link.connection();
        let step = step.invoke_async::<(i64, u64, u64)>(&mut connection);
        let (allowed, wait, reset) = link.attempt(step).await?;
        Some(Step { allowed: allowed == 1, wait: Duration::from_micros(wait), reset: Duration::from_micros(reset) })
    }
}
