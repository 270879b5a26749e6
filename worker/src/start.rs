//! Puts the worker together and starts it. Waits for nothing: what is away is waited for in the background.

use std::{net::SocketAddr, sync::Arc};

use shop_runtime::{
    aws,
    calls::SqsCalls,
    clock::Clock,
    health::Readiness,
    metrics::Metrics,
    ops::{self, OpsError},
    queue::Queue,
    shutdown::Shutdown,
    telemetry::chain,
    trust::{PrivateCa, TrustError},
};
use shop_store::{
    Store, StoreError,
    order_cache::OrderCache,
    redis_link::{InvalidRedisUrl, RedisLink},
};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::{
    batch::{Limits, Workshop},
    config::{Config, ConfigError},
    consume::{Consumer, Intake},
    delivery::Inbox,
    handle::Handler,
    metrics::WorkerMetrics,
    report::Activity,
};

const MONGODB: &str = "mongodb";

/// Why the worker cannot start: something to change in its settings.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Trust(#[from] TrustError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Redis(#[from] InvalidRedisUrl),
    #[error(transparent)]
    Ops(#[from] OpsError),
    #[cfg(feature = "naive-allocation")]
    #[error(transparent)]
    Naive(#[from] crate::naive::NotATest),
}

/// Starts receiving. Unfinished work is handed back when `deadline` is cancelled, see [`crate::deadline`].
/// Returns the address of the operations port.
pub async fn start(
    config: &Config,
    clock: Clock,
    shutdown: &Shutdown,
    deadline: CancellationToken,
) -> Result<SocketAddr, StartError> {
    #[cfg(feature = "naive-allocation")]
    crate::naive::only_in_tests()?;
    let (readiness, metrics) = (Readiness::default(), Metrics::default());
    let limits = limits(config)?;
    let ca = config.ca()?;
    let calls = SqsCalls::register(&metrics, "shop_worker_sqs_calls");
    let client = aws::sqs_trusting(&config.queue.service(), ca.as_ref()).await;
    let queue = Queue::new(calls.watch(&client), config.queue.address().map_err(ConfigError::from)?);
    let ca_file = ca.as_ref().map(PrivateCa::path);
    let store = Store::connect_trusting(&config.mongodb_uri, &config.mongodb_database, ca_file).await?;
    let activity = Activity::default();
    let routes = ops::router(readiness.clone(), metrics.clone()).merge(activity.routes());
    let address = ops::serve(config.metrics_addr, routes, shutdown).await?;

    watch_store(&store, &readiness, shutdown);
    let workshop = Workshop {
        inbox: Inbox::new(queue, config.visibility()),
        gate: store.gate.clone(),
        handler: Handler::new(store, clock),
        cache: cache(config, ca.as_ref())?,
        activity,
        metrics: WorkerMetrics::register(&metrics),
        limits,
        benches: Arc::new(Semaphore::new(config.concurrency as usize)),
        deadline,
    };
    announce_drain(&readiness, shutdown);
    let intake = Intake { held: config.held() as usize, batch: config.batch() as usize };
    let consumer = Consumer { workshop, intake, shutdown: shutdown.clone() };
    shutdown.spawn(consumer.run());
    Ok(address)
}

/// The worker is not ready until it has reached MongoDB. A later outage shuts only the gate, so that pods do not leave
/// together for something that they share.
fn watch_store(store: &Store, readiness: &Readiness, shutdown: &Shutdown) {
    let (store, gate, readiness) = (store.clone(), store.gate.clone(), readiness.clone());
    readiness.close(MONGODB, "not reached yet");
    shutdown.spawn_detached(async move { store.watch().await });
    shutdown.spawn_detached(async move {
        gate.first_contact(|why| readiness.close(MONGODB, chain(why))).await;
        readiness.open(MONGODB);
    });
}

fn limits(config: &Config) -> Result<Limits, ConfigError> {
    let simulated_work = config.simulated_work()?;
    let longest = simulated_work.longest();
    if !longest.is_zero() {
        let millis = u64::try_from(longest.as_millis()).unwrap_or(u64::MAX);
        tracing::warn!(
            millis,
            "SHOP_SIMULATED_WORK_MS is set: messages are held up to so long before they are decided"
        );
    }
    let (max_processing, max_receive_count) = (config.max_processing(), config.max_receive_count());
    Ok(Limits { simulated_work, max_processing, max_receive_count })
}

fn cache(config: &Config, ca: Option<&PrivateCa>) -> Result<OrderCache, InvalidRedisUrl> {
    let (shop, ca) = (&config.mongodb_database, ca.map(PrivateCa::pem));
    match config.redis_url() {
        Some(url) => Ok(OrderCache::new(RedisLink::connect_trusting(url, shop, ca)?)),
        None => Ok(OrderCache::disabled()),
    }
}

fn announce_drain(readiness: &Readiness, shutdown: &Shutdown) {
    let (readiness, draining) = (readiness.clone(), shutdown.draining());
    shutdown.spawn_detached(async move {
        draining.cancelled().await;
        readiness.close("draining", "the worker is leaving");
    });
}
