//! One limit as this process counts it by itself.

use std::{hash::Hash, time::Duration};

use governor::{
    Quota, RateLimiter,
    clock::{Clock, DefaultClock},
    middleware::StateInformationMiddleware,
    state::keyed::DashMapStateStore,
};
use shop_store::shared_limits::{Rule, Step};

type Keyed<K> = RateLimiter<K, DashMapStateStore<K>, DefaultClock, StateInformationMiddleware>;

pub struct Local<K: Hash + Eq + Clone> {
    rule: Rule,
    limiter: Keyed<K>,
}

impl<K: Hash + Eq + Clone> Local<K> {
    pub fn new(rule: Rule) -> Self {
        let quota = std::num::NonZeroU32::new(rule.quota).unwrap_or(std::num::NonZeroU32::MIN);
        let one_per = (rule.window / quota.get()).max(Duration::from_nanos(1));
        let rate = Quota::with_period(one_per).unwrap_or(Quota::per_second(quota)).allow_burst(quota);
        Self { rule, limiter: RateLimiter::dashmap(rate).with_middleware() }
    }

    pub fn count(&self, caller: &K) -> Step {
        match self.limiter.check_key(caller) {
            Ok(left) => {
                let used = self.rule.quota.saturating_sub(left.remaining_burst_capacity());
                let reset = self.rule.window.mul_f64(f64::from(used) / f64::from(self.rule.quota));
                Step { allowed: true, wait: Duration::ZERO, reset }
            }
            Err(until) => {
                let wait = until.wait_time_from(self.limiter.clock().now());
                Step { allowed: false, wait, reset: self.rule.window }
            }
        }
    }

    /// Forgets callers who have their whole quota again.
    pub fn forget_idle(&self) {
        self.limiter.retain_recent();
    }
}
