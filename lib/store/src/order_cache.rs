//! The status cache in Redis: order views for readers who poll, and the news of newer ones for those who listen
//! (`order_events`). Optional at run time: any failure is a miss.

use std::{sync::LazyLock, time::Duration};

use redis::Script;
use shop_domain::id::OrderId;

use crate::{order_events::channel, orders::OrderView, redis_link::RedisLink};

/// How long an order is worth keeping of which more is to come, such as its mail, and one that is decided.
const PENDING_TTL: Duration = Duration::from_secs(2);
const SETTLED_TTL: Duration = Duration::from_mins(5);

/// Sets the value unless a newer version is there: KEYS[1]; ARGV version, value, milliseconds to live, channel, id.
/// The value is stored as `version:value`. A version that follows another is news; that some server allows no
/// publishing must not fail the cache.
static SET_IF_NEWER: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
local old = redis.call('GET', KEYS[1])
if old then
  local version = tonumber(string.match(old, '^(%d+):'))
  if version and version >= tonumber(ARGV[1]) then return 0 end
end
redis.call('SET', KEYS[1], ARGV[1] .. ':' .. ARGV[2], 'PX', ARGV[3])
if tonumber(ARGV[1]) > 1 then redis.pcall('PUBLISH', ARGV[4], ARGV[5] .. ':' .. ARGV[1]) end
return 1
",
    )
});

/// The cache of one shop. Cheap to clone.
#[derive(Debug, Clone)]
pub struct OrderCache(Option<RedisLink>);

impl OrderCache {
    /// A cache without Redis: every read is a miss.
    pub fn disabled() -> Self {
        Self(None)
    }

    pub fn new(link: RedisLink) -> Self {
        Self(Some(link))
    }

    /// The cached order. The caller must compare its owner with the asker.
    pub async fn get(&self, id: &OrderId) -> Option<OrderView> {
        let link = self.0.as_ref()?;
        let mut connection = link.connection();
        let command = redis::cmd("GET").arg(key(link, id)).to_owned();
        let value: Option<String> = link.attempt(command.query_async(&mut connection)).await?;
        serde_json::from_str(value?.split_once(':')?.1).ok()
    }

    /// Keeps the order unless this or a newer version of it is there.
    pub async fn put(&self, order: &OrderView) {
        let Some(link) = self.0.as_ref() else { return };
        let Ok(json) = serde_json::to_string(order) else { return };
        let ttl = if order.status.is_settled() && !order.mail_waits { SETTLED_TTL } else { PENDING_TTL };
        let mut connection = link.connection();
        let mut invocation = SET_IF_NEWER.key(key(link, &order.id));
        invocation.arg(order.version).arg(json).arg(u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX));
        invocation.arg(channel(link.shop())).arg(order.id.as_str());
        let _stored: Option<i64> = link.attempt(invocation.invoke_async(&mut connection)).await;
    }

    /// More of a decided order is to come: what is kept of it ends soon. It is not removed at once, so that until then
    /// nothing older takes its place.
    pub async fn expect_more(&self, id: &OrderId) {
        let Some(link) = self.0.as_ref() else { return };
        let millis = u64::try_from(PENDING_TTL.as_millis()).unwrap_or(u64::MAX);
        let command = redis::cmd("PEXPIRE").arg(key(link, id)).arg(millis).to_owned();
        let mut connection = link.connection();
        let _kept: Option<i64> = link.attempt(command.query_async(&mut connection)).await;
    }
}

fn key(link: &RedisLink, id: &OrderId) -> String {
    link.key(&format!("order:{id}"))
}
