//! `cargo xtask bench operator`: how soon the operator writes, how long shops take to be there, what rest costs. No timing
//! fails it; shops that do not become Ready do.

use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;
use shop_bench::{
    command,
    control::{self, Binaries, Measured, Plan},
    record::{self, Call, Circumstances, Results, table},
};

#[derive(Debug, Parser)]
#[command(about = "The operator with few and many shops")]
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
    let measured = control::run(&bench.plan, &bench.binaries).await?;
    let text = text(&bench.plan, &measured);
    println!("\n{text}");
    record::write(&bench.call, &circumstances, &Results { name: "operator", raw: &measured, text: &text })
}

fn text(plan: &Plan, measured: &[Measured]) -> String {
    let heading = [
        "shops",
        "made s",
        "Ready s",
        "writes/shop",
        "change → first write p50 / p99 ms",
        "writes at rest",
        "objects changed at rest",
        "CPU at rest %",
        "RSS MiB",
        "cold resync s",
        "writes in resync",
    ];
    let rows: Vec<_> = measured.iter().map(row).collect();
    format!(
        "{}\nEach row has a namespace, an operator process and shops of its own, whose pods run on kwok's fake nodes; the API \
         server is the kind cluster's. made: from the first creation until the operator has reported on every shop. Ready: \
         until every shop is, in which the cluster's own controllers have the larger share. change → first write: {} \
         changes, one after the other, from the event of the changed spec to the event of the first changed object, as one \
         client sees both. At rest: {} s without a change; writes as the operator counts them, objects whose version the \
         API server moved on, both without the Lease. cold resync: from the start of another process until it has passed \
         over every shop.\n",
        table(&heading, &rows),
        plan.changes,
        plan.rest_seconds
    )
}

fn row(run: &Measured) -> Vec<String> {
    #[expect(clippy::cast_precision_loss, reason = "a count of shops")]
    let shops = run.shops as f64;
    vec![
        run.shops.to_string(),
        format!("{:.1}", run.made_seconds),
        format!("{:.1}", run.ready_seconds),
        format!("{:.1}", run.writes_to_ready / shops),
        run.change_to_write_ms.map_or_else(|| "–".to_owned(), |all| format!("{:.0} / {:.0}", all.p50, all.p99)),
        format!("{:.0}", run.rest.writes),
        run.rest.objects_changed.to_string(),
        format!("{:.2}", run.rest.cpu_percent_of_a_core),
        format!("{:.1}", run.rest.rss_mib),
        format!("{:.1}", run.resync_seconds),
        format!("{:.0}", run.writes_in_resync),
    ]
}
