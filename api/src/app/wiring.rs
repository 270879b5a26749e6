//! Puts the service's parts together from the configuration. Decides nothing, and starts nothing that answers requests.

use std::{sync::Arc, time::Duration};

use jiff::SignedDuration;
use shop_runtime::{
    aws, calls::SqsCalls, clock::Clock, metrics::Metrics, queue::Queue, shutdown::Shutdown, trust::PrivateCa,
};
use shop_store::{
    Store, StoreError,
    catalogue_cache::CatalogueCache,
    order_cache::OrderCache,
    order_events::OrderEvents as OrderNews,
    redis_link::{InvalidRedisUrl, RedisLink},
    session_cache::SessionCache,
    shared_limits::SharedLimits,
};

use super::{App, Parts, StartError, Surroundings};
use crate::{
    config::{Config, ConfigError, StoreConfig},
    dead_letters::DeadLetters,
    eraser,
    keys::Keys,
    layers::{
        headers::{Https, security_headers},
        red::RequestMetrics,
    },
    limits::Limits,
    mailer::{self, MailerDeps, reset_link::ResetLinks},
    order_events::{self, WatchDeps},
    passwords::Passwords,
    probes::probes,
    relay::{self, RelayDeps, RelayHandle},
    reset_tokens::ResetTokens,
    service::{
        accounts::Accounts,
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

/// What all parts are made from.
pub struct Base {
    store: Store,
    pub keys: Keys,
    queue: Queue,
    ses: aws_sdk_ses::Client,
    clock: Clock,
    shutdown: Shutdown,
    redis: Option<RedisLink>,
    pub metrics: Metrics,
}

impl Base {
    /// Connects to MongoDB while the rest is made, as readiness waits for it; to nothing else yet. Nothing is waited for.
    pub async fn new(config: &Config, surroundings: Surroundings) -> Result<Self, StartError> {
        let Surroundings { clock, shutdown } = surroundings;
        let keys = Keys::load(&config.auth.auth_keys_file).await?;
        let ca = config.store.ca()?;
        let store = connect(&config.store, ca.as_ref()).await?;
        let watched = store.clone();
        shutdown.spawn_detached(async move { watched.watch().await });
        let metrics = Metrics::default();
        let calls = SqsCalls::register(&metrics, "shop_relay_sqs_calls");
        let sqs = calls.watch(&aws::sqs_trusting(&config.queue.service(), ca.as_ref()).await);
        let queue = Queue::new(sqs, config.queue.address().map_err(ConfigError::from)?);
        let ses = aws::ses(&config.mail.service()).await;
        let redis = connect_redis(&config.store, ca.as_ref())?;
        Ok(Self { store, keys, queue, ses, clock, shutdown, redis, metrics })
    }
}

pub async fn connect(config: &StoreConfig, ca: Option<&PrivateCa>) -> Result<Store, StoreError> {
    Store::connect_trusting(&config.mongodb_uri, &config.mongodb_database, ca.map(PrivateCa::path)).await
}

fn connect_redis(config: &StoreConfig, ca: Option<&PrivateCa>) -> Result<Option<RedisLink>, InvalidRedisUrl> {
    let Some(url) = config.redis_url() else { return Ok(None) };
    Ok(Some(RedisLink::connect_trusting(url, &config.mongodb_database, ca.map(PrivateCa::pem))?))
}

/// Starts what works beside the requests: relay, mailer, sweeper.
pub fn start_senders(config: &Config, base: &Base) -> Result<RelayHandle, StartError> {
    let (queue, gate) = (base.queue.clone(), base.store.gate.clone());
    let (clock, shutdown, metrics) = (base.clock.clone(), base.shutdown.clone(), base.metrics.clone());
    mailer::spawn(MailerDeps {
        mails: base.store.mails.clone(),
        gate: gate.clone(),
        suppressed_addresses: base.store.suppressed_addresses.clone(),
        leases: base.store.leases.clone(),
        ses: base.ses.clone(),
        sender: mailer::Sender::new(&config.name, &config.mail.mail_from),
        per_second: config.mail.mail_per_second,
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

/// Starts what keeps the handlers' parts going: tidying, erasing, the news of orders.
pub fn start_watchers(app: &App, base: &Base) {
    let shutdown = &base.shutdown;
    app.limits.keep_small(shutdown);
    eraser::spawn(app.erasure.clone(), app.gate.clone(), shutdown);
    order_events::spawn(WatchDeps {
        orders: base.store.orders.clone(),
        gate: app.gate.clone(),
        news: base.redis.as_ref().map(OrderNews::new),
        followers: app.order_events.clone(),
        shutdown: shutdown.clone(),
    });
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

/// Puts together what handlers reach.
pub fn build(config: &Config, base: &Base, relay: RelayHandle) -> App {
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
