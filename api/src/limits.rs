//! Rate limits (GCRA): who may call how often. Process-local; knows nothing of HTTP.

use std::{
    hash::Hash,
    net::IpAddr,
    num::NonZeroU32,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use governor::{
    Quota, RateLimiter,
    clock::{Clock, DefaultClock},
    middleware::{StateInformationMiddleware, StateSnapshot},
    state::keyed::DashMapStateStore,
};
use shop_domain::id::UserId;
use shop_runtime::shutdown::Shutdown;

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
    pub fn new(config: LimitsConfig) -> Self {
        Self(Arc::new(Inner {
            sign_in_by_address: Limit::new("auth-address", config.limit_auth_per_15_minutes, QUARTER),
            sign_in_by_account: Limit::new("auth-account", config.limit_auth_per_15_minutes, QUARTER),
            writes: Limit::new("writes", config.limit_writes_per_minute, MINUTE),
            reads: Limit::new("reads", config.limit_reads_per_minute, MINUTE),
            address: Limit::new("address", config.limit_address_per_minute, MINUTE),
        }))
    }

    pub fn sign_in_from(&self, address: IpAddr) -> Result<Standing, LimitReached> {
        self.0.sign_in_by_address.check(&address)
    }

    /// `email` must be normalised, or the limit could be dodged by spelling.
    pub fn sign_in_as(&self, email: &str) -> Result<Standing, LimitReached> {
        self.0.sign_in_by_account.check(&email.to_owned())
    }

    pub fn write(&self, user: &UserId) -> Result<Standing, LimitReached> {
        self.0.writes.check(user)
    }

    pub fn read(&self, user: &UserId) -> Result<Standing, LimitReached> {
        self.0.reads.check(user)
    }

    pub fn call_from(&self, address: IpAddr) -> Result<Standing, LimitReached> {
        self.0.address.check(&address)
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
        self.0.sign_in_by_address.limiter.retain_recent();
        self.0.sign_in_by_account.limiter.retain_recent();
        self.0.writes.limiter.retain_recent();
        self.0.reads.limiter.retain_recent();
        self.0.address.limiter.retain_recent();
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

type Keyed<K> = RateLimiter<K, DashMapStateStore<K>, DefaultClock, StateInformationMiddleware>;

struct Limit<K: Hash + Eq + Clone> {
    policy: &'static str,
    quota: NonZeroU32,
    window: Duration,
    limiter: Keyed<K>,
}

impl<K: Hash + Eq + Clone> std::fmt::Debug for Limit<K> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {} per {:?}", self.policy, self.quota, self.window)
    }
}

impl<K: Hash + Eq + Clone> Limit<K> {
    fn new(policy: &'static str, per_window: u32, window: Duration) -> Self {
        let quota = NonZeroU32::new(per_window).unwrap_or(NonZeroU32::MIN);
        let one_per = (window / quota.get()).max(Duration::from_nanos(1));
        let rate = Quota::with_period(one_per).unwrap_or(Quota::per_second(quota)).allow_burst(quota);
        Self { policy, quota, window, limiter: RateLimiter::dashmap(rate).with_middleware() }
    }

    fn check(&self, key: &K) -> Result<Standing, LimitReached> {
        match self.limiter.check_key(key) {
            Ok(snapshot) => Ok(self.standing(&snapshot)),
            Err(until) => {
                let wait = until.wait_time_from(self.limiter.clock().now());
                let reset_seconds = self.window.as_secs();
                let standing = Standing { remaining: 0, reset_seconds, ..self.full() };
                Err(LimitReached {
                    standing,
                    retry_after_seconds: u32::try_from(wait.as_secs()).unwrap_or(u32::MAX).saturating_add(1),
                })
            }
        }
    }

    fn full(&self) -> Standing {
        let (quota, window_seconds) = (self.quota.get(), self.window.as_secs());
        Standing { policy: self.policy, quota, window_seconds, remaining: quota, reset_seconds: 0 }
    }

    fn standing(&self, snapshot: &StateSnapshot) -> Standing {
        let remaining = snapshot.remaining_burst_capacity();
        let used = self.quota.get().saturating_sub(remaining);
        let reset = self.window.mul_f64(f64::from(used) / f64::from(self.quota.get()));
        Standing { remaining, reset_seconds: reset.as_secs() + u64::from(reset.subsec_nanos() > 0), ..self.full() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(each: u32) -> Limits {
        Limits::new(LimitsConfig {
            limit_auth_per_15_minutes: each,
            limit_writes_per_minute: each,
            limit_reads_per_minute: each,
            limit_address_per_minute: each,
        })
    }

    #[test]
    fn each_caller_has_a_quota_of_its_own() {
        let limits = limits(3);
        let (one, other): (IpAddr, IpAddr) = ([1, 2, 3, 4].into(), [1, 2, 3, 5].into());
        let left: Vec<_> = (0..3).map(|_| limits.sign_in_from(one).unwrap().remaining).collect();
        assert_eq!(left, [2, 1, 0]);
        let refused = limits.sign_in_from(one).unwrap_err();
        assert_eq!((refused.standing.remaining, refused.standing.quota, refused.standing.window_seconds), (0, 3, 900));
        assert!((299..=301).contains(&refused.retry_after_seconds), "a third of 15 minutes, not {refused:?}");
        assert!(limits.sign_in_from(other).is_ok());
        assert!(limits.call_from(one).is_ok(), "other limits are not touched");
    }

    #[test]
    fn accounts_and_users_are_counted_apart() {
        let limits = limits(1);
        assert!(limits.sign_in_as("a@example.com").is_ok());
        assert!(limits.sign_in_as("a@example.com").is_err());
        assert!(limits.sign_in_as("b@example.com").is_ok());
        let user = UserId::from_bits([7; 12]);
        assert!(limits.write(&user).is_ok() && limits.read(&user).is_ok());
        assert!(limits.write(&user).is_err() && limits.read(&user).is_err());
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
