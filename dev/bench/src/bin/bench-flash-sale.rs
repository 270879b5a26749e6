//! `cargo xtask bench flash-sale`: sells a few units to thousands while the workers are killed, first with the real worker,
//! then with one that allocates naively. Fails when the real one is wrong, or when the naive one is not.

use std::process::ExitCode;

use anyhow::{Context, Result, ensure};
use clap::Parser;
use serde::Serialize;
use shop_bench::{
    command,
    flash::{
        self, Sale,
        verdict::{Counts, judge},
    },
    ground::Binaries,
    record::{self, Call, Circumstances, Results, table},
};

#[derive(Debug, Parser)]
#[command(about = "A flash sale with workers that are killed, beside one that oversells")]
struct Bench {
    #[command(flatten)]
    sale: Sale,
    /// Runs of the real worker, each with a seed of its own: 1, 2, …
    #[arg(long)]
    seeds: u64,
    #[command(flatten)]
    binaries: Binaries,
    #[command(flatten)]
    call: Call,
}

#[derive(Serialize)]
struct Raw {
    real: Vec<Counts>,
    naive: Counts,
}

#[tokio::main]
async fn main() -> ExitCode {
    command::main(run).await
}

async fn run(bench: &Bench) -> Result<()> {
    let circumstances = Circumstances::of(&bench.call);
    let naive = bench.binaries.naive.clone().context("--naive names no worker")?;
    let mut real = Vec::new();
    for seed in 1..=bench.seeds {
        println!("▶ seed {seed}: {} buyers, {} units", bench.sale.buyers, bench.sale.units);
        let counts = flash::run(bench.sale, seed, &bench.binaries.worker, &bench.binaries).await?;
        println!("  {} sold, {} killed, {:.0} s", counts.stored.processed, counts.killed, counts.seconds);
        real.push(counts);
    }
    println!("▶ seed 1 with a worker that reads, decides and writes");
    // Left alone: a kill between its write and its commit loses units, and would make up for those that it oversells.
    let undisturbed = Sale { kills: 0, ..bench.sale };
    let naive = flash::run(undisturbed, 1, &naive, &bench.binaries).await?;
    let text = text(&real, &naive);
    println!("\n{text}");
    let raw = Raw { real, naive };
    record::write(&bench.call, &circumstances, &Results { name: "flash-sale", raw: &raw, text: &text })?;
    let faults = judge(&raw.real, &raw.naive);
    ensure!(faults.is_empty(), "the sale was not right:\n  {}", faults.join("\n  "));
    println!("{} units sold in each run, none twice, no order lost; the naive worker oversold", bench.sale.units);
    Ok(())
}

fn text(real: &[Counts], naive: &Counts) -> String {
    let heading = [
        "worker",
        "seed",
        "buyers",
        "accepted",
        "refused (409)",
        "Processed",
        "Failed",
        "lost",
        "doubled",
        "stock",
        "oversold",
        "kills",
        "sent again",
        "redelivered",
        "slowest s",
        "run s",
    ];
    let rows: Vec<_> = real.iter().map(|counts| row("real", counts)).chain([row("naive", naive)]).collect();
    let (kills, sold) = (real.iter().map(|run| run.killed).sum::<usize>(), real.iter().map(|run| run.stored.processed));
    format!(
        "{}\nThe real worker: {} runs, {kills} kills, {} units sold.\n\n\
         Buyers: an account and a session each, put into the store with the run's own keys (hashing 10,000 passwords is not \
         what is measured); one order of one unit under an Idempotency-Key, repeated after a 5xx or no answer. The workers \
         start when the head start is accepted, hold up to 50 messages each, are killed with SIGKILL every 200 to 500 ms and started again at once. \
         Half of the messages are sent again, one to three times. maxReceiveCount is 1,000, visibility 2 s, maxProcessingSeconds 200 (a \
         killed worker's transaction holds its rows for about a minute), the limits by \
         address and account are out of reach.\n\
         accepted: 201; refused: 409 `out_of_stock` at acceptance; Failed: `out_of_stock` by the worker; doubled: a second \
         order of one buyer, or one decided twice; redelivered: orders whose message the queue delivered more than once; \
         slowest: the longest time from an acceptance to its decision.\n",
        table(&heading, &rows),
        real.len(),
        sold.sum::<usize>()
    )
}

fn row(worker: &str, counts: &Counts) -> Vec<String> {
    let (bought, stored) = (&counts.bought, &counts.stored);
    let numbers = [
        counts.buyers,
        bought.accepted,
        bought.out_of_stock,
        stored.processed,
        stored.out_of_stock,
        stored.lost,
        stored.doubled + stored.decided_twice,
    ];
    let mut cells = vec![worker.to_owned(), counts.seed.to_string()];
    cells.extend(numbers.iter().map(ToString::to_string));
    cells.extend([stored.stock, counts.oversold()].iter().map(ToString::to_string));
    cells.extend([counts.killed, counts.repeated].iter().map(ToString::to_string));
    cells.extend([
        stored.redelivered.to_string(),
        format!("{:.1}", stored.slowest_seconds),
        format!("{:.0}", counts.seconds),
    ]);
    cells
}
