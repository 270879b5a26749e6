//! Starts the HTTP service; or makes the indexes, or tries a running shop, and ends.

use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use mimalloc::MiMalloc;
use shop_api::{
    app::{self, Surroundings},
    config::{Cli, Command, Config},
    smoke,
};
use shop_runtime::{clock::Clock, install_tls_provider, shutdown::Shutdown, telemetry};

/// Gives the 19 MiB of each password hash back at once. glibc keeps them in the arena of whichever thread did the work, until
/// a dozen sign-ins have filled the pod's memory limit.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

#[tokio::main]
async fn main() -> ExitCode {
    install_tls_provider();
    match run(Cli::read().command).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("shop-api: {}", telemetry::chain(error.as_ref()));
            ExitCode::FAILURE
        }
    }
}

async fn run(command: Command) -> Result<()> {
    match command {
        Command::Serve(config) => serve(*config).await,
        Command::Migrate(config) => {
            telemetry::init(&config.log_level).context("SHOP_LOG_LEVEL")?;
            Ok(app::migrate(&config, app::MIGRATE_PATIENCE).await?)
        }
        Command::Smoke(config) => {
            let order = smoke::run(&config, &Clock::system()).await?;
            println!("order {order} was accepted and processed; product and customer are removed again");
            Ok(())
        }
    }
}

async fn serve(config: Config) -> Result<()> {
    let traces = telemetry::init_traced(&config.store.log_level, config.tracing.collector("shop-api").as_ref())?;
    let shutdown = Shutdown::on_signal().context("cannot listen for signals")?;
    let running = app::start(config, Surroundings { clock: Clock::system(), shutdown }).await?;
    let finished = running.wait().await;
    traces.flush().await;
    if finished {
        Ok(())
    } else {
        bail!("some work did not end in time; what was accepted is stored and will be finished by others")
    }
}
