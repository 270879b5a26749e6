//! The process's memory of what it answered: good for a moment, and kept as the last known answer for when MongoDB is away.
//! Knows nothing of products.

use std::{hash::Hash, sync::Arc, time::Duration};

use bytes::Bytes;
use jiff::Timestamp;
use moka::future::Cache;
use sha2::{Digest, Sha256};
use shop_store::StoreError;

/// Availability is at most a second old; the rest of the second is for reading it.
pub const FRESH: Duration = Duration::from_millis(900);
/// Older answers are not given, whatever is away.
const LAST_KNOWN: Duration = Duration::from_hours(1);
/// Bytes of answers, each with what it costs to keep one.
const CAPACITY: u64 = 4 * 1024 * 1024;
const OVERHEAD: usize = 400;

/// An answer, written once and handed out as it is.
#[derive(Debug)]
pub struct Served {
    pub body: Bytes,
    /// An entity tag of this very body.
    pub tag: String,
    /// When the database was asked.
    pub read_at: Timestamp,
}

impl Served {
    pub fn new(body: Vec<u8>, version: Option<i64>, read_at: Timestamp) -> Self {
        Self { tag: tag(&body, version), body: body.into(), read_at }
    }
}

/// A digest of the body, after the version of what it shows, if that has one.
pub fn tag(body: &[u8], version: Option<i64>) -> String {
    let digest = hex::encode(&Sha256::digest(body)[..12]);
    version.map_or_else(|| format!("\"{digest}\""), |version| format!("\"{version}-{digest}\""))
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum Miss {
    #[error("there is no such product")]
    Absent,
    #[error("cannot read the catalogue")]
    Store(#[from] StoreError),
    #[error("cannot write the answer")]
    Unwritable(#[from] serde_json::Error),
}

/// Answers by what was asked; clones share them. A key belongs to a generation: what was read before a write is not found
/// after it, also when it arrives late.
#[derive(Clone)]
pub struct Shelf<K> {
    fresh: Cache<(u64, K), Arc<Served>>,
    last: Cache<K, Arc<Served>>,
}

impl<K: Hash + Eq + Clone + Send + Sync + 'static> Shelf<K> {
    pub fn new() -> Self {
        let (fresh, last) = (Cache::builder().weigher(|_, served| weight(served)), Cache::builder());
        Self {
            fresh: fresh.max_capacity(CAPACITY).time_to_live(FRESH).build(),
            last: last.weigher(|_, served| weight(served)).max_capacity(CAPACITY).time_to_live(LAST_KNOWN).build(),
        }
    }

    /// The answer, loaded by one of those who ask for it at the same time.
    pub async fn get<F: Future<Output = Result<Served, Miss>>>(
        &self,
        (generation, key): (u64, &K),
        load: impl FnOnce() -> F,
    ) -> Result<Arc<Served>, Arc<Miss>> {
        let place = (generation, key.clone());
        if let Some(served) = self.fresh.get(&place).await {
            return Ok(served);
        }
        // On the heap: most callers never load, and need not carry what that takes.
        Box::pin(self.fresh.try_get_with(place, self.newest(key, load()))).await
    }

    /// Drops the last known answer.
    pub async fn forget(&self, key: &K) {
        self.last.invalidate(key).await;
    }

    /// What is loaded, unless the last known answer is newer or there is no other.
    async fn newest(&self, key: &K, load: impl Future<Output = Result<Served, Miss>>) -> Result<Arc<Served>, Miss> {
        let loaded = load.await;
        let last = self.last.get(key).await;
        match (loaded, last) {
            (Ok(loaded), Some(last)) if last.read_at > loaded.read_at => Ok(last),
            (Ok(loaded), _) => {
                let loaded = Arc::new(loaded);
                self.last.insert(key.clone(), loaded.clone()).await;
                Ok(loaded)
            }
            (Err(Miss::Store(StoreError::Unavailable(_))), Some(last)) => Ok(last),
            (Err(miss), _) => {
                if matches!(miss, Miss::Absent) {
                    self.forget(key).await;
                }
                Err(miss)
            }
        }
    }
}

fn weight(served: &Arc<Served>) -> u32 {
    u32::try_from(served.body.len() + OVERHEAD).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn served(text: &str, second: i64) -> Served {
        Served::new(text.into(), None, Timestamp::from_second(second).unwrap())
    }

    /// As a gate that is shut says it.
    async fn away() -> Result<Served, Miss> {
        let store = shop_store::Store::connect(&"mongodb://127.0.0.1:9".to_owned().into(), "x").await.unwrap();
        store.gate.close();
        store.gate.guard(std::future::pending::<Result<Served, StoreError>>()).await.map_err(Miss::from)
    }

    #[tokio::test]
    async fn the_last_known_answer_helps_out_unless_the_thing_is_gone() {
        let shelf = Shelf::new();
        let get =
            async |generation, load| shelf.get((generation, &"k"), || async { load }).await.map(|s| s.body.clone());
        assert!(get(0, away().await).await.is_err(), "nothing is known yet");
        assert_eq!(get(0, Ok(served("one", 1))).await.unwrap(), "one");
        assert_eq!(get(0, Ok(served("two", 2))).await.unwrap(), "one", "still fresh");
        assert_eq!(get(1, Ok(served("two", 2))).await.unwrap(), "two", "another generation");
        assert_eq!(get(2, away().await).await.unwrap(), "two");
        assert_eq!(get(3, Ok(served("one", 1))).await.unwrap(), "two", "an older answer from elsewhere");
        assert!(get(4, Err(Miss::Absent)).await.is_err());
        assert!(get(5, away().await).await.is_err(), "it is gone");
    }

    #[tokio::test]
    async fn what_is_kept_is_bounded() {
        let shelf = Shelf::new();
        for key in 0..40_u32 {
            shelf.get((0, &key), || async { Ok(served(&"x".repeat(500_000), 1)) }).await.unwrap();
        }
        shelf.fresh.run_pending_tasks().await;
        shelf.last.run_pending_tasks().await;
        let kept = [shelf.fresh.weighted_size(), shelf.last.weighted_size()];
        assert!(kept.iter().all(|size| (1..=CAPACITY).contains(size)), "{kept:?}");
    }

    #[test]
    fn a_tag_begins_with_the_version() {
        assert!(tag(b"x", Some(7)).starts_with("\"7-"));
        assert_ne!(tag(b"x", None), tag(b"y", None));
    }
}
