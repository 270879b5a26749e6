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
    let address = shop_worker::start(&config, Clock::system(), &shutdown, deadline).await?;
    tracing::info!(%address, concurrency = config.concurrency, "worker started");

    let finished = shutdown.wait(config.grace()).await;
    traces.flush().await;
    if finished {
        tracing::info!("worker finished its work");
        Ok(ExitCode::SUCCESS)
    } else {
        tracing::error!(grace_seconds = config.grace().as_secs(), "worker ended with work under way");
        Ok(ExitCode::FAILURE)
    }
}
