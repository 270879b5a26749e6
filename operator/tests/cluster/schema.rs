//! The CRD's rules on a real API server: for each a passing and a failing object.

use crate::harness::Harness;
use rstest::rstest;
use serde_json::{Value, json};

#[rstest]
#[case::url_or_name(json!({ "queue": { "name": null, "url": "http://sqs/1/q" } }), json!({ "queue": { "url": "http://sqs/1/q" } }), "exactly one of url and name")]
#[case::managed_by_name(
    json!({ "queue": { "management": "Managed" } }),
    json!({ "queue": { "management": "Managed", "name": null, "url": "http://sqs/1/q" } }),
    "set name in place of url"
)]
#[case::delete_only_managed(
    json!({ "queue": { "management": "Managed", "deletionPolicy": "Delete" } }),
    json!({ "queue": { "deletionPolicy": "Delete" } }),
    "needs management Managed"
)]
#[case::aws_one_identity(
    json!({ "aws": { "serviceAccountAnnotations": { "a": "b" }, "credentialsSecretRef": null } }),
    json!({ "aws": { "serviceAccountAnnotations": { "a": "b" }, "credentialsSecretRef": { "name": "x" } } }),
    "at most one of credentialsSecretRef"
)]
#[case::tls_needs_host(
    json!({ "api": { "ingress": { "host": "a.example", "tls": { "secretName": "t" } } } }),
    json!({ "api": { "ingress": { "tls": { "secretName": "t" } } } }),
    "tls needs host"
)]
#[case::grace(
    json!({ "worker": { "maxProcessingSeconds": 60, "terminationGracePeriodSeconds": 90 } }),
    json!({ "worker": { "maxProcessingSeconds": 60 } }),
    "must be at least maxProcessingSeconds + 30"
)]
#[case::replicas_only_manual(
    json!({ "worker": { "replicas": 2, "autoscaling": { "mode": "Manual" } } }),
    json!({ "worker": { "replicas": 2 } }),
    "needs autoscaling.mode Manual"
)]
#[case::min_max(
    json!({ "worker": { "autoscaling": { "min": 3, "max": 3 } } }),
    json!({ "worker": { "autoscaling": { "min": 30 } } }),
    "min must not be above max"
)]
#[case::fallback(
    json!({ "worker": { "autoscaling": { "failure": { "policy": "Static", "replicas": 3 } } } }),
    json!({ "worker": { "autoscaling": { "failure": { "policy": "Static", "replicas": 30 } } } }),
    "policy Static needs replicas between min and max"
)]
#[case::a_bound(json!({ "worker": { "concurrency": 1 } }), json!({ "worker": { "concurrency": 0 } }), "spec.worker.concurrency")]
#[case::a_pattern(json!({ "settings": { "currency": "EUR" } }), json!({ "settings": { "currency": "euro" } }), "spec.settings.currency")]
#[tokio::test(flavor = "multi_thread")]
async fn rules(#[case] passing: Value, #[case] failing: Value, #[case] message: &str) {
    let harness = Harness::new().await;
    harness.try_apply(&harness.manifest("good", passing)).await.expect("the passing object is refused");
    let error =
        harness.try_apply(&harness.manifest("bad", failing)).await.expect_err("the failing object passes").to_string();
    assert!(error.contains(message), "{error}");
    harness.finish().await;
}

#[rstest]
#[case::database(json!({}), json!({ "mongodb": { "database": "other" } }), "mongodb.database cannot be changed")]
#[case::queue_name(json!({}), json!({ "queue": { "name": "other" } }), "queue.name cannot be changed")]
#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_changed(#[case] first: Value, #[case] then: Value, #[case] message: &str) {
    let harness = Harness::new().await;
    harness.apply("demo", first.clone()).await;
    harness.try_apply(&harness.manifest("demo", first)).await.expect("the same object is refused");
    let error = harness.try_apply(&harness.manifest("demo", then)).await.expect_err("the change passes").to_string();
    assert!(error.contains(message), "{error}");
    harness.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn names_must_fit_the_objects_named_after_them() {
    let harness = Harness::new().await;
    for name in ["x".repeat(41), "1shop".to_owned(), "my.shop".to_owned()] {
        let error = harness.try_apply(&harness.manifest(&name, json!({}))).await.unwrap_err().to_string();
        assert!(error.contains("at most 40 lower-case letters"), "{error}");
    }
    harness.apply(&"x".repeat(40), json!({})).await;
    harness.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn defaults_are_filled_in_by_the_server() {
    let harness = Harness::new().await;
    let shop = harness.apply("demo", json!({})).await;
    let stored = serde_json::to_value(&shop.spec).unwrap();
    assert_eq!(stored["mongodb"]["database"], "xhipment");
    assert_eq!(stored["worker"]["autoscaling"]["targetWaitSeconds"], 30);
    assert_eq!(stored["settings"]["limits"]["authPer15Minutes"], 10);
    assert_eq!(stored["networkPolicy"]["enabled"], true);
    harness.finish().await;
}
