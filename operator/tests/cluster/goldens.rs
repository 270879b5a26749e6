//! What is built is what the API server gives back: nothing that it normalises or defaults looks like a difference.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::ServiceAccount;
use kube::{
    ResourceExt,
    api::{Patch, PatchParams},
};
use rstest::rstest;
use serde_json::{Value, json};
use shop_operator::{
    apply::Part,
    build::{Live, Resources, build},
    contained::contained,
    crd::ShopDeployment,
    validate::{Digest, FoundSecret, World, validate},
};

use crate::harness::Harness;

/// Every optional part, in forms that the server writes in its own way.
fn full() -> Value {
    let terms = json!([{ "matchExpressions": [{ "key": "disk", "operator": "In", "values": ["ssd"] }] }]);
    let neighbours = json!([{ "weight": 7, "podAffinityTerm": {
        "topologyKey": "kubernetes.io/hostname", "labelSelector": { "matchLabels": { "app": "x" } },
    } }]);
    let pod = json!({
        "nodeSelector": { "disk": "ssd" },
        "tolerations": [
            { "key": "x", "operator": "Exists" },
            { "key": "y", "value": "z", "effect": "NoExecute", "tolerationSeconds": 60 },
            { "operator": "Exists", "effect": "NoSchedule" },
        ],
        "affinity": {
            "nodeAffinity": { "requiredDuringSchedulingIgnoredDuringExecution": { "nodeSelectorTerms": terms } },
            "podAntiAffinity": { "preferredDuringSchedulingIgnoredDuringExecution": neighbours },
        },
        "topologySpread": [
            { "topologyKey": "topology.kubernetes.io/zone", "maxSkew": 2, "whenUnsatisfiable": "DoNotSchedule" },
            { "topologyKey": "kubernetes.io/hostname" },
        ],
        "priorityClassName": "system-node-critical",
    });
    json!({
        "worker": { "pod": pod, "env": [{ "name": "EXTRA", "value": "x" }], "terminationGracePeriodSeconds": 90 },
        "images": { "api": "r.example/api:2", "worker": "r.example/worker:2", "pullSecrets": [{ "name": "pull" }] },
        "auth": { "staffSecretRef": { "name": "mongodb" }, "passwordResetUrl": "https://shop.example.com/reset/{token}",
                  "argon2": { "workers": 2 } },
        "redis": { "urlSecretRef": { "name": "mongodb" } },
        "caSecretRef": { "name": "mongodb" },
        "monitoring": { "serviceMonitor": true },
        "api": {
            "replicas": 2,
            "env": [{ "name": "EXTRA", "value": "1000m" }, { "name": "EMPTY", "value": "" }],
            "ingress": { "enabled": true, "className": "traefik", "host": "shop.example.com",
                         "tls": { "secretName": "tls" }, "annotations": { "a": "b" } },
            "pod": pod,
        },
        "settings": { "trustedProxies": ["10.0.0.0/8"], "corsOrigins": ["https://shop.example.com"] },
        "networkPolicy": { "ingressFrom": [{ "namespaceLabels": { "kubernetes.io/metadata.name": "traefik" } }, {}],
                           "metricsFrom": [{ "podLabels": { "app": "prometheus" } }] },
    })
}

/// Amounts of the api in forms of a quantity that the schema lets pass, as (cpu, memory).
fn amounts(cpu: &Value, memory: &str) -> Value {
    let amount = json!({ "cpu": cpu, "memory": memory });
    json!({ "api": { "resources": { "requests": amount, "limits": amount } } })
}

#[rstest]
#[case::minimal(vec![json!({})])]
#[case::full(vec![full()])]
#[case::suspended(vec![json!({ "suspended": true })])]
#[case::quantities(vec![
    amounts(&json!("0.5"), "0.5Gi"), amounts(&json!("500m"), "128Mi"), amounts(&json!(2), "134217728"),
    amounts(&json!("1.500"), "1024Mi"), amounts(&json!("0.001k"), "1Ti"), amounts(&json!("1"), "0.5T"),
    amounts(&json!("1"), "123456789012m"), amounts(&json!("0"), "0"),
])]
#[tokio::test(flavor = "multi_thread")]
async fn the_servers_answer_contains_what_was_built(#[case] specs: Vec<Value>) {
    let harness = Harness::new().await;
    for spec in specs {
        let shop = harness.apply("demo", spec).await;
        let Resources {
            service_accounts,
            config_maps,
            network_policies,
            api,
            service,
            ingress,
            worker,
            budgets,
            metrics_service,
            // A kind whose CRD need not be there: `monitoring` sees to it.
            service_monitor: _,
            stage: _,
        } = build(&validate(&shop, &world(&shop)).unwrap(), &Live::default());
        comes_back(&harness, service_accounts).await;
        comes_back(&harness, config_maps).await;
        comes_back(&harness, network_policies).await;
        comes_back(&harness, vec![api, worker]).await;
        comes_back(&harness, vec![service]).await;
        comes_back(&harness, metrics_service.into_iter().collect()).await;
        comes_back(&harness, ingress.into_iter().collect()).await;
        comes_back(&harness, budgets).await;
    }
    harness.finish().await;
}

fn world(shop: &ShopDeployment) -> World {
    let keys = ["uri", "url", "ca.crt", "email", "password", "accessKeyId", "secretAccessKey"];
    let found =
        FoundSecret { keys: keys.map(|key| (key.to_owned(), Digest::of(b"x"))).into(), version: "1".to_owned() };
    let secrets = BTreeMap::from(["mongodb", "aws"].map(|name| (name.to_owned(), found.clone())));
    let image = |name: &str| format!("r.example/{name}:{}", shop.name_any());
    World { api_image: image("api"), worker_image: image("worker"), secrets, others: Vec::new() }
}

async fn comes_back<K: Part>(harness: &Harness, built: Vec<K>) {
    for object in built {
        let (name, params) = (object.name_any(), PatchParams::apply("shop-operator").force());
        let answer = harness.api::<K>().patch(&name, &params, &Patch::Apply(&object)).await;
        let answer = answer.unwrap_or_else(|error| panic!("{} {name}: {error}", K::KIND));
        let (wanted, found) = (json!(object), json!(answer));
        assert!(contained(&wanted, Some(&found)), "{} {name}: wanted {wanted:#}, found {found:#}", K::KIND);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_of_another_manager_is_a_difference() {
    let harness = Harness::new().await;
    let shop = harness.apply("demo", json!({})).await;
    let built = build(&validate(&shop, &world(&shop)).unwrap(), &Live::default());
    comes_back(&harness, built.service_accounts.clone()).await;
    let account = &built.service_accounts[0];
    let change = json!({ "automountServiceAccountToken": true });
    let changed = harness
        .api::<ServiceAccount>()
        .patch(&account.name_any(), &PatchParams::default(), &Patch::Merge(&change))
        .await;
    assert!(!contained(&json!(account), Some(&json!(changed.unwrap()))));
    harness.finish().await;
}
