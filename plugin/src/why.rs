//! `kubectl shop why`: the scaler's last decision term by term, out of the shop's own status, and what would change it.

use std::fmt::Write as _;

use anyhow::Result;
use kube::ResourceExt;
use serde::Serialize;
use shop_operator::{
    crd::{AutoscalingStatus, QueueStatus, ShopDeployment, Worker},
    scale::Reason,
};

use crate::{
    cluster::Cluster,
    output::Output,
    status::{depth, switches},
    text::{Cell, Tone, table, toned},
};

const REASONS: [Reason; 16] = [
    Reason::KeepUp,
    Reason::Drain,
    Reason::Panic,
    Reason::BusyFloor,
    Reason::Stabilised,
    Reason::Rollout,
    Reason::Schedule,
    Reason::MaxReached,
    Reason::MinReached,
    Reason::Fallback,
    Reason::Paused,
    Reason::ColdStart,
    Reason::ToZero,
    Reason::FromZero,
    Reason::Manual,
    Reason::Suspended,
];

/// One number that went into the decision.
#[derive(Debug, Serialize)]
struct Term {
    name: &'static str,
    value: String,
    meaning: String,
}

#[derive(Debug, Serialize)]
struct Report {
    name: String,
    workers: i32,
    desired: i32,
    reason: String,
    explain: String,
    terms: Vec<Term>,
    advice: String,
    /// What else a person should know: switches, conditions.
    notes: Vec<String>,
}

pub async fn why(cluster: &Cluster, output: Output, name: &str) -> Result<()> {
    let shop = cluster.shop(name).await?;
    let Some(report) = report(&shop) else {
        anyhow::bail!(
            "the scaler has not decided on {name} yet: `kubectl shop status {name} -n {}` shows what is waited for",
            cluster.namespace
        );
    };
    output.print(&report, || render(&report))
}

fn report(shop: &ShopDeployment) -> Option<Report> {
    let status = shop.status.as_ref()?;
    let scaling = status.autoscaling.as_ref()?;
    let worker = &shop.spec.worker;
    let reason = REASONS.into_iter().find(|reason| reason.as_str() == scaling.reason);
    let mut notes: Vec<_> =
        switches(shop).into_iter().map(|switch| format!("the shop is switched: {switch}")).collect();
    let telling = |kind: &str, status: &str| match (kind, status) {
        ("QueueReadable", "False") | ("ScalingLimited", "True") => true,
        ("ScalingActive", status) => status != "True",
        _ => false,
    };
    let conditions = status.conditions.iter().filter(|condition| telling(&condition.type_, &condition.status));
    notes.extend(conditions.map(|c| format!("{} is {}, {}: {}", c.type_, c.status, c.reason, c.message)));
    Some(Report {
        name: shop.name_any(),
        workers: status.worker.as_ref().map_or(0, |worker| worker.ready),
        desired: scaling.desired,
        reason: scaling.reason.clone(),
        explain: scaling.explain.clone(),
        terms: terms(worker, scaling, status.queue.as_ref()),
        advice: reason.map_or_else(
            || "this kubectl-shop is older than the operator and does not know it".to_owned(),
            |reason| advice(reason, worker),
        ),
        notes,
    })
}

fn terms(worker: &Worker, scaling: &AutoscalingStatus, queue: Option<&QueueStatus>) -> Vec<Term> {
    let policy = &worker.autoscaling;
    let (arrivals, service) = (scaling.arrivals_per_second, scaling.seconds_per_message);
    let concurrency = f64::from(worker.concurrency.max(1));
    let load = arrivals * service / concurrency;
    let learnt = scaling.memory.as_ref().is_some_and(|memory| memory.seconds_per_message.is_some());
    let mut terms = vec![
        term("queue", queue.map_or_else(|| "–".to_owned(), depth), "as it was last read"),
        term("λ", format!("{arrivals}/s"), "messages arrive, over the last minute"),
        term(
            "S",
            format!("{service} s"),
            if learnt { "of work each, as measured" } else { "of work each, as expected: too few to measure" },
        ),
        term("c", worker.concurrency.to_string(), "messages one worker works on at once"),
        term("a = λ·S/c", format!("{load:.2}"), "workers kept busy on average"),
        term("keep-up ≈ a + √a", format!("{:.2}", load + load.sqrt()), "workers, so that few messages wait at all"),
        term(
            "T",
            format!("{} s", policy.target_wait_seconds),
            "that a message should wait at most: the backlog is drained within it",
        ),
        term(
            "W",
            if scaling.wait.is_empty() { "–".to_owned() } else { scaling.wait.clone() },
            "that a message would wait that comes now",
        ),
        term("min, max", format!("{}, {}", policy.min, policy.max), "bounds of the number of workers"),
    ];
    if let Some(memory) = &scaling.memory {
        let meaning =
            format!("the highest need of the last {} s: it shrinks no further", policy.scale_down.window_seconds);
        terms.push(term("window", memory.window_max.to_string(), &meaning));
    }
    if let Some(time) = &scaling.last_scale_time {
        terms.push(term("changed", time.0.to_string(), "the number of workers, the last time"));
    }
    terms
}

fn term(name: &'static str, value: String, meaning: &str) -> Term {
    Term { name, value, meaning: meaning.to_owned() }
}

/// What would make it decide otherwise.
fn advice(reason: Reason, worker: &Worker) -> String {
    let policy = &worker.autoscaling;
    let field = |name: &str| format!("worker.autoscaling.{name}");
    match reason {
        Reason::KeepUp => format!(
            "more or fewer arrivals, or other work per message; {} would only matter with a backlog",
            field("targetWaitSeconds")
        ),
        Reason::Drain => format!(
            "a larger {} (now {} s) would drain with fewer workers",
            field("targetWaitSeconds"),
            policy.target_wait_seconds
        ),
        Reason::Panic => "it ends when half of the workers would do and the burst is 15 s past, at the latest after a minute; then the steady need decides".to_owned(),
        Reason::BusyFloor => "the workers finish what they have in hand, then it shrinks".to_owned(),
        Reason::Stabilised => format!(
            "it shrinks when no need of the last {} s was this high, by {} % at a time: {}",
            policy.scale_down.window_seconds,
            policy.scale_down.max_percent,
            field("scaleDown")
        ),
        Reason::Rollout => "the rollout's end; until then no worker is taken away".to_owned(),
        Reason::Schedule => format!("the end of the schedule, or another bound in {}", field("schedules")),
        Reason::MaxReached => format!("a larger {} (now {}), or less work per message", field("max"), policy.max),
        Reason::MinReached => format!("a smaller {} (now {}); 0 lets an idle shop have none", field("min"), policy.min),
        Reason::Fallback => {
            format!(
                "a queue that can be read: condition QueueReadable says what is wrong; {} says what to do meanwhile",
                field("failure")
            )
        }
        Reason::Paused => "`kubectl shop resume` lets it scale again".to_owned(),
        Reason::ColdStart => "a minute of data; until then no worker is taken away".to_owned(),
        Reason::ToZero => format!(
            "more than {} messages ({}) start the first worker; an idle queue ends the last one after {} s",
            policy.activation,
            field("activation"),
            policy.to_zero_cooldown_seconds
        ),
        Reason::FromZero => "it starts with all that the backlog needs; from now on the load decides".to_owned(),
        Reason::Manual => {
            format!("worker.replicas and `kubectl scale` do; {} DrainTime lets the load decide", field("mode"))
        }
        Reason::Suspended => "`kubectl shop resume` brings the pods back".to_owned(),
    }
}

fn render(report: &Report) -> String {
    let rows =
        |term: &Term| vec![Cell::plain(term.name), Cell::plain(&term.value), Cell::new(Tone::Faint, &term.meaning)];
    let mut text = format!(
        "{}: {} of {} workers ready\n{}: {}\n\n",
        toned(Tone::Head, &report.name),
        report.workers,
        report.desired,
        toned(Tone::Head, &report.reason),
        report.explain
    );
    text += &table(&["TERM", "VALUE", ""], &report.terms.iter().map(rows).collect::<Vec<_>>());
    let _ = writeln!(text, "\n{} {}", toned(Tone::Head, "what would change it:"), report.advice);
    for note in &report.notes {
        let _ = writeln!(text, "{} {note}", toned(Tone::Bad, "note:"));
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{status::tests::shop, text::tests::bare};

    #[test]
    fn a_decision_term_by_term() {
        let shop = shop(|shop| {
            shop["status"]["autoscaling"]["memory"] = json!({ "windowMax": 2, "secondsPerMessage": 0.4 });
            shop["status"]["autoscaling"]["lastScaleTime"] = json!("2026-01-02T00:59:00Z");
        });
        insta::assert_snapshot!(bare(&render(&report(&shop).unwrap())));
    }

    #[test]
    fn a_shop_without_a_decision_has_no_why() {
        assert!(report(&shop(|shop| shop["status"] = json!({}))).is_none());
    }

    #[test]
    fn every_reason_is_known_by_its_name_and_has_advice_of_its_own() {
        let worker = Worker::default();
        let mut advices: Vec<_> = REASONS.iter().map(|reason| advice(*reason, &worker)).collect();
        advices.sort();
        advices.dedup();
        assert_eq!(advices.len(), REASONS.len());
        let newer = shop(|shop| shop["status"]["autoscaling"]["reason"] = json!("Moonphase"));
        assert!(report(&newer).unwrap().advice.contains("older than the operator"));
    }

    #[test]
    fn what_is_in_the_way_is_noted() {
        let shop = shop(|shop| shop["metadata"]["annotations"] = json!({ "shop.xhipment.io/pause-scaling": "true" }));
        let notes = report(&shop).unwrap().notes;
        assert_eq!(
            notes,
            [
                "the shop is switched: scaling paused",
                "ScalingLimited is True, MaxReached: more than max 8 would be needed"
            ]
        );
    }
}
