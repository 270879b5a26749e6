//! Scaling on a whole cluster: to zero and from it, without a readable queue, without the operator that began, and beside
//! another shop. What the numbers should be, the unit tests of the operator's `scale` say.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::{apps::v1::Deployment, coordination::v1::Lease, core::v1::Pod};
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};
use shop_bench::burst::{self, Burst};
use shop_e2e::{LOCATION, PATIENCE, Tested, with_shop};
use shop_operator::crd::ShopDeployment;
use tokio::time::Instant;

/// The namespace that `cargo xtask` installs the operator in, and the name of its Lease.
const OPERATOR: (&str, &str) = ("shop-system", "shop-operator");

fn is_long() -> bool {
    std::env::var_os("SHOP_TEST_LONG").is_some()
}

/// How long the queue cannot be read.
fn outage() -> Duration {
    if is_long() { Duration::from_mins(10) } else { Duration::from_secs(45) }
}

/// Places this many orders, each of which is a message of 0.4 s of work.
async fn place(tested: &Tested, orders: usize) -> Result<usize> {
    let buyers = burst::buyers(&tested.shop, 2, "correct horse").await?;
    let burst = Burst { orders, concurrency: 16, location: LOCATION.to_owned(), seed: 1 };
    let placed = burst::place(&tested.shop, &buyers, &burst, |_| {}).await?;
    ensure!(placed.accepted.len() == orders, "not all were accepted: {placed:?}");
    Ok(orders)
}

/// The number of workers that there should be, as the Deployment has it.
async fn replicas(tested: &Tested, shop: &str) -> Result<i32> {
    let worker = tested.api::<Deployment>().get(&format!("{shop}-worker")).await?;
    worker.spec.replicas.context("a Deployment without a number of pods")
}

/// Waits until the number of workers is as `wanted` says, and tells it.
async fn scaled(tested: &Tested, wanted: impl Fn(i32) -> bool) -> Result<i32> {
    tested
        .eventually("the workers are not scaled", || async {
            let now = replicas(tested, "demo").await?;
            Ok(wanted(now).then_some(now))
        })
        .await
}

/// Looks at the number of workers for so long; none of what was seen may be below `floor`.
async fn never_below(tested: &Tested, floor: i32, long: Duration) -> Result<()> {
    let until = Instant::now() + long;
    while Instant::now() < until {
        let now = replicas(tested, "demo").await?;
        ensure!(now >= floor, "{floor} workers became {now}");
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    Ok(())
}

/// Every order decided and the books in order; tells how many messages were delivered more than once.
async fn all_done(tested: &Tested, orders: usize) -> Result<u64> {
    let done = tested
        .view()
        .await?
        .watch_until(PATIENCE * 2, |_| {}, |now| now.orders("Pending") == 0 && now.backlog == 0)
        .await?;
    let decided = done.orders("Processed") + done.orders("Failed");
    ensure!(decided == orders as u64, "{decided} of {orders} decided");
    ensure!(done.books.faults().is_empty(), "{:?}", done.books.faults());
    Ok(done.books.redelivered)
}

/// The same, and nothing delivered twice.
async fn all_done_at_once(tested: &Tested, orders: usize) -> Result<()> {
    let redelivered = all_done(tested, orders).await?;
    ensure!(redelivered == 0, "{redelivered} messages were redelivered");
    Ok(())
}

#[test]
fn an_idle_shop_has_no_workers_and_a_burst_brings_as_many_as_it_takes_at_once() {
    let to_zero = |shop: &mut Value| {
        shop["spec"]["worker"]["autoscaling"] = json!({
            "min": 0, "max": 6, "toZeroCooldownSeconds": 0, "targetWaitSeconds": 10, "expectedSecondsPerMessage": 0.4,
            "scaleDown": { "windowSeconds": 0, "maxPercent": 100 },
        });
    };
    with_shop(1_000_000, to_zero, |tested| async move {
        scaled(&tested, |now| now == 0).await?;
        let by_decision = || async {
            let message = tested.condition("WorkerAvailable", "True").await?;
            Ok(message.contains("ScaledToZero").then_some(()))
        };
        tested.eventually("the shop does not say that it has no workers by decision", by_decision).await?;
        let orders = place(&tested, 200).await?;
        let first = scaled(&tested, |now| now > 0).await?;
        ensure!(first > 1, "from zero the scaler went to {first}, not to what the backlog takes");
        all_done_at_once(&tested, orders).await?;
        scaled(&tested, |now| now == 0).await?;
        Ok(())
    });
}

#[test]
fn while_the_queue_cannot_be_read_no_worker_goes_and_the_shop_says_why() {
    with_shop(
        1_000_000,
        |_| {},
        |tested| async move {
            let (link, endpoint) = tested.link_to_sqs().await?;
            let spec = json!({
                "queue": { "endpoint": endpoint },
                "worker": { "autoscaling": { "min": 1, "max": 4, "targetWaitSeconds": 5, "scaleDown": { "windowSeconds": 5, "maxPercent": 100 } } },
            });
            change(&tested, "demo", spec).await?;
            tested.ready().await?;
            let orders = place(&tested, 150).await?;
            let grown = scaled(&tested, |now| now >= 2).await?;
            link.cut();
            let message = tested.condition("QueueReadable", "False").await?;
            ensure!(message.contains("QueueUnreachable"), "{message}");
            never_below(&tested, grown, outage()).await?;
            link.mend();
            tested.condition("QueueReadable", "True").await?;
            // What was in hand when the queue went away may come again: nobody could ask for more time.
            all_done(&tested, orders).await?;
            scaled(&tested, |now| now == 1).await?;
            // While the link still leads to the queues that go with the shop.
            tested.end_shops().await
        },
    );
}

#[test]
fn at_zero_a_queue_that_cannot_be_read_brings_the_workers_that_the_owner_set() {
    with_shop(
        1_000_000,
        |_| {},
        |tested| async move {
            let (link, endpoint) = tested.link_to_sqs().await?;
            let failure = json!({ "afterSeconds": 10, "policy": "Static", "replicas": 2 });
            let spec = json!({
                "queue": { "endpoint": endpoint },
                "worker": { "autoscaling": { "min": 0, "max": 4, "toZeroCooldownSeconds": 0, "failure": failure, "scaleDown": { "windowSeconds": 0 } } },
            });
            change(&tested, "demo", spec).await?;
            tested.ready().await?;
            scaled(&tested, |now| now == 0).await?;
            link.cut();
            scaled(&tested, |now| now == 2).await?;
            never_below(&tested, 2, outage()).await?;
            link.mend();
            tested.condition("QueueReadable", "True").await?;
            tested.end_shops().await
        },
    );
}

#[test]
fn the_next_leader_goes_on_where_one_ended() {
    with_shop(
        1_000_000,
        |_| {},
        |tested| async move {
            let orders = place(&tested, 300).await?;
            let grown = scaled(&tested, |now| now >= 2).await?;
            let before = leader(&tested).await?;
            let pods: Api<Pod> = Api::namespaced(tested.client.clone(), OPERATOR.0);
            pods.delete(&before, &DeleteParams::default().grace_period(0)).await?;
            let taken_over = async {
                tested
                    .eventually("nobody took over", || async {
                        let now = leader(&tested).await?;
                        Ok((now != before).then_some(()))
                    })
                    .await
            };
            // Until the backlog is gone none of the workers may be: by then the new leader has long looked at it.
            let working = async {
                while tested.view().await?.look().await?.backlog > 0 {
                    never_below(&tested, grown, Duration::from_secs(1)).await?;
                }
                Ok(())
            };
            tokio::try_join!(taken_over, working)?;
            all_done_at_once(&tested, orders).await
        },
    );
}

/// The pod that holds the operator's Lease.
async fn leader(tested: &Tested) -> Result<String> {
    let leases: Api<Lease> = Api::namespaced(tested.client.clone(), OPERATOR.0);
    let lease = leases.get(OPERATOR.1).await?;
    lease.spec.and_then(|spec| spec.holder_identity).context("nobody leads")
}

#[test]
fn a_burst_in_one_shop_moves_no_worker_of_another() {
    with_shop(
        1_000_000,
        |_| {},
        |tested| async move {
            let mut other = tested.sample(|_| {})?;
            other["metadata"]["name"] = json!("other");
            other["spec"]["queue"]["name"] = json!(format!("{}-other", tested.database()));
            other["spec"]["api"]["ingress"] = json!({ "enabled": false });
            let other: ShopDeployment = serde_json::from_value(other)?;
            tested.api::<ShopDeployment>().create(&PostParams::default(), &other).await?;
            tested
                .eventually("the other shop is not Ready", || async {
                    let status = tested.api::<ShopDeployment>().get("other").await?.status.unwrap_or_default();
                    Ok(status.conditions.iter().any(|c| c.type_ == "Ready" && c.status == "True").then_some(()))
                })
                .await?;
            let template =
                async || anyhow::Ok(tested.api::<Deployment>().get("other-worker").await?.metadata.generation);
            let (before, pods) = (template().await?, workers(&tested, "other").await?);
            let orders = place(&tested, 150).await?;
            scaled(&tested, |now| now >= 2).await?;
            all_done_at_once(&tested, orders).await?;
            ensure!(template().await? == before, "the other shop's workers were scaled");
            ensure!(workers(&tested, "other").await? == pods, "the other shop's workers were exchanged");
            Ok(())
        },
    );
}

async fn workers(tested: &Tested, shop: &str) -> Result<Vec<String>> {
    let labels = format!("app.kubernetes.io/instance={shop},app.kubernetes.io/component=worker");
    let pods = tested.api::<Pod>().list(&ListParams::default().labels(&labels)).await?;
    let mut names: Vec<_> = pods.iter().map(ResourceExt::name_any).collect();
    names.sort();
    Ok(names)
}

async fn change(tested: &Tested, shop: &str, spec: Value) -> Result<()> {
    let patch = Patch::Merge(json!({ "spec": spec }));
    tested.api::<ShopDeployment>().patch(shop, &PatchParams::default(), &patch).await?;
    Ok(())
}
