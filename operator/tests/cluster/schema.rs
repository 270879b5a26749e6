//! The CRD on a real API server, beside its rules: defaults, bounds, names, unknown fields, columns.

use crate::{
    harness::Harness,
    kubelet,
    queue::{readable, with_operator},
};
use kube::{
    CustomResourceExt,
    api::{Patch, PatchParams},
};
use rstest::rstest;
use serde_json::{Value, json};
use shop_operator::{crd::ShopDeployment, names::Component};
use shop_runtime::{ops, shutdown::Shutdown};
use shop_worker::report::Activity;

#[rstest]
#[case::a_bound(json!({ "worker": { "concurrency": 1 } }), json!({ "worker": { "concurrency": 0 } }), "spec.worker.concurrency")]
#[case::a_pattern(json!({ "settings": { "currency": "EUR" } }), json!({ "settings": { "currency": "euro" } }), "spec.settings.currency")]
#[case::a_reset_page(
    json!({ "auth": { "passwordResetUrl": "https://a.example/?t={token}" } }),
    json!({ "auth": { "passwordResetUrl": "https://a.example/?t={token}{token}" } }),
    "spec.auth.passwordResetUrl"
)]
#[case::a_sender(json!({ "mail": { "from": "a@b.example" } }), json!({ "mail": { "from": "Shop <a@b.example>" } }), "spec.mail.from")]
#[case::an_amount(
    json!({ "api": { "resources": { "limits": { "cpu": 2, "memory": "1Gi" } } } }),
    json!({ "api": { "resources": { "limits": { "memory": "1GB" } } } }),
    "spec.api.resources.limits.memory"
)]
#[tokio::test(flavor = "multi_thread")]
async fn bounds(#[case] passing: Value, #[case] failing: Value, #[case] field: &str) {
    let harness = Harness::new().await;
    harness.try_apply(&harness.manifest("good", passing)).await.expect("the passing object is refused");
    let error =
        harness.try_apply(&harness.manifest("bad", failing)).await.expect_err("the failing object passes").to_string();
    assert!(error.contains(field), "{error}");
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
    assert_eq!(stored["auth"]["argon2"]["memoryKib"], 19456);
    assert_eq!(stored["queue"]["fifo"], false);
    assert_eq!(stored["networkPolicy"]["enabled"], true);
    harness.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn strict_apply_refuses_unknown_fields_at_every_depth() {
    let harness = Harness::new().await;
    let unknown = [
        (json!({ "replica": 1 }), ".spec.replica"),
        (json!({ "worker": { "autoscaling": { "minimum": 1 } } }), ".spec.worker.autoscaling.minimum"),
        (json!({ "api": { "pod": { "affinity": { "podAffinities": {} } } } }), ".spec.api.pod.affinity.podAffinities"),
    ];
    for (patch, field) in unknown {
        let error = strict(&harness, patch).await.expect_err(field).to_string();
        assert!(error.contains(field), "{error}");
    }
    strict(&harness, json!({})).await.expect("a minimal object is refused");
    harness.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_enum_refuses_what_is_not_in_it() {
    let harness = Harness::new().await;
    let crd = serde_json::to_value(ShopDeployment::crd()).unwrap();
    let mut enums = Vec::new();
    find_enums(
        &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"],
        &mut Vec::new(),
        &mut enums,
    );
    assert!(enums.len() >= 10, "{enums:?}");
    for path in enums {
        let wrong = path.iter().rev().fold(json!("Wrong"), |value, step| match step.as_str() {
            "[]" => json!([keyed(value)]),
            name => json!({ name: value }),
        });
        let error = strict(&harness, wrong).await.expect_err(&format!("{path:?} takes anything")).to_string();
        assert!(error.contains("Unsupported value: \"Wrong\""), "{path:?}: {error}");
    }
    harness.finish().await;
}

/// An item of a list by key needs its key before anything is looked at.
fn keyed(mut item: Value) -> Value {
    if item.get("whenUnsatisfiable").is_some() {
        item["topologyKey"] = json!("zone");
    }
    item
}

fn find_enums(node: &Value, path: &mut Vec<String>, found: &mut Vec<Vec<String>>) {
    if node["enum"].is_array() {
        found.push(path.clone());
    }
    let fields = node["properties"].as_object().into_iter().flatten().map(|(name, child)| (name.as_str(), child));
    for (step, child) in fields.chain(node.get("items").map(|items| ("[]", items))) {
        path.push(step.to_owned());
        find_enums(child, path, found);
        path.pop();
    }
}

async fn strict(harness: &Harness, patch: Value) -> Result<ShopDeployment, kube::Error> {
    let params = PatchParams::apply("test").force().dry_run().validation_strict();
    harness.api().patch("demo", &params, &Patch::Apply(harness.manifest("demo", patch))).await
}

async fn table(harness: &Harness) -> Value {
    let path = format!("/apis/shop.xhipment.io/v1alpha1/namespaces/{}/shopdeployments", harness.namespace);
    let request = hyper::Request::get(path).header("Accept", "application/json;as=Table;v=v1;g=meta.k8s.io");
    harness.client.request(request.body(Vec::new()).unwrap()).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_kubectl_shows_of_a_queue() {
    let (harness, sqs) = with_operator().await;
    harness.apply("demo", sqs.spec(json!({}))).await;
    readable(&harness).await;
    sqs.send(20).await;
    let shown = async || {
        let cells = table(&harness).await["rows"][0]["cells"].clone();
        // Nobody works here: there is no telling how long they wait.
        (cells[4] == json!(20) && cells[5] == json!("–")).then_some(())
    };
    harness.eventually("20 messages, for nobody knows how long", shown).await;
    sqs.clean().await;
    harness.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_kubectl_shows_of_workers_on_a_queue() {
    const WORKER: &str = "127.78.0.2";
    let (harness, sqs) = with_operator().await;
    let worker = Activity::default();
    ops::serve(format!("{WORKER}:9090").parse().unwrap(), worker.routes(), &Shutdown::manual()).await.unwrap();
    let autoscaling = json!({ "mode": "Manual", "expectedSecondsPerMessage": 1 });
    let manual = json!({ "worker": { "concurrency": 1, "replicas": 1, "autoscaling": autoscaling } });
    harness.apply("demo", kubelet::nowhere(sqs.spec(manual))).await;
    readable(&harness).await;
    sqs.send(20).await;
    let waiting = async || {
        kubelet::play(&harness, |pod| Some(kubelet::serving(pod, WORKER))).await;
        let cells = table(&harness).await["rows"][0]["cells"].clone();
        (cells[4] == json!(20) && cells[5] == json!("20s")).then_some(cells)
    };
    let cells = harness.eventually("20 messages, each a second of work for the one worker", waiting).await;
    assert_eq!(cells[3], json!("1/1"), "{cells}");
    let scale = harness.api::<ShopDeployment>().get_scale("demo").await.unwrap();
    let status = scale.status.unwrap();
    assert_eq!((scale.spec.unwrap().replicas, status.replicas), (Some(1), 1));
    assert_eq!(status.selector, Some(Component::Worker.selector_text("demo")));
    harness.finish().await;
    sqs.clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_kubectl_shows_of_a_shop() {
    let harness = Harness::with_operator().await;
    harness.apply("demo", json!({})).await;
    harness.condition("demo", "Ready", |status, _| status == "False").await;
    harness.eventually("workers in the status", async || harness.shop("demo").await.status?.worker).await;
    let table = table(&harness).await;
    let columns = table["columnDefinitions"].as_array().unwrap();
    let names: Vec<_> =
        columns.iter().map(|column| (column["name"].as_str().unwrap(), column["priority"].as_i64())).collect();
    let narrow = ["Name", "Ready", "Api", "Workers", "Queue", "Wait", "Version", "Age"].map(|name| (name, Some(0)));
    assert_eq!(names, [narrow.as_slice(), &[("Reason", Some(1))]].concat());
    let cells = &table["rows"][0]["cells"];
    assert_eq!((&cells[0], &cells[1], &cells[6]), (&json!("demo"), &json!("False"), &json!("1")), "{cells}");
    assert_eq!((&cells[2], &cells[3]), (&json!("0/1"), &json!("0/1")), "{cells}");
    assert!(cells[8].as_str().is_some_and(|reason| !reason.is_empty()), "{cells}");
    harness.finish().await;
}
