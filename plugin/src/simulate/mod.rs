//! `kubectl shop simulate`: what a shop's scaling would make of a load, before it is applied, beside what others would.

mod plot;
mod rules;
mod run;
mod trace;
mod world;

use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};
use kube::ResourceExt;
use serde::Serialize;
use shop_operator::{
    crd::ShopDeployment,
    scale::{Pause, Policy},
    validate::{Digest, FoundSecret, World as Surroundings, needed_secrets, validate},
};

use self::{
    plot::Picture,
    run::{Outcome, Setup, TAIL_SECONDS, best_rival, compare},
    trace::{Scale, Shape, Trace},
    world::Plant,
};
use crate::{
    cluster::{Cluster, Reach},
    output::Output,
    text::{Cell, Tone, table, toned},
};

/// The height of a generated load, in pods of the shop's most.
const PEAK_SHARE: f64 = 0.6;
/// What a worker keeps of its grace period to hand back what it cannot finish.
const HAND_BACK_SECONDS: i32 = 10;

#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// The shop on the cluster whose spec and measured work per message are taken
    #[arg(required_unless_present = "file", conflicts_with = "file", add = crate::completion::shops())]
    name: Option<String>,
    /// A file with a ShopDeployment, in place of one on the cluster
    #[arg(short, long, value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    file: Option<PathBuf>,
    /// The load: CSV of `second,arrivals,service_seconds`
    #[arg(long, value_name = "FILE", value_hint = clap::ValueHint::FilePath, conflicts_with_all = ["generate", "seed", "minutes"])]
    trace: Option<PathBuf>,
    /// The load: a shape, with its height at 60 % of what the most workers can do
    #[arg(long, value_enum, default_value = "burst")]
    generate: Shape,
    /// Another seed makes another load of the same shape
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Length of a generated load
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..=1440))]
    minutes: u32,
    /// Seconds from a pod's creation until it works
    #[arg(long, default_value_t = 5, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(0..=600))]
    startup: u32,
    /// Draw arrivals, backlog, workers and wait over time
    #[arg(long, value_name = "FILE.svg", value_hint = clap::ValueHint::FilePath)]
    plot: Option<PathBuf>,
}

/// What was simulated, and what came of it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Report {
    shop: String,
    load: String,
    load_seconds: u32,
    messages: u64,
    concurrency: f64,
    startup_seconds: u32,
    min: u32,
    max: u32,
    target_wait_seconds: f64,
    rules: Vec<Outcome>,
}

pub async fn simulate(reach: &Reach, output: Output, args: &Args) -> Result<()> {
    let shop = match (&args.file, &args.name) {
        (Some(file), _) => {
            let text = std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
            parse(&text).with_context(|| format!("{} is no ShopDeployment", file.display()))?
        }
        (None, Some(name)) => Cluster::connect(reach).await?.shop(name).await?,
        (None, None) => bail!("name a shop, or a file with -f"),
    };
    let setup = setup(&shop, args.startup)?;
    let trace = load(&shop, &setup, args)?;
    let report = Report {
        shop: shop.name_any(),
        load: trace.name.clone(),
        load_seconds: trace.seconds,
        messages: trace.arrivals().into_iter().map(u64::from).sum(),
        concurrency: setup.policy.concurrency,
        startup_seconds: args.startup,
        min: setup.policy.min,
        max: setup.policy.max,
        target_wait_seconds: setup.policy.target_wait,
        rules: compare(&setup, &trace),
    };
    if let Some(file) = &args.plot {
        let svg = picture(&report, &trace)?;
        std::fs::write(file, svg).with_context(|| format!("cannot write {}", file.display()))?;
    }
    output.print(&report, || render(&report))
}

/// A ShopDeployment of a file. What the cluster would fill in is filled in.
fn parse(text: &str) -> Result<ShopDeployment> {
    // The first document that is one: files hold Secrets and namespaces too.
    let documents =
        serde_yaml::Deserializer::from_str(text).map(<serde_yaml::Value as serde::Deserialize>::deserialize);
    let documents = documents.collect::<Result<Vec<_>, _>>()?;
    let is_shop =
        |document: &&serde_yaml::Value| document.get("kind").and_then(|kind| kind.as_str()) == Some("ShopDeployment");
    let document = documents.iter().find(is_shop).context("it has no object of kind ShopDeployment")?;
    let mut shop: ShopDeployment = serde_yaml::from_value(document.clone())?;
    shop.metadata.name.get_or_insert_with(|| "shop".to_owned());
    shop.metadata.uid.get_or_insert_with(String::new);
    Ok(shop)
}

/// The scaler's own reading of the spec, as if every Secret were there. A pause is what the shop does now, not what it would do,
/// and the load has no date that a schedule could hold at.
fn setup(shop: &ShopDeployment, startup: u32) -> Result<Setup> {
    let found = |keys: Vec<String>| FoundSecret {
        keys: keys.into_iter().map(|key| (key, Digest::of(&[]))).collect(),
        version: String::new(),
    };
    let mut surroundings = Surroundings::default();
    for (_, name, keys) in needed_secrets(&shop.spec) {
        surroundings.secrets.entry(name).or_default().keys.extend(found(keys).keys);
    }
    let valid = validate(shop, &surroundings).map_err(|faults| {
        let faults: Vec<_> = faults.into_iter().map(|fault| fault.message).collect();
        anyhow::anyhow!("the shop's spec is not valid:\n{}", faults.join("\n"))
    })?;
    let mut policy = Policy { pause: Pause::No, schedules: Vec::new(), ..Policy::of(&valid) };
    let learnt = shop.status.as_ref().and_then(|status| status.autoscaling.as_ref()).map(|now| now.seconds_per_message);
    policy.expected_service = learnt.filter(|seconds| *seconds > 0.0).unwrap_or(policy.expected_service);
    let worker = &shop.spec.worker;
    let plant = Plant {
        concurrency: usize::try_from(worker.concurrency).unwrap_or(1),
        startup: u64::from(startup) * 1_000_000,
        grace: micros(worker.termination_grace_period_seconds - HAND_BACK_SECONDS),
    };
    Ok(Setup { policy, poll: valid.scaling.poll_seconds.max(1).into(), plant })
}

fn micros(seconds: i32) -> u64 {
    u64::try_from(seconds).unwrap_or(0) * 1_000_000
}

fn load(shop: &ShopDeployment, setup: &Setup, args: &Args) -> Result<Trace> {
    if let Some(file) = &args.trace {
        let text = std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
        return Trace::read(&file.display().to_string(), &text).map_err(anyhow::Error::msg);
    }
    let policy = &setup.policy;
    let scale = Scale {
        seconds: args.minutes * 60,
        peak: PEAK_SHARE * f64::from(policy.max) * policy.concurrency / policy.expected_service,
        service_seconds: policy.expected_service,
        longest_service: f64::from(shop.spec.worker.max_processing_seconds),
    };
    Trace::generate(args.generate, args.seed, scale).map_err(anyhow::Error::msg)
}

fn picture(report: &Report, trace: &Trace) -> Result<String> {
    let (ours, rival) = (report.rules.first(), best_rival(&report.rules));
    let (ours, rival) = ours.zip(rival).context("nothing was simulated")?;
    let title = format!("{}: {}, {} messages", report.shop, report.load, report.messages);
    let picture = Picture { title, trace, ours, rival, target: report.target_wait_seconds };
    picture.draw().map_err(|error| anyhow::anyhow!("cannot draw: {error}"))
}

fn render(report: &Report) -> String {
    let mut text = format!(
        "{}: {}, {} messages in {} min, and {} min to come to rest\n{} to {} workers of {} at once, {} s to start; \
         a message should wait {} s at most\n\n",
        toned(Tone::Head, &report.shop),
        report.load,
        report.messages,
        report.load_seconds.div_ceil(60),
        TAIL_SECONDS / 60,
        report.min,
        report.max,
        report.concurrency,
        report.startup_seconds,
        report.target_wait_seconds,
    );
    let within = |wait: f64| if wait <= report.target_wait_seconds { Tone::Good } else { Tone::Bad };
    let rows: Vec<_> = report
        .rules
        .iter()
        .map(|rule| {
            let waits = [rule.wait_seconds.p50, rule.wait_seconds.p95, rule.wait_seconds.p99];
            let mut row = vec![Cell::plain(&rule.rule)];
            row.extend(waits.map(|wait| Cell::new(within(wait), format!("{wait:.1}"))));
            row.push(Cell::plain(format!("{:.2}", rule.pod_hours)));
            let counts = [
                rule.max_replicas.into(),
                rule.direction_changes.into(),
                rule.disturbed,
                rule.cut_off,
                rule.unfinished,
            ];
            row.extend(counts.map(|count: u64| Cell::plain(count.to_string())));
            row
        })
        .collect();
    let head = ["RULE", "WAIT P50", "P95", "P99", "POD-HOURS", "MOST", "TURNS", "DISTURBED", "CUT OFF", "UNFINISHED"];
    text.push_str(&table(&head, &rows));
    text.push_str(&toned(
        Tone::Faint,
        "\nWaits in seconds. Turns: grew after shrinking, or the other way. Disturbed: in hand of a worker that was told to stop; \
         cut off: of these, not done in time and worked on anew.\n",
    ));
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::tests::bare;

    const SAMPLE: &str = include_str!("../../../dev/sample/shop.yaml");

    #[test]
    fn the_sample_shop_is_simulated_with_its_own_figures() {
        let file = format!("kind: Namespace\napiVersion: v1\n---\n{SAMPLE}");
        let setup = setup(&parse(&file).unwrap(), 5).unwrap();
        let policy = &setup.policy;
        assert_eq!((policy.min, policy.max, policy.target_wait, policy.concurrency), (1, 8, 10.0, 4.0));
        assert_eq!((setup.plant.concurrency, setup.plant.grace), (4, 50_000_000));
    }

    #[test]
    fn what_the_shop_has_measured_is_taken_and_its_pause_is_not() {
        let mut shop = parse(SAMPLE).unwrap();
        shop.spec.paused = true;
        let status = serde_json::json!({ "autoscaling": { "secondsPerMessage": 0.7 } });
        shop.status = serde_json::from_value(status).unwrap();
        let setup = setup(&shop, 5).unwrap();
        assert!((setup.policy.expected_service - 0.7).abs() < 1e-9);
        assert_eq!(setup.policy.pause, Pause::No);
    }

    #[test]
    fn faults_of_a_file_are_told() {
        let told = |text: &str| format!("{:#}", parse(text).unwrap_err());
        assert_eq!(told("kind: Secret"), "it has no object of kind ShopDeployment");
        assert!(
            told("kind: ShopDeployment\nspec: {}").contains("missing field"),
            "{}",
            told("kind: ShopDeployment\nspec: {}")
        );
        let text = SAMPLE.replace("max: 8", "max: 0");
        let fault = format!("{:#}", setup(&parse(&text).unwrap(), 5).unwrap_err());
        assert_eq!(fault, "the shop's spec is not valid:\nspec.worker.autoscaling: min 1 is above max 0");
    }

    #[test]
    fn a_table_has_a_row_for_each_rule() {
        let shop = parse(SAMPLE).unwrap();
        let setup = setup(&shop, 5).unwrap();
        let trace = Trace::read("load.csv", "0,400,0.4\n60,40,0.4\n").unwrap();
        let report = Report {
            shop: "demo".to_owned(),
            load: trace.name.clone(),
            load_seconds: trace.seconds,
            messages: 440,
            concurrency: setup.policy.concurrency,
            startup_seconds: 5,
            min: 1,
            max: 8,
            target_wait_seconds: 10.0,
            rules: compare(&setup, &trace),
        };
        insta::assert_snapshot!(bare(&render(&report)));
    }
}
