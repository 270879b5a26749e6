//! The operator is stopped before and after its writes, to the API server and to SQS: the next one brings about what a run
//! without a stop does.

use std::time::Duration;

use aws_sdk_sqs::types::QueueAttributeName::{RedrivePolicy, VisibilityTimeout};
use kube::api::{DeleteParams, Patch, PatchParams};
use rstest::rstest;
use serde_json::{Value, json};
use shop_harness::{Link, Step};
use shop_operator::crd::ShopDeployment;

use crate::{
    stage::{Picture, Stage, is_long},
    wire::{Fault, Seen, Wire},
};

/// What is done to a shop.
#[derive(Clone, Debug)]
enum Deed {
    Create(Value),
    Change(Value),
    Scale(u32),
    Delete,
}

/// The spec that a deed starts from.
fn before(deed: &Deed) -> Value {
    match deed {
        Deed::Create(_) | Deed::Change(_) => json!({}),
        Deed::Scale(_) => json!({ "worker": { "replicas": 3, "autoscaling": { "mode": "Manual" } } }),
        Deed::Delete => json!({ "queue": { "deletionPolicy": "Delete" } }),
    }
}

async fn act(stage: &Stage, deed: &Deed) {
    let shops = stage.harness.api::<ShopDeployment>();
    match deed {
        Deed::Create(patch) | Deed::Change(patch) => stage.apply(&stage.spec(patch.clone())).await,
        Deed::Scale(replicas) => {
            let scale = json!({ "spec": { "replicas": replicas } });
            shops.patch_scale("demo", &PatchParams::default(), &Patch::Merge(&scale)).await.unwrap();
        }
        Deed::Delete => {
            shops.delete("demo", &DeleteParams::default()).await.unwrap();
        }
    }
}

/// Waits until nothing is left to do, and takes the picture.
async fn end(stage: &Stage, deed: &Deed, (process, wire): (&crate::stage::Process, &Wire)) -> Picture {
    if matches!(deed, Deed::Delete) {
        stage.same(&Picture::new(), "nothing is left of a deleted shop").await;
    } else {
        stage.ready(process, wire).await;
        stage.at_rest(process, wire).await;
    }
    stage.picture().await
}

/// The writes and the end of a run without a stop.
async fn undisturbed(stage: &Stage, deed: &Deed) -> (Vec<Seen>, Picture) {
    let wire = Wire::default();
    let process = begin(stage, deed, &wire).await;
    wire.fail(|_, _| None);
    act(stage, deed).await;
    let picture = end(stage, deed, (&process, &wire)).await;
    (wire.writes(), picture)
}

async fn begin(stage: &Stage, deed: &Deed, wire: &Wire) -> crate::stage::Process {
    let process = stage.start("one", wire);
    if !matches!(deed, Deed::Create(_)) {
        stage.apply(&stage.spec(before(deed))).await;
        stage.ready(&process, wire).await;
    }
    process
}

/// The container is started anew in the same pod: its identity is the same, so the Lease is still its own.
async fn stopped(stage: &Stage, deed: &Deed, (number, fault): (usize, Fault), wanted: &Picture) -> bool {
    let what = format!("{deed:?}, {fault:?} write {number}");
    let wire = Wire::default();
    let process = begin(stage, deed, &wire).await;
    wire.fail(move |seen, writes| (seen.method != "GET" && writes == number && !seen.is_lease()).then_some(fault));
    act(stage, deed).await;
    let stopped = tokio::select! {
        () = wire.stopped() => true,
        () = stage.same(wanted, &what) => false,
    };
    process.kill();
    let wire = Wire::default();
    let process = stage.start("one", &wire);
    stage.same(wanted, &what).await;
    if !matches!(deed, Deed::Delete) {
        stage.at_rest(&process, &wire).await;
        stage.same(wanted, &what).await;
    }
    stopped
}

#[rstest]
#[case::create(Deed::Create(json!({})))]
#[case::create_with_a_queue_that_goes(Deed::Create(json!({ "queue": { "deletionPolicy": "Delete" } })))]
#[case::change(Deed::Change(json!({
    "api": { "replicas": 2, "ingress": { "enabled": false } },
    "networkPolicy": { "enabled": false },
    "settings": { "displayName": "Other", "logLevel": "debug" },
    "images": { "api": "r.example/api:2", "worker": "r.example/worker:2" },
    "worker": { "concurrency": 3, "autoscaling": { "min": 2 } },
})))]
#[case::scale_by_hand(Deed::Scale(1))]
#[case::scale_by_the_rules(Deed::Change(json!({ "worker": { "autoscaling": { "min": 3 } } })))]
#[case::delete(Deed::Delete)]
#[tokio::test(flavor = "multi_thread")]
async fn a_stop_at_any_write_changes_nothing_in_the_end(#[case] deed: Deed) {
    let stage = Stage::new().await;
    let (writes, wanted) = undisturbed(&stage, &deed).await;
    println!("{deed:?}: {} writes", writes.len());
    writes.iter().enumerate().for_each(|(number, write)| println!("{number:4} {write}"));
    let all = (0..writes.len()).flat_map(|number| [(number, Fault::StopBefore), (number, Fault::StopAfter)]);
    // A sample: early, in the middle, late; before and after.
    let step = if is_long() { 1 } else { (writes.len() * 2).div_ceil(3) | 1 };
    let mut hit = 0;
    for point in all.step_by(step) {
        stage.clear().await;
        hit += usize::from(stopped(&stage, &deed, point, &wanted).await);
    }
    println!("{deed:?}: stopped {hit} times");
    assert!(hit > 0, "no stop took place");
    stage.finish().await;
}

/// As in `watches.rs`, of what is not in its play.
#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_fails_while_a_shop_is_scaled_or_deleted_changes_nothing_in_the_end(
    #[values(Deed::Scale(1), Deed::Delete)] deed: Deed,
    #[values(Fault::Answer(409), Fault::Answer(429), Fault::Answer(500), Fault::NoAnswer, Fault::AnswerLost)]
    fault: Fault,
) {
    let stage = Stage::new().await;
    let (writes, wanted) = undisturbed(&stage, &deed).await;
    // Each write alone, or every second of them at once.
    let plans: Vec<Vec<usize>> = if is_long() {
        (0..writes.len()).map(|number| vec![number]).collect()
    } else {
        vec![(0..writes.len()).step_by(2).collect()]
    };
    for plan in plans {
        stage.clear().await;
        let (wire, chosen, what) = (Wire::default(), plan.clone(), format!("{deed:?}, {fault:?} to writes {plan:?}"));
        let process = begin(&stage, &deed, &wire).await;
        wire.fail(move |seen, writes| {
            (seen.method != "GET" && !seen.is_lease() && chosen.contains(&writes)).then_some(fault)
        });
        act(&stage, &deed).await;
        stage.same(&wanted, &what).await;
        if !matches!(deed, Deed::Delete) {
            stage.at_rest(&process, &wire).await;
            stage.same(&wanted, &what).await;
        }
        println!("{what}: {:?}", wire.struck());
        assert!(!wire.struck().is_empty(), "{what}: no request failed");
    }
    stage.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn configuration_comes_before_the_api_and_the_api_before_the_worker() {
    let (stage, wire) = (Stage::new().await, Wire::default());
    wire.fail(|_, _| None);
    let process = stage.start("one", &wire);
    stage.apply(&stage.spec(json!({}))).await;
    stage.ready(&process, &wire).await;
    let made: Vec<_> = wire.writes().into_iter().map(|seen| seen.target).collect();
    let at = |target: &str| {
        made.iter().position(|made| made == target).unwrap_or_else(|| panic!("{target} is not among {made:?}"))
    };
    let (api, worker) = (at("deployments demo-api"), at("deployments demo-worker"));
    for kind in ["serviceaccounts", "configmaps", "networkpolicies"] {
        assert!(at(&format!("{kind} demo-api")).max(at(&format!("{kind} demo-worker"))) < api, "{made:?}");
    }
    assert!(at("secrets") < api && api < worker, "{made:?}");
    drop(process);
    stage.finish().await;
}

/// What has the operator change SQS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Errand {
    Make,
    Repair,
    Delete,
}

/// The link stalls at the request of this name that comes after `earlier` others.
async fn stalled(link: &Link, (request, earlier): (&'static str, usize), step: fn(&'static str) -> Step) {
    for _ in 0..earlier {
        link.stalled().await.unwrap();
        link.stall_at(step(request));
        link.mend();
    }
    link.stalled().await.unwrap();
}

#[rstest]
#[case::dead_letters_are_made(Errand::Make, ("CreateQueue", 0))]
#[case::the_queue_is_made(Errand::Make, ("CreateQueue", 1))]
#[case::it_is_repaired(Errand::Repair, ("SetQueueAttributes", 0))]
#[case::the_queue_is_deleted(Errand::Delete, ("DeleteQueue", 0))]
#[case::dead_letters_are_deleted(Errand::Delete, ("DeleteQueue", 1))]
#[tokio::test(flavor = "multi_thread")]
async fn a_stop_at_any_change_of_sqs_changes_nothing_in_the_end(
    #[case] errand: Errand,
    #[case] (request, earlier): (&'static str, usize),
    #[values(Step::Before, Step::After)] step: fn(&'static str) -> Step,
) {
    let (stage, wire) = (Stage::new().await, Wire::default());
    wire.fail(|_, _| None);
    let (link, endpoint) = Link::to_http(&stage.sqs.endpoint).await.unwrap();
    let spec = |seconds| json!({ "queue": { "endpoint": endpoint, "deletionPolicy": "Delete", "visibilityTimeoutSeconds": seconds } });
    let process = stage.start("one", &wire);
    if errand != Errand::Make {
        stage.apply(&stage.spec(spec(60))).await;
        stage.ready(&process, &wire).await;
    }
    // Those that come earlier are waited for, but not stopped at.
    link.stall_at(if earlier == 0 { step(request) } else { Step::Before(request) });
    match errand {
        Errand::Make | Errand::Repair => stage.apply(&stage.spec(spec(45))).await,
        Errand::Delete => act(&stage, &Deed::Delete).await,
    }
    stalled(&link, (request, earlier), step).await;
    process.kill();
    link.cut();
    // What was on the way must be lost before anything passes again.
    tokio::time::sleep(Duration::from_millis(200)).await;
    link.mend();

    let process = stage.start("one", &wire);
    if errand == Errand::Delete {
        stage.same(&Picture::new(), "nothing is left of a deleted shop").await;
    } else {
        stage.ready(&process, &wire).await;
        let (sqs, dead_letters) = (&stage.sqs, format!("{}-dlq", stage.sqs.name));
        let visibility = async || (sqs.attribute(&sqs.name, VisibilityTimeout).await? == "45").then_some(());
        stage.harness.eventually("the queue is as the spec says", visibility).await;
        assert!(sqs.attribute(&sqs.name, RedrivePolicy).await.is_some_and(|policy| policy.contains(&dead_letters)));
        let owner = Some(format!("{}/demo", stage.harness.namespace));
        assert_eq!((sqs.tag(&sqs.name).await, sqs.tag(&dead_letters).await), (owner.clone(), owner));
    }
    drop(process);
    stage.finish().await;
}
