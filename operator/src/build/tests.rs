use std::sync::Arc;

use k8s_openapi::api::apps::v1::Deployment;
use kube::ResourceExt;
use rstest::rstest;
use serde_json::{Value, json};

use super::*;
use crate::{
    contained::contained,
    validate::{
        Digest,
        tests::{minimal, shop, world},
        validate,
    },
};

fn full() -> ValidatedShop {
    let patch = json!({ "spec": {
        "images": { "api": "r.example/api:2", "worker": "r.example/worker:2", "pullSecrets": [{ "name": "pull" }] },
        "redis": { "urlSecretRef": { "name": "redis" } },
        "caSecretRef": { "name": "ca" },
        "queue": { "name": "orders.fifo", "fifo": true, "endpoint": "http://shop-sqs:9324", "management": "Managed", "deletionPolicy": "Delete" },
        "mail": { "endpoint": "http://shop-ses:8005", "perSecond": 300 },
        "aws": { "credentialsSecretRef": { "name": "aws" } },
        "auth": { "staffSecretRef": { "name": "staff" }, "argon2": { "memoryKib": 65536, "workers": 2 },
                  "passwordResetUrl": "https://shop.example.com/reset?token={token}" },
        "monitoring": { "serviceMonitor": true, "labels": { "release": "prometheus" } },
        "api": {
            "replicas": 2,
            "resources": { "limits": { "memory": "512Mi" } },
            "env": [{ "name": "EXTRA", "value": "1" }],
            "ingress": { "enabled": true, "className": "traefik", "host": "shop.example.com",
                         "tls": { "secretName": "tls" }, "annotations": { "a": "b" } },
            "pod": { "nodeSelector": { "disk": "ssd" }, "priorityClassName": "high",
                     "tolerations": [{ "key": "x", "operator": "Exists", "effect": "NoExecute" }],
                     "affinity": { "podAntiAffinity": { "requiredDuringSchedulingIgnoredDuringExecution": [
                         { "topologyKey": "kubernetes.io/hostname",
                           "labelSelector": { "matchLabels": { "app.kubernetes.io/component": "api" } } }] } },
                     "topologySpread": [{ "topologyKey": "topology.kubernetes.io/zone", "whenUnsatisfiable": "DoNotSchedule" }] },
        },
        "worker": { "concurrency": 2, "prefetch": 1, "batchSize": 2, "env": [{ "name": "SHOP_SIMULATED_WORK_MS", "value": "500" }] },
        "settings": { "drainSeconds": 10, "cancelWindowMinutes": 0, "cookieSecure": false,
                      "tracing": { "otlpEndpoint": "http://collector:4318", "sampleRatio": 0.1 },
                       "trustedProxies": ["10.0.0.0/8"], "corsOrigins": ["https://shop.example.com"] },
        "networkPolicy": { "ingressFrom": [{ "namespaceLabels": { "kubernetes.io/metadata.name": "traefik" } }],
                           "metricsFrom": [{ "podLabels": { "app": "prometheus" } }] },
    }});
    let secrets = [
        ("mongodb", "uri"),
        ("redis", "url"),
        ("ca", "ca.crt"),
        ("aws", "accessKeyId secretAccessKey"),
        ("staff", "email password"),
    ];
    validate(&shop(patch), &world(&secrets)).unwrap()
}

/// Everything in the order in which it is applied.
fn all(resources: &Resources<Prepared>) -> Vec<Value> {
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
        service_monitor,
        stage: _,
    } = resources;
    let mut objects = Vec::new();
    objects.extend(service_accounts.iter().map(value));
    objects.extend(config_maps.iter().map(value));
    objects.extend(network_policies.iter().map(value));
    objects.extend([value(api), value(service)]);
    objects.extend(ingress.iter().map(value));
    objects.push(value(worker));
    objects.extend(budgets.iter().map(value));
    objects.extend(metrics_service.iter().map(value));
    objects.extend(service_monitor.iter().map(value));
    objects
}

fn value(object: &impl Serialize) -> Value {
    serde_json::to_value(object).unwrap()
}

#[test]
fn manifests_of_a_minimal_shop() {
    insta::assert_yaml_snapshot!(all(&build(&minimal(), &Live::default())));
}

#[test]
fn manifests_of_a_full_shop() {
    insta::assert_yaml_snapshot!(all(&build(&full(), &Live::default())));
}

#[test]
fn building_twice_gives_the_same() {
    let (one, two) = (build(&full(), &Live::default()), build(&full(), &Live::default()));
    assert_eq!(all(&one), all(&two));
    assert!(all(&one).iter().zip(all(&two)).all(|(one, two)| contained(one, Some(&two))));
}

#[test]
fn a_removed_setting_changes_the_fingerprint() {
    let mut without = full();
    without.spec.settings.cors_origins.clear();
    let (before, after) = (build(&full(), &Live::default()), build(&without, &Live::default()));
    // All that is wanted now is in the live object; only the fingerprint tells that something must go.
    assert!(!contained(&value(&after.config_maps[0]), Some(&value(&before.config_maps[0]))));
    assert_ne!(template_config(&before.api), template_config(&after.api));
    assert_eq!(template_config(&before.worker), template_config(&after.worker), "the worker reads none of it");
}

fn template_config(deployment: &Deployment) -> String {
    let metadata = deployment.spec.template.metadata.clone().unwrap();
    metadata.annotations.unwrap()[names::CONFIG].clone()
}

/// A shop whose Secrets hold these values (`name/key=value`) in place of what they held.
fn with_secrets(changes: &[&str]) -> Resources<Prepared> {
    let secrets = [("mongodb", "uri other"), ("staff", "email password"), ("mine", "keys.json")];
    let mut world = world(&secrets);
    for change in changes {
        let (place, value) = change.split_once('=').unwrap();
        let (name, key) = place.split_once('/').unwrap();
        let secret = world.secrets.get_mut(name).unwrap();
        secret.version = "8".to_owned();
        secret.keys.insert(key.to_owned(), Digest::of(value.as_bytes()));
    }
    let auth = json!({ "staffSecretRef": { "name": "staff" }, "keysSecretRef": { "name": "mine" } });
    build(&validate(&shop(json!({ "spec": { "auth": auth } })), &world).unwrap(), &Live::default())
}

#[rstest]
#[case::both_read_it(&["mongodb/uri=x"], true, true)]
#[case::the_api_alone(&["staff/password=x"], true, false)]
#[case::nobody_reads_it(&["mongodb/other=x"], false, false)]
#[case::keys_are_read_again_by_the_api_itself(&["mine/keys.json=x"], false, false)]
fn a_changed_secret_rolls_the_pods_that_read_it(#[case] changes: &[&str], #[case] api: bool, #[case] worker: bool) {
    let (before, after) = (with_secrets(&[]), with_secrets(changes));
    assert_eq!(template_config(&before.api) != template_config(&after.api), api);
    assert_eq!(template_config(&before.worker) != template_config(&after.worker), worker);
}

#[test]
fn the_same_secret_is_another_fingerprint_in_another_shop() {
    let of = |uid: &str| {
        let shop = shop(json!({ "metadata": { "uid": uid } }));
        template_config(&build(&validate(&shop, &world(&[("mongodb", "uri")])).unwrap(), &Live::default()).worker)
    };
    assert_ne!(of("1"), of("2"));
}

fn live(image: &str, replicas: i32, managers: &[&str]) -> Deployment {
    let managed: Vec<_> = managers
        .iter()
        .map(|manager| json!({ "manager": manager, "operation": "Apply", "fieldsV1": { "f:spec": { "f:replicas": {} } } }))
        .collect();
    serde_json::from_value(json!({
        "metadata": { "name": "x", "generation": 3, "managedFields": managed },
        "spec": {
            "replicas": replicas,
            "selector": {},
            "template": { "spec": { "containers": [{ "name": "main", "image": image }] } },
        },
        "status": { "observedGeneration": 3, "replicas": replicas, "updatedReplicas": replicas,
                    "availableReplicas": replicas, "readyReplicas": replicas },
    }))
    .unwrap()
}

#[rstest]
#[case::first(None, Some(1))]
#[case::not_yet_the_scalers(Some(live("i", 7, &["shop-operator"])), Some(7))]
#[case::the_scalers(Some(live("i", 7, &["shop-operator", "shop-scaler"])), None)]
fn replicas_are_carried_until_the_scaler_owns_them(#[case] worker: Option<Deployment>, #[case] expected: Option<i32>) {
    let live = Live { worker: worker.map(Arc::new), ..Live::default() };
    assert_eq!(build(&minimal(), &live).worker.spec.replicas, expected);
}

#[test]
fn that_the_scaler_takes_over_is_no_reason_to_write() {
    let before = build(&minimal(), &Live::default()).worker;
    let live = Live { worker: Some(Arc::new(live(&minimal().worker_image, 1, &[names::SCALER]))), ..Live::default() };
    let after = build(&minimal(), &live).worker;
    assert_eq!((before.spec.replicas, after.spec.replicas), (Some(1), None));
    assert!(contained(&value(&after), Some(&value(&before))));
}

/// The api as it is built, with pods of which so many are of its template.
fn rolled_out(shop: &ValidatedShop, updated: i32) -> Deployment {
    let mut api = build(shop, &Live::default()).api;
    api.status =
        serde_json::from_value(json!({ "replicas": 2, "updatedReplicas": updated, "availableReplicas": 2 })).unwrap();
    api
}

#[rstest]
#[case::another_image(live("r.example/api:1", 2, &[]), "r.example/worker:1")]
#[case::the_image_but_not_all_of_the_rest(live("r.example/api:2", 2, &[]), "r.example/worker:1")]
#[case::under_way(rolled_out(&full(), 1), "r.example/worker:1")]
#[case::rolled_out(rolled_out(&full(), 2), "r.example/worker:2")]
fn a_new_worker_image_waits_for_the_api(#[case] api: Deployment, #[case] expected: &str) {
    let worker = live("r.example/worker:1", 2, &[]);
    let live = Live { api: Some(Arc::new(api)), worker: Some(Arc::new(worker)), ingress: None };
    let worker = build(&full(), &live).worker;
    assert_eq!(crate::rollout::image(&worker), Some(expected));
}

#[test]
fn nothing_but_the_image_waits_for_the_api() {
    let live = Live { worker: Some(Arc::new(live("r.example/worker:1", 2, &[]))), ..Live::default() };
    let (waiting, without) = (build(&full(), &live).worker, build(&full(), &Live::default()).worker);
    assert_eq!(template_config(&waiting), template_config(&without));
}

#[test]
fn a_suspended_shop_has_no_api_pods() {
    let mut suspended = full();
    suspended.spec.suspended = true;
    assert_eq!(build(&suspended, &Live::default()).api.spec.replicas, Some(0));
    assert_eq!(build(&minimal(), &Live::default()).api.spec.replicas, None, "free for a HorizontalPodAutoscaler");
}

/// Where the pods' fields end up in both components.
#[rstest]
#[case::pull_policy(json!({ "images": { "pullPolicy": "Always" } }), "containers/0/imagePullPolicy", json!("Always"))]
#[case::memory(
    json!({ "resources": { "limits": { "memory": "1Gi" } } }),
    "containers/0/resources/limits/memory",
    json!("1Gi")
)]
#[case::priority(json!({ "pod": { "priorityClassName": "high" } }), "priorityClassName", json!("high"))]
#[case::node(json!({ "pod": { "nodeSelector": { "disk": "ssd" } } }), "nodeSelector/disk", json!("ssd"))]
#[case::toleration(
    json!({ "pod": { "tolerations": [{ "key": "spot", "operator": "Exists", "tolerationSeconds": 30 }] } }),
    "tolerations/0",
    json!({ "key": "spot", "operator": "Exists", "tolerationSeconds": 30 })
)]
#[case::affinity(
    json!({ "pod": { "affinity": { "podAntiAffinity": { "preferredDuringSchedulingIgnoredDuringExecution": [] } } } }),
    "affinity/podAntiAffinity/preferredDuringSchedulingIgnoredDuringExecution",
    json!([])
)]
#[case::spread(
    json!({ "pod": { "topologySpread": [{ "topologyKey": "zone", "maxSkew": 3, "whenUnsatisfiable": "DoNotSchedule" }] } }),
    "topologySpreadConstraints/0/maxSkew",
    json!(3)
)]
fn a_field_of_the_pods_is_in_both(#[case] patch: Value, #[case] place: &str, #[case] wanted: Value) {
    let spec = if patch.get("images").is_some() { patch } else { json!({ "api": patch, "worker": patch }) };
    let shop = validate(&shop(json!({ "spec": spec })), &world(&[("mongodb", "uri")])).unwrap();
    let built = build(&shop, &Live::default());
    for deployment in [&built.api, &built.worker] {
        let found = value(deployment).pointer(&format!("/spec/template/spec/{place}")).cloned();
        assert_eq!(found, Some(wanted.clone()), "{:?}", deployment.metadata.name);
    }
}

#[test]
fn a_worker_has_the_grace_that_its_shop_gives_it() {
    let patch = json!({ "spec": { "worker": { "terminationGracePeriodSeconds": 95, "maxProcessingSeconds": 45 } } });
    let built = build(&validate(&shop(patch), &world(&[("mongodb", "uri")])).unwrap(), &Live::default());
    let grace = |deployment| value(deployment).pointer("/spec/template/spec/terminationGracePeriodSeconds").cloned();
    assert_eq!((grace(&built.worker), grace(&built.api)), (Some(json!(95)), Some(json!(30))));
}

#[rstest]
#[case::new(&[], Some("a"), &[Some("a")])]
#[case::new_by_default(&[], None, &[None])]
#[case::by_default(&[None], None, &[None])]
#[case::given(&[None], Some("a"), &[Some("a")])]
#[case::another(&[Some("a")], Some("b"), &[Some("b")])]
#[case::no_longer_given_is_made_anew(&[Some("a")], None, &[])]
fn a_class_that_the_spec_no_longer_gives_is_the_cluster_s_default_again(
    #[case] before: &[Option<&str>],
    #[case] class: Option<&str>,
    #[case] expected: &[Option<&str>],
) {
    let ingress = |class: Option<&str>, live: &Live| {
        let patch = json!({ "spec": { "api": { "ingress": { "enabled": true, "className": class } } } });
        build(&validate(&shop(patch), &world(&[("mongodb", "uri")])).unwrap(), live).ingress
    };
    let live = before.iter().find_map(|class| ingress(*class, &Live::default()));
    let built = ingress(class, &Live { ingress: live.map(Arc::new), ..Live::default() });
    let classes: Vec<_> =
        built.iter().map(|built| built.spec.as_ref().unwrap().ingress_class_name.as_deref()).collect();
    assert_eq!(classes, expected);
}

#[test]
fn whose_the_class_is_is_not_the_specs_to_say() {
    let ingress = json!({ "enabled": true, "annotations": { names::CLASS_GIVEN: "true", "mine": "stays" } });
    let shop = shop(json!({ "spec": { "api": { "ingress": ingress } } }));
    let built = build(&validate(&shop, &world(&[("mongodb", "uri")])).unwrap(), &Live::default()).ingress.unwrap();
    assert!(!built.annotations().contains_key(names::CLASS_GIVEN) && built.annotations().contains_key("mine"));
}
