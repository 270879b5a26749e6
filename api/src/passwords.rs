//! Password hashes: argon2id in a bounded pool, so that sign-ins can never starve everything else of processors.

use std::sync::Arc;

use argon2::{
    Algorithm, Argon2, Params, PasswordHasher, PasswordVerifier, Version,
    password_hash::{self, phc::PasswordHash},
};
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family},
};
use secrecy::{ExposeSecret, SecretString};
use shop_runtime::metrics::Metrics;
use tokio::sync::Semaphore;

use crate::config::PasswordConfig;

/// Sign-ins that may wait for each worker: about half a second's worth.
const WAITING_PER_WORKER: usize = 16;

#[derive(Debug, thiserror::Error)]
pub enum PasswordError {
    #[error("the password pool is full")]
    Busy,
    #[error("cannot hash a password")]
    Hash(#[source] password_hash::Error),
    #[error("the password pool lost its work")]
    Lost(#[source] tokio::task::JoinError),
}

/// What a check of a password found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Wrong,
    Right,
    /// Right, but stored with other parameters than today's: hash it again.
    RightButOutdated,
}

/// What a hash costs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Cost {
    memory_kib: u32,
    passes: u32,
    lanes: u32,
}

/// The pool; clones share it.
#[derive(Debug, Clone)]
pub struct Passwords {
    /// What new hashes cost.
    cost: Cost,
    /// Everyone in the pool, waiting or at work.
    places: Arc<Semaphore>,
    workers: Arc<Semaphore>,
    hashes: Family<Cost, Counter>,
}

impl Passwords {
    pub fn new(config: &PasswordConfig, metrics: &Metrics) -> Self {
        let cost =
            Cost { memory_kib: config.argon2_memory_kib, passes: config.argon2_passes, lanes: config.argon2_lanes };
        let pool = Self::sized(cost, config.workers(), WAITING_PER_WORKER);
        metrics.register(|registry| {
            let help = "Password hashes computed, by what they cost";
            registry.register("shop_api_password_hashes", help, pool.hashes.clone());
        });
        pool
    }

    fn sized(cost: Cost, workers: usize, waiting_per_worker: usize) -> Self {
        let places = Arc::new(Semaphore::new(workers * (1 + waiting_per_worker)));
        Self { cost, places, workers: Arc::new(Semaphore::new(workers)), hashes: Family::default() }
    }

    /// The hash to store for a new password.
    pub async fn hash(&self, password: SecretString) -> Result<String, PasswordError> {
        let (cost, hashes) = (self.cost, self.hashes.clone());
        self.work(move || {
            hashes.get_or_create(&cost).inc();
            let hash = cost.argon2()?.hash_password(password.expose_secret().as_bytes())?;
            Ok(hash.to_string())
        })
        .await
    }

    /// Checks a password. `stored` is None for an account that does not exist: the same work is done, and it is wrong.
    pub async fn verify(&self, password: SecretString, stored: Option<String>) -> Result<Verdict, PasswordError> {
        let (cost, hashes) = (self.cost, self.hashes.clone());
        self.work(move || {
            let known = stored.is_some();
            let stored = stored.unwrap_or_else(|| cost.hash_of_nobody());
            let parsed = PasswordHash::new(&stored).map_err(|_| password_hash::Error::EncodingInvalid)?;
            let asked = Cost::of(&parsed)?;
            hashes.get_or_create(&asked).inc();
            match cost.argon2()?.verify_password(password.expose_secret().as_bytes(), &parsed) {
                Ok(()) if known && asked == cost => Ok(Verdict::Right),
                Ok(()) if known => Ok(Verdict::RightButOutdated),
                Ok(()) | Err(password_hash::Error::PasswordInvalid) => Ok(Verdict::Wrong),
                Err(error) => Err(error),
            }
        })
        .await
    }

    /// The permits travel with the work: a client that goes away does not free a processor that is still busy.
    async fn work<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, password_hash::Error> + Send + 'static,
    ) -> Result<T, PasswordError> {
        let place = self.places.clone().try_acquire_owned().map_err(|_| PasswordError::Busy)?;
        let worker = self.workers.clone().acquire_owned().await.map_err(|_| PasswordError::Busy)?;
        let task = tokio::task::spawn_blocking(move || {
            let _permits = (place, worker);
            work()
        });
        task.await.map_err(PasswordError::Lost)?.map_err(PasswordError::Hash)
    }
}

impl Cost {
    fn of(hash: &PasswordHash) -> Result<Self, password_hash::Error> {
        let params = Params::try_from(hash)?;
        Ok(Self { memory_kib: params.m_cost(), passes: params.t_cost(), lanes: params.p_cost() })
    }

    fn argon2(self) -> Result<Argon2<'static>, password_hash::Error> {
        let params = Params::new(self.memory_kib, self.passes, self.lanes, None)?;
        Ok(Argon2::new(Algorithm::Argon2id, Version::V0x13, params))
    }

    /// A hash of nobody's password: checking it costs what a real one costs.
    fn hash_of_nobody(self) -> String {
        let Self { memory_kib, passes, lanes } = self;
        format!("$argon2id$v=19$m={memory_kib},t={passes},p={lanes}$bm9ib2R5bm9ib2R5bm9ib2R5${}", "A".repeat(43))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const COST: Cost = Cost { memory_kib: 8 * 1024, passes: 2, lanes: 1 };

    fn secret(text: &str) -> SecretString {
        text.to_owned().into()
    }

    #[tokio::test]
    async fn only_the_right_password_is_right() {
        let pool = Passwords::sized(COST, 1, 4);
        let hash = pool.hash(secret("correct horse")).await.unwrap();
        assert!(hash.starts_with("$argon2id$v=19$m=8192,t=2,p=1$"), "{hash}");
        assert_eq!(pool.verify(secret("correct horse"), Some(hash.clone())).await.unwrap(), Verdict::Right);
        assert_eq!(pool.verify(secret("correct horsE"), Some(hash)).await.unwrap(), Verdict::Wrong);
        assert_eq!(pool.verify(secret(""), None).await.unwrap(), Verdict::Wrong);
    }

    /// Whoever measures cannot tell an account that does not exist from a wrong password.
    #[tokio::test]
    async fn nobody_costs_one_hash_like_everybody() {
        let pool = Passwords::sized(COST, 1, 4);
        let hash = pool.hash(secret("right")).await.unwrap();
        let computed = || pool.hashes.get_or_create(&COST).get();
        for stored in [Some(hash), None] {
            let before = computed();
            assert_eq!(pool.verify(secret("wrong"), stored).await.unwrap(), Verdict::Wrong);
            assert_eq!(computed(), before + 1);
        }
    }

    #[tokio::test]
    async fn an_old_hash_is_told_apart() {
        let params = Params::new(8 * 1024, 1, 1, None).unwrap();
        let old = Argon2::new(Algorithm::Argon2id, Version::V0x13, params).hash_password(b"old").unwrap().to_string();
        let verdict = Passwords::sized(COST, 1, 4).verify(secret("old"), Some(old)).await.unwrap();
        assert_eq!(verdict, Verdict::RightButOutdated);
    }

    #[tokio::test]
    async fn two_hashes_of_one_password_differ() {
        let pool = Passwords::sized(COST, 2, 4);
        assert_ne!(pool.hash(secret("same")).await.unwrap(), pool.hash(secret("same")).await.unwrap());
    }

    #[tokio::test]
    async fn a_full_pool_refuses_at_once() {
        let pool = Passwords::sized(COST, 1, 0);
        let _held = pool.places.clone().try_acquire_owned().unwrap();
        assert!(matches!(pool.hash(secret("x")).await, Err(PasswordError::Busy)));
    }
}
