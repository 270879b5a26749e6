//! Rollouts on a real API server and Deployment controller, with pods that the test speaks for.

use k8s_openapi::api::{
    apps::v1::Deployment,
    core::v1::{Pod, Secret},
    events::v1::Event,
};
use kube::{
    ResourceExt,
    api::{ListParams, Patch, PatchParams},
};
use rstest::rstest;
use serde_json::{Value, json};
use shop_operator::rollout;

use crate::{
    harness::Harness,
    kubelet::{all_serve, crashing, image, nowhere, play, ready, serving},
};

async fn image_of(harness: &Harness, name: &str) -> String {
    rollout::image(&harness.exists::<Deployment>(name).await).unwrap().to_owned()
}

fn images(api: &str, worker: &str) -> Value {
    nowhere(json!({ "images": { "api": api, "worker": worker } }))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_workers_new_image_waits_until_the_api_serves_its_own() {
    let harness = Harness::with_operator().await;
    harness.apply("demo", images("r.example/api:1", "r.example/worker:1")).await;
    ready(&harness, "demo").await;
    harness.apply("demo", images("r.example/api:2", "r.example/worker:2")).await;
    harness
        .eventually("a new api pod", async || {
            let pods = harness.api::<Pod>().list(&ListParams::default()).await.unwrap();
            pods.into_iter().find(|pod| image(pod) == "r.example/api:2")
        })
        .await;
    harness.condition("demo", "Progressing", |status, reason| status == "True" && reason == "RolloutInProgress").await;
    assert_eq!(image_of(&harness, "demo-worker").await, "r.example/worker:1", "it waits");
    harness
        .eventually("the worker's new image", async || {
            play(&harness, |pod| image(pod).ends_with("api:2").then(|| serving(pod, "127.0.0.1"))).await;
            (image_of(&harness, "demo-worker").await == "r.example/worker:2").then_some(())
        })
        .await;
    ready(&harness, "demo").await;
    assert_eq!(harness.shop("demo").await.status.unwrap().version.as_deref(), Some("2"));
    // Without a change of the api there is nothing to wait for.
    harness.apply("demo", images("r.example/api:2", "r.example/worker:3")).await;
    harness
        .eventually("the worker's next image", async || {
            (image_of(&harness, "demo-worker").await == "r.example/worker:3").then_some(())
        })
        .await;
    harness.finish().await;
}

/// As the Deployment controller says it after the deadline, for which no test waits.
async fn give_up(harness: &Harness, name: &str) {
    let now = jiff_now();
    let late = json!({ "type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded", "message": "timed out",
                       "lastUpdateTime": now, "lastTransitionTime": now });
    let serves = json!({ "type": "Available", "status": "True", "reason": "MinimumReplicasAvailable", "message": "",
                         "lastUpdateTime": now, "lastTransitionTime": now });
    let patch = Patch::Merge(json!({ "status": { "conditions": [serves, late] } }));
    harness.api::<Deployment>().patch_status(name, &PatchParams::default(), &patch).await.unwrap();
}

fn jiff_now() -> String {
    let now = shop_runtime::clock::Clock::system().now();
    k8s_openapi::jiff::Timestamp::from_second(now.as_second()).unwrap().to_string()
}

#[rstest]
#[case::api("api", "ApiAvailable")]
#[case::worker("worker", "WorkerAvailable")]
#[tokio::test(flavor = "multi_thread")]
async fn a_crash_loop_is_told_in_its_own_words_and_a_corrected_spec_recovers(#[case] part: &str, #[case] kind: &str) {
    let named = |tag: &str| format!("r.example/{part}:{tag}");
    let of = |tag: &str| {
        let tags = if part == "api" { [tag, "1"] } else { ["1", tag] };
        images(&format!("r.example/api:{}", tags[0]), &format!("r.example/worker:{}", tags[1]))
    };
    let harness = Harness::with_operator().await;
    harness.apply("demo", of("1")).await;
    ready(&harness, "demo").await;
    harness.apply("demo", of("bad")).await;
    let words = "{\"level\":\"info\"}\nshop-api: SHOP_CURRENCY is no currency\n";
    let message = harness
        .eventually("the pod's last words", async || {
            play(&harness, |pod| (image(pod) == named("bad")).then(|| crashing(pod, words))).await;
            let status = harness.shop("demo").await.status?;
            let found = status.conditions.into_iter().find(|c| c.type_ == "Progressing" && c.status == "True")?;
            found.message.contains("CrashLoopBackOff").then_some(found.message)
        })
        .await;
    assert!(message.contains("ended with code 1") && message.contains("SHOP_CURRENCY is no currency"), "{message}");
    // Nothing is wrong with the rollout yet; the queue is nobody's here.
    harness.condition("demo", "Degraded", |_, reason| reason != "RolloutFailed").await;

    give_up(&harness, &format!("demo-{part}")).await;
    let message =
        harness.condition("demo", "Degraded", |status, reason| status == "True" && reason == "RolloutFailed").await;
    assert!(message.contains("CrashLoopBackOff") && message.contains("correct the spec"), "{message}");
    harness.condition("demo", "Ready", |status, reason| status == "False" && reason == "RolloutFailed").await;
    harness.condition("demo", kind, |status, _| status == "True").await;
    let pods = harness.api::<Pod>().list(&ListParams::default()).await.unwrap();
    assert!(pods.iter().any(|pod| image(pod) == named("1") && rollout::is_ready(pod)), "the old pod serves on");
    harness
        .eventually("an event for a person", async || {
            let events = harness.api::<Event>().list(&ListParams::default()).await.unwrap();
            events.into_iter().find(|event| {
                event.reason.as_deref() == Some("RolloutFailed") && event.type_.as_deref() == Some("Warning")
            })
        })
        .await;

    harness.apply("demo", of("3")).await;
    ready(&harness, "demo").await;
    harness.condition("demo", "Degraded", |_, reason| reason != "RolloutFailed").await;
    harness.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_secret_rolls_the_pods_that_read_it_and_only_those() {
    let harness = Harness::with_operator().await;
    harness.secret("staff", &[("email", "s@example.com"), ("password", "first")]).await;
    harness.secret("mine", &[("keys.json", "{}")]).await;
    let auth = json!({ "staffSecretRef": { "name": "staff" }, "keysSecretRef": { "name": "mine" } });
    harness.apply("demo", nowhere(json!({ "auth": auth }))).await;
    ready(&harness, "demo").await;
    let generations = async || {
        let api: Deployment = harness.exists("demo-api").await;
        (api.metadata.generation, harness.exists::<Deployment>("demo-worker").await.spec.template)
    };
    let before = generations().await;
    let secrets = harness.api::<Secret>();
    let change = async |name: &str, patch: Value| {
        secrets.patch(name, &PatchParams::default(), &Patch::Merge(&patch)).await.unwrap();
    };
    // What rolls nothing comes first: had it rolled something, the last change would not be the only one.
    change("staff", json!({ "metadata": { "labels": { "test": "1" } } })).await;
    change("staff", json!({ "stringData": { "note": "nobody reads it" } })).await;
    change("mine", json!({ "stringData": { "keys.json": "{ }" } })).await;
    change("staff", json!({ "stringData": { "password": "second" } })).await;
    let after = harness
        .eventually("a rollout of the api", async || {
            let after = generations().await;
            (after.0 != before.0).then_some(after)
        })
        .await;
    ready(&harness, "demo").await;
    assert_eq!(after.0, before.0.map(|generation| generation + 1), "one rollout");
    assert_eq!((after.1, generations().await.0), (before.1, after.0), "the worker reads none of it");

    secrets.delete("staff", &kube::api::DeleteParams::default()).await.unwrap();
    let message =
        harness.condition("demo", "ConfigValid", |status, reason| status == "False" && reason == "SecretMissing").await;
    assert!(message.contains("Secret staff (spec.auth.staffSecretRef)"), "{message}");
    harness.secret("staff", &[("email", "s@example.com"), ("password", "second")]).await;
    ready(&harness, "demo").await;
    assert_eq!(generations().await.0, after.0, "the same content again rolls nothing");
    harness.finish().await;
}

/// What both components read rolls both, once.
#[rstest]
#[case::mongodb("mongodb", "uri")]
#[case::redis("redis", "url")]
#[case::aws("aws", "secretAccessKey")]
#[case::ca("ca", "ca.crt")]
#[tokio::test(flavor = "multi_thread")]
async fn a_changed_secret_rolls_both_where_both_read_it(#[case] name: &str, #[case] key: &str) {
    let harness = Harness::with_operator().await;
    harness.secret("redis", &[("url", "redis://nowhere")]).await;
    harness.secret("ca", &[("ca.crt", "first")]).await;
    let both = json!({ "redis": { "urlSecretRef": { "name": "redis" } }, "caSecretRef": { "name": "ca" } });
    harness.apply("demo", nowhere(both)).await;
    ready(&harness, "demo").await;
    let templates = async || {
        let api = harness.exists::<Deployment>("demo-api").await.spec.template;
        (api, harness.exists::<Deployment>("demo-worker").await.spec.template)
    };
    let before = templates().await;
    let change = Patch::Merge(json!({ "stringData": { key: "second" } }));
    harness.api::<Secret>().patch(name, &PatchParams::default(), &change).await.unwrap();
    harness
        .eventually("a rollout of both", async || {
            let after = templates().await;
            (after.0 != before.0 && after.1 != before.1).then_some(())
        })
        .await;
    let after = templates().await;
    ready(&harness, "demo").await;
    assert_eq!(templates().await, after);
    harness.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_that_served_and_broke_are_no_rollout() {
    let harness = Harness::with_operator().await;
    harness.apply("demo", nowhere(json!({}))).await;
    ready(&harness, "demo").await;
    let pods = harness.api::<Pod>();
    let api = ListParams::default().labels("app.kubernetes.io/component=api");
    for pod in pods.list(&api).await.unwrap() {
        let status = crashing(&pod, "shop-api: MongoDB went away");
        let patch = json!({ "status": { "conditions": null, "containerStatuses": status["containerStatuses"] } });
        pods.patch_status(&pod.name_any(), &PatchParams::default(), &Patch::Merge(&patch)).await.unwrap();
    }
    let message =
        harness.condition("demo", "Degraded", |status, reason| status == "True" && reason == "NotAvailable").await;
    assert!(message.contains("MongoDB went away"), "{message}");
    harness.condition("demo", "Progressing", |status, reason| status == "False" && reason == "RolloutComplete").await;
    harness.condition("demo", "Ready", |status, reason| status == "False" && reason == "NotAvailable").await;
    harness
        .eventually("what heals by itself to be told", async || {
            all_serve(&harness).await;
            let status = harness.shop("demo").await.status?;
            status.conditions.into_iter().find(|c| c.type_ == "Degraded" && c.reason != "NotAvailable")
        })
        .await;
    harness.finish().await;
}
