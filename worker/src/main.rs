//! The worker's process: settings, logging, start, and an orderly end.

use std::process::ExitCode;

use anyhow::Context;
use clap::Parser;
use shop_runtime::{clock::Clock, install_tls_provider, shutdown::Shutdown, telemetry};
use shop_worker::Config;

#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    install_tls_provider();
    let config = Config::parse();
    let traces = telemetry::init_traced(&config.log_level, config.tracing.collector("shop-worker").as_ref())?;
    let shutdown = Shutdown::on_signal().context("cannot listen for signals")?;
    let deadline = shop_worker::deadline(&shutdown, config.hand_back_after());
    let address = shop_worker::start(&config, Clock::system(), &shutdown, deadline.clone()).await?;
    tracing::info!(%address, concurrency = config.concurrency, "worker started");

    let finished = shutdown.wait(config.grace()).await;
    traces.flush().await;
    // The operator reads the code: a worker that it took away should have had the time to finish.
    if !finished {
        tracing::error!(grace_seconds = config.grace().as_secs(), "worker ended with work under way");
        Ok(ExitCode::FAILURE)
    } else if deadline.is_cancelled() {
        tracing::warn!("worker handed back the work that it could not finish in time");
        Ok(ExitCode::FAILURE)
    } else {
        tracing::info!("worker finished its work");
        Ok(ExitCode::SUCCESS)
    }
}
