//! The operator under measure: a real process on a real API server, with shops whose pods run on kwok's fake nodes.
//! How long shops take to be there, how soon a change is written, what rest costs.

mod fleet;
mod kwok;
mod operator;

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use kube::Client;
use serde::Serialize;
use shop_runtime::{ops, shutdown::Shutdown};
use shop_worker::report::Activity;

use self::{
    fleet::Fleet,
    kwok::Nodes,
    operator::{Operator, Usage},
};
use crate::latency::Latency;

/// Where all workers of all shops report.
const WORKERS: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9090);

/// What is measured.
#[derive(Debug, Clone, clap::Args)]
pub struct Plan {
    /// How many shops; repeatable, each number is a run of its own
    #[arg(long = "shops", required = true)]
    pub shops: Vec<usize>,
    /// Changes of a spec, one after the other
    #[arg(long)]
    pub changes: usize,
    /// How long the operator is watched at rest
    #[arg(long)]
    pub rest_seconds: u64,
}

/// What is compiled of the operator, what plays the nodes, and where their output goes.
#[derive(Debug, Clone, clap::Args)]
pub struct Binaries {
    #[arg(long)]
    pub operator: PathBuf,
    #[arg(long)]
    pub kwok: PathBuf,
    #[arg(long)]
    pub logs: PathBuf,
    /// Of the API server
    #[arg(long, env = "KUBECONFIG")]
    pub kubeconfig: PathBuf,
    /// Of the SQS that the shops' queues are in
    #[arg(long, env = "SHOP_TEST_SQS_ENDPOINT")]
    pub sqs_endpoint: String,
}

/// One run.
#[derive(Debug, Clone, Serialize)]
pub struct Measured {
    pub shops: usize,
    /// From the first shop's creation until the operator has made the objects of all, as it reports itself.
    pub made_seconds: f64,
    /// The same until all are Ready, which the cluster's own controllers have their share in.
    pub ready_seconds: f64,
    /// Writes of the operator until then, by its own count.
    pub writes_to_ready: f64,
    /// From the event of a changed spec to the event of the first object changed for it, both as one watching client sees them.
    pub change_to_write_ms: Option<Latency>,
    pub rest: Rest,
    /// From the start of another operator process until it has looked at every shop.
    pub resync_seconds: f64,
    /// Writes of that operator, which finds everything as it should be.
    pub writes_in_resync: f64,
}

/// The operator while nothing happens.
#[derive(Debug, Clone, Serialize)]
pub struct Rest {
    pub seconds: f64,
    /// By its own count, the Lease aside.
    pub writes: f64,
    /// Objects whose version the API server has moved on: every write of anybody, the Lease aside.
    pub objects_changed: usize,
    pub cpu_percent_of_a_core: f64,
    pub rss_mib: f64,
}

/// Every run on objects of its own; what was made is removed whatever happens.
pub async fn run(plan: &Plan, binaries: &Binaries) -> Result<Vec<Measured>> {
    std::fs::create_dir_all(&binaries.logs).with_context(|| format!("making {}", binaries.logs.display()))?;
    let workers = Shutdown::manual();
    let idle = ops::serve(WORKERS, Activity::default().routes(), &workers).await;
    idle.context("the shops' workers answer there: free the port, or end the other bench")?;
    let mut measured = Vec::new();
    for &shops in &plan.shops {
        println!("{shops} shops …");
        let client = Client::try_default().await.context("no Kubernetes: run `cargo xtask bench operator`")?;
        let nodes = Nodes::add(client.clone(), binaries, shops).await?;
        let fleet = Fleet::new(client, binaries, shops).await?;
        let outcome = crate::ground::until_interrupted(one(plan, binaries, &fleet)).await;
        let (removed, gone) = (fleet.remove().await, nodes.remove().await);
        measured.push(outcome?);
        removed.and(gone)?;
    }
    Ok(measured)
}

async fn one(plan: &Plan, binaries: &Binaries, fleet: &Fleet) -> Result<Measured> {
    let mut first = Operator::start(binaries, fleet.namespace(), "first").await?;
    first.leads().await?;
    let created = fleet.create().await?;
    let ready_seconds = created.ready.as_secs_f64();
    let writes_to_ready = first.writes().await?;
    let change_to_write_ms = Latency::of(fleet.change(plan.changes).await?);
    let rest = at_rest(&first, fleet, Duration::from_secs(plan.rest_seconds)).await?;
    drop(first);
    let started = Instant::now();
    // Under another Lease: the first one's is still held.
    let mut second = Operator::start(binaries, fleet.namespace(), "second").await?;
    second.passes(fleet.size()).await?;
    let resync_seconds = started.elapsed().as_secs_f64();
    Ok(Measured {
        shops: fleet.size(),
        made_seconds: created.made.as_secs_f64(),
        ready_seconds,
        writes_to_ready,
        change_to_write_ms,
        rest,
        resync_seconds,
        writes_in_resync: second.writes().await?,
    })
}

async fn at_rest(operator: &Operator, fleet: &Fleet, time: Duration) -> Result<Rest> {
    operator.settles().await?;
    let (versions, writes, before) = (fleet.versions().await?, operator.writes().await?, operator.usage()?);
    let started = Instant::now();
    tokio::time::sleep(time).await;
    let (after, seconds): (Usage, f64) = (operator.usage()?, started.elapsed().as_secs_f64());
    let changed = fleet.versions().await?.symmetric_difference(&versions).count();
    Ok(Rest {
        seconds,
        writes: operator.writes().await? - writes,
        objects_changed: changed,
        cpu_percent_of_a_core: (after.cpu_seconds - before.cpu_seconds) / seconds * 100.0,
        rss_mib: after.rss_mib,
    })
}
