//! Rate limits (GCRA): who may call how often. Sign-ins and writes are counted for all replicas together while Redis
//! answers, everything else by this process alone. Knows nothing of HTTP.

mod local;

use std::{
    hash::Hash,
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use sha2::{Digest, Sha256};
use shop_domain::id::UserId;
use shop_runtime::shutdown::Shutdown;
use shop_store::shared_limits::{Rule, SharedLimits, Step};

use self::local::Local;
use crate::config::LimitsConfig;

const MINUTE: Duration = Duration::from_mins(1);
const QUARTER: Duration = Duration::from_mins(15);

/// What a caller has left of one limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    pub policy: &'static str,
    pub quota: u32,
    pub window_seconds: u64,
    pub remaining: u32,
    /// Seconds until the whole quota is there again.
    pub reset_seconds: u64,
}

/// The limit is used up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("limit {} reached", standing.policy)]
pub struct LimitReached {
    pub standing: Standing,
    pub retry_after_seconds: u32,
}

/// All limits of the service; clones share them.
#[derive(Debug, Clone)]
pub struct Limits(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    sign_in_by_address: Limit<IpAddr>,
    sign_in_by_account: Limit<String>,
    writes: Limit<UserId>,
    reads: Limit<UserId>,
    address: Limit<IpAddr>,
}

impl Limits {
    pub fn new(config: LimitsConfig, shared: &SharedLimits) -> Self {
        let (auth, alone) = (config.limit_auth_per_15_minutes, &SharedLimits::disabled());
        let rule = |policy, quota, window| Rule { policy, quota, window };
        Self(Arc::new(Inner {
            sign_in_by_address: Limit::new(rule("auth-address", auth, QUARTER), shared),
            sign_in_by_account: Limit::new(rule("auth-account", auth, QUARTER), shared),
            writes: Limit::new(rule("writes", config.limit_writes_per_minute, MINUTE), shared),
            reads: Limit::new(rule("reads", config.limit_reads_per_minute, MINUTE), alone),
            address: Limit::new(rule("address", config.limit_address_per_minute, MINUTE), alone),
        }))
    }

    pub async fn sign_in_from(&self, address: IpAddr) -> Result<Standing, LimitReached> {
        self.0.sign_in_by_address.count(&address).await
    }

    /// `email` must be normalised, or the limit could be dodged by spelling.
    pub async fn sign_in_as(&self, email: &str) -> Result<Standing, LimitReached> {
        self.0.sign_in_by_account.count(&email.to_owned()).await
    }

    /// A password given by someone who is signed in: strangers, who are counted by the e-mail address, do not use it up.
    pub async fn confirm_as(&self, user: &UserId) -> Result<Standing, LimitReached> {
        self.0.sign_in_by_account.count(&user.to_string()).await
    }

    pub async fn write(&self, user: &UserId) -> Result<Standing, LimitReached> {
        self.0.writes.count(user).await
    }

    pub fn read(&self, user: &UserId) -> Result<Standing, LimitReached> {
        self.0.reads.count_here(user)
    }

    pub fn call_from(&self, address: IpAddr) -> Result<Standing, LimitReached> {
        self.0.address.count_here(&address)
    }

    /// Forgets, once a minute, callers who have their whole quota again.
    pub fn keep_small(&self, shutdown: &Shutdown) {
        let (limits, draining) = (self.clone(), shutdown.draining());
        shutdown.spawn_detached(async move {
            while tokio::time::timeout(MINUTE, draining.cancelled()).await.is_err() {
                limits.forget_idle();
            }
        });
    }

    fn forget_idle(&self) {
        self.0.sign_in_by_address.here.forget_idle();
        self.0.sign_in_by_account.here.forget_idle();
        self.0.writes.here.forget_idle();
        self.0.reads.here.forget_idle();
        self.0.address.here.forget_idle();
    }
}

/// What a request has used so far: its answer tells the client about the tightest limit.
#[derive(Debug, Clone, Default)]
pub struct Standings(Arc<Mutex<Option<Standing>>>);

impl Standings {
    pub fn note(&self, standing: Standing) {
        let mut tightest = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let fraction = |s: &Standing| f64::from(s.remaining) / f64::from(s.quota);
        if tightest.is_none_or(|known| fraction(&standing) <= fraction(&known)) {
            *tightest = Some(standing);
        }
    }

    pub fn tightest(&self) -> Option<Standing> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One limit: counted in Redis while that answers, here while it does not.
struct Limit<K: Hash + Eq + Clone> {
    rule: Rule,
    shared: SharedLimits,
    here: Local<K>,
}

impl<K: Hash + Eq + Clone> std::fmt::Debug for Limit<K> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {} per {:?}", self.rule.policy, self.rule.quota, self.rule.window)
    }
}

impl<K: Hash + Eq + Clone + ToString> Limit<K> {
    fn new(rule: Rule, shared: &SharedLimits) -> Self {
        Self { rule, shared: shared.clone(), here: Local::new(rule) }
    }

    async fn count(&self, caller: &K) -> Result<Standing, LimitReached> {
        // A digest: addresses are personal, and keys are shown by every tool for Redis.
        let digest = hex::encode(&Sha256::digest(caller.to_string())[..16]);
        match self.shared.count(&self.rule, &digest).await {
            Some(step) => outcome(&self.rule, step),
            None => self.count_here(caller),
        }
    }

    fn count_here(&self, caller: &K) -> Result<Standing, LimitReached> {
        outcome(&self.rule, self.here.count(caller))
    }
}

fn outcome(rule: &Rule, step: Step) -> Result<Standing, LimitReached> {
    let standing = Standing {
        policy: rule.policy,
        quota: rule.quota,
        window_seconds: rule.window.as_secs(),
        remaining: if step.allowed { remaining(rule, step.reset) } else { 0 },
        reset_seconds: whole_seconds(step.reset),
    };
    if step.allowed {
        return Ok(standing);
    }
    let retry_after_seconds = u32::try_from(whole_seconds(step.wait)).unwrap_or(u32::MAX).max(1);
    Err(LimitReached { standing, retry_after_seconds })
}

/// The calls that may still come at once: those that are not yet waiting for the quota to come back.
fn remaining(rule: &Rule, reset: Duration) -> u32 {
    let used = (reset.as_secs_f64() / rule.window.as_secs_f64() * f64::from(rule.quota) - 1e-6).ceil();
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 0 and the quota")]
    let used = used.clamp(0.0, f64::from(rule.quota)) as u32;
    rule.quota - used
}

fn whole_seconds(time: Duration) -> u64 {
    time.as_secs() + u64::from(time.subsec_nanos() > 0)
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn limits(each: u32) -> Limits {
        let config = LimitsConfig {
            limit_auth_per_15_minutes: each,
            limit_writes_per_minute: each,
            limit_reads_per_minute: each,
            limit_address_per_minute: each,
        };
        Limits::new(config, &SharedLimits::disabled())
    }

    #[tokio::test]
    async fn each_caller_has_a_quota_of_its_own() {
        let limits = limits(3);
        let (one, other): (IpAddr, IpAddr) = ([1, 2, 3, 4].into(), [1, 2, 3, 5].into());
        for left in [2, 1, 0] {
            assert_eq!(limits.sign_in_from(one).await.unwrap().remaining, left);
        }
        let refused = limits.sign_in_from(one).await.unwrap_err();
        assert_eq!((refused.standing.remaining, refused.standing.quota, refused.standing.window_seconds), (0, 3, 900));
        assert!((299..=301).contains(&refused.retry_after_seconds), "a third of 15 minutes, not {refused:?}");
        assert!(limits.sign_in_from(other).await.is_ok());
        assert!(limits.call_from(one).is_ok(), "other limits are not touched");
    }

    #[tokio::test]
    async fn accounts_and_users_are_counted_apart() {
        let limits = limits(1);
        assert!(limits.sign_in_as("a@example.com").await.is_ok());
        assert!(limits.sign_in_as("a@example.com").await.is_err());
        assert!(limits.sign_in_as("b@example.com").await.is_ok());
        let user = UserId::from_bits([7; 12]);
        assert!(limits.confirm_as(&user).await.is_ok() && limits.confirm_as(&user).await.is_err());
        assert!(limits.write(&user).await.is_ok() && limits.read(&user).is_ok());
        assert!(limits.write(&user).await.is_err() && limits.read(&user).is_err());
    }

    #[rstest]
    #[case(0, 10)]
    #[case(1, 9)] // a part of a call that has come back is none
    #[case(6_000, 9)]
    #[case(6_001, 8)]
    #[case(60_000, 0)]
    #[case(90_000, 0)]
    fn what_is_left_follows_from_when_all_is_back(#[case] reset_millis: u64, #[case] left: u32) {
        let rule = Rule { policy: "writes", quota: 10, window: MINUTE };
        assert_eq!(remaining(&rule, Duration::from_millis(reset_millis)), left);
    }

    #[test]
    fn the_tightest_limit_is_told() {
        let standings = Standings::default();
        let standing =
            |policy, remaining| Standing { policy, quota: 10, window_seconds: 60, remaining, reset_seconds: 1 };
        for (policy, remaining) in [("address", 9), ("writes", 2), ("reads", 5)] {
            standings.note(standing(policy, remaining));
        }
        assert_eq!(standings.tightest().map(|s| s.policy), Some("writes"));
    }
}
