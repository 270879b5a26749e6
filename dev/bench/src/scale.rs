//! The scaler under measure, on the cluster with real pods: loads of orders, and what is seen of them from outside.
//! Orders are placed through the ingress: a few hundred at once take half a second, and each tells itself how long it waited.

mod figures;
mod keda;
mod lane;
pub mod plot;
mod trace;
pub mod verdict;
mod watch;

use std::{fmt, time::Duration};

use anyhow::{Context, Result};
use futures::future::try_join_all;
use serde::Serialize;
use shop_store::orders::OrderDocument;

pub use self::lane::Servers;
use self::{
    figures::{Reaction, Replicas, falls, most_within, pod_seconds, reaction, turns},
    keda::Scaled,
    lane::{Lane, Site},
    trace::{BURST, CONSTANT, Load, SHRINK, STEP, Shape, ZERO},
    watch::Depth,
};
use crate::{latency::Latency, random::SplitMix};

/// Shops that are loaded at once.
const LANES: usize = 4;
/// KEDA's one setting, messages for each pod.
const QUEUE_LENGTHS: [u32; 3] = [1, 5, 10];

/// A load with the question that it answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub enum Trace {
    /// How soon there are workers where there were none
    Zero,
    /// How soon more workers are asked for, and whether at once as many as needed
    Step,
    /// How long messages wait, at how many pod-seconds
    Burst,
    /// Whether the number is steady, and whether rest is rest
    Constant,
    /// Whether taking workers away costs a message its delivery
    Shrink,
}

/// What is measured.
#[derive(Debug, Clone, clap::Args)]
pub struct Plan {
    /// Repeatable
    #[arg(long = "trace", required = true)]
    pub traces: Vec<Trace>,
    /// Depth steps, over all shops
    #[arg(long)]
    pub steps: usize,
    /// Actions that take workers away, over all shops
    #[arg(long)]
    pub scale_downs: usize,
    /// How often each scaler has the burst
    #[arg(long)]
    pub rounds: usize,
    /// The burst with KEDA too
    #[arg(long)]
    pub keda: bool,
}

/// What the traces came to; those that were not run are absent.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Measured {
    pub zero: Option<Vec<Reaction>>,
    pub step: Option<Vec<Reaction>>,
    pub burst: Option<Vec<Run>>,
    pub constant: Option<Constant>,
    pub shrink: Option<Shrink>,
}

/// Who decides on the number of workers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum Scaler {
    Shop,
    Keda { queue_length: u32 },
}

/// A trace with one scaler.
#[derive(Debug, Clone, Serialize)]
pub struct Run {
    /// Name of the load, and how long it lasts.
    pub load: &'static str,
    pub seconds: u64,
    pub scaler: Scaler,
    pub orders: usize,
    /// From acceptance until work on the order began.
    pub wait_ms: Option<Latency>,
    /// From the burst to the first rise.
    pub reaction: Reaction,
    pub pod_seconds: f64,
    pub turns: usize,
    pub redelivered: usize,
    /// Seconds since the trace began.
    pub replicas: Vec<Replicas>,
    pub depth: Vec<Depth>,
}

#[derive(Debug, Clone, Serialize)]
pub struct Constant {
    pub run: Run,
    pub window_seconds: f64,
    /// The most turns within one window.
    pub turns_in_a_window: usize,
    pub rest_seconds: f64,
    /// Changes at rest of the shop and of its workers' Deployment, whoever made them.
    pub writes_at_rest: usize,
}

#[derive(Debug, Clone, Default, Serialize)]
pub struct Shrink {
    /// Actions that took workers away.
    pub scale_downs: usize,
    pub orders: usize,
    /// Orders whose message was delivered more than once.
    pub redelivered: usize,
}

impl fmt::Display for Scaler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Shop => f.write_str("operator"),
            Self::Keda { queue_length } => write!(f, "KEDA + HPA, queueLength {queue_length}"),
        }
    }
}

/// Every trace with shops of its own; what was made is removed whatever happens.
pub async fn run(plan: &Plan, servers: &Servers) -> Result<Measured> {
    let site = Site::open(servers).await?;
    let outcome = Box::pin(crate::ground::until_interrupted(all(plan, &site))).await;
    let closed = site.close().await;
    let measured = outcome?;
    closed?;
    Ok(measured)
}

async fn all(plan: &Plan, site: &Site) -> Result<Measured> {
    let mut measured = Measured::default();
    let mut traces = plan.traces.clone();
    traces.sort_unstable();
    traces.dedup();
    for trace in traces {
        println!("{trace:?} …");
        match trace {
            Trace::Zero => measured.zero = Some(zero(site).await.context("from zero")?),
            Trace::Step => measured.step = Some(step(site, plan.steps).await.context("steps")?),
            Trace::Burst => measured.burst = Some(burst(site, plan).await.context("burst")?),
            Trace::Constant => measured.constant = Some(constant(site).await.context("constant load")?),
            Trace::Shrink => measured.shrink = Some(shrink(site, plan.scale_downs).await.context("shrinking")?),
        }
    }
    Ok(measured)
}

async fn open<'a>(site: &'a Site, name: &str, count: usize, shape: Shape) -> Result<Vec<Lane<'a>>> {
    try_join_all((0..count).map(|n| Lane::open(site, format!("{name}-{n}"), shape))).await
}

async fn close(lanes: Vec<Lane<'_>>) -> Result<()> {
    try_join_all(lanes.into_iter().map(Lane::close)).await.map(drop)
}

/// The first messages of shops that never had any: their queues are looked at least often.
async fn zero(site: &Site) -> Result<Vec<Reaction>> {
    let mut reactions = Vec::new();
    for round in 0..2 {
        let lanes = open(site, &format!("zero-{round}"), LANES, ZERO).await?;
        let one = async |lane: &Lane<'_>| {
            lane.calm().await?;
            lane.by_itself().await?;
            let since = lane.observer.now();
            lane.stock().await?;
            Ok::<_, anyhow::Error>(reaction(&lane.observer.record().replicas, since))
        };
        reactions.extend(try_join_all(lanes.iter().map(one)).await?);
        close(lanes).await?;
    }
    Ok(reactions)
}

/// One shop has its step while the others come to rest: measured is the scaler, not how many pods start at once.
async fn step(site: &Site, steps: usize) -> Result<Vec<Reaction>> {
    let (shape, load) = STEP;
    let turn = tokio::sync::Mutex::new(());
    let lanes = open(site, "step", LANES, shape).await?;
    let one = async |(n, lane): (usize, &Lane<'_>)| {
        lane.stock().await?;
        let mut random = SplitMix::new(n as u64);
        let mut reactions = Vec::new();
        for _ in (n..steps).step_by(LANES) {
            lane.calm().await?;
            lane.by_itself().await?;
            // Beyond the scaler's first look, and at any phase of its looks.
            tokio::time::sleep(random.between(Duration::from_secs(4), Duration::from_secs(7))).await;
            let _turn = turn.lock().await;
            let since = lane.observer.now();
            lane.offer(&load).await?;
            reactions.push(reaction(&lane.observer.record().replicas, since));
        }
        Ok::<_, anyhow::Error>(reactions)
    };
    let reactions = try_join_all(lanes.iter().enumerate().map(one)).await?;
    close(lanes).await?;
    Ok(reactions.concat())
}

async fn burst(site: &Site, plan: &Plan) -> Result<Vec<Run>> {
    let (shape, load) = BURST;
    let lane = Lane::open(site, "burst".to_owned(), shape).await?;
    lane.stock().await?;
    let keda = QUEUE_LENGTHS.map(|queue_length| Scaler::Keda { queue_length });
    let scalers: Vec<_> = [Scaler::Shop].into_iter().chain(keda.into_iter().filter(|_| plan.keda)).collect();
    let mut runs = Vec::new();
    for _ in 0..plan.rounds {
        for scaler in &scalers {
            println!("  {scaler}");
            lane.calm().await?;
            runs.push(with(*scaler, &lane, (&shape, &load)).await?);
        }
    }
    lane.close().await?;
    Ok(runs)
}

/// A load with one scaler, beginning at the fewest workers.
async fn with(scaler: Scaler, lane: &Lane<'_>, (shape, load): (&Shape, &Load)) -> Result<Run> {
    match scaler {
        Scaler::Shop => {
            lane.by_itself().await?;
            measure(scaler, lane, (shape, load)).await
        }
        Scaler::Keda { queue_length } => {
            lane.by_others().await?;
            let followed = Scaled::apply(lane, shape, queue_length).await?;
            let run = measure(scaler, lane, (shape, load)).await;
            let removed = followed.remove().await;
            let run = run?;
            removed?;
            Ok(run)
        }
    }
}

async fn measure(scaler: Scaler, lane: &Lane<'_>, (shape, load): (&Shape, &Load)) -> Result<Run> {
    let from = lane.observer.now();
    let count = lane.offer(load).await?;
    let to = lane.observer.now();
    let orders = lane.decided(count).await?;
    let record = lane.observer.record();
    let work = Duration::from_secs_f64(shape.expected_seconds);
    let since = |at: f64| at - from;
    let mut replicas: Vec<_> = record.replicas.iter().copied().map(|it| Replicas { at: since(it.at), ..it }).collect();
    let before = replicas.iter().rposition(|value| value.at < 0.0).unwrap_or(0);
    replicas.drain(..before);
    #[expect(clippy::cast_precision_loss, reason = "seconds of a trace")]
    let burst = load.bursts.first().map_or(0.0, |(at, _)| *at as f64);
    Ok(Run {
        load: load.name,
        seconds: load.seconds,
        scaler,
        orders: count,
        wait_ms: Latency::of(orders.iter().filter_map(|order| waited(order, work)).collect()),
        reaction: reaction(&replicas, burst),
        pod_seconds: pod_seconds(record.pods.values(), from, to),
        turns: turns(&replicas).len(),
        redelivered: redelivered(&orders),
        replicas,
        depth: record
            .depth
            .iter()
            .copied()
            .filter(|it| it.at >= from)
            .map(|it| Depth { at: since(it.at), ..it })
            .collect(),
    })
}

async fn constant(site: &Site) -> Result<Constant> {
    const REST: Duration = Duration::from_secs(45);
    /// At rest: the window is over and the number is the smallest, and what followed from that has been written.
    const SETTLING: Duration = Duration::from_secs(20);
    let (shape, load) = CONSTANT;
    let lane = Lane::open(site, "constant".to_owned(), shape).await?;
    lane.stock().await?;
    lane.calm().await?;
    let run = with(Scaler::Shop, &lane, (&shape, &load)).await?;
    lane::eventually("the workers are the fewest again", async || {
        let record = lane.observer.record();
        Ok((record.wanted() == Some(i32::try_from(shape.min)?) && record.present() == shape.min as usize).then_some(()))
    })
    .await?;
    tokio::time::sleep(SETTLING).await;
    let since = lane.observer.now();
    tokio::time::sleep(REST).await;
    let writes_at_rest = lane.observer.record().writes.iter().filter(|at| **at >= since).count();
    lane.close().await?;
    let window_seconds = f64::from(shape.window_seconds);
    Ok(Constant {
        turns_in_a_window: most_within(&turns(&run.replicas), window_seconds),
        run,
        window_seconds,
        rest_seconds: REST.as_secs_f64(),
        writes_at_rest,
    })
}

async fn shrink(site: &Site, scale_downs: usize) -> Result<Shrink> {
    /// Fewer scale-downs than this in one go of the load would never come to an end.
    const ROUNDS: usize = 20;
    let (shape, load) = SHRINK;
    let lanes = open(site, "shrink", LANES, shape).await?;
    try_join_all(lanes.iter().map(Lane::stock)).await?;
    let mut shrunk = Shrink::default();
    for _ in 0..ROUNDS {
        let orders = try_join_all(lanes.iter().map(|lane| lane.offer(&load))).await?;
        shrunk.orders += orders.iter().sum::<usize>();
        shrunk.scale_downs = lanes.iter().map(|lane| falls(&lane.observer.record().replicas)).sum();
        println!("  {} of {scale_downs} scale-downs", shrunk.scale_downs);
        if shrunk.scale_downs >= scale_downs {
            break;
        }
    }
    let of_a_lane = shrunk.orders / LANES;
    let orders = try_join_all(lanes.iter().map(|lane| lane.decided(of_a_lane))).await?;
    shrunk.redelivered = orders.iter().map(|orders| redelivered(orders)).sum();
    close(lanes).await?;
    Ok(shrunk)
}

/// From acceptance until the work began, which takes `work`.
fn waited(order: &OrderDocument, work: Duration) -> Option<Duration> {
    let decided = order.history.last()?.at;
    let taken = Duration::try_from(decided.duration_since(order.created_at)).unwrap_or_default();
    Some(taken.saturating_sub(work))
}

fn redelivered(orders: &[OrderDocument]) -> usize {
    orders.iter().filter(|order| order.deliveries.is_some_and(|count| count > 1)).count()
}
