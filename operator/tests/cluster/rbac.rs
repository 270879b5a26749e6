//! The chart's permissions suffice: the operator as its own `ServiceAccount` makes, keeps, scales and deletes a shop.

use crate::harness::Harness;
use k8s_openapi::api::{
    apps::v1::Deployment,
    core::v1::{ConfigMap, Pod, ServiceAccount},
    networking::v1::Ingress,
    rbac::v1::{Role, RoleBinding},
};
use kube::{
    Api, Client, Config, ResourceExt,
    api::{DeleteParams, ListParams, PostParams},
};
use serde_json::{Value, json};
use shop_operator::crd::ShopDeployment;

/// The rules between a `define` of the chart and its `end`: plain YAML, but for the release's name, which the Lease has.
fn chart_rules(name: &str) -> Vec<Value> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../charts/shop-operator/templates/rbac.yaml");
    let text = std::fs::read_to_string(path).unwrap();
    let start = format!("{{{{- define \"shop-operator.{name}\" -}}}}\n");
    let (_, rest) = text.split_once(&start).unwrap_or_else(|| panic!("{path} has no {start}"));
    let (rules, _) = rest.split_once("{{- end }}").unwrap();
    let rules = rules.replace(r#"{{ include "shop-operator.fullname" . | quote }}"#, "shop-operator");
    serde_yaml::from_str(&rules).unwrap()
}

/// A client that may do no more than the operator's `ServiceAccount`.
pub async fn restricted(harness: &Harness) -> Client {
    let rules = [chart_rules("rules"), chart_rules("leaderRules")].concat();
    let name = "operator";
    let role = json!({ "metadata": { "name": name }, "rules": rules });
    let binding = json!({
        "metadata": { "name": name },
        "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name },
        "subjects": [{ "kind": "ServiceAccount", "name": name, "namespace": harness.namespace }],
    });
    let create = PostParams::default();
    let account = serde_json::from_value(json!({ "metadata": { "name": name } })).unwrap();
    harness.api::<ServiceAccount>().create(&create, &account).await.unwrap();
    harness.api::<Role>().create(&create, &serde_json::from_value(role).unwrap()).await.unwrap();
    harness.api::<RoleBinding>().create(&create, &serde_json::from_value(binding).unwrap()).await.unwrap();
    let mut config = Config::infer().await.unwrap();
    config.auth_info.impersonate = Some(format!("system:serviceaccount:{}:{name}", harness.namespace));
    Client::try_from(config).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_charts_rules_suffice() {
    let mut harness = Harness::new().await;
    harness.operator_client = restricted(&harness).await;
    harness.start_operator("restricted");
    let with_end = |policy: &str| json!({ "queue": { "management": "Managed", "deletionPolicy": policy } });
    harness.apply("demo", with_end("Delete")).await;
    harness.condition("demo", "Progressing", |status, _| status == "True").await;
    harness.api::<ConfigMap>().delete("demo-api", &DeleteParams::default()).await.unwrap();
    harness.exists::<ConfigMap>("demo-api").await;
    harness
        .eventually("the scaler's mark", async || {
            let worker = harness.exists::<Deployment>("demo-worker").await;
            worker.managed_fields().iter().any(|entry| entry.manager.as_deref() == Some("shop-scaler")).then_some(())
        })
        .await;
    let finalizers = async || harness.shop("demo").await.finalizers().len();
    assert_eq!(finalizers().await, 1);
    harness.apply("demo", with_end("Retain")).await;
    harness.eventually("no finalizer", async || (finalizers().await == 0).then_some(())).await;
    // The pods that go are marked before: without the right to it they would stay.
    let workers = ListParams::default().labels("app.kubernetes.io/component=worker");
    harness
        .eventually("a worker to mark", async || harness.api::<Pod>().list(&workers).await.unwrap().into_iter().next())
        .await;
    harness.apply("demo", json!({ "suspended": true, "api": { "ingress": { "enabled": false } } })).await;
    harness
        .eventually("no pods and no Ingress", async || {
            let worker = harness.exists::<Deployment>("demo-worker").await;
            let ingresses = harness.api::<Ingress>().list(&ListParams::default()).await.unwrap();
            (worker.spec.replicas == Some(0) && ingresses.items.is_empty()).then_some(())
        })
        .await;
    let events: Api<k8s_openapi::api::events::v1::Event> = harness.api();
    harness
        .eventually("an event of the operator", async || {
            let events = events.list(&ListParams::default()).await.unwrap();
            events.into_iter().find(|event| event.reporting_controller.as_deref() == Some("shop-operator"))
        })
        .await;
    harness.condition("demo", "Ready", |status, reason| status == "False" && reason == "Suspended").await;
    harness.api::<ShopDeployment>().delete("demo", &DeleteParams::default()).await.unwrap();
    harness.finish().await;
}
