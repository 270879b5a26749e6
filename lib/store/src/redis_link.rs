//! One connection to Redis with little patience: what cannot be answered at once is a miss, and Redis is then left alone.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use redis::{
    Client, RedisError, TlsCertificates,
    aio::{ConnectionManager, ConnectionManagerConfig},
};
use secrecy::{ExposeSecret, SecretString};

/// Slower than this is as good as away.
const PATIENCE: Duration = Duration::from_millis(100);
/// After a failure Redis is left alone for this long, so that an outage costs readers nothing.
const REST: Duration = Duration::from_secs(1);

/// The URL is no Redis URL.
#[derive(Debug, thiserror::Error)]
#[error("SHOP_REDIS_URL is no usable Redis URL such as redis://:password@host:6379/0")]
pub struct InvalidRedisUrl(#[source] pub(crate) RedisError);

/// A link to the Redis of one shop. Cheap to clone; clones share the connection.
#[derive(Clone)]
pub struct RedisLink {
    connection: ConnectionManager,
    client: Client,
    shop: Arc<str>,
    started: Instant,
    /// Milliseconds after `started` until which Redis is left alone.
    resting_until: Arc<AtomicU64>,
    /// Whether the last request failed: an outage is logged when it begins and when it ends.
    away: Arc<AtomicBool>,
}

impl std::fmt::Debug for RedisLink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RedisLink").field("shop", &self.shop).finish_non_exhaustive()
    }
}

impl RedisLink {
    /// Prepares the connection without waiting for the server. `shop` keeps shops that share a Redis apart.
    pub fn connect(url: &SecretString, shop: &str) -> Result<Self, InvalidRedisUrl> {
        Self::connect_trusting(url, shop, None)
    }

    /// The same, where a server asked for TLS (`rediss://`) must show a certificate of the CA `ca` (PEM) instead of a
    /// public one.
    pub fn connect_trusting(url: &SecretString, shop: &str, ca: Option<&[u8]>) -> Result<Self, InvalidRedisUrl> {
        let config = ConnectionManagerConfig::new()
            .set_connection_timeout(Some(Duration::from_secs(1)))
            .set_response_timeout(Some(PATIENCE))
            .set_number_of_retries(1)
            .set_max_delay(PATIENCE);
        let url = url.expose_secret();
        let client = match ca.filter(|_| url.starts_with("rediss:")) {
            None => Client::open(url),
            Some(ca) => Client::build_with_tls(url, TlsCertificates { client_tls: None, root_cert: Some(ca.to_vec()) }),
        };
        let client = client.map_err(InvalidRedisUrl)?;
        let connection = ConnectionManager::new_lazy_with_config(client.clone(), config).map_err(InvalidRedisUrl)?;
        let (resting_until, away) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        Ok(Self { connection, client, shop: shop.into(), started: Instant::now(), resting_until, away })
    }

    /// Whether Redis answers now, also while it is left alone.
    pub async fn ping(&self) -> Result<(), RedisError> {
        redis::cmd("PING").query_async(&mut self.connection()).await
    }

    /// For connections of another kind.
    pub(crate) fn client(&self) -> Client {
        self.client.clone()
    }

    pub(crate) fn shop(&self) -> &str {
        &self.shop
    }

    /// The key `name` of this shop.
    pub(crate) fn key(&self, name: &str) -> String {
        format!("{}:{name}", self.shop)
    }

    pub(crate) fn connection(&self) -> ConnectionManager {
        self.connection.clone()
    }

    /// Runs one request with little patience; any failure is `None` and lets Redis rest.
    pub(crate) async fn attempt<T>(&self, request: impl Future<Output = Result<T, RedisError>>) -> Option<T> {
        let now = self.elapsed_millis();
        if now < self.resting_until.load(Ordering::Relaxed) {
            return None;
        }
        let failure = match tokio::time::timeout(PATIENCE, request).await {
            Ok(Ok(answer)) => {
                if self.away.swap(false, Ordering::Relaxed) {
                    tracing::info!("cache: Redis is back");
                }
                return Some(answer);
            }
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("no answer within {} ms", PATIENCE.as_millis()),
        };
        let rest = u64::try_from(REST.as_millis()).unwrap_or(u64::MAX);
        self.resting_until.store(now.saturating_add(rest), Ordering::Relaxed);
        if !self.away.swap(true, Ordering::Relaxed) {
            tracing::warn!(failure, "cache: Redis is away, going on without it");
        }
        None
    }

    fn elapsed_millis(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}
