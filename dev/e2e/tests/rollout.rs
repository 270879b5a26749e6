//! Rollouts on a whole cluster: no request fails while pods are exchanged, and what does not come up says why.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::{Result, ensure};
use k8s_openapi::api::{apps::v1::Deployment, core::v1::Pod};
use kube::{
    ResourceExt,
    api::{ListParams, Patch, PatchParams},
};
use serde_json::{Value, json};
use shop_bench::client::{Account, Answer};
use shop_e2e::{DOCUMENTED, LOCATION, Tested, with_shop};
use shop_operator::{crd::ShopDeployment, rollout};
use tokio::time::Instant;

fn is_long() -> bool {
    std::env::var_os("SHOP_TEST_LONG").is_some()
}

/// Changes the shop's spec.
async fn change(tested: &Tested, spec: Value) -> Result<()> {
    let patch = Patch::Merge(json!({ "spec": spec }));
    tested.api::<ShopDeployment>().patch("demo", &PatchParams::default(), &patch).await?;
    Ok(())
}

/// Reads and orders until told to stop; the first request that fails ends it.
async fn load(tested: Arc<Tested>, buyer: Account, (stop, done): (Arc<AtomicBool>, Arc<AtomicU64>)) -> Result<()> {
    let items = json!([{ "productId": DOCUMENTED[0].0, "quantity": 1 }]);
    let order = json!({ "location": LOCATION, "items": items, "totalAmount": DOCUMENTED[0].1 });
    while !stop.load(Ordering::Relaxed) {
        tested.shop.product(DOCUMENTED[1].0).await?;
        let answer = tested.shop.order(&buyer, &order).await?;
        ensure!(matches!(answer, Answer::Accepted { .. }), "an order was refused: {answer:?}");
        done.fetch_add(2, Ordering::Relaxed);
    }
    Ok(())
}

/// Waits until the api's pods are those of this value of the variable, all of them.
async fn rolled_out(tested: &Tested, value: &str) -> Result<()> {
    tested
        .eventually(&format!("the api did not roll out {value}"), || async {
            let api = tested.api::<Deployment>().get("demo-api").await?;
            let containers = api.spec.template.spec.iter().flat_map(|pod| &pod.containers);
            let mut env = containers.flat_map(|container| container.env.iter().flatten());
            let newest = env.any(|variable| variable.name == "TEST_ROLL" && variable.value.as_deref() == Some(value));
            let pods =
                tested.api::<Pod>().list(&ListParams::default().labels("app.kubernetes.io/component=api")).await?;
            // Those that go have had their requests too: they are waited for.
            let gone = pods.iter().all(|pod| pod.metadata.deletion_timestamp.is_none());
            Ok((newest && gone && rollout::of(&api).is_complete()).then_some(()))
        })
        .await
}

#[test]
fn a_rolling_update_fails_no_request() {
    with_shop(
        1_000_000,
        |_| {},
        |tested| async move {
            let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
            let mut loads = tokio::task::JoinSet::new();
            for n in 0..4 {
                let buyer = tested.customer(&format!("buyer{n}")).await?;
                loads.spawn(load(tested.clone(), buyer, (stop.clone(), done.clone())));
            }
            let rounds = if is_long() { 50 } else { 3 };
            let rolled = async {
                for round in 1..=rounds {
                    let before = done.load(Ordering::Relaxed);
                    let value = round.to_string();
                    change(&tested, json!({ "api": { "env": [{ "name": "TEST_ROLL", "value": value }] } })).await?;
                    rolled_out(&tested, &value).await?;
                    eprintln!("round {round}: {} requests so far", done.load(Ordering::Relaxed));
                    let during = done.load(Ordering::Relaxed) - before;
                    ensure!(during > 20, "only {during} requests during round {round}");
                }
                tested.ready().await
            };
            // A request that fails ends the test at once, with its error.
            let outcome = tokio::select! {
                rolled = rolled => rolled,
                failed = loads.join_next() => match failed {
                    Some(failed) => failed?.and_then(|()| anyhow::bail!("a load ended before the rollouts")),
                    None => anyhow::bail!("there was no load"),
                },
            };
            stop.store(true, Ordering::Relaxed);
            outcome?;
            while let Some(load) = loads.join_next().await {
                load??;
            }
            eprintln!("{rounds} rollouts, {} requests, none failed", done.load(Ordering::Relaxed));
            Ok(())
        },
    );
}

/// Waits until a condition with this status says all of these.
async fn says(tested: &Tested, (kind, status): (&str, &str), texts: &[&str], patience: Duration) -> Result<()> {
    let deadline = Instant::now() + patience;
    loop {
        let shop = tested.deployment().await?;
        let conditions = shop.status.map(|status| status.conditions).unwrap_or_default();
        let found = conditions.into_iter().find(|condition| condition.type_ == kind);
        let said = found.as_ref().is_some_and(|condition| {
            condition.status == status && texts.iter().all(|text| condition.message.contains(text))
        });
        if said {
            return Ok(());
        }
        ensure!(Instant::now() < deadline, "{kind} is not {status} with {texts:?} but {found:?}");
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

async fn an_order_is_taken(tested: &Tested, buyer: &Account) -> Result<()> {
    let items = json!([{ "productId": DOCUMENTED[0].0, "quantity": 1 }]);
    let order = json!({ "location": LOCATION, "items": items, "totalAmount": DOCUMENTED[0].1 });
    let answer = tested.shop.order(buyer, &order).await?;
    ensure!(matches!(answer, Answer::Accepted { .. }), "{answer:?}");
    Ok(())
}

/// A rollout that cannot succeed: told by its pods at once and by Degraded after the deadline; the old pods serve on.
fn a_bad_rollout(bad: Value, texts: &'static [&'static str], good: Value) {
    with_shop(
        100,
        |_| {},
        |tested| async move {
            let buyer = tested.customer("asha").await?;
            change(&tested, bad).await?;
            says(&tested, ("Progressing", "True"), texts, Duration::from_secs(90)).await?;
            an_order_is_taken(&tested, &buyer).await?;
            if is_long() {
                says(&tested, ("Degraded", "True"), texts, Duration::from_mins(4)).await?;
                says(&tested, ("ApiAvailable", "True"), &[], Duration::from_secs(10)).await?;
                an_order_is_taken(&tested, &buyer).await?;
            }
            change(&tested, good).await?;
            tested.ready().await?;
            tested.condition("Degraded", "False").await?;
            let pods =
                tested.api::<Pod>().list(&ListParams::default().labels("app.kubernetes.io/component=api")).await?;
            let names: Vec<_> = pods.iter().map(ResourceExt::name_any).collect();
            ensure!(!names.is_empty(), "no api pod is left");
            an_order_is_taken(&tested, &buyer).await
        },
    );
}

#[test]
fn a_bad_image_is_told_in_the_kubelets_words() {
    let image = |image: Value| json!({ "images": { "api": image } });
    a_bad_rollout(image(json!("localhost/xhipment/no-such-image:1")), &["no-such-image"], image(Value::Null));
}

#[test]
fn a_crash_loop_is_told_in_the_containers_last_words() {
    let env = |value: Value| json!({ "api": { "env": value } });
    let bad = json!([{ "name": "SHOP_PASSWORD_WORKERS", "value": "many" }]);
    a_bad_rollout(env(bad), &["container api ended with code", "SHOP_PASSWORD_WORKERS"], env(json!([])));
}
