//! Password hashes: argon2id in a bounded pool, so that sign-ins can never starve everything else of processors.

use std::sync::Arc;

use argon2::{
    Algorithm, Argon2, Params, PasswordHasher, PasswordVerifier, Version,
    password_hash::{self, phc::PasswordHash},
};
use secrecy::{ExposeSecret, SecretString};
use tokio::sync::Semaphore;

/// Memory in KiB, passes and lanes: the second choice of OWASP's password storage sheet.
const MEMORY_KIB: u32 = 19 * 1024;
const PASSES: u32 = 2;
const LANES: u32 = 1;
/// Sign-ins that may wait for each worker: about half a second's worth.
const WAITING_PER_WORKER: usize = 16;
/// A hash of nobody's password, with the parameters above: checking it costs what a real one costs.
const NOBODY: &str =
    "$argon2id$v=19$m=19456,t=2,p=1$bm9ib2R5bm9ib2R5bm9ib2R5$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

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

/// The pool; clones share it.
#[derive(Debug, Clone)]
pub struct Passwords {
    /// Everyone in the pool, waiting or at work.
    places: Arc<Semaphore>,
    workers: Arc<Semaphore>,
}

impl Passwords {
    /// A pool of all processors but one, and at least one.
    pub fn for_this_machine() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Self::new(cores.saturating_sub(1).max(1), WAITING_PER_WORKER)
    }

    fn new(workers: usize, waiting_per_worker: usize) -> Self {
        let places = Arc::new(Semaphore::new(workers * (1 + waiting_per_worker)));
        Self { places, workers: Arc::new(Semaphore::new(workers)) }
    }

    /// The hash to store for a new password.
    pub async fn hash(&self, password: SecretString) -> Result<String, PasswordError> {
        self.work(move || {
            let hash = argon2()?.hash_password(password.expose_secret().as_bytes())?;
            Ok(hash.to_string())
        })
        .await
    }

    /// Checks a password. `stored` is None for an account that does not exist: the same work is done, and it is wrong.
    pub async fn verify(&self, password: SecretString, stored: Option<String>) -> Result<Verdict, PasswordError> {
        self.work(move || {
            let known = stored.is_some();
            let stored = stored.unwrap_or_else(|| NOBODY.to_owned());
            let parsed = PasswordHash::new(&stored).map_err(|_| password_hash::Error::EncodingInvalid)?;
            match argon2()?.verify_password(password.expose_secret().as_bytes(), &parsed) {
                Ok(()) if known && is_current(&parsed) => Ok(Verdict::Right),
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

fn argon2() -> Result<Argon2<'static>, password_hash::Error> {
    let params = Params::new(MEMORY_KIB, PASSES, LANES, None)?;
    Ok(Argon2::new(Algorithm::Argon2id, Version::V0x13, params))
}

fn is_current(hash: &PasswordHash) -> bool {
    let current = |params: Params| (params.m_cost(), params.t_cost(), params.p_cost()) == (MEMORY_KIB, PASSES, LANES);
    hash.algorithm.as_str() == "argon2id" && Params::try_from(hash).is_ok_and(current)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(text: &str) -> SecretString {
        text.to_owned().into()
    }

    #[tokio::test]
    async fn only_the_right_password_is_right() {
        let pool = Passwords::new(1, 4);
        let hash = pool.hash(secret("correct horse")).await.unwrap();
        assert!(hash.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{hash}");
        assert_eq!(pool.verify(secret("correct horse"), Some(hash.clone())).await.unwrap(), Verdict::Right);
        assert_eq!(pool.verify(secret("correct horsE"), Some(hash)).await.unwrap(), Verdict::Wrong);
        assert_eq!(pool.verify(secret(""), None).await.unwrap(), Verdict::Wrong);
    }

    #[tokio::test]
    async fn an_old_hash_is_told_apart() {
        let params = Params::new(8 * 1024, 1, 1, None).unwrap();
        let old = Argon2::new(Algorithm::Argon2id, Version::V0x13, params).hash_password(b"old").unwrap().to_string();
        let verdict = Passwords::new(1, 4).verify(secret("old"), Some(old)).await.unwrap();
        assert_eq!(verdict, Verdict::RightButOutdated);
    }

    #[tokio::test]
    async fn two_hashes_of_one_password_differ() {
        let pool = Passwords::new(2, 4);
        assert_ne!(pool.hash(secret("same")).await.unwrap(), pool.hash(secret("same")).await.unwrap());
    }

    #[tokio::test]
    async fn a_full_pool_refuses_at_once() {
        let pool = Passwords::new(1, 0);
        let _held = pool.places.clone().try_acquire_owned().unwrap();
        assert!(matches!(pool.hash(secret("x")).await, Err(PasswordError::Busy)));
    }
}
