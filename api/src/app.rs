//! Starts the service, and is what its handlers reach. What it is made of is put together in `app/wiring.rs`.

mod migrate;
mod wiring;

use std::{net::SocketAddr, ops::Deref, panic::resume_unwind, sync::Arc, time::Duration};

use axum::http::HeaderMap;
use backon::{ExponentialBuilder, Retryable};
use ipnet::IpNet;
use shop_runtime::{
    clock::Clock,
    health::Readiness,
    ops::{self, OpsError},
    shutdown::Shutdown,
    telemetry,
    trust::TrustError,
};
use shop_store::{StoreError, gate::Gate, redis_link::InvalidRedisUrl};
use tokio_util::sync::CancellationToken;

pub use self::migrate::{MIGRATE_PATIENCE, MigrateError, migrate};
use self::wiring::{Base, build, start_senders, start_watchers};
use crate::{
    config::{Config, ConfigError, StaffAccount},
    dead_letters::DeadLetters,
    keys::KeysError,
    layers::red::RequestMetrics,
    limits::Limits,
    mailer::MailerError,
    report,
    router::{calls, router},
    server::{self, ServeError},
    service::{
        accounts::{Accounts, StaffError},
        catalogue::Catalogue,
        doctor::Doctor,
        erasure::Erasure,
        inventory::Inventory,
        mails::OrderMails,
        order_events::OrderEvents,
        orders::Orders,
        password_reset::PasswordResets,
        sessions::Sessions,
        users::Users,
    },
};

/// How long what is in flight may take after the drain. Together with the drain's 5 s it leaves 5 of the 30 s that the
/// operator gives a pod before it is killed.
const FINISH: Duration = Duration::from_secs(20);
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
    let shutdown = surroundings.shutdown.clone();
    // Beside the clients, on another core.
    let calls = tokio::task::spawn_blocking(calls);
    // Boxed: it holds the making of every client.
    let base = Box::pin(Base::new(&config, surroundings)).await?;
    let readiness = Readiness::default();
    readiness.close(MONGODB, "has not answered yet");
    let reports = report::routes(base.keys.clone());
    let ops_routes = ops::router(readiness.clone(), base.metrics.clone()).merge(reports);
    let ops_addr = ops::serve(config.http.metrics_addr, ops_routes, &shutdown).await?;

    base.keys.follow(config.auth.auth_keys_file.clone(), &shutdown);
    let relay = start_senders(&config, &base)?;
    let app = build(&config, &base, relay);
    start_watchers(&app, &base);
    let contact = first_contact(app.clone(), config.auth.staff()?, readiness.clone());
    let drain = Duration::from_secs(config.http.drain_seconds.into());
    let calls = calls.await.unwrap_or_else(|panic| resume_unwind(panic.into_panic()));
    let routes = router(&app, calls, config.http.cors_origins());
    let end = server::Drain { shutdown: shutdown.clone(), delay: drain };
    let http_addr = server::serve(config.http.http_addr, routes, end).await?;
    // Not before requests are answered: the Service sends them from then on.
    announce(contact, readiness, &shutdown);
    tracing::info!(%http_addr, %ops_addr, "serving");
    Ok(Running { http_addr, ops_addr, shutdown, drain })
}

/// Runs the first contact; says from the signal to stop on that the service is not ready.
fn announce(contact: impl Future<Output = ()> + Send + 'static, readiness: Readiness, shutdown: &Shutdown) {
    let draining = shutdown.draining();
    shutdown.spawn_detached(async move {
        draining.run_until_cancelled(contact).await;
        draining.cancelled().await;
        readiness.close("draining", "the process was asked to end");
    });
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
