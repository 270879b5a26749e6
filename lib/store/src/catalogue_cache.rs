//! The catalogue cache in Redis: pages of products under the catalogue's version, so that one write drops them all.
//! Optional at run time: any failure is a miss. Holds no stock: a sale does not touch it.

use std::{
    sync::{
        Arc, LazyLock,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use redis::Script;
use serde::{Serialize, de::DeserializeOwned};

use crate::redis_link::RedisLink;

/// How long a page is kept; also how long a write that could not reach Redis may stay unseen by other processes.
const TTL: Duration = Duration::from_mins(1);

/// Reads the version and the page under it in one round trip: KEYS version; ARGV page prefix, page name.
static READ: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
local version = redis.call('GET', KEYS[1]) or '0'
return {version, redis.call('GET', ARGV[1] .. version .. ':' .. ARGV[2])}
",
    )
});

/// The cache of one shop. Cheap to clone.
#[derive(Debug, Clone)]
pub struct CatalogueCache(Option<Link>);

#[derive(Debug, Clone)]
struct Link {
    redis: RedisLink,
    /// Writes of this process, and those of them after which the version was raised: Redis is not believed while it is
    /// behind.
    written: Arc<AtomicU64>,
    raised: Arc<AtomicU64>,
}

/// Where a page that is about to be read from the database belongs: it was asked for under this version.
#[derive(Debug, Clone)]
pub struct Slot {
    key: String,
}

/// What the cache answered.
#[derive(Debug)]
pub enum Lookup<T> {
    Hit(T),
    /// Read it from the database, then [`CatalogueCache::put`] it into this slot.
    Miss(Slot),
    /// Redis is away or there is none.
    Away,
}

impl CatalogueCache {
    /// A cache without Redis.
    pub fn disabled() -> Self {
        Self(None)
    }

    pub fn new(link: RedisLink) -> Self {
        Self(Some(Link { redis: link, written: Arc::default(), raised: Arc::default() }))
    }

    /// The page called `name`.
    pub async fn get<T: DeserializeOwned>(&self, name: &str) -> Lookup<T> {
        let Some(link) = &self.0 else { return Lookup::Away };
        if !link.catch_up().await {
            return Lookup::Away;
        }
        let link = &link.redis;
        let prefix = link.key("catalogue:");
        let mut connection = link.connection();
        let mut read = READ.key(format!("{prefix}version"));
        read.arg(&prefix).arg(name);
        let Some((version, page)) = link.attempt(read.invoke_async::<(String, Option<String>)>(&mut connection)).await
        else {
            return Lookup::Away;
        };
        match page.and_then(|json| serde_json::from_str(&json).ok()) {
            Some(page) => Lookup::Hit(page),
            None => Lookup::Miss(Slot { key: format!("{prefix}{version}:{name}") }),
        }
    }

    /// Keeps a page in the slot it was missed in. If the catalogue changed meanwhile nobody will find it.
    pub async fn put<T: Serialize>(&self, slot: &Slot, page: &T) {
        let Some(Link { redis: link, .. }) = &self.0 else { return };
        let Ok(json) = serde_json::to_string(page) else { return };
        let mut connection = link.connection();
        let millis = u64::try_from(TTL.as_millis()).unwrap_or(u64::MAX);
        let command = redis::cmd("SET").arg(&slot.key).arg(json).arg("PX").arg(millis).to_owned();
        let _stored: Option<()> = link.attempt(command.query_async(&mut connection)).await;
    }

    /// Drops every page: call after each write to the catalogue. When Redis is away this is made up for later, before
    /// this process believes it again.
    pub async fn invalidate(&self) {
        let Some(link) = &self.0 else { return };
        link.written.fetch_add(1, Ordering::SeqCst);
        link.catch_up().await;
    }
}

impl Link {
    /// Raises the version for the writes that it was not raised for. False when Redis cannot be reached.
    async fn catch_up(&self) -> bool {
        let written = self.written.load(Ordering::SeqCst);
        if self.raised.load(Ordering::SeqCst) >= written {
            return true;
        }
        let mut connection = self.redis.connection();
        let command = redis::cmd("INCR").arg(self.redis.key("catalogue:version")).to_owned();
        let version: Option<i64> = self.redis.attempt(command.query_async(&mut connection)).await;
        if version.is_some() {
            self.raised.fetch_max(written, Ordering::SeqCst);
        }
        version.is_some()
    }
}
