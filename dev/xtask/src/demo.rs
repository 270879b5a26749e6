//! `cargo xtask demo`: hands the addresses of the running shop to the demonstration in dev/bench.

use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};

use crate::context::{Context, variable};
use crate::env;

#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// How many orders to place
    #[arg(long, default_value_t = 500)]
    orders: usize,
}

pub fn run(context: &Context, args: &Args) -> Result<()> {
    let exports = env::exports(context)?;
    let mut cargo = Command::new(variable("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(["run", "--quiet", "--locked", "--bin", "demo", "--", "--orders"]);
    cargo.arg(args.orders.to_string()).current_dir(&context.repo).stdin(Stdio::null());
    // Secrets travel in the environment: an argument list is there for everyone to read.
    cargo.envs(exports).env("AWS_ACCESS_KEY_ID", "local").env("AWS_SECRET_ACCESS_KEY", "local");
    let status = cargo.status().context("starting the demonstration")?;
    if !status.success() {
        bail!("the demonstration failed ({status}); its message is above");
    }
    Ok(())
}
