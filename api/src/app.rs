//! Puts the service together from its configuration and starts it.

use std::{net::SocketAddr, ops::Deref, sync::Arc, time::Duration};

use axum::http::HeaderMap;
use backon::{ExponentialBuilder, Retryable};
use ipnet::IpNet;
use jiff::SignedDuration;
use shop_runtime::{
    aws::{self, Service},
    calls::SqsCalls,
    clock::Clock,
    health::Readiness,
    metrics::Metrics,
    ops::{self, OpsError},
    queue::Queue,
    shutdown::Shutdown,
    telemetry,
};
use shop_store::{Store, StoreError, catalogue_cache::CatalogueCache, order_cache::OrderCache, redis_link::RedisLink};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::{
    config::{Config, ConfigError, StaffAccount, StoreConfig},
    keys::{Keys, KeysError},
    layers::{
        headers::{Https, security_headers},
        red::RequestMetrics,
    },
    limits::Limits,
    mailer::{self, MailerDeps, MailerError},
    passwords::Passwords,
    relay::{self, RelayDeps, RelayHandle},
    router::router,
    server::{self, ServeError},
    service::{
        accounts::{Accounts, StaffError},
        catalogue::Catalogue,
        inventory::Inventory,
        orders::{Orders, OrdersDeps},
        sessions::Sessions,
    },
    sweeper::{self, SweeperDeps},
    tokens::Tokens,
};

/// How long what is in flight may take after the drain. Together with the drain's 5 s it leaves 5 of the 30 s that the
/// operator gives a pod before it is killed.
const FINISH: Duration = Duration::from_secs(20);
/// How long [`migrate`] is meant to wait for MongoDB.
pub const MIGRATE_PATIENCE: Duration = Duration::from_mins(1);
const GATE: &str = "mongodb";

/// What every handler can reach; clones share it.
#[derive(Clone)]
pub struct App(Arc<Parts>);

pub struct Parts {
    pub accounts: Accounts,
    pub sessions: Sessions,
    pub catalogue: Catalogue,
    pub inventory: Inventory,
    pub orders: Orders,
    pub limits: Limits,
    pub request_metrics: RequestMetrics,
    pub request_timeout: Duration,
    pub password_min_length: usize,
    pub cookie_secure: bool,
    pub trusted_proxies: Vec<IpNet>,
    pub security_headers: HeaderMap,
    pub draining: CancellationToken,
}

impl Deref for App {
    type Target = Parts;
    fn deref(&self) -> &Parts {
        &self.0
    }
}

/// Why the service cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Keys(#[from] KeysError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Redis(#[from] shop_store::redis_link::InvalidRedisUrl),
    #[error(transparent)]
    Ops(#[from] OpsError),
    #[error(transparent)]
    Http(#[from] ServeError),
    #[error(transparent)]
    Mailer(#[from] MailerError),
}

/// What a start is given besides the configuration.
#[derive(Debug, Clone)]
pub struct Surroundings {
    pub clock: Clock,
    pub shutdown: Shutdown,
}

/// A service that runs.
#[derive(Debug)]
pub struct Running {
    pub http_addr: SocketAddr,
    pub ops_addr: SocketAddr,
    shutdown: Shutdown,
    drain: Duration,
}

impl Running {
    /// Waits for the end of the drain. False when some work had to be left.
    pub async fn wait(self) -> bool {
        self.shutdown.wait(self.drain + FINISH).await
    }
}

/// Starts the service. It answers at once; it is ready when MongoDB has answered for the first time.
pub async fn start(config: Config, surroundings: Surroundings) -> Result<Running, StartError> {
    config.validate()?;
    let Surroundings { clock, shutdown } = surroundings;
    let keys = Keys::load(&config.auth.auth_keys_file).await?;
    let store = Store::connect(&config.store.mongodb_uri, &config.store.mongodb_database).await?;
    let (metrics, readiness) = (Metrics::default(), Readiness::default());
    readiness.close(GATE, "has not answered yet");
    let ops_routes = ops::router(readiness.clone(), metrics.clone());
    let ops_addr = ops::serve(config.http.metrics_addr, ops_routes, &shutdown).await?;

    keys.follow(config.auth.auth_keys_file.clone(), &shutdown);
    let base = Base { store, keys, clock, shutdown: shutdown.clone(), metrics };
    let relay = start_senders(&config, &base).await?;
    let app = build(&config, &base, relay)?;
    app.limits.keep_small(&shutdown);

    let contact = first_contact(base.store.clone(), app.accounts.clone(), config.auth.staff()?, readiness.clone());
    let draining = shutdown.draining();
    shutdown.spawn_detached(async move {
        draining.run_until_cancelled(contact).await;
        draining.cancelled().await;
        readiness.close("draining", "the process was asked to end");
    });
    let drain = Duration::from_secs(config.http.drain_seconds.into());
    let routes = router(&app, config.http.cors_origins());
    let http_addr =
        server::serve(config.http.http_addr, routes, server::Drain { shutdown: shutdown.clone(), delay: drain })
            .await?;
    tracing::info!(%http_addr, %ops_addr, "serving");
    Ok(Running { http_addr, ops_addr, shutdown, drain })
}

/// What all parts are made from.
struct Base {
    store: Store,
    keys: Keys,
    clock: Clock,
    shutdown: Shutdown,
    metrics: Metrics,
}

/// Starts what works beside the requests: relay, mailer, sweeper.
async fn start_senders(config: &Config, base: &Base) -> Result<RelayHandle, StartError> {
    let sqs = Service { region: config.queue.sqs_region.clone(), endpoint: config.queue.endpoint() };
    let ses = Service { region: config.mail.ses_region.clone(), endpoint: config.mail.endpoint() };
    let calls = SqsCalls::register(&base.metrics, "shop_relay_sqs_calls");
    let queue = Queue::new(calls.watch(&aws::sqs(&sqs).await), config.queue.queue()?);
    let (clock, shutdown, metrics) = (base.clock.clone(), base.shutdown.clone(), base.metrics.clone());
    mailer::spawn(MailerDeps {
        outbox: base.store.outbox.clone(),
        leases: base.store.leases.clone(),
        ses: aws::ses(&ses).await,
        sender: mailer::Sender::new(&config.name, &config.mail.mail_from),
        per_second: std::num::NonZeroU32::new(config.mail.mail_per_second).unwrap_or(std::num::NonZeroU32::MIN),
        clock: clock.clone(),
        shutdown: shutdown.clone(),
        metrics: metrics.clone(),
    })?;
    sweeper::spawn(SweeperDeps {
        unfinished: base.store.unfinished.clone(),
        queue: queue.clone(),
        clock: clock.clone(),
        shutdown: shutdown.clone(),
        metrics: metrics.clone(),
    });
    Ok(relay::spawn(RelayDeps { outbox: base.store.outbox.clone(), queue, clock, shutdown, metrics }))
}

fn build(config: &Config, base: &Base, relay: RelayHandle) -> Result<App, StartError> {
    let Base { store, keys, clock, shutdown, metrics } = base;
    let lifetime = SignedDuration::from_mins(config.auth.access_token_minutes.into());
    let sessions = Sessions::new(store.clone(), Tokens::new(keys.clone(), lifetime), clock.clone());
    let shop = &config.store.mongodb_database;
    let (catalogue_cache, order_cache) = match config.store.redis_url() {
        Some(url) => {
            let link = RedisLink::connect(url, shop)?;
            (CatalogueCache::new(link.clone()), OrderCache::new(link))
        }
        None => (CatalogueCache::disabled(), OrderCache::disabled()),
    };
    let passwords = Passwords::for_this_machine();
    let https = if config.http.cookie_secure { Https::Required } else { Https::NotRequired };
    let (store, clock, currency) = (store.clone(), clock.clone(), config.currency);
    Ok(App(Arc::new(Parts {
        accounts: Accounts::new(store.clone(), sessions.clone(), passwords, clock.clone()),
        sessions,
        catalogue: Catalogue::new(store.clone(), catalogue_cache, clock.clone(), currency),
        inventory: Inventory::new(store.clone(), relay.clone(), clock.clone()),
        orders: Orders::new(OrdersDeps { store, redis: order_cache, relay, clock, currency }),
        limits: Limits::new(config.limits),
        request_metrics: RequestMetrics::register(metrics),
        request_timeout: Duration::from_secs(config.http.request_timeout_seconds.into()),
        password_min_length: config.auth.password_min_length as usize,
        cookie_secure: config.http.cookie_secure,
        trusted_proxies: config.http.trusted_proxies(),
        security_headers: security_headers(https),
        draining: shutdown.draining(),
    })))
}

/// Opens the gate as soon as MongoDB answers, then makes the staff account what the configuration says.
async fn first_contact(store: Store, accounts: Accounts, staff: Option<StaffAccount>, readiness: Readiness) {
    let log = |error: &StoreError, _| {
        tracing::warn!(error = telemetry::chain(error), "MongoDB does not answer, trying again");
    };
    let answered = (|| store.ping()).retry(until_it_answers()).notify(log).await;
    if answered.is_err() {
        return;
    }
    readiness.open(GATE);
    let Some(staff) = staff else { return };
    let log = |error: &StaffError, _| {
        tracing::error!(error = telemetry::chain(error), "the staff account is not set, trying again");
    };
    let set = (|| accounts.ensure_staff(&staff))
        .retry(until_it_answers())
        .when(|error| !matches!(error, StaffError::Email(_)));
    if let Err(error) = set.notify(log).await {
        tracing::error!(error = telemetry::chain(&error), "there is no staff account from the configuration");
    }
}

/// Why the indexes were not made.
#[derive(Debug, thiserror::Error)]
pub enum MigrateError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error("cannot use SHOP_MONGODB_URI")]
    Uri(#[source] StoreError),
    #[error("MongoDB did not answer within {seconds} s; is SHOP_MONGODB_URI right and the server up?")]
    NoAnswer { seconds: u64, source: StoreError },
    #[error("MongoDB refused to make the indexes")]
    Refused(#[source] StoreError),
}

/// Makes the indexes; asks until MongoDB answers, but no longer than `patience`.
pub async fn migrate(config: &StoreConfig, patience: Duration) -> Result<(), MigrateError> {
    config.validate()?;
    let store = Store::connect(&config.mongodb_uri, &config.mongodb_database).await.map_err(MigrateError::Uri)?;
    let started = Instant::now();
    let log = |error: &StoreError, _| {
        tracing::warn!(error = telemetry::chain(error), "MongoDB does not answer, trying again");
    };
    let migrated = (|| store.migrate())
        .retry(until_it_answers())
        .when(|error| error.is_transient() && started.elapsed() < patience)
        .notify(log)
        .await;
    migrated.map_err(|error| {
        let seconds = patience.as_secs();
        if error.is_transient() {
            MigrateError::NoAnswer { seconds, source: error }
        } else {
            MigrateError::Refused(error)
        }
    })?;
    tracing::info!(database = config.mongodb_database, "indexes are there");
    Ok(())
}

/// From 100 ms up to 2 s between attempts, without end.
fn until_it_answers() -> ExponentialBuilder {
    ExponentialBuilder::default()
        .with_min_delay(Duration::from_millis(100))
        .with_max_delay(Duration::from_secs(2))
        .without_max_times()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_process_ends_before_its_pod_is_killed() {
        // GRACE_SECONDS in operator/src/build/api.rs, and the default of SHOP_DRAIN_SECONDS.
        let (grace, drain) = (Duration::from_secs(30), Duration::from_secs(5));
        assert!(drain + FINISH + Duration::from_secs(5) <= grace);
    }
}
