//! Starts the operator: environment, logging, probes, and the work itself.

use std::time::Duration;

use anyhow::Context as _;
use clap::Parser;
use shop_operator::{config::Config, deadline, metrics::Metrics, run::Operator};
use shop_runtime::{health::Readiness, metrics, ops, shutdown::Shutdown, telemetry};

/// Passes are short; the hand-over of the lease is one request.
const GRACE: Duration = Duration::from_secs(10);

/// On one thread: there is next to nothing to compute, and every further one has memory of its own and is woken for the rest.
#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    shop_runtime::install_tls_provider();
    let config = Config::parse();
    telemetry::init(&config.log_level)?;
    let (readiness, registry) = (Readiness::default(), metrics::Metrics::default());
    let shutdown = Shutdown::on_signal()?;
    let metrics = Metrics::register(&registry);
    ops::serve(config.metrics_addr, ops::router(readiness.clone(), registry), &shutdown).await?;
    let api = kube::Config::infer().await.context("no Kubernetes API: run in a cluster, or set KUBECONFIG")?;
    let client = deadline::client(api).context("no client of the Kubernetes API")?;
    tracing::info!(version = env!("CARGO_PKG_VERSION"), namespace = config.watch_namespace, "shop operator starts");
    let operator = Operator { config, shutdown: shutdown.clone(), readiness, metrics };
    shutdown.spawn(operator.run(client));
    shutdown.wait(GRACE).await;
    Ok(())
}
