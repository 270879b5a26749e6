//! The process of the worker that oversells, see `src/naive.rs`: for `cargo xtask bench flash-sale` only.

use clap::Parser;
use shop_runtime::{clock::Clock, install_tls_provider, shutdown::Shutdown, telemetry};
use shop_worker::Config;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    install_tls_provider();
    let config = Config::parse();
    telemetry::init(&config.log_level)?;
    let shutdown = Shutdown::on_signal()?;
    let deadline = shop_worker::deadline(&shutdown, config.hand_back_after());
    shop_worker::start(&config, Clock::system(), &shutdown, deadline).await?;
    shutdown.wait(config.grace()).await;
    Ok(())
}
