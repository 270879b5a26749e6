//! `cargo xtask bench`: compiles the shop's binaries and runs a bench of dev/bench with them, in a shop of its own on the
//! local servers. What was not running before is stopped afterwards.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};
use clap::ValueEnum;

use crate::command::Run;
use crate::context::{Context, variable};
use crate::images::{binary_named, executable};
use crate::keda;
use crate::progress::note;
use crate::stage::Stage;
use crate::tools;

#[derive(Debug, clap::Subcommand)]
pub enum Action {
    /// Many more buyers than units, workers killed at random; beside it a worker that oversells
    FlashSale(FlashSale),
    /// Orders at fixed rates and at the maximum: how many, how soon, at what cost
    Orders(Orders),
    /// The operator with few and many shops: how soon it writes, how long shops take, what rest costs
    Operator(Operator),
    /// Workers that follow the queue, on the cluster: how soon, how steadily, how long messages wait
    Scale(Scale),
}

#[derive(Debug, Clone, clap::Args)]
pub struct FlashSale {
    /// Buyers, each with one order of one unit
    #[arg(long, default_value_t = 10_000)]
    buyers: usize,
    /// Units in stock
    #[arg(long, default_value_t = 100)]
    units: u32,
    /// Workers are killed at least so often in each run
    #[arg(long, default_value_t = 25)]
    kills: usize,
    /// Runs of the real worker, each with a seed of its own
    #[arg(long, default_value_t = 1)]
    seeds: u64,
    /// 20 seeds, and so at least 500 kills
    #[arg(long, conflicts_with_all = ["seeds", "kills"])]
    long: bool,
    #[command(flatten)]
    how: How,
}

#[derive(Debug, Clone, clap::Args)]
pub struct Orders {
    /// Orders a second, in an open loop; repeatable [default: 50, 100, 200, 500 and the maximum]
    #[arg(long)]
    rate: Vec<u32>,
    /// How long each rate is offered
    #[arg(long, default_value_t = 20)]
    seconds: u64,
    /// Worker processes
    #[arg(long, default_value_t = 2)]
    workers: usize,
    #[command(flatten)]
    how: How,
}

#[derive(Debug, Clone, clap::Args)]
pub struct Operator {
    /// Shops of a run; repeatable [default: 1, 100 and 1,000]
    #[arg(long)]
    shops: Vec<usize>,
    /// Changes of a spec in each run
    #[arg(long, default_value_t = 100)]
    changes: usize,
    /// How long the operator is watched at rest
    #[arg(long, default_value_t = 60)]
    rest_seconds: u64,
    #[command(flatten)]
    how: How,
}

#[derive(Debug, Clone, clap::Args)]
pub struct Scale {
    /// Only this load; repeatable [default: zero, step, burst and constant]
    #[arg(long, value_enum)]
    trace: Vec<Trace>,
    /// Depth steps
    #[arg(long, default_value_t = 32)]
    steps: usize,
    /// How often each scaler has the burst
    #[arg(long, default_value_t = 1)]
    rounds: usize,
    /// The burst with KEDA and the cluster's HPA too, three settings in turn; the first time KEDA is built
    #[arg(long)]
    with_keda: bool,
    /// 100 scale-downs with work of 0.1 to 20 s too, which take about 10 minutes, and the burst three times
    #[arg(long, conflicts_with_all = ["trace", "rounds"])]
    long: bool,
    /// Keep the results in dev/bench/results
    #[arg(long)]
    record: bool,
}

/// The loads of `scale`, in their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Trace {
    Zero,
    Step,
    Burst,
    Constant,
    Shrink,
}

#[derive(Debug, Clone, Copy, clap::Args)]
struct How {
    /// With the profile of the images that are published; by default with the one of the tests
    #[arg(long)]
    release: bool,
    /// Keep the results in dev/bench/results
    #[arg(long)]
    record: bool,
}

/// A program of dev/bench, and what it is told.
struct Bench {
    program: &'static str,
    args: Vec<String>,
    subject: Subject,
}

/// What is measured, and so what has to be there.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Subject {
    /// api and worker, on the servers.
    Shop,
    /// The same, and the worker that oversells.
    ShopAndNaive,
    /// The operator, on the cluster with kwok's fake nodes.
    Operator,
    /// The operator and its shops, as installed on the cluster.
    Cluster,
    /// The same, with KEDA.
    ClusterAndKeda,
}

impl Subject {
    /// Flags of the bench with the binaries that they name.
    fn binaries(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::Shop | Self::ShopAndNaive => &[("--api", "shop-api"), ("--worker", "shop-worker")],
            Self::Operator => &[("--operator", "shop-operator")],
            Self::Cluster | Self::ClusterAndKeda => &[],
        }
    }
}

const NAIVE: &str = "shop-worker-naive";
/// Requests in flight when the maximum is looked for.
const IN_FLIGHT: u32 = 64;

pub fn run(context: &Context, action: &Action) -> Result<()> {
    let _lock = context.lock()?;
    let (bench, how) = match action {
        Action::FlashSale(sale) => (flash_sale(sale), sale.how),
        Action::Orders(orders) => (self::orders(orders), orders.how),
        Action::Operator(operator) => (self::operator(operator), operator.how),
        Action::Scale(scale) => {
            // What is measured are the images, which have one profile here.
            (self::scale(scale), How { release: false, record: scale.record })
        }
    };
    let mut stage = Stage::open(context)?;
    let outcome = bench.run(context, &mut stage, how);
    let struck = stage.strike(context);
    if let (Err(_), Err(error)) = (&outcome, &struck) {
        eprintln!("error: taking down what was started for the bench: {error:#}");
    }
    outcome.and(struck)
}

fn flash_sale(sale: &FlashSale) -> Bench {
    let seeds = if sale.long { 20 } else { sale.seeds };
    let args = arguments(&[
        ("--buyers", sale.buyers.to_string()),
        ("--units", sale.units.to_string()),
        ("--kills", sale.kills.to_string()),
        ("--seeds", seeds.to_string()),
    ]);
    Bench { program: "bench-flash-sale", args, subject: Subject::ShopAndNaive }
}

fn orders(orders: &Orders) -> Bench {
    let (rates, in_flight) = match orders.rate.as_slice() {
        [] => (&[50, 100, 200, 500][..], IN_FLIGHT),
        rates => (rates, 0),
    };
    let mut args = arguments(&[
        ("--seconds", orders.seconds.to_string()),
        ("--workers", orders.workers.to_string()),
        ("--in-flight", in_flight.to_string()),
    ]);
    args.extend(rates.iter().flat_map(|rate| ["--rate".to_owned(), rate.to_string()]));
    Bench { program: "bench-orders", args, subject: Subject::Shop }
}

fn operator(operator: &Operator) -> Bench {
    let shops = match operator.shops.as_slice() {
        [] => &[1, 100, 1000],
        shops => shops,
    };
    let mut args = arguments(&[
        ("--changes", operator.changes.to_string()),
        ("--rest-seconds", operator.rest_seconds.to_string()),
    ]);
    args.extend(shops.iter().flat_map(|count| ["--shops".to_owned(), count.to_string()]));
    Bench { program: "bench-operator", args, subject: Subject::Operator }
}

fn scale(scale: &Scale) -> Bench {
    const SCALE_DOWNS: usize = 100;
    let (traces, rounds) = match scale.trace.as_slice() {
        _ if scale.long => (Trace::value_variants(), 3),
        [] => (&[Trace::Zero, Trace::Step, Trace::Burst, Trace::Constant][..], scale.rounds),
        traces => (traces, scale.rounds),
    };
    let mut args = arguments(&[
        ("--steps", scale.steps.to_string()),
        ("--scale-downs", SCALE_DOWNS.to_string()),
        ("--rounds", rounds.to_string()),
    ]);
    let name = |trace: &Trace| format!("{trace:?}").to_lowercase();
    args.extend(traces.iter().flat_map(|trace| ["--trace".to_owned(), name(trace)]));
    args.extend(scale.with_keda.then(|| "--keda".to_owned()));
    let subject = if scale.with_keda { Subject::ClusterAndKeda } else { Subject::Cluster };
    Bench { program: "bench-scale", args, subject }
}

fn arguments(pairs: &[(&str, String)]) -> Vec<String> {
    pairs.iter().flat_map(|(name, value)| [(*name).to_owned(), value.clone()]).collect()
}

impl Bench {
    fn run(&self, context: &Context, stage: &mut Stage, how: How) -> Result<()> {
        let bench = self.prepare(context, stage, how)?;
        match self.subject {
            Subject::ClusterAndKeda => keda::beside(context, || finish(context, bench)),
            Subject::Shop | Subject::ShopAndNaive | Subject::Operator | Subject::Cluster => finish(context, bench),
        }
    }

    /// The bench's process with all that it needs, before it starts.
    fn prepare(&self, context: &Context, stage: &mut Stage, how: How) -> Result<Command> {
        let env = match self.subject {
            Subject::Shop | Subject::ShopAndNaive => stage.servers(context)?,
            Subject::Operator => stage.cluster(context)?,
            Subject::Cluster | Subject::ClusterAndKeda => stage.operator(context)?,
        };
        let binaries = self.subject.binaries();
        let names: Vec<_> = binaries.iter().map(|(_, name)| *name).chain([self.program]).collect();
        let built = compile(context, how, &names, &[])?;
        let mut bench = Command::new(binary_named(&built, self.program)?);
        bench.args(&self.args);
        for (flag, name) in binaries {
            bench.arg(flag).arg(binary_named(&built, name)?);
        }
        match self.subject {
            Subject::Shop | Subject::Cluster | Subject::ClusterAndKeda => {}
            Subject::ShopAndNaive => {
                let built = compile(context, how, &[NAIVE], &["--features", "shop-worker/naive-allocation"])?;
                bench.arg("--naive").arg(binary_named(&built, NAIVE)?);
            }
            Subject::Operator => {
                bench.arg("--kwok").arg(tools::ensure_built(context, &tools::KWOK)?.0.join("kwok"));
            }
        }
        if !binaries.is_empty() {
            bench.arg("--logs").arg(context.logs().join("bench"));
        }
        bench.args(["--command", &typed(), "--commit", &commit(context)?]);
        bench.args(["--profile", if how.release { "release" } else { "dev (the tests' profile)" }]);
        if how.record {
            bench.arg("--record-to").arg(context.repo.join("dev/bench/results"));
        }
        // Secrets travel in the environment: an argument list is there for everyone to read.
        bench.envs(env).stdin(Stdio::null());
        Ok(bench)
    }
}

fn finish(context: &Context, mut bench: Command) -> Result<()> {
    let status = bench.status().context("starting the bench")?;
    if !status.success() {
        bail!("the bench failed ({status}); its message is above, logs are in {}", context.logs().display());
    }
    Ok(())
}

/// Compiles `binaries` beside what is there; the naive worker has a name of its own, so that it never takes another's place.
fn compile(context: &Context, how: How, binaries: &[&str], more: &[&str]) -> Result<Vec<PathBuf>> {
    let cargo = || {
        // Always the whole workspace: with a part of it cargo unifies features anew and compiles dependencies again.
        let cargo = Run::new(variable("CARGO").unwrap_or_else(|| "cargo".into())).dir(&context.repo);
        let cargo = cargo.args(["build", "--locked", "--workspace"]).args(more);
        let cargo = cargo.args(binaries.iter().map(|name| format!("--bin={name}")));
        if how.release { cargo.arg("--release") } else { cargo }
    };
    let log = context.log("cargo");
    note(format!("cargo build of {}: log in {}", binaries.join(", "), log.display()));
    cargo().log_to(&log)?;
    let messages = cargo().args(["--quiet", "--message-format", "json"]).read()?;
    Ok(messages.lines().filter_map(executable).collect())
}

/// The command as it can be typed again.
fn typed() -> String {
    let args: Vec<String> = std::env::args().skip(1).collect();
    format!("cargo xtask {}", args.join(" "))
}

/// The commit that is checked out, and whether the code differs from it. Recorded results are no code.
fn commit(context: &Context) -> Result<String> {
    let git = |args: &[&str]| Run::new("git").dir(&context.repo).args(args).read();
    let head = git(&["rev-parse", "--short=12", "HEAD"])?;
    let changed = git(&["status", "--porcelain", "--", ".", ":!dev/bench/results", ":!docs"])?;
    Ok(if changed.is_empty() { head } else { format!("{head} with changes") })
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Cli {
        #[command(subcommand)]
        action: Action,
    }

    fn told(args: &[&str]) -> String {
        match Cli::try_parse_from(["bench"].iter().chain(args)).unwrap().action {
            Action::FlashSale(sale) => flash_sale(&sale),
            Action::Orders(orders) => super::orders(&orders),
            Action::Operator(operator) => super::operator(&operator),
            Action::Scale(scale) => super::scale(&scale),
        }
        .args
        .join(" ")
    }

    #[test]
    fn a_flash_sale_is_one_seed_or_twenty() {
        assert_eq!(told(&["flash-sale"]), "--buyers 10000 --units 100 --kills 25 --seeds 1");
        assert_eq!(told(&["flash-sale", "--long"]), "--buyers 10000 --units 100 --kills 25 --seeds 20");
        assert!(Cli::try_parse_from(["bench", "flash-sale", "--long", "--seeds", "2"]).is_err());
    }

    #[test]
    fn the_maximum_is_looked_for_unless_rates_are_given() {
        assert_eq!(told(&["orders", "--rate", "70"]), "--seconds 20 --workers 2 --in-flight 0 --rate 70");
        let all = "--seconds 20 --workers 2 --in-flight 64 --rate 50 --rate 100 --rate 200 --rate 500";
        assert_eq!(told(&["orders"]), all);
    }

    #[test]
    fn the_operator_has_one_shop_then_many() {
        assert_eq!(told(&["operator"]), "--changes 100 --rest-seconds 60 --shops 1 --shops 100 --shops 1000");
        assert_eq!(told(&["operator", "--shops", "7"]), "--changes 100 --rest-seconds 60 --shops 7");
    }

    #[test]
    fn scaling_shrinks_in_the_long_run_only() {
        let short = "--steps 32 --scale-downs 100 --rounds 1 --trace zero --trace step --trace burst --trace constant";
        assert_eq!(told(&["scale"]), short);
        assert_eq!(told(&["scale", "--with-keda"]), format!("{short} --keda"));
        let long = short.replace("--rounds 1", "--rounds 3") + " --trace shrink";
        assert_eq!(told(&["scale", "--long"]), long);
        let one = "--steps 4 --scale-downs 100 --rounds 1 --trace step";
        assert_eq!(told(&["scale", "--trace", "step", "--steps", "4"]), one);
    }
}
