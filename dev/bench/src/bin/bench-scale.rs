//! `cargo xtask bench scale`: how soon, how straight and how steadily workers follow the queue, on the cluster. No timing
//! fails it; orders that are refused or never decided do.

use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;
use serde::Serialize;
use shop_bench::{
    command,
    latency::Latency,
    record::{self, Call, Circumstances, Results, table},
    scale::{
        self, Measured, Plan, Run, Servers, plot,
        verdict::{Verdict, latency, verdicts},
    },
};

#[derive(Debug, Parser)]
#[command(about = "The scaler, on the cluster with real pods")]
struct Bench {
    #[command(flatten)]
    plan: Plan,
    #[command(flatten)]
    servers: Servers,
    #[command(flatten)]
    call: Call,
}

#[derive(Serialize)]
struct Raw<'a> {
    verdicts: &'a [Verdict],
    measured: &'a Measured,
}

const NAME: &str = "scale";

#[tokio::main]
async fn main() -> ExitCode {
    command::main(run).await
}

async fn run(bench: &Bench) -> Result<()> {
    let circumstances = Circumstances::of(&bench.call);
    let measured = Box::pin(scale::run(&bench.plan, &bench.servers)).await?;
    let verdicts = verdicts(&measured);
    let text = text(&measured, &verdicts);
    println!("\n{text}");
    let raw = Raw { verdicts: &verdicts, measured: &measured };
    record::write(&bench.call, &circumstances, &Results { name: NAME, raw: &raw, text: &text })?;
    let runs = runs(&measured);
    if runs.is_empty() { Ok(()) } else { record::draw(&bench.call, NAME, &plot::svg(&runs)) }
}

/// Those that the plot shows.
fn runs(measured: &Measured) -> Vec<&Run> {
    measured.burst.iter().flatten().chain(measured.constant.iter().map(|constant| &constant.run)).collect()
}

fn text(measured: &Measured, verdicts: &[Verdict]) -> String {
    let told = |verdict: &Verdict| {
        vec![verdict.claim.to_owned(), verdict.seen.clone(), if verdict.holds { "yes" } else { "no" }.to_owned()]
    };
    let mut text = table(&["claim", "seen", "holds"], &verdicts.iter().map(told).collect::<Vec<_>>());
    let reactions = [("from zero", &measured.zero), ("depth step", &measured.step)];
    let reactions: Vec<_> = reactions
        .into_iter()
        .filter_map(|(name, all)| {
            let all = all.as_ref()?;
            let sizes: Vec<_> = all.iter().map(|one| format!("{}/{}", one.first, one.highest)).collect();
            Some(vec![name.to_owned(), all.len().to_string(), seconds(latency(all)), sizes.join(" ")])
        })
        .collect();
    if !reactions.is_empty() {
        text += "\n";
        text += &table(&["reaction", "count", "p50 / p95 / p99 s", "first write / highest"], &reactions);
    }
    let rows: Vec<_> = runs(measured).into_iter().map(row).collect();
    if !rows.is_empty() {
        let heading = [
            "load",
            "scaler",
            "orders",
            "wait p50 / p95 / p99 s",
            "reaction s",
            "highest",
            "pod-seconds",
            "direction changes",
            "redelivered",
        ];
        text += "\n";
        text += &table(&heading, &rows);
    }
    text + "\nreaction: from the first order of a burst to the first rise of spec.replicas, as a watching client sees it. wait: \
            from an order's acceptance until work on it began, by its own history. pod-seconds: from a worker pod's creation to \
            its end, while the load lasted. redelivered: orders whose message was delivered more than once.\n"
}

fn row(run: &Run) -> Vec<String> {
    vec![
        run.load.to_owned(),
        run.scaler.to_string(),
        run.orders.to_string(),
        seconds(run.wait_ms),
        run.reaction.seconds.map_or_else(|| "–".to_owned(), |seconds| format!("{seconds:.1}")),
        run.reaction.highest.to_string(),
        format!("{:.0}", run.pod_seconds),
        run.turns.to_string(),
        run.redelivered.to_string(),
    ]
}

fn seconds(latency: Option<Latency>) -> String {
    let told = |all: Latency| format!("{:.1} / {:.1} / {:.1}", all.p50 / 1e3, all.p95 / 1e3, all.p99 / 1e3);
    latency.map_or_else(|| "–".to_owned(), told)
}
