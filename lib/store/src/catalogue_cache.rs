//! The catalogue cache in Redis: pages of products under the catalogue's version, so that one write drops them all.
//! Optional at run time: any failure is a miss. Holds no stock: a sale does not touch it.

use std::{sync::LazyLock, time::Duration};

use redis::Script;
use serde::{Serialize, de::DeserializeOwned};

use crate::redis_link::RedisLink;

/// How long a page is kept; also how long a write that could not reach Redis may stay unseen there.
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
#[derive(Clone)]
pub struct CatalogueCache(Option<RedisLink>);

impl std::fmt::Debug for CatalogueCache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("CatalogueCache").field(&self.0.is_some()).finish()
    }
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
        Self(Some(link))
    }

    /// The page called `name`.
    pub async fn get<T: DeserializeOwned>(&self, name: &str) -> Lookup<T> {
        let Some(link) = &self.0 else { return Lookup::Away };
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
        let Some(link) = &self.0 else { return };
        let Ok(json) = serde_json::to_string(page) else { return };
        let mut connection = link.connection();
        let millis = u64::try_from(TTL.as_millis()).unwrap_or(u64::MAX);
        let command = redis::cmd("SET").arg(&slot.key).arg(json).arg("PX").arg(millis).to_owned();
        let _stored: Option<()> = link.attempt(command.query_async(&mut connection)).await;
    }

    /// Drops every page: call after each write to the catalogue.
    pub async fn invalidate(&self) {
        let Some(link) = &self.0 else { return };
        let mut connection = link.connection();
        let command = redis::cmd("INCR").arg(link.key("catalogue:version")).to_owned();
        let _version: Option<i64> = link.attempt(command.query_async(&mut connection)).await;
    }
}
