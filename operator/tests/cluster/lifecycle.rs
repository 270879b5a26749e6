//! Shops among others: two in one namespace, many in one cluster, names of every length, and a namespace that goes.

use k8s_openapi::{
    NamespaceResourceScope,
    api::{
        apps::v1::Deployment,
        core::v1::{ConfigMap, Secret, Service, ServiceAccount},
        networking::v1::{Ingress, NetworkPolicy},
        policy::v1::PodDisruptionBudget,
    },
};
use kube::{
    Resource, ResourceExt,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams},
};
use serde::de::DeserializeOwned;
use serde_json::json;
use shop_operator::crd::ShopDeployment;

use crate::{
    harness::Harness,
    kubelet::{nowhere, ready},
    queue::Sqs,
    sharing::Elsewhere,
};

/// Kind, name and version of the objects of one shop; of Deployments the generation, as their status is another's.
async fn objects(harness: &Harness, shop: &str) -> Vec<String> {
    let mut found = Vec::new();
    found.extend(of::<ServiceAccount>(harness, shop).await);
    found.extend(of::<ConfigMap>(harness, shop).await);
    found.extend(of::<Secret>(harness, shop).await);
    found.extend(of::<NetworkPolicy>(harness, shop).await);
    found.extend(of::<Deployment>(harness, shop).await);
    found.extend(of::<Service>(harness, shop).await);
    found.extend(of::<Ingress>(harness, shop).await);
    found.extend(of::<PodDisruptionBudget>(harness, shop).await);
    found
}

async fn of<K>(harness: &Harness, shop: &str) -> Vec<String>
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + DeserializeOwned + std::fmt::Debug,
{
    let labels = format!("app.kubernetes.io/managed-by=shop-operator,app.kubernetes.io/instance={shop}");
    let list = harness.api::<K>().list(&ListParams::default().labels(&labels)).await.unwrap();
    let version = |object: &K| match object.meta().generation {
        Some(generation) => generation.to_string(),
        None => object.resource_version().unwrap_or_default(),
    };
    list.iter().map(|object| format!("{} {} {}", K::kind(&()), object.name_any(), version(object))).collect()
}

/// Two of account, settings, policy, Deployment and budget, one of Service, Ingress and keys.
const OBJECTS: usize = 13;

#[tokio::test(flavor = "multi_thread")]
async fn two_shops_in_one_namespace_keep_apart() {
    let harness = Harness::with_operator().await;
    // One's name begins like the other's, and its objects' names could be the other's component's.
    for name in ["demo", "demo-api"] {
        harness.apply(name, nowhere(json!({}))).await;
    }
    for name in ["demo", "demo-api"] {
        ready(&harness, name).await;
        assert_eq!(objects(&harness, name).await.len(), OBJECTS, "{:?}", objects(&harness, name).await);
    }
    let before = objects(&harness, "demo-api").await;
    harness.api::<ShopDeployment>().delete("demo", &DeleteParams::default()).await.unwrap();
    harness.eventually("the end of one", async || objects(&harness, "demo").await.is_empty().then_some(())).await;
    assert_eq!(objects(&harness, "demo-api").await, before);
    harness.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_has_the_label_or_the_owner_alone_is_not_pruned() {
    let harness = Harness::with_operator().await;
    let shop = harness.apply("demo", nowhere(json!({}))).await;
    ready(&harness, "demo").await;
    let owner = json!([{ "apiVersion": "shop.xhipment.io/v1alpha1", "kind": "ShopDeployment", "name": "demo", "uid": shop.uid() }]);
    let label = json!({ "app.kubernetes.io/managed-by": "shop-operator" });
    let create = async |name: &str, labels: &serde_json::Value, owners: &serde_json::Value| {
        let metadata = json!({ "name": name, "labels": labels, "ownerReferences": owners });
        let object = serde_json::from_value(json!({ "metadata": metadata })).unwrap();
        harness.api::<ConfigMap>().create(&PostParams::default(), &object).await.unwrap();
    };
    create("labelled", &label, &json!([])).await;
    create("owned", &json!({}), &owner).await;
    create("stale", &label, &owner).await;
    let there = async |name: &str| harness.api::<ConfigMap>().get_opt(name).await.unwrap().is_some();
    harness.eventually("the stale one's end", async || (!there("stale").await).then_some(())).await;
    assert!(there("labelled").await && there("owned").await);
    harness.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn names_of_every_length_make_valid_objects() {
    let harness = Harness::with_operator().await;
    for name in ["x".to_owned(), "y".repeat(40)] {
        harness.apply(&name, nowhere(json!({ "queue": { "name": "q".repeat(75 + name.len().min(2) - 1) } }))).await;
        // Ready takes pods, whose names and labels are made from these.
        ready(&harness, &name).await;
        assert_eq!(objects(&harness, &name).await.len(), OBJECTS);
    }
    harness.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_namespace_that_goes_takes_its_shops_in_peace() {
    let mut harness = Harness::new().await;
    let operator = harness.start_operator_with("everywhere", &[]);
    let elsewhere = Elsewhere::new(&harness).await;
    elsewhere.apply("demo", json!({})).await;
    elsewhere.condition("demo", "Progressing", "RolloutInProgress").await;
    let namespaces = Elsewhere::namespaces(&harness);
    namespaces.delete(&elsewhere.name, &DeleteParams::default()).await.unwrap();
    harness
        .eventually("the end of the namespace", async || {
            namespaces.get_opt(&elsewhere.name).await.unwrap().is_none().then_some(())
        })
        .await;
    assert_eq!(harness.counted(operator, "shop_operator_reconciles_total{outcome=\"failed\"}"), 0);
    let mut failed = harness.metrics(operator, "shop_operator_writes_total{");
    // The status of a shop that is gone by then may have been written once more.
    failed.retain(|line| line.contains("failed") && !line.contains("ShopDeployment"));
    let tries: u64 = failed.iter().map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()).sum();
    // What the first refusal teaches is not asked again.
    assert!(tries <= 1, "writes into a namespace that goes: {failed:?}");
    harness.finish().await;
}

/// The credentials go with the namespace, and can never be made again there: a new operator says how the shop can go too.
#[tokio::test(flavor = "multi_thread")]
async fn a_namespace_that_goes_before_its_queue_can_be_let_go() {
    let (mut harness, sqs) = (Harness::new().await, Sqs::new().await);
    let operator = harness.start_operator_with("everywhere", &[]);
    let elsewhere = Elsewhere::new(&harness).await;
    elsewhere.apply("demo", sqs.spec(json!({}))).await;
    elsewhere.condition("demo", "QueueReadable", "Readable").await;
    let (shops, secrets) = (elsewhere.api::<ShopDeployment>(), elsewhere.api::<Secret>());
    let (namespaces, name) = (Elsewhere::namespaces(&harness), elsewhere.name);
    harness.stop_operator(operator).await;
    sqs.send(1).await;
    namespaces.delete(&name, &DeleteParams::default()).await.unwrap();
    let credentials = async || secrets.get_opt("aws").await.unwrap().is_none().then_some(());
    harness.eventually("the end of the credentials", credentials).await;

    harness.start_operator_with("another", &[]);
    let told = async || {
        let conditions = shops.get("demo").await.unwrap().status?.conditions;
        conditions.into_iter().find(|told| told.type_ == "Degraded" && told.reason == "QueueAccessDenied")
    };
    let message = harness.eventually("a shop that says what holds it", told).await.message;
    assert!(message.contains("Secret aws does not exist"), "{message}");
    assert!(message.contains("set spec.queue.deletionPolicy to Retain"), "{message}");
    let retain = json!({ "spec": { "queue": { "deletionPolicy": "Retain" } } });
    shops.patch("demo", &PatchParams::default(), &Patch::Merge(&retain)).await.unwrap();
    let gone = async || namespaces.get_opt(&name).await.unwrap().is_none().then_some(());
    harness.eventually("the end of the namespace", gone).await;
    assert!(sqs.url(&sqs.name).await.is_some(), "the queue has a message");
    sqs.clean().await;
    harness.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_shops_converge_and_then_nothing_is_written() {
    let mut harness = Harness::new().await;
    let operator = harness.start_operator("one");
    let count = if std::env::var_os("SHOP_TEST_LONG").is_some() { 100 } else { 10 };
    let names: Vec<_> = (0..count).map(|n| format!("shop-{n}")).collect();
    for name in &names {
        // Without pods: one node does not take so many.
        harness.apply(name, json!({ "suspended": true })).await;
    }
    for name in &names {
        harness.condition(name, "Ready", |status, reason| status == "False" && reason == "Suspended").await;
        harness.condition(name, "QueueReadable", |status, _| status == "False").await;
        assert_eq!(objects(&harness, name).await.len(), OBJECTS);
    }
    let writes = || harness.metrics(operator, "shop_operator_writes_total{");
    let settled = harness
        .eventually("rest", async || {
            let before = writes();
            tokio::time::sleep(std::time::Duration::from_secs(2)).await;
            (before == writes()).then_some(before)
        })
        .await;
    let passes = || harness.counted(operator, "shop_operator_reconciles_total{outcome=\"ok\"}");
    let before = passes();
    for name in &names {
        let touch = json!({ "metadata": { "annotations": { "test/touch": "1" } } });
        let params = kube::api::PatchParams::default();
        harness.api::<ShopDeployment>().patch(name, &params, &kube::api::Patch::Merge(&touch)).await.unwrap();
    }
    harness.eventually("a pass over each", async || (passes() >= before + count).then_some(())).await;
    assert_eq!(writes(), settled);
    harness.finish().await;
}
