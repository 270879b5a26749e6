//! A queue belongs to one shop: in any namespace, by name or by URL; and a Managed queue to the shop whose tag it has.

use aws_sdk_sqs::types::QueueAttributeName;
use k8s_openapi::api::{
    apps::v1::Deployment,
    core::v1::{Namespace, Secret},
};
use kube::{
    Api,
    api::{DeleteParams, Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};
use shop_operator::crd::ShopDeployment;

use crate::{
    harness::Harness,
    queue::{Sqs, readable, with_operator},
};

/// A second namespace with the Secrets that a shop needs, removed with [`Elsewhere::finish`].
pub struct Elsewhere<'a> {
    harness: &'a Harness,
    pub name: String,
}

impl<'a> Elsewhere<'a> {
    pub async fn new(harness: &'a Harness) -> Self {
        let name = format!("{}-b", harness.namespace);
        let object = json!({ "metadata": { "name": name, "labels": { "shop.xhipment.io/test": "true" } } });
        Self::namespaces(harness)
            .create(&PostParams::default(), &serde_json::from_value(object).unwrap())
            .await
            .unwrap();
        let elsewhere = Self { harness, name };
        for (name, data) in
            [("mongodb", json!({ "uri": "x" })), ("aws", json!({ "accessKeyId": "x", "secretAccessKey": "x" }))]
        {
            let secret = serde_json::from_value(json!({ "metadata": { "name": name }, "stringData": data })).unwrap();
            elsewhere.api::<Secret>().create(&PostParams::default(), &secret).await.unwrap();
        }
        elsewhere
    }

    pub fn namespaces(harness: &Harness) -> Api<Namespace> {
        Api::all(harness.client.clone())
    }

    pub fn api<K>(&self) -> Api<K>
    where
        K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>,
    {
        Api::namespaced(self.harness.client.clone(), &self.name)
    }

    pub async fn apply(&self, name: &str, patch: Value) -> ShopDeployment {
        let mut manifest = self.harness.manifest(name, patch);
        manifest["metadata"]["namespace"] = json!(self.name);
        self.api().patch(name, &PatchParams::apply("test").force(), &Patch::Apply(&manifest)).await.unwrap()
    }

    /// Waits for a condition of a shop here; gives its message.
    pub async fn condition(&self, name: &str, kind: &str, reason: &str) -> String {
        self.harness
            .eventually(&format!("{kind} {reason} of {name} in {}", self.name), async || {
                let shop: ShopDeployment = self.api().get(name).await.unwrap();
                let conditions = shop.status.unwrap_or_default().conditions;
                conditions.into_iter().find(|c| c.type_ == kind && c.reason == reason).map(|c| c.message)
            })
            .await
    }

    pub async fn finish(self) {
        Self::namespaces(self.harness).delete(&self.name, &DeleteParams::default()).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_later_shop_on_a_queue_is_refused_in_any_namespace_and_by_any_name() {
    let mut harness = Harness::new().await;
    harness.start_operator_with("everywhere", &[]);
    let elsewhere = Elsewhere::new(&harness).await;
    harness.apply("first", json!({ "queue": { "name": "shared" } })).await;
    harness.exists::<Deployment>("first-api").await;
    // Ages are whole seconds: within one, the uid decides.
    let born = harness.shop("first").await.metadata.creation_timestamp.unwrap().0;
    let second = || shop_runtime::clock::Clock::system().now().as_second();
    harness.eventually("another second", async || (second() > born.as_second() + 1).then_some(())).await;

    let url = json!({ "queue": { "name": null, "url": "http://127.0.0.1:1/000000000000/shared", "endpoint": null } });
    elsewhere.apply("second", url).await;
    let message = elsewhere.condition("second", "ConfigValid", "QueueInUse").await;
    assert!(message.contains(&format!("older shop {}/first", harness.namespace)), "{message}");
    elsewhere.condition("second", "Ready", "QueueInUse").await;
    assert!(
        elsewhere.api::<Deployment>().get_opt("second-worker").await.unwrap().is_none(),
        "it works on another's queue"
    );
    harness.condition("first", "ConfigValid", |status, _| status == "True").await;

    harness.api::<ShopDeployment>().delete("first", &DeleteParams::default()).await.unwrap();
    elsewhere.condition("second", "ConfigValid", "Valid").await;
    elsewhere.finish().await;
    harness.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_with_the_shops_own_tag_is_adopted_and_drift_is_repaired_without_a_change_of_the_spec() {
    let (mut harness, sqs) = with_operator().await;
    let owner = format!("{}/demo", harness.namespace);
    for name in [sqs.name.clone(), format!("{}-dlq", sqs.name)] {
        sqs.client.create_queue().queue_name(name).tags("shop.xhipment.io/shop", &owner).send().await.unwrap();
    }
    harness.apply("demo", sqs.spec(json!({ "suspended": true }))).await;
    readable(&harness).await;
    repaired(&harness, &sqs).await;
    let tags =
        sqs.client.list_queue_tags().queue_url(sqs.url(&sqs.name).await.unwrap()).send().await.unwrap().tags.unwrap();
    assert_eq!(tags["shop.xhipment.io/shop"], owner);

    harness.stop_operator(0).await;
    let url = sqs.url(&sqs.name).await.unwrap();
    let drift = sqs.client.set_queue_attributes().queue_url(url).attributes(QueueAttributeName::VisibilityTimeout, "5");
    drift.send().await.unwrap();
    harness.start_operator("two");
    repaired(&harness, &sqs).await;
    harness.finish().await;
    sqs.clean().await;
}

async fn repaired(harness: &Harness, sqs: &Sqs) {
    harness
        .eventually("repaired attributes", async || {
            let visibility = sqs.attribute(&sqs.name, QueueAttributeName::VisibilityTimeout).await?;
            let redrive = sqs.attribute(&sqs.name, QueueAttributeName::RedrivePolicy).await?;
            (visibility == "60" && redrive.contains("10")).then_some(())
        })
        .await;
}
