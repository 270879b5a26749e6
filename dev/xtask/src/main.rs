//! `cargo xtask`: every developer command of this project. Only dispatch; each command has its own file.

mod accounts;
mod bench;
mod charts;
mod check;
mod cluster;
mod command;
mod context;
mod daemon;
mod demo;
mod deps;
mod deps_containers;
mod deps_images;
mod docker;
mod down;
mod env;
mod helm;
mod host;
mod images;
mod ingress;
mod keda;
mod mongo;
mod monitoring;
mod net;
mod node;
mod node_image;
mod plugin;
mod progress;
mod sample;
mod schemathesis;
mod secrets;
mod seed;
mod servers;
mod shop;
mod stage;
mod started;
mod sysctls;
mod target;
mod test;
mod tools;
mod up;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::context::Context;

#[derive(Debug, Parser)]
#[command(name = "cargo xtask", about = "Developer commands of Xhipment", disable_help_subcommand = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// From a fresh machine to a shop that takes orders
    Up(up::Args),
    /// Undo `up`
    Down(down::Args),
    /// Print the running shop's addresses and accounts as shell exports, with `kubectl shop` on PATH
    Env,
    /// Place a burst of orders, watch the workers, check the books
    Demo(demo::Args),
    /// Run the tests, with the servers and the cluster that they need
    Test(test::Args),
    /// Measure a shop of the run's own: what it sells, how fast, and what survives
    #[command(subcommand)]
    Bench(bench::Action),
    /// Check format, lints, documentation, generated files, charts and manifests
    Check,
    /// Fill the shop with the sample catalogue
    Seed(seed::Args),
    /// Write the demo shop's namespace and Secrets to the cluster
    Secrets,
    /// Compile the images and put them on the cluster's node
    Images(images::Args),
    /// Keep the charts as a fixture
    #[command(subcommand)]
    Charts(charts::Action),
    /// The Kubernetes cluster that the shop runs on
    #[command(subcommand)]
    Cluster(cluster::Action),
    /// The four servers that the shop needs: MongoDB, Redis, SQS and SES
    #[command(subcommand)]
    Deps(deps::Action),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let result = Context::load().and_then(|context| match &cli.command {
        Command::Up(args) => up::run(&context, args),
        Command::Down(args) => down::run(&context, args),
        Command::Env => env::print(&context),
        Command::Demo(args) => demo::run(&context, args),
        Command::Test(args) => test::run(&context, args),
        Command::Bench(action) => bench::run(&context, action),
        Command::Check => check::run(&context),
        Command::Seed(args) => seed::run(&context, args),
        Command::Secrets => secrets::run(&context),
        Command::Images(args) => images::run(&context, args),
        Command::Charts(action) => charts::run(&context, action),
        Command::Cluster(action) => cluster::run(&context, action),
        Command::Deps(action) => deps::run(&context, action),
    });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
