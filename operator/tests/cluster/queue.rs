//! Managed queues, on a real API server and a real SQS (`SHOP_TEST_SQS_ENDPOINT`): made, repaired, read, scaled by, deleted.

use crate::{
    harness::{Harness, PATIENCE},
    stage::is_long,
};
use aws_sdk_sqs::{
    Client,
    types::{QueueAttributeName, SendMessageBatchRequestEntry},
};
use k8s_openapi::api::apps::v1::Deployment;
use kube::{
    ResourceExt,
    api::{DeleteParams, ListParams, Patch, PatchParams},
};
use rstest::rstest;
use serde_json::{Value, json};
use shop_operator::{crd::ShopDeployment, names, queue::RECHECK};
use shop_runtime::{
    aws::{self, Access, Service},
    ids::random_hex,
};

/// A queue's name of this test's own, on the real SQS.
pub struct Sqs {
    pub client: Client,
    pub endpoint: String,
    pub name: String,
}

impl Sqs {
    pub async fn new() -> Self {
        let help = "SHOP_TEST_SQS_ENDPOINT is not set: run `cargo xtask test operator`, which starts SQS";
        #[expect(clippy::disallowed_methods, reason = "tests take the servers' addresses from the environment")]
        let endpoint = std::env::var("SHOP_TEST_SQS_ENDPOINT").expect(help);
        shop_runtime::install_tls_provider();
        let service = Service { region: "ap-south-1".to_owned(), endpoint: Some(endpoint.clone()) };
        let key = || "test".to_owned().into();
        let client = aws::sqs_as(&service, &Access { key: Some((&key(), &key())), ..Access::default() }).await;
        Self { client, endpoint, name: format!("orders-{}", random_hex::<5>().unwrap()) }
    }

    /// Another queue of the same service.
    pub fn other(&self, name: &str) -> Self {
        Self { client: self.client.clone(), endpoint: self.endpoint.clone(), name: name.to_owned() }
    }

    /// The name of a FIFO queue.
    pub async fn fifo() -> Self {
        let sqs = Self::new().await;
        Self { name: format!("{}.fifo", sqs.name), ..sqs }
    }

    /// A shop's spec with a Managed queue here.
    pub fn spec(&self, patch: Value) -> Value {
        let mut spec = json!({
            "queue": { "name": self.name, "endpoint": self.endpoint, "management": "Managed", "deletionPolicy": "Delete" },
        });
        if let (Value::Object(spec), Value::Object(patch)) = (&mut spec, patch) {
            spec.extend(patch);
        }
        spec
    }

    pub async fn url(&self, name: &str) -> Option<String> {
        self.client.get_queue_url().queue_name(name).send().await.ok()?.queue_url
    }

    pub async fn attribute(&self, name: &str, attribute: QueueAttributeName) -> Option<String> {
        let url = self.url(name).await?;
        let request = self.client.get_queue_attributes().queue_url(url).attribute_names(QueueAttributeName::All);
        request.send().await.unwrap().attributes.unwrap_or_default().remove(&attribute)
    }

    /// Whose the queue is said to be.
    pub async fn tag(&self, name: &str) -> Option<String> {
        let tags = self.client.list_queue_tags().queue_url(self.url(name).await?).send().await.unwrap();
        tags.tags.unwrap_or_default().remove(names::QUEUE_TAG)
    }

    pub async fn send(&self, count: usize) {
        let url = self.url(&self.name).await.unwrap();
        for batch in 0..count.div_ceil(10) {
            let entries = (0..10.min(count - batch * 10))
                .map(|n| SendMessageBatchRequestEntry::builder().id(n.to_string()).message_body("{}").build().unwrap());
            let request = self.client.send_message_batch().queue_url(&url).set_entries(Some(entries.collect()));
            request.send().await.unwrap();
        }
    }

    async fn purge(&self) {
        let url = self.url(&self.name).await.unwrap();
        self.client.purge_queue().queue_url(url).send().await.unwrap();
    }

    pub async fn clean(&self) {
        for name in [self.name.clone(), names::dead_letter_queue(&self.name)] {
            if let Some(url) = self.url(&name).await {
                self.client.delete_queue().queue_url(url).send().await.unwrap();
            }
        }
    }
}

pub async fn with_operator() -> (Harness, Sqs) {
    let (mut harness, sqs) = (Harness::new().await, Sqs::new().await);
    harness.start_operator("one");
    (harness, sqs)
}

pub async fn readable(harness: &Harness) {
    harness.condition("demo", "QueueReadable", |status, _| status == "True").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_managed_queue_is_made_with_its_dead_letter_queue_and_repaired() {
    let (harness, sqs) = with_operator().await;
    harness.apply("demo", sqs.spec(json!({}))).await;
    readable(&harness).await;
    assert_eq!(sqs.attribute(&sqs.name, QueueAttributeName::VisibilityTimeout).await.as_deref(), Some("60"));
    let redrive = sqs.attribute(&sqs.name, QueueAttributeName::RedrivePolicy).await.unwrap();
    assert!(redrive.contains(&format!("{}-dlq", sqs.name)) && redrive.contains("10"), "{redrive}");
    let tag = Some(format!("{}/demo", harness.namespace));
    for name in [sqs.name.clone(), format!("{}-dlq", sqs.name)] {
        assert_eq!(sqs.tag(&name).await, tag, "{name}");
    }
    let status = harness.shop("demo").await.status.unwrap();
    assert!(status.queue.unwrap().dead_letter_url.unwrap().ends_with(&format!("{}-dlq", sqs.name)));

    let drift = async || {
        let url = sqs.url(&sqs.name).await.unwrap();
        let drift = sqs.client.set_queue_attributes().queue_url(url);
        drift.attributes(QueueAttributeName::VisibilityTimeout, "5").send().await.unwrap();
    };
    let repaired = async |patience| {
        harness
            .within(patience, "repaired attributes", async || {
                let visibility = sqs.attribute(&sqs.name, QueueAttributeName::VisibilityTimeout).await?;
                let redrive = sqs.attribute(&sqs.name, QueueAttributeName::RedrivePolicy).await?;
                (visibility == "60" && redrive.contains('4')).then_some(())
            })
            .await;
    };
    drift().await;
    let mut spec = sqs.spec(json!({}));
    spec["queue"]["deadLetter"] = json!({ "maxReceiveCount": 4 });
    harness.apply("demo", spec).await;
    repaired(PATIENCE).await;
    if is_long() {
        // Nobody tells of it: the next look finds it.
        drift().await;
        repaired(RECHECK + PATIENCE).await;
    }
    harness.finish().await;
    sqs.clean().await;
}

/// A stop between the two leaves this behind.
#[tokio::test(flavor = "multi_thread")]
async fn a_queue_of_which_only_the_dead_letter_queue_was_made_is_finished() {
    let (harness, sqs) = with_operator().await;
    let dead = sqs.client.create_queue().queue_name(format!("{}-dlq", sqs.name));
    dead.tags(names::QUEUE_TAG, format!("{}/demo", harness.namespace)).send().await.unwrap();
    harness.apply("demo", sqs.spec(json!({}))).await;
    readable(&harness).await;
    assert!(sqs.attribute(&sqs.name, QueueAttributeName::RedrivePolicy).await.unwrap().contains("-dlq"));
    harness.finish().await;
    sqs.clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_queue_of_a_paused_shop_is_only_watched() {
    let (harness, sqs) = with_operator().await;
    harness.apply("demo", sqs.spec(json!({}))).await;
    readable(&harness).await;
    let count = async |paused: bool, count: u32| {
        let mut spec = sqs.spec(json!({ "paused": paused }));
        spec["queue"]["deadLetter"] = json!({ "maxReceiveCount": count });
        harness.apply("demo", spec).await;
    };
    let policy = async || sqs.attribute(&sqs.name, QueueAttributeName::RedrivePolicy).await.unwrap();
    let before = policy().await;
    count(true, 4).await;
    harness.condition("demo", "Paused", |status, _| status == "True").await;
    assert_eq!(policy().await, before);
    count(false, 4).await;
    harness.eventually("the new policy", async || (policy().await != before).then_some(())).await;
    harness.finish().await;
    sqs.clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_queue_comes_back() {
    let (harness, sqs) = with_operator().await;
    harness.apply("demo", sqs.spec(json!({}))).await;
    readable(&harness).await;
    sqs.clean().await;
    harness.eventually("the queue again", async || sqs.url(&sqs.name).await).await;
    readable(&harness).await;
    harness.finish().await;
    sqs.clean().await;
}

#[rstest]
#[case::of_nobody(None, "carries no tag")]
#[case::of_another_shop(Some("other/shop"), "belongs to shop other/shop")]
#[tokio::test(flavor = "multi_thread")]
async fn a_queue_without_the_shops_tag_is_refused_and_left_alone(#[case] tag: Option<&str>, #[case] named: &str) {
    let (harness, sqs) = with_operator().await;
    let tags = tag.map(|tag| [(names::QUEUE_TAG.to_owned(), tag.to_owned())].into());
    sqs.client.create_queue().queue_name(&sqs.name).set_tags(tags).send().await.unwrap();
    let before = sqs.attribute(&sqs.name, QueueAttributeName::VisibilityTimeout).await;
    harness.apply("demo", sqs.spec(json!({ "queue": {
        "name": sqs.name, "endpoint": sqs.endpoint, "management": "Managed", "deletionPolicy": "Delete", "visibilityTimeoutSeconds": 77,
    } }))).await;
    let message = harness
        .condition("demo", "QueueReadable", |status, reason| status == "False" && reason == "QueueNotOwned")
        .await;
    assert!(message.contains(named), "{message}");
    harness.condition("demo", "Ready", |status, reason| status == "False" && reason == "QueueNotOwned").await;
    let pods = harness.api::<Deployment>().list(&ListParams::default()).await.unwrap();
    assert!(pods.items.is_empty(), "another one's queue is worked on");
    assert_eq!(sqs.attribute(&sqs.name, QueueAttributeName::VisibilityTimeout).await, before);
    harness.api::<ShopDeployment>().delete("demo", &DeleteParams::default()).await.unwrap();
    gone(&harness).await;
    assert!(sqs.url(&sqs.name).await.is_some(), "another one's queue was deleted");
    harness.finish().await;
    sqs.clean().await;
}

async fn gone(harness: &Harness) {
    let shops = harness.api::<ShopDeployment>();
    harness.eventually("the shop's end", async || shops.get_opt("demo").await.unwrap().is_none().then_some(())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_queue_goes_with_its_shop() {
    let (harness, sqs) = with_operator().await;
    let shop = harness.apply("demo", sqs.spec(json!({}))).await;
    readable(&harness).await;
    assert_eq!(harness.shop("demo").await.finalizers(), ["shop.xhipment.io/queue"]);
    assert!(shop.finalizers().is_empty());
    // As a restored backup has it: the finalizer is another manager's too, and there is a second one.
    let finalizers = json!(["shop.xhipment.io/queue", "test/kept"]);
    let restored = json!({
        "apiVersion": "shop.xhipment.io/v1alpha1",
        "kind": "ShopDeployment",
        "metadata": { "name": "demo", "finalizers": finalizers },
    });
    let shops = harness.api::<ShopDeployment>();
    shops.patch("demo", &PatchParams::apply("backup").force(), &Patch::Apply(&restored)).await.unwrap();
    shops.delete("demo", &DeleteParams::default()).await.unwrap();
    harness
        .eventually("the operator's own finalizer alone to go", async || {
            (harness.shop("demo").await.finalizers() == ["test/kept"]).then_some(())
        })
        .await;
    let none = json!({ "metadata": { "finalizers": null } });
    shops.patch("demo", &PatchParams::default(), &Patch::Merge(&none)).await.unwrap();
    gone(&harness).await;
    assert_eq!((sqs.url(&sqs.name).await, sqs.url(&format!("{}-dlq", sqs.name)).await), (None, None));
    harness
        .eventually("no Deployments", async || {
            let left = harness.api::<Deployment>().list(&ListParams::default()).await.unwrap();
            left.items.is_empty().then_some(())
        })
        .await;
    harness.finish().await;
}

/// Messages that wait, that are delayed for so many seconds, that are in somebody's hands, that were given up.
#[rstest]
#[case::waiting("", 0, false)]
#[case::delayed("", 600, false)]
#[case::in_hand("", 0, true)]
#[case::dead("-dlq", 0, false)]
#[tokio::test(flavor = "multi_thread")]
async fn a_queue_with_messages_is_never_deleted(#[case] which: &str, #[case] delay: i32, #[case] in_hand: bool) {
    let (harness, sqs) = with_operator().await;
    // No workers: nobody takes the messages.
    harness.apply("demo", sqs.spec(json!({ "suspended": true }))).await;
    readable(&harness).await;
    let holds = sqs.other(&format!("{}{which}", sqs.name));
    let url = holds.url(&holds.name).await.unwrap();
    for _ in 0..3 {
        holds.client.send_message().queue_url(&url).message_body("{}").delay_seconds(delay).send().await.unwrap();
    }
    if in_hand {
        let all = holds.client.receive_message().queue_url(&url).max_number_of_messages(10).visibility_timeout(600);
        assert_eq!(all.send().await.unwrap().messages.unwrap().len(), 3);
    }
    harness.api::<ShopDeployment>().delete("demo", &DeleteParams::default()).await.unwrap();
    let message =
        harness.condition("demo", "Degraded", |status, reason| status == "True" && reason == "QueueNotEmpty").await;
    let expected = format!("queue {} holds 3 messages", holds.name);
    assert!(message.contains(&expected) && message.contains("deletionPolicy to Retain"), "{message}");
    assert!(sqs.url(&sqs.name).await.is_some() && holds.url(&holds.name).await.is_some());
    holds.purge().await;
    gone(&harness).await;
    assert_eq!(sqs.url(&sqs.name).await, None);
    harness.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_of_somebody_else_that_is_not_there_is_named() {
    let (harness, sqs) = with_operator().await;
    harness.apply("demo", json!({ "queue": { "name": sqs.name, "endpoint": sqs.endpoint } })).await;
    let missing = |status: &str, reason: &str| status == "False" && reason == "QueueMissing";
    let message = harness.condition("demo", "QueueReadable", missing).await;
    assert!(message.contains(&sqs.name), "{message}");
    assert_eq!(sqs.url(&sqs.name).await, None, "it is not the operator's to make");
    harness.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn retain_lets_a_shop_go_and_leaves_its_queue() {
    let (harness, sqs) = with_operator().await;
    harness.apply("demo", sqs.spec(json!({ "suspended": true }))).await;
    readable(&harness).await;
    sqs.send(1).await;
    let shops = harness.api::<ShopDeployment>();
    shops.delete("demo", &DeleteParams::default()).await.unwrap();
    harness.condition("demo", "Degraded", |status, reason| status == "True" && reason == "QueueNotEmpty").await;
    let retain = json!({ "spec": { "queue": { "deletionPolicy": "Retain" } } });
    shops.patch("demo", &PatchParams::default(), &Patch::Merge(&retain)).await.unwrap();
    gone(&harness).await;
    assert!(sqs.url(&sqs.name).await.is_some());
    harness.finish().await;
    sqs.clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backlog_brings_workers() {
    let (harness, sqs) = with_operator().await;
    let worker = json!({ "concurrency": 2, "autoscaling": { "max": 6, "targetWaitSeconds": 20, "expectedSecondsPerMessage": 0.5 } });
    harness.apply("demo", sqs.spec(json!({ "worker": worker }))).await;
    readable(&harness).await;
    let before = harness.exists::<Deployment>("demo-worker").await;
    assert_eq!(before.spec.replicas, Some(1));
    sqs.send(400).await;
    let started = std::time::Instant::now();
    let replicas = async || harness.exists::<Deployment>("demo-worker").await.spec.replicas;
    harness.eventually("six workers", async || (replicas().await == Some(6)).then_some(())).await;
    assert!(started.elapsed().as_secs() <= 5, "took {:?}", started.elapsed());
    let explained = harness
        .eventually("an explanation", async || {
            let scaling = harness.shop("demo").await.status?.autoscaling?;
            (scaling.desired == 6).then_some(scaling)
        })
        .await;
    assert!(explained.explain.contains("capped by max 6"), "{}", explained.explain);
    harness.condition("demo", "ScalingLimited", |status, reason| status == "True" && reason == "MaxReached").await;
    let worker = harness.exists::<Deployment>("demo-worker").await;
    assert!(worker.managed_fields().iter().any(|entry| entry.manager.as_deref() == Some("shop-scaler")));
    harness.finish().await;
    sqs.clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shop_that_is_going_is_scaled_by_a_new_operator_too() {
    let (mut harness, sqs) = with_operator().await;
    let worker = json!({ "concurrency": 2, "autoscaling": { "max": 3, "targetWaitSeconds": 20, "expectedSecondsPerMessage": 0.5 } });
    harness.apply("demo", sqs.spec(json!({ "worker": worker }))).await;
    readable(&harness).await;
    harness.stop_operator(0).await;
    sqs.send(400).await;
    harness.api::<ShopDeployment>().delete("demo", &DeleteParams::default()).await.unwrap();
    harness.start_operator("two");
    let replicas = async || harness.exists::<Deployment>("demo-worker").await.spec.replicas;
    harness.eventually("three workers", async || (replicas().await == Some(3)).then_some(())).await;
    sqs.purge().await;
    gone(&harness).await;
    harness.finish().await;
}
