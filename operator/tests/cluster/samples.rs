//! The samples of dev/sample, applied to a real API server with its operator: what each of them makes.

use crate::{harness::Harness, queue::Sqs};
use aws_sdk_sqs::types::{QueueAttributeName, SendMessageBatchRequestEntry};
use k8s_openapi::api::{
    apps::v1::Deployment,
    core::v1::{ConfigMap, ServiceAccount},
    networking::v1::{Ingress, NetworkPolicy},
};
use kube::api::{ListParams, Patch, PatchParams};
use serde_json::{Value, json};
use shop_operator::{crd::ShopDeploymentSpec, validate::needed_secrets};

/// Applies a sample as it is checked in, but for its namespace and the address of its queue, with the Secrets it names.
async fn apply(harness: &Harness, sample: &str, queue: Value) -> Value {
    let path = format!("{}/../dev/sample/{sample}.yaml", env!("CARGO_MANIFEST_DIR"));
    let mut manifest: Value = serde_yaml::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let as_written: ShopDeploymentSpec = serde_json::from_value(manifest["spec"].clone()).unwrap();
    for (_, name, keys) in needed_secrets(&as_written) {
        let data: Vec<_> = keys.iter().map(|key| (key.as_str(), "x")).collect();
        harness.secret(&name, &data).await;
    }
    let meta =
        json!({ "namespace": harness.namespace, "labels": { "shop.xhipment.io/operator-class": harness.namespace } });
    manifest["metadata"].as_object_mut().unwrap().extend(meta.as_object().unwrap().clone());
    manifest["spec"]["queue"].as_object_mut().unwrap().extend(queue.as_object().unwrap().clone());
    let params = PatchParams::apply("test").validation_strict();
    let applied =
        harness.api::<shop_operator::crd::ShopDeployment>().patch("store", &params, &Patch::Apply(&manifest)).await;
    applied.unwrap_or_else(|error| panic!("{sample} is refused: {error}"));
    harness.condition("store", "ConfigValid", |status, _| status == "True").await;
    manifest
}

/// Nobody listens there: what is about pods needs no queue.
fn nowhere() -> Value {
    json!({ "endpoint": "http://127.0.0.1:1" })
}

async fn replicas(harness: &Harness) -> (Option<i32>, Option<i32>) {
    let api = harness.exists::<Deployment>("store-api").await.spec.replicas;
    (api, harness.exists::<Deployment>("store-worker").await.spec.replicas)
}

#[tokio::test(flavor = "multi_thread")]
async fn minimal() {
    let harness = Harness::with_operator().await;
    apply(&harness, "minimal", nowhere()).await;
    harness.condition("store", "Progressing", |status, _| status == "True").await;
    assert_eq!(replicas(&harness).await, (Some(1), Some(1)));
    assert!(harness.api::<Ingress>().list(&ListParams::default()).await.unwrap().items.is_empty());
    let settings = harness.exists::<ConfigMap>("store-worker").await.data.unwrap();
    assert_eq!(settings["SHOP_SQS_QUEUE_NAME"], "store-orders");
    harness.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn production_on_aws() {
    let harness = Harness::with_operator().await;
    let sample = apply(&harness, "production-aws", nowhere()).await;
    harness.condition("store", "Progressing", |status, _| status == "True").await;
    for name in ["store-api", "store-worker"] {
        let annotations = harness.exists::<ServiceAccount>(name).await.metadata.annotations.unwrap();
        let wanted = &sample["spec"]["aws"]["serviceAccountAnnotations"]["eks.amazonaws.com/role-arn"];
        assert_eq!(json!(annotations["eks.amazonaws.com/role-arn"]), *wanted);
        let pod = harness.exists::<Deployment>(name).await.spec.template.spec.unwrap();
        let spread = pod.topology_spread_constraints.unwrap();
        assert_eq!(spread[0].topology_key, "topology.kubernetes.io/zone");
        let env = pod.containers[0].env.as_ref().unwrap();
        assert!(env.iter().all(|env| !env.name.starts_with("AWS_")), "workload identity has no keys");
    }
    assert_eq!(replicas(&harness).await, (Some(3), Some(2)));
    let ingress = harness.exists::<Ingress>("store-api").await.spec.unwrap();
    let tls = &ingress.tls.unwrap()[0];
    assert_eq!(
        (tls.secret_name.as_deref(), tls.hosts.as_deref()),
        (Some("store-tls"), Some(["store.example.com".to_owned()].as_slice()))
    );
    let settings = harness.exists::<ConfigMap>("store-api").await.data.unwrap();
    assert_eq!(json!(settings["SHOP_SQS_QUEUE_URL"]), sample["spec"]["queue"]["url"]);
    assert_eq!(settings["OTEL_TRACES_SAMPLER_ARG"], "0.05");
    let policy = serde_json::to_value(harness.exists::<NetworkPolicy>("store-api").await).unwrap();
    assert!(policy.to_string().contains("ingress-nginx"), "{policy}");
    harness.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn fifo() {
    let (mut harness, sqs) = (Harness::new().await, Sqs::fifo().await);
    harness.start_operator("one");
    apply(&harness, "fifo", json!({ "name": sqs.name, "endpoint": sqs.endpoint })).await;
    harness.condition("store", "QueueReadable", |status, _| status == "True").await;
    let dead = sqs.name.replace(".fifo", "-dlq.fifo");
    for (queue, attribute, wanted) in [
        (&sqs.name, QueueAttributeName::FifoQueue, "true"),
        (&sqs.name, QueueAttributeName::ContentBasedDeduplication, "false"),
        (&sqs.name, QueueAttributeName::VisibilityTimeout, "60"),
        (&dead, QueueAttributeName::FifoQueue, "true"),
    ] {
        assert_eq!(sqs.attribute(queue, attribute.clone()).await.as_deref(), Some(wanted), "{queue} {attribute:?}");
    }
    let redrive = sqs.attribute(&sqs.name, QueueAttributeName::RedrivePolicy).await.unwrap();
    assert!(redrive.contains(&dead), "{redrive}");
    let status = harness.shop("store").await.status.unwrap().queue.unwrap();
    assert!(status.url.ends_with(&sqs.name) && status.dead_letter_url.unwrap().ends_with(&dead));
    two_orders_with_one_content(&sqs).await;
    harness.finish().await;
    sqs.clean().await;
}

/// As the api sends: a group for each order, and an id for each message, so that what looks alike is not dropped.
async fn two_orders_with_one_content(sqs: &Sqs) {
    let url = sqs.url(&sqs.name).await.unwrap();
    let entry = |id: &str| {
        let entry = SendMessageBatchRequestEntry::builder().id(id).message_body("{}");
        entry.message_group_id("order").message_deduplication_id(id).build().unwrap()
    };
    let sent =
        sqs.client.send_message_batch().queue_url(&url).entries(entry("a")).entries(entry("b")).send().await.unwrap();
    assert_eq!((sent.successful().len(), sent.failed().len()), (2, 0), "{sent:?}");
    let count = sqs.attribute(&sqs.name, QueueAttributeName::ApproximateNumberOfMessages).await;
    assert_eq!(count.as_deref(), Some("2"));
}

#[tokio::test(flavor = "multi_thread")]
async fn suspended() {
    let harness = Harness::with_operator().await;
    apply(&harness, "suspended", nowhere()).await;
    harness.condition("store", "Ready", |status, reason| status == "False" && reason == "Suspended").await;
    assert_eq!(replicas(&harness).await, (Some(0), Some(0)));
    harness.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn scale_to_zero() {
    let (mut harness, sqs) = (Harness::new().await, Sqs::new().await);
    harness.start_operator("one");
    apply(&harness, "scale-to-zero", json!({ "name": sqs.name, "endpoint": sqs.endpoint })).await;
    harness.condition("store", "WorkerAvailable", |status, reason| status == "True" && reason == "ScaledToZero").await;
    assert_eq!(replicas(&harness).await.1, Some(0));
    harness.condition("store", "QueueReadable", |status, _| status == "True").await;
    sqs.send(1).await;
    harness.eventually("a worker", async || (replicas(&harness).await.1 == Some(1)).then_some(())).await;
    harness.finish().await;
    sqs.clean().await;
}
