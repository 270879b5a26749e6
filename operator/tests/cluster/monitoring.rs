//! A `ServiceMonitor` where a shop asks for one: also before the Prometheus operator is there, with the chart's rights.

use std::collections::BTreeSet;

use crate::{
    audit::granted,
    harness::{Harness, PATIENCE},
    rbac::{MONITORING, all_rules, finish, restricted},
};
use k8s_openapi::{
    api::core::v1::Service, apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
};
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, Patch, PatchParams, PostParams},
    runtime::{
        conditions::{is_crd_established, is_deleted},
        wait::await_condition,
    },
};
use serde_json::json;
use shop_operator::build::ServiceMonitor;

const CRD: &str = "servicemonitors.monitoring.coreos.com";
const OURS: &str = "shop.xhipment.io/test";

/// The Prometheus operator's own: the API server refuses what that one would not understand.
fn crd() -> CustomResourceDefinition {
    let mut crd: CustomResourceDefinition = serde_yaml::from_str(include_str!("servicemonitors.yaml")).unwrap();
    crd.labels_mut().insert(OURS.to_owned(), "true".to_owned());
    crd
}

async fn remove(crds: &Api<CustomResourceDefinition>) {
    let Some(found) = crds.get_opt(CRD).await.unwrap() else { return };
    assert!(found.labels().contains_key(OURS), "the cluster has a Prometheus operator; this test needs one without");
    crds.delete(CRD, &DeleteParams::default()).await.unwrap();
    let uid = found.uid().unwrap();
    let gone = await_condition(crds.clone(), CRD, is_deleted(&uid));
    tokio::time::timeout(PATIENCE, gone).await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_monitor_is_made_as_soon_as_its_crd_is_there_and_goes_when_it_is_not_wanted() {
    let mut harness = Harness::new().await;
    let crds: Api<CustomResourceDefinition> = Api::all(harness.client.clone());
    remove(&crds).await;
    harness.operator_client = restricted(&harness).await;
    harness.start_operator("restricted");
    let monitoring = json!({ "monitoring": { "serviceMonitor": true, "labels": { "release": "prometheus" } } });
    harness.apply("demo", monitoring.clone()).await;
    let message =
        harness.condition("demo", "Degraded", |status, reason| status == "True" && reason == "CrdMissing").await;
    assert!(message.contains(CRD) && message.contains("spec.monitoring.serviceMonitor"), "{message}");
    harness.apply("plain", json!({})).await;
    let no_matter = |_: &str, reason: &str| matches!(reason, "QueueUnreachable" | "AllGood");
    harness.condition("plain", "Degraded", no_matter).await;
    // Everything else is there.
    harness.condition("demo", "Ready", |_, reason| reason != "CrdMissing").await;
    harness.exists::<Service>("demo-metrics").await;

    crds.create(&PostParams::default(), &crd()).await.unwrap();
    let established = await_condition(crds.clone(), CRD, is_crd_established());
    tokio::time::timeout(PATIENCE, established).await.unwrap().unwrap();
    let monitor = harness.exists::<ServiceMonitor>("demo-metrics").await;
    assert_eq!(monitor.labels()["release"], "prometheus");
    let service = harness.exists::<Service>("demo-metrics").await;
    let selector = monitor.spec.selector.match_labels.unwrap();
    assert!(selector.iter().all(|(key, value)| service.labels().get(key) == Some(value)), "{selector:?}");
    assert_eq!(monitor.spec.endpoints[0].port, service.spec.unwrap().ports.unwrap()[0].name.clone().unwrap());
    harness.condition("demo", "Degraded", |_, reason| reason != "CrdMissing").await;

    let other = json!({ "spec": { "endpoints": [] } });
    let params = PatchParams { field_manager: Some("meddler".to_owned()), ..PatchParams::default() };
    harness.api::<ServiceMonitor>().patch("demo-metrics", &params, &Patch::Merge(&other)).await.unwrap();
    harness.apply("demo", json!({ "monitoring": { "serviceMonitor": true } })).await;
    harness
        .eventually("the endpoints again, and no foreign label", async || {
            let monitor = harness.exists::<ServiceMonitor>("demo-metrics").await;
            (monitor.spec.endpoints.len() == 1 && !monitor.labels().contains_key("release")).then_some(())
        })
        .await;
    harness.apply("demo", json!({})).await;
    harness
        .eventually("neither ServiceMonitor nor its Service", async || {
            let monitor = harness.api::<ServiceMonitor>().get_opt("demo-metrics").await.unwrap();
            let service = harness.api::<Service>().get_opt("demo-metrics").await.unwrap();
            (monitor.is_none() && service.is_none()).then_some(())
        })
        .await;
    let used = finish(harness).await.used;
    remove(&crds).await;
    let all = granted(&all_rules()).into_iter().filter(|right| right.group == MONITORING).collect::<BTreeSet<_>>();
    let unused: Vec<_> = all.difference(&used).map(ToString::to_string).collect();
    assert_eq!(unused, Vec::<String>::new(), "take these verbs out of charts/shop-operator/templates/rbac.yaml");
}
