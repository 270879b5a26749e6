//! A flash sale: many more buyers than units, workers killed at random, every message sent again. One run is one seed in
//! a shop of its own; what it counted is judged in `verdict.rs`.

mod books;
mod buy;
mod crew;
mod repeat;
pub mod verdict;

use std::{
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use anyhow::Result;
use shop_domain::id::OrderId;
use shop_harness::{QueueKind, QueueRules};
use tokio::sync::watch;

use self::{buy::Bought, crew::Crew, verdict::Counts};
use crate::{
    ground::{Binaries, Ground, emptied, has_pending, settled, until_interrupted},
    random::SplitMix,
};

/// Deliveries are not what is scarce here: messages of killed workers come again at once, and as often as it takes.
const RULES: QueueRules =
    QueueRules { visibility: Duration::from_secs(2), max_receive_count: 1_000, kind: QueueKind::Standard };
/// So many times the least number of kills, the workers are left in peace: where a worker needs longer to start than it
/// lives, nothing would ever be decided.
const MOST_KILLS: usize = 4;
/// Workers that are killed and started again.
const WORKERS: usize = 2;

/// What to sell, to how many, and how roughly.
#[derive(Debug, Clone, Copy, clap::Args)]
pub struct Sale {
    /// Buyers, each with one order of one unit
    #[arg(long, default_value_t = 10_000)]
    pub buyers: usize,
    /// Units in stock
    #[arg(long, default_value_t = 100)]
    pub units: u32,
    /// Workers are killed at least so often in each run
    #[arg(long, default_value_t = 25)]
    pub kills: usize,
    /// Orders that are accepted before the first worker starts: so many that the stock is contended
    #[arg(long, default_value_t = 2_000)]
    pub head_start: usize,
    /// Requests in flight at once
    #[arg(long, default_value_t = 500)]
    pub in_flight: usize,
}

/// One run, in a shop of its own that is removed afterwards.
pub async fn run(sale: Sale, seed: u64, worker: &Path, binaries: &Binaries) -> Result<Counts> {
    let mut counts = None;
    let ran = shop_harness::with_shop_of(RULES, async |shop| {
        let held = async {
            let ground = Ground::open(shop, RULES, binaries).await?;
            Box::pin(hold(sale, seed, worker, &ground)).await
        };
        counts = Some(until_interrupted(held).await?);
        Ok(())
    });
    Box::pin(ran).await?;
    counts.ok_or_else(|| anyhow::anyhow!("a sale ended without counts"))
}

async fn hold(sale: Sale, seed: u64, worker: &Path, ground: &Ground) -> Result<Counts> {
    let product = ground.shop.stocked(sale.units.into()).await?;
    let buyers = ground.buyers(sale.buyers).await?;
    let mut draws = SplitMix::new(seed);
    let mut repeats = SplitMix::new(draws.below(usize::MAX) as u64);
    let (accepted, ids) = watch::channel(Vec::new());
    let all_told = AtomicBool::new(false);
    let started = Instant::now();

    let buying = async {
        let bought = buy::all(sale, ground, (&buyers, &product), &accepted).await;
        all_told.store(true, Ordering::Release);
        Ok(bought)
    };
    let working = async {
        head_start(sale, &ids, &all_told).await;
        let mut crew = Crew::start(ground, worker, WORKERS)?;
        let enough = async |kills| {
            let over = kills >= sale.kills && all_told.load(Ordering::Acquire);
            Ok(over && (kills >= MOST_KILLS * sale.kills || !has_pending(&ground.shop.store).await?))
        };
        let killed = if sale.kills == 0 { 0 } else { crew.harass(&mut draws, enough).await? };
        settled(&ground.shop.store).await?;
        Ok((crew, killed))
    };
    let repeating = repeat::all(&ground.shop, ids.clone(), &all_told, &mut repeats);
    let (bought, (crew, killed), repeated) = tokio::try_join!(buying, working, repeating)?;
    emptied(&ground.shop.queue).await?;
    let seconds = started.elapsed().as_secs_f64();
    crew.dismiss()?;
    let stored = books::read(&ground.shop, &product, &bought).await?;
    let (units, buyers, bought) = (sale.units.into(), sale.buyers, Bought::sums(&bought));
    Ok(Counts { seed, units, buyers, bought, stored, killed, repeated, seconds })
}

/// Waits until enough orders are accepted, or until all buyers have their answer: fewer may be accepted than hoped for.
async fn head_start(sale: Sale, seen: &watch::Receiver<Vec<OrderId>>, all_told: &AtomicBool) {
    while seen.borrow().len() < sale.head_start && !all_told.load(Ordering::Acquire) {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
