//! What a shop's pods may do and who may reach them, as the API server takes it: the restricted level, no token, and the
//! `NetworkPolicies` of every spec.

use crate::harness::Harness;
use k8s_openapi::api::{
    apps::v1::Deployment,
    core::v1::{Namespace, Pod},
    networking::v1::NetworkPolicy,
};
use kube::{
    Api,
    api::{ListParams, Patch, PatchParams, PostParams},
};
use rstest::rstest;
use serde_json::{Value, json};

async fn restrict(harness: &Harness) {
    let level = json!({ "metadata": { "labels": { "pod-security.kubernetes.io/enforce": "restricted" } } });
    let namespaces: Api<Namespace> = Api::all(harness.client.clone());
    namespaces.patch(&harness.namespace, &PatchParams::default(), &Patch::Merge(&level)).await.unwrap();
}

/// The Deployments of the builder's golden manifests, each with its file and name.
fn golden_deployments() -> Vec<(String, Value)> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/src/build/snapshots");
    let mut found = Vec::new();
    for file in std::fs::read_dir(folder).unwrap() {
        let path = file.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap();
        let (_header, manifests) = text.split_once("\n---\n").unwrap();
        let manifests: Vec<Value> = serde_yaml::from_str(manifests).unwrap();
        let deployments = manifests.into_iter().filter(|manifest| manifest["kind"] == "Deployment");
        found.extend(
            deployments
                .map(|deployment| (format!("{} of {}", deployment["metadata"]["name"], path.display()), deployment)),
        );
    }
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_of_the_golden_manifests_are_admitted_at_the_restricted_level() {
    let harness = Harness::new().await;
    restrict(&harness).await;
    let dry_run = PostParams { dry_run: true, ..PostParams::default() };
    let deployments = golden_deployments();
    assert!(deployments.len() >= 4, "two shops of two Deployments: {}", deployments.len());
    for (what, deployment) in &deployments {
        let mut spec = deployment["spec"]["template"]["spec"].clone();
        // These are of the cluster's making, and no matter of the level.
        for field in ["serviceAccountName", "priorityClassName"] {
            spec.as_object_mut().unwrap().remove(field);
        }
        let pod: Pod = serde_json::from_value(json!({ "metadata": { "name": "golden" }, "spec": spec })).unwrap();
        let admitted = harness.api::<Pod>().create(&dry_run, &pod).await;
        assert!(admitted.is_ok(), "{what}: {admitted:?}");
        // The same pod, as root, shows that the level is enforced here at all.
        spec["securityContext"] = json!({ "runAsUser": 0 });
        let pod: Pod = serde_json::from_value(json!({ "metadata": { "name": "root" }, "spec": spec })).unwrap();
        let refused = harness.api::<Pod>().create(&dry_run, &pod).await.expect_err("a pod of root is admitted");
        assert!(refused.to_string().contains("violates PodSecurity \"restricted"), "{refused}");
    }
    harness.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_get_no_token() {
    let harness = Harness::with_operator().await;
    restrict(&harness).await;
    harness.apply("demo", json!({})).await;
    for component in ["api", "worker"] {
        let labels = format!("app.kubernetes.io/component={component}");
        let pod = harness
            .eventually("a pod", async || {
                harness.api::<Pod>().list(&ListParams::default().labels(&labels)).await.unwrap().into_iter().next()
            })
            .await;
        let spec = serde_json::to_value(pod.spec.unwrap()).unwrap();
        assert_eq!(spec["automountServiceAccountToken"], false);
        // What the admission would have added: a projected volume with a token, mounted in every container.
        assert!(!spec.to_string().contains("serviceAccountToken\":{"), "{spec}");
        assert!(!spec.to_string().contains("/var/run/secrets/kubernetes.io"), "{spec}");
    }
    harness.finish().await;
}

#[rstest]
#[case::open(json!({}))]
#[case::only_the_ingress(json!({ "ingressFrom": [{ "namespaceLabels": { "kubernetes.io/metadata.name": "traefik" } }] }))]
#[case::readers(json!({ "metricsFrom": [{ "podLabels": { "app": "prometheus" } }, { "namespaceLabels": { "team": "ops" } }] }))]
#[tokio::test(flavor = "multi_thread")]
async fn network_policies_are_taken_as_they_are_meant(#[case] wanted: Value) {
    let harness = Harness::with_operator().await;
    harness.apply("demo", json!({ "networkPolicy": wanted })).await;
    for component in ["api", "worker"] {
        let name = format!("demo-{component}");
        let policy: NetworkPolicy = harness.exists(&name).await;
        let deployment: Deployment = harness.exists(&name).await;
        let spec = policy.spec.unwrap();
        // What the server stores selects exactly this component's pods, and bounds what comes in, not what goes out.
        assert_eq!(spec.pod_selector.unwrap().match_labels, deployment.spec.selector.match_labels);
        assert_eq!(spec.policy_types, Some(vec!["Ingress".to_owned()]));
        assert_eq!(spec.egress, None);
        let ports: Vec<_> = spec.ingress.unwrap().into_iter().flat_map(|rule| rule.ports.unwrap()).collect();
        assert!(ports.iter().all(|port| port.protocol.as_deref() == Some("TCP") && port.end_port.is_none()));
        assert_eq!(ports.len(), if component == "api" { 2 } else { 1 });
    }
    harness.finish().await;
}
