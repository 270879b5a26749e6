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
    trust::{PrivateCa, TrustError},
};
use shop_store::{
    Store, StoreError,
    catalogue_cache::CatalogueCache,
    gate::Gate,
    order_cache::OrderCache,
    order_events::OrderEvents as OrderNews,
    redis_link::{InvalidRedisUrl, RedisLink},
    session_cache::SessionCache,
    shared_limits::SharedLimits,
};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::{
    config::{Config, ConfigError, StaffAccount, StoreConfig},
    dead_letters::DeadLetters,
    eraser,
    keys::{Keys, KeysError},
    layers::{
        headers::{Https, security_headers},
        red::RequestMetrics,
    },
    limits::Limits,
    mailer::{self, MailerDeps, MailerError, reset_link::ResetLinks},
    order_events::{self, WatchDeps},
    passwords::Passwords,
    probes::probes,
    relay::{self, RelayDeps, RelayHandle},
    report,
    reset_tokens::ResetTokens,
    router::router,
    server::{self, ServeError},
    service::{
        accounts::{Accounts, StaffError},
        catalogue::Catalogue,
        doctor::Doctor,
        erasure::Erasure,
        inventory::Inventory,
        mails::OrderMails,
        order_events::{OrderEvents, OrderEventsDeps},
        orders::{Orders, OrdersDeps},
        password_reset::{PasswordResetDeps, PasswordResets},
        sessions::Sessions,
        users::Users,
    },
    sweeper::{self, SweeperDeps},
    tokens::Tokens,
};

/// How long what is in flight may take after the drain. Together with the drain's 5 s it leaves 5 of the 30 s that the
/// operator gives a pod before it is killed.
const FINISH: Duration = Duration::from_secs(20);
/// How long [`migrate`] is meant to wait for MongoDB.
pub const MIGRATE_PATIENCE: Duration = Duration::from_mins(1);
const MONGODB: &str = "mongodb";

/// What every handler can reach; clones share it.
#[derive(Clone)]
pub struct App(Arc<Parts>);

pub struct Parts {
    pub accounts: Accounts,
    pub erasure: Erasure,
    pub users: Users,
    pub sessions: Sessions,
    pub catalogue: Catalogue,
    pub inventory: Inventory,
    pub orders: Orders,
    pub doctor: Doctor,
    pub order_events: OrderEvents,
    pub dead_letters: DeadLetters,
    pub order_mails: OrderMails,
    pub password_resets: PasswordResets,
    pub limits: Limits,
    pub gate: Gate,
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
    Trust(#[from] TrustError),
    #[error(transparent)]
    Keys(#[from] KeysError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Redis(#[from] InvalidRedisUrl),
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
    let ca = config.store.ca()?;
    let store = connect(&config.store, ca.as_ref()).await?;
    let (metrics, readiness) = (Metrics::default(), Readiness::default());
    readiness.close(MONGODB, "has not answered yet");
    let ops_routes = ops::router(readiness.clone(), metrics.clone()).merge(report::routes(keys.clone()));
    let ops_addr = ops::serve(config.http.metrics_addr, ops_routes, &shutdown).await?;

    keys.follow(config.auth.auth_keys_file.clone(), &shutdown);
    let sqs = Service { region: config.queue.sqs_region.clone(), endpoint: config.queue.endpoint() };
    let ses = Service { region: config.mail.ses_region.clone(), endpoint: config.mail.endpoint() };
    let calls = SqsCalls::register(&metrics, "shop_relay_sqs_calls");
    let sqs = calls.watch(&aws::sqs_trusting(&sqs, ca.as_ref()).await);
    let (queue, ses) = (Queue::new(sqs, config.queue.queue()?), aws::ses(&ses).await);
    let redis = connect_redis(&config.store, ca.as_ref())?;
    let base = Base { store, keys, queue, ses, redis, clock, shutdown: shutdown.clone(), metrics };
    let relay = start_senders(&config, &base)?;
    let app = build(&config, &base, relay);
    app.limits.keep_small(&shutdown);
    eraser::spawn(app.erasure.clone(), app.gate.clone(), &shutdown);
    order_events::spawn(WatchDeps {
        orders: base.store.orders.clone(),
        gate: app.gate.clone(),
        news: base.redis.as_ref().map(OrderNews::new),
        followers: app.order_events.clone(),
        shutdown: shutdown.clone(),
    });

    let store = base.store.clone();
    shutdown.spawn_detached(async move { store.watch().await });
    let contact = first_contact(app.clone(), config.auth.staff()?, readiness.clone());
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

async fn connect(config: &StoreConfig, ca: Option<&PrivateCa>) -> Result<Store, StoreError> {
    Store::connect_trusting(&config.mongodb_uri, &config.mongodb_database, ca.map(PrivateCa::path)).await
}

fn connect_redis(config: &StoreConfig, ca: Option<&PrivateCa>) -> Result<Option<RedisLink>, StartError> {
    let Some(url) = config.redis_url() else { return Ok(None) };
    Ok(Some(RedisLink::connect_trusting(url, &config.mongodb_database, ca.map(PrivateCa::pem))?))
}

/// What all parts are made from.
struct Base {
    store: Store,
    keys: Keys,
    queue: Queue,
    ses: aws_sdk_ses::Client,
    clock: Clock,
    shutdown: Shutdown,
    redis: Option<RedisLink>,
    metrics: Metrics,
}

/// Starts what works beside the requests: relay, mailer, sweeper.
fn start_senders(config: &Config, base: &Base) -> Result<RelayHandle, StartError> {
    let (queue, gate) = (base.queue.clone(), base.store.gate.clone());
    let (clock, shutdown, metrics) = (base.clock.clone(), base.shutdown.clone(), base.metrics.clone());
    mailer::spawn(MailerDeps {
        mails: base.store.mails.clone(),
        gate: gate.clone(),
        suppressed_addresses: base.store.suppressed_addresses.clone(),
        leases: base.store.leases.clone(),
        ses: base.ses.clone(),
        sender: mailer::Sender::new(&config.name, &config.mail.mail_from),
        per_second: std::num::NonZeroU32::new(config.mail.mail_per_second).unwrap_or(std::num::NonZeroU32::MIN),
        max_attempts: config.mail.mail_max_attempts,
        reset_links: ResetLinks::new(ResetTokens::new(base.keys.clone()), config.mail.reset_url()),
        clock: clock.clone(),
        shutdown: shutdown.clone(),
        metrics: metrics.clone(),
    })?;
    sweeper::spawn(SweeperDeps {
        unfinished: base.store.unfinished.clone(),
        gate: gate.clone(),
        queue: queue.clone(),
        clock: clock.clone(),
        shutdown: shutdown.clone(),
        metrics: metrics.clone(),
    });
    Ok(relay::spawn(RelayDeps { outbox: base.store.outbox.clone(), gate, queue, clock, shutdown, metrics }))
}

/// What replicas share while Redis answers.
struct InRedis {
    catalogue: CatalogueCache,
    orders: OrderCache,
    sessions: SessionCache,
    limits: SharedLimits,
}

impl InRedis {
    fn of(link: Option<&RedisLink>) -> Self {
        let Some(link) = link else {
            return Self {
                catalogue: CatalogueCache::disabled(),
                orders: OrderCache::disabled(),
                sessions: SessionCache::disabled(),
                limits: SharedLimits::disabled(),
            };
        };
        Self {
            catalogue: CatalogueCache::new(link.clone()),
            orders: OrderCache::new(link.clone()),
            sessions: SessionCache::new(link.clone()),
            limits: SharedLimits::new(link.clone()),
        }
    }
}

fn build(config: &Config, base: &Base, relay: RelayHandle) -> App {
    let Base { store, keys, queue, ses, redis, clock, shutdown, metrics } = base;
    let lifetime = SignedDuration::from_mins(config.auth.access_token_minutes.into());
    let probes = probes(redis.clone(), queue.clone(), ses.clone());
    let redis = InRedis::of(redis.as_ref());
    let tokens = Tokens::new(keys.clone(), lifetime);
    let sessions = Sessions::new(store.clone(), tokens, redis.sessions, clock.clone());
    let passwords = Passwords::new(&config.passwords, metrics);
    let https = if config.http.cookie_secure { Https::Required } else { Https::NotRequired };
    let (store, gate, clock, currency) = (store.clone(), store.gate.clone(), clock.clone(), config.currency);
    let cancel_window = SignedDuration::from_mins(config.orders.cancel_window_minutes.into());
    let orders = Orders::new(OrdersDeps {
        store: store.clone(),
        redis: redis.orders.clone(),
        relay: relay.clone(),
        clock: clock.clone(),
        currency,
        cancel_window,
    });
    let order_events = OrderEvents::new(OrderEventsDeps {
        orders: orders.clone(),
        sessions: sessions.clone(),
        max_streams: config.orders.max_event_streams as usize,
        draining: shutdown.draining(),
        metrics: metrics.clone(),
    });
    let accounts = Accounts::new(store.clone(), sessions.clone(), passwords.clone(), clock.clone());
    let password_resets = PasswordResets::new(PasswordResetDeps {
        store: store.clone(),
        accounts: accounts.clone(),
        passwords,
        tokens: ResetTokens::new(keys.clone()),
        clock: clock.clone(),
    });
    App(Arc::new(Parts {
        accounts,
        erasure: Erasure::new(store.clone(), sessions.clone(), clock.clone()),
        users: Users::new(store.users.clone()),
        sessions,
        catalogue: Catalogue::new(store.clone(), redis.catalogue, clock.clone(), currency),
        inventory: Inventory::new(store.clone(), relay, clock.clone()),
        doctor: Doctor::new(store.clone(), clock.clone(), probes),
        order_mails: OrderMails::new(store.clone(), redis.orders.clone(), clock.clone()),
        password_resets,
        orders,
        order_events,
        dead_letters: DeadLetters { store, cache: redis.orders, queue: queue.clone(), clock },
        limits: Limits::new(config.limits, &redis.limits),
        gate,
        request_metrics: RequestMetrics::register(metrics),
        request_timeout: Duration::from_secs(config.http.request_timeout_seconds.into()),
        password_min_length: config.auth.password_min_length as usize,
        cookie_secure: config.http.cookie_secure,
        trusted_proxies: config.http.trusted_proxies(),
        security_headers: security_headers(https),
        draining: shutdown.draining(),
    }))
}

/// Ready as soon as MongoDB has answered; then the staff account is made what the configuration says.
async fn first_contact(app: App, staff: Option<StaffAccount>, readiness: Readiness) {
    app.gate.first_contact(|why| readiness.close(MONGODB, telemetry::chain(why))).await;
    readiness.open(MONGODB);
    let Some(staff) = staff else { return };
    let log = |error: &StaffError, _| {
        tracing::error!(error = telemetry::chain(error), "the staff account is not set, trying again");
    };
    let set = (|| app.accounts.ensure_staff(&staff))
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
    #[error(transparent)]
    Trust(#[from] TrustError),
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
    let store = connect(config, config.ca()?.as_ref()).await.map_err(MigrateError::Uri)?;
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
