//! `cargo xtask bench orders`: orders at fixed rates and at the maximum; how many, how soon, at what cost. No timing fails
//! it; an accepted order that is not processed does, and books that do not add up.

use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;
use shop_bench::{
    command,
    ground::Binaries,
    latency::Latency,
    rates::{self, Measured, Plan, Step},
    record::{self, Call, Circumstances, Results, table},
};

#[derive(Debug, Parser)]
#[command(about = "Orders at fixed rates and at the maximum")]
struct Bench {
    #[command(flatten)]
    plan: Plan,
    #[command(flatten)]
    binaries: Binaries,
    #[command(flatten)]
    call: Call,
}

#[tokio::main]
async fn main() -> ExitCode {
    command::main(run).await
}

async fn run(bench: &Bench) -> Result<()> {
    let circumstances = Circumstances::of(&bench.call);
    let measured = rates::run(&bench.plan, &bench.binaries).await?;
    let text = text(&bench.plan, &measured);
    println!("\n{text}");
    record::write(&bench.call, &circumstances, &Results { name: "orders", raw: &measured, text: &text })
}

fn text(plan: &Plan, measured: &Measured) -> String {
    let heading = [
        "offered/s",
        "accepted",
        "other answers",
        "accepted/s",
        "acceptance p50 / p95 / p99 ms",
        "processed/s",
        "accepted → Processed p50 / p95 / p99 ms",
        "api CPU ms/order",
        "workers CPU ms/order",
        "api RSS MiB",
        "worker RSS MiB",
        "SQS calls/order (relay + workers)",
        "orders/batch",
        "retries/order",
    ];
    let most = match plan.in_flight {
        0 => String::new(),
        requests => format!("`max`: a closed loop of {requests} requests. "),
    };
    let rows: Vec<_> = measured.steps.iter().map(row).collect();
    let start = percentiles(measured.start_ms);
    format!(
        "{}\nOne api and {} workers. Each rate is offered for {} s in an open loop: latency counts from when a request was \
         due, so that waiting is not left out (the client's timer adds up to 1 ms). {most}\
         processed/s: from the first acceptance to the last decision. accepted → Processed: by the times in the order's \
         history, which are the api's at acceptance and the worker's when it decides, just before its commit. SQS calls: \
         attempts of any operation, as relay and workers count them. retries: transactions that met others on the same rows.\n\n\
         An api is ready so many ms after the start of its process, p50 / p95 / p99: {start}.\n",
        table(&heading, &rows),
        plan.workers,
        plan.seconds
    )
}

fn row(step: &Step) -> Vec<String> {
    let cost = &step.cost;
    let (relay, workers) = (cost.relay_sqs_calls_per_order, cost.worker_sqs_calls_per_order);
    vec![
        step.offered_per_second.map_or_else(|| "max".to_owned(), |rate| rate.to_string()),
        step.accepted.to_string(),
        step.refused.values().sum::<usize>().to_string(),
        format!("{:.0}", step.accepted_per_second),
        percentiles(step.acceptance_ms),
        format!("{:.0}", step.processed_per_second),
        percentiles(step.processing_ms),
        format!("{:.2}", cost.api_cpu_ms_per_order),
        format!("{:.2}", cost.worker_cpu_ms_per_order),
        format!("{:.0}", cost.api_rss_mib),
        format!("{:.0}", cost.worker_rss_mib),
        format!("{:.2} ({relay:.2} + {workers:.2})", cost.sqs_calls_per_order()),
        format!("{:.1}", cost.orders_per_batch),
        format!("{:.2}", cost.retries_per_order),
    ]
}

fn percentiles(latency: Option<Latency>) -> String {
    latency.map_or_else(|| "–".to_owned(), |all| format!("{:.0} / {:.0} / {:.0}", all.p50, all.p95, all.p99))
}
