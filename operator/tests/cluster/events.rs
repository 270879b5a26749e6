//! Events are news: one for each change of mind, none for a pass that finds things as they were, and none again from the
//! next operator. What is told says what to do.

use k8s_openapi::api::events::v1::Event;
use kube::{
    Api,
    api::{ListParams, Patch, PatchParams},
};
use serde_json::json;
use shop_operator::crd::ShopDeployment;

use crate::harness::Harness;

/// The operator's events: reason, type, note, and how often each was told.
async fn told(harness: &Harness) -> Vec<(String, String, String, i32)> {
    let events: Api<Event> = harness.api();
    let ours = events.list(&ListParams::default()).await.unwrap().into_iter();
    let ours = ours.filter(|event| event.reporting_controller.as_deref() == Some("shop-operator"));
    let mut told: Vec<_> = ours
        .map(|event| {
            let count = event.series.map_or(1, |series| series.count);
            (event.reason.unwrap_or_default(), event.type_.unwrap_or_default(), event.note.unwrap_or_default(), count)
        })
        .collect();
    told.sort();
    told
}

fn of_reason(told: &[(String, String, String, i32)], reason: &str) -> Vec<(String, i32)> {
    told.iter().filter(|event| event.0 == reason).map(|event| (event.1.clone(), event.3)).collect()
}

/// Passes over the shop that change nothing about it.
async fn touch(harness: &Harness, (operator, times): (usize, u64)) {
    for time in 0..times {
        let passes = || harness.counted(operator, "shop_operator_reconciles_total{outcome=\"ok\"}");
        let seen = passes();
        let annotate = json!({ "metadata": { "annotations": { "test/touch": format!("{operator}-{time}") } } });
        harness.api::<ShopDeployment>().patch("demo", &PatchParams::default(), &Patch::Merge(&annotate)).await.unwrap();
        harness.eventually("another pass", async || (passes() > seen).then_some(())).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn events_come_with_transitions_only() {
    let mut harness = Harness::new().await;
    let first = harness.start_operator("one");
    // Without pods nothing but the spec and the queue changes any condition.
    let suspended = |currency: &str| json!({ "suspended": true, "settings": { "displayName": currency } });
    harness.apply("demo", suspended("one")).await;
    harness
        .condition("demo", "QueueReadable", |status, reason| status == "False" && reason == "QueueUnreachable")
        .await;
    let queue = harness
        .eventually("the event of the queue", async || {
            let told = told(&harness).await;
            // The last of that pass.
            told.iter().any(|event| event.2.starts_with("QueueReadable is False")).then_some(told)
        })
        .await;
    touch(&harness, (first, 5)).await;
    harness.stop_operator(first).await;
    let second = harness.start_operator("two");
    let polls = || harness.counted(second, "shop_scaler_polls_total{outcome=\"failed\"}");
    harness.eventually("polls of the second operator", async || (polls() > 3).then_some(())).await;
    touch(&harness, (second, 3)).await;
    assert_eq!(told(&harness).await, queue, "passes and a new operator told something that was no news");

    // There and back: two events, and none about what stayed.
    let mut bad = suspended("one");
    bad["settings"]["trustedProxies"] = json!(["not-a-network"]);
    harness.apply("demo", bad).await;
    harness.condition("demo", "ConfigValid", |status, _| status == "False").await;
    harness.apply("demo", suspended("two")).await;
    harness.condition("demo", "ConfigValid", |status, _| status == "True").await;
    let told = harness
        .eventually("the event of the correction", async || {
            let told = told(&harness).await;
            told.iter().any(|event| event.2.starts_with("ConfigValid is True")).then_some(told)
        })
        .await;
    assert_eq!(of_reason(&told, "Valid"), [("Normal".to_owned(), 1)], "{told:#?}");
    assert!(of_reason(&told, "InvalidSpec").iter().all(|(type_, _)| type_ == "Warning"), "{told:#?}");
    let notes = told.iter().filter(|event| event.0 == "InvalidSpec").map(|event| event.2.as_str());
    assert_eq!(notes.filter(|note| note.starts_with("ConfigValid is False: ")).count(), 1, "{told:#?}");
    harness.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_news_says_what_is_wrong_and_what_to_do() {
    let harness = Harness::with_operator().await;
    harness.apply("demo", json!({ "redis": { "urlSecretRef": { "name": "absent" } } })).await;
    harness.condition("demo", "ConfigValid", |status, _| status == "False").await;
    let expected = "Secret absent (spec.redis.urlSecretRef) does not exist: create it with the key url";
    let told = harness
        .eventually("the event of the missing Secret", async || {
            told(&harness).await.into_iter().find(|event| event.0 == "SecretMissing" && event.2.contains("ConfigValid"))
        })
        .await;
    assert_eq!((told.1.as_str(), told.2), ("Warning", format!("ConfigValid is False: {expected}")));
    let status = harness.shop("demo").await.status.unwrap();
    for condition in status.conditions {
        let bad = matches!(
            (condition.type_.as_str(), condition.status.as_str()),
            ("Ready" | "ConfigValid" | "ApiAvailable" | "WorkerAvailable", "False") | ("Degraded", "True")
        );
        assert!(!bad || !condition.message.is_empty(), "{} says nothing", condition.type_);
    }
    harness.finish().await;
}
