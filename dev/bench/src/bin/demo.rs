//! `cargo xtask demo`: a burst of real orders through the ingress, a live view of what becomes of them, then an audit.
//! Ends with an error when the books do not add up.

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use clap::Parser;
use shop_bench::{
    burst::{self, Burst, Placed},
    client::{Answer, Shop},
    view::{Addresses, Moment, View},
};

#[derive(Debug, Parser)]
#[command(about = "A burst of real orders, a live view, an audit")]
struct Demo {
    /// How many orders to place.
    #[arg(long, default_value_t = 500)]
    orders: usize,
    /// Requests in flight at once.
    #[arg(long, default_value_t = 32)]
    concurrency: usize,
    /// The baskets are drawn from this seed.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Longest wait for the end, in seconds.
    #[arg(long, default_value_t = 1200)]
    limit_seconds: u64,
    #[arg(long, env = "SHOP_URL")]
    url: String,
    #[command(flatten)]
    at: Addresses,
}

#[tokio::main]
async fn main() -> Result<()> {
    shop_runtime::install_tls_provider();
    let demo = Demo::parse();
    let view = View::open(&demo.at).await?;
    let before = view.look().await.context("the shop is not up; start it with `cargo xtask up`")?;
    println!("before   {before}");

    let limit = Duration::from_secs(demo.limit_seconds);
    let started = Instant::now();
    let accepted = AtomicUsize::new(0);
    let show = |moment: &Moment| {
        println!(
            "{:>5.0} s  accepted {:>5}  {moment}",
            started.elapsed().as_secs_f32(),
            accepted.load(Ordering::Relaxed)
        );
    };
    let settled = |moment: &Moment| moment.orders("Pending") == 0 && moment.backlog == 0;
    let (placed, _) = tokio::try_join!(place(&demo, &accepted), async {
        view.watch_until(limit, show, |moment| accepted.load(Ordering::Relaxed) >= demo.orders && settled(moment)).await
    })?;
    println!(
        "all {} accepted orders are decided after {:.0} s",
        placed.accepted.len(),
        started.elapsed().as_secs_f32()
    );
    let floor = before.workers_desired;
    let rested = |moment: &Moment| {
        moment.workers_ready <= floor && moment.workers_desired <= floor && moment.books.mails_waiting == 0
    };
    let after = view.watch_until(limit, show, rested).await?;
    audit(&before, &after, &placed)
}

/// Places the burst; refusals count as answered, so that the view knows when all are in.
async fn place(demo: &Demo, answered: &AtomicUsize) -> Result<Placed> {
    let shop = Shop::new(&demo.url, None)?;
    let buyers = burst::buyers(&shop, 8, "a buyer's password").await?;
    let burst =
        Burst { orders: demo.orders, concurrency: demo.concurrency, location: "bangalore".to_owned(), seed: demo.seed };
    burst::place(&shop, &buyers, &burst, |_: &Answer| {
        answered.fetch_add(1, Ordering::Relaxed);
    })
    .await
}

fn audit(before: &Moment, after: &Moment, placed: &Placed) -> Result<()> {
    let books = &after.books;
    let decided = |moment: &Moment| ["Processed", "Failed", "Cancelled"].iter().map(|s| moment.orders(s)).sum::<u64>();
    let redelivered = books.redelivered - before.books.redelivered;
    println!("\naudit");
    println!("  accepted    {}, refused {}", placed.accepted.len(), placed.refused.len());
    println!("  decided     {} in this run, {} pending", decided(after) - decided(before), after.orders("Pending"));
    println!(
        "  stock       {} rows, {} units; ledger {} units",
        books.stock.len(),
        sum(&books.stock),
        sum(&books.ledger)
    );
    println!(
        "  sold        {} units by the orders, {} by the ledger",
        sum(&books.sold_by_orders),
        sum(&books.sold_by_ledger)
    );
    println!("  mails       {} owed = {} sent + {} waiting", books.mails_owed, books.mails_sent, books.mails_waiting);
    println!("  redelivered {redelivered} messages");
    let mut faults = books.faults();
    if decided(after) - decided(before) != placed.accepted.len() as u64 {
        faults.push("not every accepted order was decided".to_owned());
    }
    if redelivered > 0 {
        faults.push(format!("{redelivered} messages were delivered more than once"));
    }
    ensure!(faults.is_empty(), "the books do not add up:\n  {}", faults.join("\n  "));
    println!("  everything adds up");
    Ok(())
}

fn sum(stock: &shop_domain::stock::Stock) -> i64 {
    stock.values().sum()
}
