//! How the process of a bench begins and ends. Knows nothing of what it measures.

use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;

/// Runs the bench that was called, and tells why it failed.
pub async fn main<Bench: Parser>(run: impl AsyncFnOnce(&Bench) -> Result<()>) -> ExitCode {
    shop_runtime::install_tls_provider();
    match run(&Bench::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
