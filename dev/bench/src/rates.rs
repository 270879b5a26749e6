//! Orders at fixed rates, and as fast as they are accepted: what is accepted and processed, how soon, and what it costs.

mod cost;
mod load;

use std::{
    collections::{BTreeMap, HashSet},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use jiff::Timestamp;
use serde::Serialize;
use shop_domain::{id::OrderId, order::Status};
use shop_harness::{QueueKind, QueueRules};
use shop_runtime::clock::Clock;
use shop_store::{
    Store,
    orders::{Listing, OrderDocument, Viewer},
};

pub use self::cost::Cost;
use self::{
    cost::Staff,
    load::{Answered, Load, Stimulus},
};
use crate::{
    ground::{Binaries, Ground, settled, until_interrupted},
    latency::Latency,
};

/// The queue as the operator makes it.
const RULES: QueueRules =
    QueueRules { visibility: Duration::from_mins(1), max_receive_count: 10, kind: QueueKind::Standard };
const PAGE: i64 = 1_000;
const STARTS: usize = 20;
/// Not counted: connections are made and caches filled.
const WARM_UP: (u32, Duration) = (50, Duration::from_secs(3));

/// What to measure.
#[derive(Debug, Clone, clap::Args)]
pub struct Plan {
    /// Orders a second; repeatable. Each is offered whether the shop keeps up or not
    #[arg(long)]
    pub rate: Vec<u32>,
    /// How long each rate is offered
    #[arg(long)]
    pub seconds: u64,
    #[arg(long)]
    pub workers: usize,
    /// Requests in flight when the maximum is looked for; 0: it is not
    #[arg(long)]
    pub in_flight: usize,
}

/// What a run came to.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Measured {
    /// From the start of an api's process until it is ready, with all that it needs there.
    pub start_ms: Option<Latency>,
    pub steps: Vec<Step>,
}

/// What one rate came to.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Step {
    /// None: as many as are accepted.
    pub offered_per_second: Option<u32>,
    pub accepted: usize,
    /// What else was answered.
    pub refused: BTreeMap<String, usize>,
    pub accepted_per_second: f64,
    /// From when a request was due until its answer was read.
    pub acceptance_ms: Option<Latency>,
    pub processed: usize,
    /// From the first acceptance to the last decision.
    pub processed_per_second: f64,
    /// From the acceptance to the decision, by the order's history.
    pub processing_ms: Option<Latency>,
    pub cost: Cost,
}

/// All rates one after the other, in a shop of their own that is removed afterwards.
pub async fn run(plan: &Plan, binaries: &Binaries) -> Result<Measured> {
    let mut measured = None;
    shop_harness::with_shop_of(RULES, async |shop| {
        let run = until_interrupted(async {
            let ground = Ground::open(shop, RULES, binaries).await?;
            let start_ms = starts(&ground, binaries).await?;
            Ok(Measured { start_ms, steps: measure(plan, &ground, binaries).await? })
        });
        measured = Some(run.await?);
        Ok(())
    })
    .await?;
    measured.context("a run ended without a result")
}

async fn starts(ground: &Ground, binaries: &Binaries) -> Result<Option<Latency>> {
    let mut starts = Vec::new();
    for _ in 0..STARTS {
        starts.push(ground.start_of_api(binaries).await?);
    }
    Ok(Latency::of(starts))
}

async fn measure(plan: &Plan, ground: &Ground, binaries: &Binaries) -> Result<Vec<Step>> {
    let load = Load::prepare(ground).await?;
    let staff = Staff::start(ground, &binaries.worker, plan.workers).await?;
    let (rate, over) = WARM_UP;
    one(ground, &load, &staff, Stimulus::Rate { per_second: rate, over }).await?;
    let over = Duration::from_secs(plan.seconds);
    let rates = plan.rate.iter().map(|&per_second| Stimulus::Rate { per_second, over });
    let most = Some(Stimulus::Most { in_flight: plan.in_flight, over }).filter(|_| plan.in_flight > 0);
    let mut measured = Vec::new();
    for stimulus in rates.chain(most) {
        println!("▶ {stimulus}");
        let step = one(ground, &load, &staff, stimulus).await?;
        println!("  {:.0}/s accepted, {:.0}/s processed", step.accepted_per_second, step.processed_per_second);
        measured.push(step);
    }
    let faults = ground.shop.store.audit.read().await?.faults();
    ensure!(faults.is_empty(), "the books do not add up:\n  {}", faults.join("\n  "));
    Ok(measured)
}

async fn one(ground: &Ground, load: &Load, staff: &Staff, stimulus: Stimulus) -> Result<Step> {
    let (since, before) = (Clock::system().now(), staff.look(ground).await?);
    let started = Instant::now();
    let answered = load.offer(&ground.client, stimulus).await;
    let accepting = started.elapsed();
    settled(&ground.shop.store).await?;
    let after = staff.look(ground).await?;
    let orders = decided(&ground.shop.store, since, &answered.accepted).await?;
    let processed = orders.iter().filter(|order| order.status == Status::Processed).count();
    ensure!(
        processed == answered.accepted.len(),
        "{processed} of {} accepted orders are processed, though there is stock for all",
        answered.accepted.len()
    );
    Ok(summary(stimulus, answered, accepting, &orders, after.since(&before, processed)))
}

fn summary(stimulus: Stimulus, answered: Answered, accepting: Duration, orders: &[OrderDocument], cost: Cost) -> Step {
    let processed = orders.len();
    Step {
        offered_per_second: stimulus.per_second(),
        accepted: answered.accepted.len(),
        accepted_per_second: per_second(answered.accepted.len(), accepting),
        acceptance_ms: Latency::of(answered.latencies),
        refused: answered.refused,
        processed,
        processed_per_second: per_second(processed, span(orders)),
        processing_ms: Latency::of(orders.iter().filter_map(processing).collect()),
        cost,
    }
}

/// The accepted orders as they are stored, newest first.
async fn decided(store: &Store, since: Timestamp, accepted: &HashSet<OrderId>) -> Result<Vec<OrderDocument>> {
    let mut orders: Vec<OrderDocument> = Vec::new();
    loop {
        let after = orders.last().map(|order| (order.created_at, order.id.clone()));
        let listing = Listing { viewer: Viewer::Staff, status: None, after, limit: PAGE };
        let page = store.orders.list(&listing).await.context("reading the orders")?;
        let end = page.last().is_none_or(|oldest| oldest.created_at < since);
        orders.extend(page);
        if end {
            orders.retain(|order| accepted.contains(&order.id));
            return Ok(orders);
        }
    }
}

fn processing(order: &OrderDocument) -> Option<Duration> {
    let done = order.history.iter().find(|step| step.status == Status::Processed)?;
    Duration::try_from(done.at.duration_since(order.created_at)).ok()
}

/// From the first acceptance to the last decision.
fn span(orders: &[OrderDocument]) -> Duration {
    let first = orders.iter().map(|order| order.created_at).min();
    let last = orders.iter().map(|order| order.updated_at).max();
    let span = first.zip(last).map(|(first, last)| last.duration_since(first));
    span.and_then(|span| Duration::try_from(span).ok()).unwrap_or_default()
}

#[expect(clippy::cast_precision_loss, reason = "a rate to show")]
fn per_second(count: usize, over: Duration) -> f64 {
    if over.is_zero() { 0.0 } else { count as f64 / over.as_secs_f64() }
}
