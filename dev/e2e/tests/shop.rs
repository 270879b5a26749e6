//! What a shop does on a whole cluster: orders through the ingress, queue, stock, mail, and the operator's care.
//! Every test has a shop of its own.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::{
    apps::v1::Deployment,
    core::v1::{ConfigMap, Pod, Secret, Service, ServiceAccount},
    networking::v1::{Ingress, NetworkPolicy},
    policy::v1::PodDisruptionBudget,
};
use kube::{
    Api, Resource, ResourceExt,
    api::{DeleteParams, ListParams, Patch, PatchParams},
};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use shop_bench::{
    burst::{self, Burst},
    client::Answer,
};
use shop_e2e::{DOCUMENTED, LOCATION, PATIENCE, Tested, in_namespace, with_shop};
use shop_operator::crd::ShopDeployment;

fn as_sample(_: &mut Value) {}

/// The original's documented example, verbatim.
const DOCUMENTED_ORDER: &str = r#"{
  "location": "bangalore",
  "totalAmount": 4324,
  "items": [
    { "productId": "67c8830b7ef1b848ac52ebec", "quantity": 1 },
    { "productId": "67c8830b7ef1b848ac52ebee", "quantity": 2 }
  ]
}"#;

#[test]
fn the_documented_order_is_processed_and_mailed() {
    with_shop(10, as_sample, documented_order);
}

#[test]
fn the_documented_order_goes_through_a_fifo_queue() {
    let fifo = |shop: &mut Value| {
        let name = format!("{}.fifo", shop["spec"]["queue"]["name"].as_str().unwrap_or_default());
        merge(&mut shop["spec"], json!({ "queue": { "name": name, "fifo": true } }));
    };
    with_shop(10, fifo, documented_order);
}

#[test]
fn the_documented_order_goes_through_servers_of_a_private_ca() {
    in_namespace(|tested| async move {
        let (_front, spec) = tested.servers_behind_tls().await?;
        tested.create_shop(|shop| merge(&mut shop["spec"], spec)).await?;
        tested.ready().await?;
        tested.seed(10).await?;
        documented_order(tested).await
    });
}

/// From the order to the mail, with a stock of 10.
async fn documented_order(tested: Arc<Tested>) -> Result<()> {
    let buyer = tested.customer("asha").await?;
    let answer = tested.shop.order(&buyer, &serde_json::from_str(DOCUMENTED_ORDER)?).await?;
    let Answer::Accepted { order_id } = answer else { anyhow::bail!("refused: {answer:?}") };

    let order = tested
        .eventually("the order is not Processed", || async {
            let order = tested.shop.read_order(&buyer, &order_id).await?;
            Ok((order["status"] == "Processed").then_some(order))
        })
        .await?;
    ensure!(order["totalAmount"] == json!(4324) && order["currency"] == "INR", "{order}");
    for ((id, _), left) in DOCUMENTED.iter().zip([9, 8]) {
        tested
            .eventually("the stock is not down by what was bought", || async {
                Ok((tested.shop.product(id).await?.available_at(LOCATION) == left).then_some(()))
            })
            .await?;
    }
    let address = tested.address("asha");
    let mails = tested
        .eventually("no mail came", || async {
            let mails = tested.mails_to(&address).await?;
            Ok((!mails.is_empty()).then_some(mails))
        })
        .await?;
    ensure!(mails.len() == 1 && mails[0].to_string().contains(&order_id), "{mails:?}");

    let stranger = tested.customer("bela").await?;
    let path = format!("/api/v1/orders/{order_id}");
    let answer = tested.shop.request(Method::GET, &path, Some(&stranger)).send().await?;
    ensure!(answer.status() == StatusCode::NOT_FOUND, "a stranger got {}", answer.status());
    Ok(())
}

#[test]
fn workers_grow_with_the_backlog_and_shrink_without_a_redelivery() {
    let quick = |shop: &mut Value| {
        shop["spec"]["worker"]["autoscaling"]["scaleDown"] = json!({"windowSeconds": 10, "maxPercent": 100});
        shop["spec"]["worker"]["autoscaling"]["max"] = json!(3);
        shop["spec"]["worker"]["autoscaling"]["targetWaitSeconds"] = json!(10);
    };
    with_shop(250, quick, |tested| async move {
        let view = tested.view().await?;
        let buyers = burst::buyers(&tested.shop, 2, "correct horse").await?;
        let burst = Burst { orders: 150, concurrency: 16, location: LOCATION.to_owned(), seed: 1 };
        let placed = burst::place(&tested.shop, &buyers, &burst, |_| {}).await?;
        ensure!(placed.accepted.len() == burst.orders, "not all were accepted: {placed:?}");

        view.watch_until(PATIENCE, |_| {}, |moment| moment.workers_ready >= 2).await.context("no growth")?;
        let rest = Duration::from_mins(3);
        let after = view
            .watch_until(
                rest,
                |_| {},
                |now| {
                    now.orders("Pending") == 0
                        && now.backlog == 0
                        && now.workers_ready == 1
                        && now.books.mails_waiting == 0
                },
            )
            .await?;
        let decided = after.orders("Processed") + after.orders("Failed");
        ensure!(decided == placed.accepted.len() as u64, "{decided} of {} decided", placed.accepted.len());
        ensure!(after.books.faults().is_empty(), "{:?}", after.books.faults());
        ensure!(after.books.redelivered == 0, "{} messages were redelivered", after.books.redelivered);
        Ok(())
    });
}

#[test]
fn a_crowd_of_new_customers_fits_into_the_apis_memory() {
    with_shop(1, as_sample, |tested| async move {
        // Each sign-up takes 19 MiB for a moment: had they been kept, a dozen would fill the default limit of 256 MiB.
        burst::buyers(&tested.shop, 40, "correct horse").await?;
        let pods = tested.api::<Pod>().list(&ListParams::default().labels("app.kubernetes.io/component=api")).await?;
        let statuses = pods.iter().filter_map(|pod| pod.status.as_ref()?.container_statuses.as_ref()).flatten();
        let restarts: Vec<_> = statuses.map(|container| container.restart_count).collect();
        ensure!(restarts == [0], "restarts of the api's containers: {restarts:?}");
        Ok(())
    });
}

#[test]
fn whatever_is_deleted_comes_back() {
    with_shop(1, as_sample, |tested| async move {
        comes_back::<Deployment>(&tested).await?;
        comes_back::<Service>(&tested).await?;
        comes_back::<Ingress>(&tested).await?;
        comes_back::<ConfigMap>(&tested).await?;
        comes_back::<Secret>(&tested).await?;
        comes_back::<ServiceAccount>(&tested).await?;
        comes_back::<PodDisruptionBudget>(&tested).await?;
        comes_back::<NetworkPolicy>(&tested).await?;
        tested.ready().await
    });
}

/// Deletes every object of the kind that the shop owns; each must be there again under another uid.
async fn comes_back<K>(tested: &Tested) -> Result<()>
where
    K: Resource<Scope = k8s_openapi::NamespaceResourceScope> + Clone + std::fmt::Debug + serde::de::DeserializeOwned,
    K::DynamicType: Default,
{
    let api = tested.api::<K>();
    let before = owned(&api).await?;
    ensure!(!before.is_empty(), "the shop owns no {}", K::kind(&K::DynamicType::default()));
    for name in before.keys() {
        api.delete(name, &DeleteParams::default()).await?;
    }
    tested
        .eventually(&format!("{:?} did not come back", before.keys()), || async {
            let after = owned(&api).await?;
            Ok(before.iter().all(|(name, uid)| after.get(name).is_some_and(|new| new != uid)).then_some(()))
        })
        .await
}

async fn owned<K>(api: &Api<K>) -> Result<BTreeMap<String, String>>
where
    K: Resource + Clone + std::fmt::Debug + serde::de::DeserializeOwned,
    K::DynamicType: Default,
{
    let all = api.list(&ListParams::default()).await?;
    let by_shop = |object: &K| object.owner_references().iter().any(|owner| owner.kind == "ShopDeployment");
    Ok(all.iter().filter(|object| by_shop(object)).map(|o| (o.name_any(), o.uid().unwrap_or_default())).collect())
}

#[test]
fn deleting_a_shop_removes_everything_it_made() {
    with_shop(5, as_sample, |tested| async move {
        let queues = tested.queues().await?;
        ensure!(queues.len() == 2, "expected a queue and its dead-letter queue, found {queues:?}");
        tested.api::<ShopDeployment>().delete("demo", &DeleteParams::default()).await?;
        tested
            .eventually("something is left", || async {
                let left = [
                    owned(&tested.api::<Deployment>()).await?,
                    owned(&tested.api::<Service>()).await?,
                    owned(&tested.api::<Ingress>()).await?,
                    owned(&tested.api::<ConfigMap>()).await?,
                    owned(&tested.api::<Secret>()).await?,
                    owned(&tested.api::<ServiceAccount>()).await?,
                    owned(&tested.api::<PodDisruptionBudget>()).await?,
                    owned(&tested.api::<NetworkPolicy>()).await?,
                ];
                Ok((left.iter().all(BTreeMap::is_empty) && tested.queues().await?.is_empty()).then_some(()))
            })
            .await
    });
}

#[test]
fn a_missing_secret_is_named_and_its_coming_is_noticed() {
    in_namespace(|tested| async move {
        tested.api::<Secret>().delete("mongodb", &DeleteParams::default()).await?;
        tested.create_shop(|_| {}).await?;
        let message = tested.condition("Ready", "False").await?;
        ensure!(message.contains("mongodb"), "the message does not name the Secret: {message}");
        tested.restore_secret("mongodb").await?;
        tested.ready().await
    });
}

#[test]
fn a_bad_change_keeps_the_shop_serving_and_says_what_is_wrong() {
    with_shop(5, as_sample, |tested| async move {
        let shops = tested.api::<ShopDeployment>();
        let set = |image: Value| Patch::Merge(json!({"spec": {"images": {"api": image}}}));
        shops.patch("demo", &PatchParams::default(), &set(json!("localhost/xhipment/no-such-image:1"))).await?;
        tested.condition("Progressing", "True").await?;
        let buyer = tested.customer("asha").await?;
        let answer = tested.shop.order(&buyer, &serde_json::from_str(DOCUMENTED_ORDER)?).await?;
        ensure!(matches!(answer, Answer::Accepted { .. }), "{answer:?}");
        shops.patch("demo", &PatchParams::default(), &set(Value::Null)).await?;
        tested.ready().await
    });
}

#[test]
fn the_api_server_refuses_a_bad_shop_with_a_reason() {
    in_namespace(|tested| async move {
        let cases = [
            ("both a queue url and a name", json!({"queue": {"url": "http://x/1/q"}})),
            ("a grace period that is too short", json!({"worker": {"terminationGracePeriodSeconds": 10}})),
            ("min above max", json!({"worker": {"autoscaling": {"min": 9, "max": 3}}})),
        ];
        for (what, change) in cases {
            let object = tested.sample(|shop| merge(&mut shop["spec"], change.clone()))?;
            let shop: kube::api::DynamicObject = serde_json::from_value(object)?;
            let resource = kube::api::ApiResource::erase::<ShopDeployment>(&());
            let api: Api<kube::api::DynamicObject> =
                Api::namespaced_with(tested.client.clone(), &tested.namespace, &resource);
            let error = api.create(&kube::api::PostParams::default(), &shop).await.err();
            let error = error.with_context(|| format!("{what} was accepted"))?.to_string();
            ensure!(error.contains("spec"), "{what}: the message does not say where: {error}");
        }
        Ok(())
    });
}

fn merge(into: &mut Value, from: Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (key, value) in from {
                merge(into.entry(key).or_insert(Value::Null), value);
            }
        }
        (into, from) => *into = from,
    }
}
