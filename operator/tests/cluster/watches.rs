//! What the API server may do to an operator that watches and writes: events that get lost, come late or come from a
//! server that is behind, requests that are refused or never answered. In the end all is as without.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use k8s_openapi::api::{apps::v1::Deployment, core::v1::ConfigMap};
use kube::{ResourceExt, api::DeleteParams};
use rstest::rstest;
use serde_json::{Value, json};
use shop_operator::names;

use crate::{
    harness::Harness,
    stage::{Picture, Process, Stage, client, is_long},
    wire::{Event, Fault, Seen, Twist, Wire},
};

fn change() -> Value {
    json!({
        "api": { "ingress": { "enabled": false } },
        "settings": { "displayName": "Other" },
        "images": { "api": "r.example/api:2", "worker": "r.example/worker:2" },
        "worker": { "autoscaling": { "min": 2 } },
    })
}

/// A shop is made, one of its objects is deleted, a Secret that it names is changed, then the shop itself: everything that
/// an operator watches has events.
async fn play(stage: &Stage, (process, wire): (&Process, &Wire)) {
    stage.secret("mongodb", &[("uri", "mongodb://nowhere")]).await;
    stage.apply(&stage.spec(json!({}))).await;
    stage.ready(process, wire).await;
    let first = stage.harness.exists::<ConfigMap>("demo-worker").await.uid();
    stage.harness.api::<ConfigMap>().delete("demo-worker", &DeleteParams::default()).await.unwrap();
    let anew = async || (stage.harness.exists::<ConfigMap>("demo-worker").await.uid() != first).then_some(());
    stage.harness.eventually("the worker's configuration again", anew).await;
    let config = async || config(&stage.harness.exists::<Deployment>("demo-worker").await);
    let before = config().await;
    stage.secret("mongodb", &[("uri", "mongodb://elsewhere")]).await;
    let rolled = async || (config().await != before).then_some(());
    stage.harness.eventually("workers with the new Secret", rolled).await;
    // Two changes within a moment may be one rollout or two.
    stage.ready(process, wire).await;
    stage.apply(&stage.spec(change())).await;
}

/// What a Deployment's pods were configured with.
fn config(deployment: &Deployment) -> Option<String> {
    deployment.spec.template.metadata.as_ref()?.annotations.as_ref()?.get(names::CONFIG).cloned()
}

/// What a play without faults comes to.
async fn undisturbed(stage: &Stage) -> (Vec<Event>, Vec<Seen>, Picture) {
    let wire = Wire::default();
    let process = stage.start("one", &wire);
    wire.twist(|_| None);
    wire.fail(|_, _| None);
    play(stage, (&process, &wire)).await;
    stage.ready(&process, &wire).await;
    // The scaler looks every two seconds: many passes fit in between.
    stage.workers(2).await;
    stage.at_rest(&process, &wire).await;
    (wire.events(), wire.writes(), stage.picture().await)
}

/// The same play on a wire with faults.
async fn disturbed(stage: &Stage, wire: &Wire, (wanted, what): (&Picture, &str)) {
    stage.clear().await;
    let process = stage.start("one", wire);
    play(stage, (&process, wire)).await;
    stage.same(wanted, what).await;
    stage.at_rest(&process, wire).await;
    stage.same(wanted, what).await;
}

#[rstest]
#[case::dropped(Twist::Drop)]
#[case::delayed(Twist::Delay)]
#[case::stale(Twist::Stale)]
#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_is_lost_or_late_or_old_changes_nothing_in_the_end(#[case] twist: Twist) {
    let stage = Stage::new().await;
    let (events, _, wanted) = undisturbed(&stage).await;
    let kinds: BTreeSet<_> = events.iter().map(|event| event.kind.clone()).collect();
    println!("{} events of {} kinds: {kinds:?}", events.len(), kinds.len());
    assert!(kinds.len() >= 10, "a kind of object has no events: {kinds:?}");
    let mut plans: Vec<Vec<(String, usize)>> =
        events.iter().map(|event| vec![(event.kind.clone(), event.number)]).collect();
    if !is_long() {
        // All kinds at once: the last but one event of each.
        let last = |kind: &String| events.iter().filter(|event| event.kind == *kind).count().saturating_sub(2);
        plans = vec![kinds.iter().map(|kind| (kind.clone(), last(kind))).collect()];
    }
    let mut struck = 0;
    for plan in plans {
        let (wire, chosen) = (Wire::default(), plan.clone());
        wire.twist(move |event| chosen.contains(&(event.kind.clone(), event.number)).then_some(twist));
        disturbed(&stage, &wire, (&wanted, &format!("{twist:?} of {plan:?}"))).await;
        println!("{:?}", wire.struck());
        struck += wire.struck().len();
    }
    assert!(struck > 0);
    stage.finish().await;
}

/// The old spec comes again after the new one: what runs must not go back to it for a moment, which would be one more rollout.
#[tokio::test(flavor = "multi_thread")]
async fn an_old_spec_is_not_gone_back_to() {
    let stage = Stage::new().await;
    let (_, _, wanted) = undisturbed(&stage).await;
    let (wire, done) = (Wire::default(), AtomicBool::new(false));
    wire.twist(move |event| {
        let new = event.kind == "shopdeployments" && event.generation == Some(2);
        (new && !done.swap(true, Ordering::Relaxed)).then_some(Twist::Stale)
    });
    disturbed(&stage, &wire, (&wanted, "the old spec again")).await;
    assert_eq!(wire.struck().len(), 1, "{:?}", wire.struck());
    stage.finish().await;
}

#[rstest]
#[case::conflict(Fault::Answer(409))]
#[case::too_many_requests(Fault::Answer(429))]
#[case::server_error(Fault::Answer(500))]
#[case::no_answer(Fault::NoAnswer)]
#[case::answer_lost(Fault::AnswerLost)]
#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_fails_changes_nothing_in_the_end(#[case] fault: Fault) {
    let stage = Stage::new().await;
    let (_, writes, wanted) = undisturbed(&stage).await;
    // Each write alone, or a sample of them at once; and every fifth read.
    let step = 4;
    let plans: Vec<Vec<usize>> = if is_long() {
        (0..writes.len()).map(|number| vec![number]).collect()
    } else {
        vec![(1..writes.len()).step_by(step).collect()]
    };
    for plan in plans {
        let (wire, chosen) = (Wire::default(), plan.clone());
        let reads = AtomicUsize::new(0);
        wire.fail(move |seen, writes| {
            let hit = match seen.method.as_str() {
                _ if seen.is_lease() => false,
                "GET" => reads.fetch_add(1, Ordering::Relaxed) % 5 == 4,
                _ => chosen.contains(&writes),
            };
            hit.then_some(fault)
        });
        disturbed(&stage, &wire, (&wanted, &format!("{fault:?} to writes {plan:?}"))).await;
        println!("{fault:?}: {:?}", wire.struck());
        assert!(wire.struck().len() > 1, "{:?}", wire.struck());
    }
    stage.finish().await;
}

/// A connection whose other end is gone without a word: kube itself waits for ever.
#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_is_never_answered_holds_up_its_pass_for_a_while_only() {
    let stage = Stage::new().await;
    let (_, _, wanted) = undisturbed(&stage).await;
    let wire = Wire::default();
    wire.fail(|seen, writes| (!seen.is_lease() && seen.method != "GET" && writes == 3).then_some(Fault::Hang));
    disturbed(&stage, &wire, (&wanted, "a write that hangs")).await;
    assert_eq!(wire.struck().len(), 1, "{:?}", wire.struck());
    stage.finish().await;
}

/// 410 Gone to every watch as it starts, for as long as it goes on from the version that it came with first.
#[tokio::test(flavor = "multi_thread")]
async fn watches_that_are_too_old_start_anew() {
    let stage = Stage::new().await;
    let (_, _, wanted) = undisturbed(&stage).await;
    let wire = Wire::default();
    let old = Mutex::new(BTreeMap::new());
    wire.fail(move |seen, _| {
        let version = seen.watches.as_ref()?;
        let too_old = old.lock().unwrap().entry(seen.target.clone()).or_insert_with(|| version.clone()) == version;
        too_old.then_some(Fault::Answer(410))
    });
    disturbed(&stage, &wire, (&wanted, "410 to every watch")).await;
    assert!(wire.struck().len() >= 10, "{:?}", wire.struck());
    stage.finish().await;
}

/// Whoever installs the operator alone, or deletes the CRD, is told.
#[tokio::test(flavor = "multi_thread")]
async fn without_the_crd_the_operator_says_so_and_begins_when_it_is_there() {
    let (mut harness, wire) = (Harness::new().await, Wire::default());
    wire.fail(|seen, _| (seen.method == "GET" && seen.target == "shopdeployments").then_some(Fault::Answer(404)));
    harness.operator_client = client(&wire).await;
    let operator = harness.start_operator("one");
    let told = async || harness.missing(operator).into_iter().find(|part| part.starts_with("crd: "));
    let told = harness.eventually("a word about the CRD", told).await;
    let advice = "the CRD shopdeployments.shop.xhipment.io is not installed: kubectl apply --server-side -f crds/";
    assert_eq!(told, format!("crd: {advice}"));
    wire.fail(|_, _| None);
    harness.apply("demo", json!({})).await;
    harness.exists::<Deployment>("demo-api").await;
    harness.eventually("an operator that is ready", async || harness.missing(operator).is_empty().then_some(())).await;
    harness.finish().await;
}
