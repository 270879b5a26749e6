//! What is kept answers every question as the whole object does.

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::{apps::v1::Deployment, core::v1::Pod};
use kube::ResourceExt;
use rstest::rstest;
use serde_json::{Value, json};

use super::*;
use crate::rollout;

fn of<K: serde::de::DeserializeOwned>(value: Value) -> K {
    serde_json::from_value(value).unwrap()
}

fn deployment(metadata: &Value) -> Deployment {
    let container = json!({ "name": "worker", "image": "r.example/worker:1", "terminationMessagePath": "/dev/log" });
    let template =
        json!({ "metadata": { "annotations": { names::CONFIG: "7" } }, "spec": { "containers": [container] } });
    of(json!({
        "metadata": metadata,
        "spec": { "replicas": 2, "selector": {}, "template": template },
        "status": { "observedGeneration": 3, "replicas": 2, "readyReplicas": 1 },
    }))
}

fn entry(manager: &str, subresource: Option<&str>, fields: &Value) -> Value {
    json!({ "manager": manager, "subresource": subresource, "operation": "Apply", "fieldsV1": fields })
}

#[rstest]
#[case::the_same(json!({}), true)]
#[case::less(json!({ "spec": { "replicas": null } }), true)]
#[case::another_number(json!({ "spec": { "replicas": 3 } }), false)]
#[case::another_label(json!({ "metadata": { "labels": { "a": "2" } } }), false)]
#[case::another_annotation(json!({ "metadata": { "annotations": { "c": "4" } } }), false)]
#[case::another_command(json!({ "spec": { "template": { "spec": { "dnsPolicy": "None" } } } }), false)]
fn what_is_wanted_is_looked_for_in_both_parts(#[case] change: Value, #[case] expected: bool) {
    let annotations = json!({ names::BUILT: "7", "c": "3" });
    let live =
        deployment(&json!({ "name": "demo-worker", "labels": { "a": "1", "b": "1" }, "annotations": annotations }));
    let metadata = json!({ "name": "demo-worker", "labels": { "a": "1" }, "annotations": annotations });
    let mut wanted = serde_json::to_value(deployment(&metadata)).unwrap();
    wanted.as_object_mut().unwrap().remove("status");
    merge(&mut wanted, &change);
    assert_eq!(Kept::of(live).contains(&of(wanted)), expected);
}

fn merge(into: &mut Value, change: &Value) {
    let Some(fields) = change.as_object() else { return *into = change.clone() };
    for (key, field) in fields {
        merge(&mut into[key], field);
    }
}

#[test]
fn the_gist_of_a_deployment_says_all_that_is_asked_of_it() {
    let fields = json!({ "f:spec": { "f:replicas": {}, "f:paused": {} }, "f:metadata": {} });
    let managers = json!([
        entry(names::MANAGER, None, &json!({ "f:spec": { "f:template": {} } })),
        entry(names::SCALER, None, &fields),
        entry("kubectl-edit", None, &json!({ "f:spec": { "f:paused": {} } })),
        entry("kube-controller-manager", Some("status"), &fields),
    ]);
    let annotations = json!({ names::BUILT: "7", "c": "3" });
    let metadata = json!({
        "name": "a", "uid": "1", "generation": 3, "labels": { "a": "1" }, "annotations": annotations, "managedFields": managers,
    });
    let whole = deployment(&metadata);
    let kept = Kept::of(whole.clone());
    let gist = kept.gist();
    let built = rollout::Built::default().since(&whole);
    assert_eq!((rollout::Built::default().since(gist), built), (built, Some(3)));
    assert_eq!((gist.labels().len(), gist.annotations()), (0, &[(names::BUILT.to_owned(), "7".to_owned())].into()));
    assert_eq!((kept.annotation("c").as_deref(), kept.annotation("a")), (Some("3"), None));
    assert_eq!(rollout::of(gist), rollout::of(&whole));
    assert_eq!(rollout::image(gist), Some("r.example/worker:1"));
    let owns = |manager| rollout::owns_replicas(gist, manager);
    assert_eq!((owns(names::SCALER), owns("kubectl-edit")), (true, false));
    let managers: Vec<_> = gist.managed_fields().iter().filter_map(|entry| entry.manager.as_deref()).collect();
    assert_eq!(managers, [names::SCALER, "kubectl-edit"]);
    let ours = json!([entry(names::MANAGER, None, &fields)]);
    let ours = Kept::of(deployment(&json!({ "name": "a", "managedFields": ours })));
    assert!(rollout::owns_replicas(ours.gist(), names::MANAGER));
    assert!(kept.rest.contains("terminationMessagePath") && !kept.rest.contains("observedGeneration"));
}

#[test]
fn a_pod_says_all_that_is_asked_of_it() {
    let whole: Pod = of(json!({
        "metadata": { "name": "a", "annotations": { names::CONFIG: "7" }, "managedFields": [entry("kubelet", None, &json!({}))] },
        "spec": { "nodeName": "n", "containers": [{ "name": "worker", "image": "r.example/worker:1", "args": ["x"] }] },
        "status": {
            "phase": "Running", "podIP": "198.18.0.1", "podIPs": [{ "ip": "198.18.0.1" }],
            "conditions": [{ "type": "Initialized", "status": "True" }, { "type": "Ready", "status": "True" }],
            "containerStatuses": [{
                "name": "worker", "image": "long", "imageID": "longer", "ready": false, "restartCount": 4,
                "state": { "waiting": { "reason": "CrashLoopBackOff" } },
                "lastState": { "terminated": { "exitCode": 137, "reason": "OOMKilled" } },
            }],
        },
    }));
    let kept = pod(whole.clone());
    let worker = deployment(&json!({ "name": "a" }));
    let told = |pod: &Pod| {
        let complaint = rollout::complaint(&[Arc::new(pod.clone())], Some(&worker), Timestamp::UNIX_EPOCH);
        (rollout::is_current(pod, &worker), rollout::is_ready(pod), rollout::may_serve(pod), complaint)
    };
    assert_eq!(told(&kept), told(&whole));
    assert!(kept.managed_fields().is_empty());
    assert_eq!(kept.status.unwrap().pod_ip.as_deref(), Some("198.18.0.1"));
}

#[test]
fn of_a_secret_its_versions_and_its_notes_are_kept() {
    let metadata = json!({
        "name": "demo-keys", "namespace": "shops", "uid": "1", "resourceVersion": "7", "labels": { "a": "1" },
        "annotations": { LAST_APPLIED: "{\"data\":{}}", names::ROTATION: "{}", names::TOKEN_LIFE: "{}" },
        "managedFields": [entry("kubectl", None, &json!({}))],
    });
    let kept = secret(of(json!({ "metadata": metadata })));
    let expected = json!({
        "name": "demo-keys", "namespace": "shops", "uid": "1", "resourceVersion": "7",
        "annotations": { names::ROTATION: "{}", names::TOKEN_LIFE: "{}" },
    });
    assert_eq!(serde_json::to_value(&kept.metadata).unwrap(), expected);
}

#[test]
fn of_a_shop_only_what_others_keep_in_it_goes() {
    let annotations = json!({ LAST_APPLIED: "{}", names::ROTATE_KEYS: "1" });
    let metadata = json!({ "annotations": annotations, "managedFields": [entry("kubectl", None, &json!({}))] });
    let kept = shop(crate::validate::tests::shop(json!({ "metadata": metadata })));
    assert_eq!(kept.annotations().keys().collect::<Vec<_>>(), [names::ROTATE_KEYS]);
    assert!(kept.managed_fields().is_empty());
}
