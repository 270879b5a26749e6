//! The scaler on a real API server and a real SQS, its pods played: schedules, what is remembered, marks, pods cut off.

use std::{net::TcpListener, time::Duration};

use k8s_openapi::api::{apps::v1::Deployment, core::v1::Pod};
use kube::{
    ResourceExt,
    api::{DeleteParams, ListParams, Patch, PatchParams},
};
use serde_json::{Value, json};
use shop_operator::names::{Component, DELETION_COST, VICTIM};
use shop_runtime::{ops, shutdown::Shutdown};
use shop_worker::report::Activity;

use crate::{
    harness::{Harness, merge},
    kubelet,
    leaders::Program,
    queue::{Sqs, readable},
    rest::counted,
};

async fn replicas(harness: &Harness) -> Option<i32> {
    harness.exists::<Deployment>("demo-worker").await.spec.replicas
}

async fn workers(harness: &Harness, count: i32) {
    let there = async || {
        kubelet::all_serve(harness).await;
        (replicas(harness).await == Some(count)).then_some(())
    };
    harness.eventually(&format!("{count} workers"), there).await;
}

async fn worker_pods(harness: &Harness) -> Vec<Pod> {
    let selector = Component::Worker.selector_text("demo");
    let pods = harness.api::<Pod>().list(&ListParams::default().labels(&selector)).await.unwrap();
    pods.into_iter().filter(|pod| pod.metadata.deletion_timestamp.is_none()).collect()
}

/// Applies a shop with this queue whose pods no node takes.
async fn apply(harness: &Harness, sqs: &Sqs, worker: Value) {
    let mut spec = kubelet::nowhere(sqs.spec(json!({})));
    merge(&mut spec["worker"], worker);
    harness.apply("demo", spec).await;
}

/// Waits until the shop says this reason, and why in words that have `part` in them: an older word may have the same reason.
async fn explained(harness: &Harness, (wanted, part): (&str, &str)) {
    harness
        .eventually(&format!("{wanted}: … {part} …"), async || {
            let scaling = harness.shop("demo").await.status?.autoscaling?;
            (scaling.reason == wanted && scaling.explain.contains(part)).then_some(())
        })
        .await;
}

async fn mark(harness: &Harness, pod: &str) {
    let cost = json!({ "metadata": { "annotations": { DELETION_COST: VICTIM } } });
    harness.api::<Pod>().patch(pod, &PatchParams::default(), &Patch::Merge(&cost)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schedule_raises_the_minimum_while_it_is_open_and_a_wrong_one_is_named() {
    let (mut harness, sqs) = (Harness::new().await, Sqs::new().await);
    harness.start_operator("one");
    let schedule = |cron: &str| json!({ "name": "sale", "cron": cron, "durationMinutes": 60, "min": 3 });
    let autoscaling = |schedules: Value| json!({ "autoscaling": { "schedules": schedules } });
    apply(&harness, &sqs, autoscaling(json!([]))).await;
    readable(&harness).await;
    workers(&harness, 1).await;

    apply(&harness, &sqs, autoscaling(json!([schedule("0 25 * * *")]))).await;
    let message = harness.condition("demo", "ConfigValid", |status, _| status == "False").await;
    assert!(message.contains("schedules sale") && message.contains("0..=23"), "{message}");
    assert_eq!(replicas(&harness).await, Some(1));

    apply(&harness, &sqs, autoscaling(json!([schedule("* * * * *")]))).await;
    workers(&harness, 3).await;
    explained(&harness, ("Schedule", "raised to min 3 of schedule sale")).await;
    harness.finish().await;
    sqs.clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_at_rest_is_seldom_looked_at_until_its_worker_has_work() {
    const WORKER: &str = "127.78.0.1";
    let (harness, sqs) = (Harness::new().await, Sqs::new().await);
    let worker = Activity::default();
    ops::serve(format!("{WORKER}:9090").parse().unwrap(), worker.routes(), &Shutdown::manual()).await.unwrap();
    let metrics = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let program = Program::serving(&harness, "one", &metrics);
    apply(&harness, &sqs, json!({ "concurrency": 1, "autoscaling": { "expectedSecondsPerMessage": 1 } })).await;
    readable(&harness).await;
    let looks = async || {
        kubelet::play(&harness, |pod| Some(kubelet::serving(pod, WORKER))).await;
        let before = counted(&metrics, "shop_scaler_polls_total{").await;
        tokio::time::sleep(Duration::from_secs(10)).await;
        counted(&metrics, "shop_scaler_polls_total{").await - before
    };
    assert!(looks().await > 2, "it has only just begun");
    harness.within(Duration::from_mins(4), "a queue at rest", async || (looks().await < 2).then_some(())).await;

    sqs.send(200).await;
    let _held = worker.hold(1);
    harness.eventually("more workers", async || replicas(&harness).await.filter(|count| *count > 1)).await;
    assert!(looks().await > 2, "there is work");
    harness.finish().await;
    drop(program);
    sqs.clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_operator_goes_on_from_what_the_last_one_remembered() {
    let (mut harness, sqs) = (Harness::new().await, Sqs::new().await);
    harness.start_operator("one");
    apply(&harness, &sqs, json!({ "autoscaling": { "min": 1 } })).await;
    readable(&harness).await;
    workers(&harness, 1).await;
    apply(&harness, &sqs, json!({ "autoscaling": { "min": 2 } })).await;
    workers(&harness, 2).await;
    explained(&harness, ("MinReached", "raised to min 2")).await;
    let memory = async |harness: &Harness| harness.shop("demo").await.status?.autoscaling?.memory;
    let before = harness
        .eventually("a memory", async || memory(&harness).await.filter(|memory| memory.last_scale_time.is_some()))
        .await;
    harness.stop_operator(0).await;

    harness.start_operator("two");
    // Its first look at the queue, and what it says of it.
    apply(&harness, &sqs, json!({ "autoscaling": { "min": 2, "max": 9 } })).await;
    harness.condition("demo", "QueueReadable", |status, _| status == "True").await;
    tokio::time::sleep(Duration::from_secs(12)).await;
    let after = memory(&harness).await.unwrap();
    assert_eq!((&after.last_scale_time, after.window_max), (&before.last_scale_time, before.window_max));
    assert_eq!(replicas(&harness).await, Some(2));
    harness.finish().await;
    sqs.clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mark_that_no_shrink_follows_is_taken_off() {
    let (mut harness, sqs) = (Harness::new().await, Sqs::new().await);
    harness.start_operator("one");
    apply(&harness, &sqs, json!({ "autoscaling": { "min": 2 } })).await;
    readable(&harness).await;
    workers(&harness, 2).await;
    let pod = harness.eventually("a worker", async || worker_pods(&harness).await.pop()).await.name_any();
    mark(&harness, &pod).await;
    harness
        .eventually("the mark to go", async || {
            let pods = worker_pods(&harness).await;
            pods.iter().all(|pod| !pod.annotations().contains_key(DELETION_COST)).then_some(())
        })
        .await;
    harness.finish().await;
    sqs.clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_was_taken_away_with_work_in_hand_is_counted_once() {
    let (mut harness, sqs) = (Harness::new().await, Sqs::new().await);
    let operator = harness.start_operator("one");
    // Paused: the mark is this test's own.
    apply(&harness, &sqs, json!({ "autoscaling": { "min": 1, "mode": "Recommend" } })).await;
    readable(&harness).await;
    let pod = harness
        .eventually("a worker", async || {
            kubelet::all_serve(&harness).await;
            worker_pods(&harness).await.pop()
        })
        .await;
    let (name, pods) = (pod.name_any(), harness.api::<Pod>());
    mark(&harness, &name).await;
    // A finalizer stands for the kubelet, which has a pod deleted only when its containers have ended.
    let held = json!({ "metadata": { "finalizers": ["test/kubelet"] } });
    pods.patch(&name, &PatchParams::default(), &Patch::Merge(&held)).await.unwrap();
    pods.delete(&name, &DeleteParams::default()).await.unwrap();
    let ended = json!({ "status": { "containerStatuses": [{
        "name": pod.spec.as_ref().unwrap().containers[0].name, "image": kubelet::image(&pod), "imageID": "", "ready": false,
        "restartCount": 0, "state": { "terminated": { "exitCode": 1 } },
    }] } });
    pods.patch_status(&name, &PatchParams::default(), &Patch::Merge(&ended)).await.unwrap();
    let free = json!({ "metadata": { "finalizers": null } });
    pods.patch(&name, &PatchParams::default(), &Patch::Merge(&free)).await.unwrap();

    let counted = async || (harness.counted(operator, "shop_scaler_busy_kills_total") == 1).then_some(());
    harness.eventually("the count", counted).await;
    harness
        .eventually("the time of it in the memory", async || {
            harness.shop("demo").await.status?.autoscaling?.memory?.last_busy_kill_time
        })
        .await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(harness.counted(operator, "shop_scaler_busy_kills_total"), 1);
    harness.finish().await;
    sqs.clean().await;
}
