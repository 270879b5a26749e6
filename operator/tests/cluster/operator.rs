//! The operator against a real API server: what it makes, keeps, leaves alone, and says.

use crate::harness::Harness;
use k8s_openapi::api::{
    apps::v1::Deployment,
    core::v1::{ConfigMap, Secret, Service, ServiceAccount},
    networking::v1::{Ingress, NetworkPolicy},
    policy::v1::PodDisruptionBudget,
};
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, ListParams, Patch, PatchParams},
};
use serde_json::json;
use shop_operator::{crd::ShopDeployment, names::SCALER, rollout};

/// Version and identity of everything a shop consists of.
async fn versions(harness: &Harness) -> Vec<String> {
    let mut versions = Vec::new();
    macro_rules! add {
        ($($kind:ty),*) => {$(
            for object in harness.api::<$kind>().list(&ListParams::default().labels("app.kubernetes.io/managed-by=shop-operator")).await.unwrap() {
                versions.push(format!("{} {} {:?}", stringify!($kind), object.name_any(), object.resource_version()));
            }
        )*};
    }
    add!(ServiceAccount, ConfigMap, Secret, NetworkPolicy, Service, Ingress);
    // Their status belongs to Kubernetes' controllers.
    macro_rules! add_spec {
        ($($kind:ty),*) => {$(
            for object in harness.api::<$kind>().list(&ListParams::default()).await.unwrap() {
                let built = object.annotations().get("shop.xhipment.io/built");
                versions.push(format!("{} {} {:?} {built:?}", stringify!($kind), object.name_any(), object.metadata.generation));
            }
        )*};
    }
    add_spec!(PodDisruptionBudget, Deployment);
    versions
}

async fn built(harness: &Harness) {
    harness.exists::<PodDisruptionBudget>("demo-worker").await;
    harness.condition("demo", "Progressing", |status, _| status == "True").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shop_is_made_with_everything_it_needs() {
    let harness = Harness::with_operator().await;
    harness.apply("demo", json!({})).await;
    built(&harness).await;

    for component in ["api", "worker"] {
        let name = format!("demo-{component}");
        assert_eq!(harness.exists::<ServiceAccount>(&name).await.automount_service_account_token, Some(false));
        harness.exists::<ConfigMap>(&name).await;
        harness.exists::<NetworkPolicy>(&name).await;
        harness.exists::<PodDisruptionBudget>(&name).await;
        let deployment: Deployment = harness.exists(&name).await;
        assert_eq!(deployment.spec.replicas, Some(1));
    }
    harness.exists::<Service>("demo-api").await;
    harness.exists::<Ingress>("demo-api").await;
    let keys = harness.exists::<Secret>("demo-keys").await;
    assert!(keys.data.unwrap().contains_key("keys.json"));
    // The scaler cannot read the queue, says so, and holds.
    let message = harness
        .condition("demo", "QueueReadable", |status, reason| status == "False" && reason == "QueueUnreachable")
        .await;
    assert!(message.contains("spec.queue.endpoint"), "{message}");
    harness.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_pass_the_restricted_level() {
    let harness = Harness::with_operator().await;
    let level = json!({ "metadata": { "labels": { "pod-security.kubernetes.io/enforce": "restricted" } } });
    let namespaces: Api<k8s_openapi::api::core::v1::Namespace> = Api::all(harness.client.clone());
    namespaces.patch(&harness.namespace, &PatchParams::default(), &Patch::Merge(&level)).await.unwrap();
    harness.apply("demo", json!({})).await;
    for name in ["demo-api", "demo-worker"] {
        let deployment: Deployment = harness.exists(name).await;
        harness
            .eventually("pods that are admitted", async || {
                let pods = harness.api::<k8s_openapi::api::core::v1::Pod>();
                let selector = deployment.spec.selector.match_labels.clone().unwrap();
                let labels: Vec<_> = selector.iter().map(|(key, value)| format!("{key}={value}")).collect();
                let found = pods.list(&ListParams::default().labels(&labels.join(","))).await.unwrap();
                (!found.items.is_empty()).then_some(())
            })
            .await;
    }
    harness.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_object_comes_back_and_keys_stay() {
    let harness = Harness::with_operator().await;
    harness.apply("demo", json!({})).await;
    built(&harness).await;
    let keys = harness.exists::<Secret>("demo-keys").await.data;

    macro_rules! comes_back {
        ($kind:ty, $name:expr) => {
            let before = harness.exists::<$kind>($name).await.uid();
            harness.api::<$kind>().delete($name, &DeleteParams::background()).await.unwrap();
            let what = concat!(stringify!($kind), " again");
            harness
                .eventually(what, async || {
                    let found = harness.api::<$kind>().get_opt($name).await.unwrap()?;
                    (found.uid() != before).then_some(())
                })
                .await;
        };
    }
    comes_back!(ServiceAccount, "demo-worker");
    comes_back!(ConfigMap, "demo-api");
    comes_back!(NetworkPolicy, "demo-worker");
    comes_back!(Service, "demo-api");
    comes_back!(Ingress, "demo-api");
    comes_back!(PodDisruptionBudget, "demo-api");
    comes_back!(Deployment, "demo-worker");
    assert_eq!(harness.exists::<Secret>("demo-keys").await.data, keys, "keys are never overwritten");
    comes_back!(Secret, "demo-keys");
    harness.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_others_change_is_set_back_and_what_is_theirs_stays() {
    let harness = Harness::with_operator().await;
    harness.apply("demo", json!({})).await;
    built(&harness).await;
    let service = harness.api::<Service>();
    let meddling = json!({ "metadata": { "labels": { "mine": "yes" } }, "spec": { "ports": [{ "name": "http", "port": 81, "targetPort": "http" }] } });
    let params = PatchParams { field_manager: Some("meddler".to_owned()), ..PatchParams::default() };
    service.patch("demo-api", &params, &Patch::Merge(&meddling)).await.unwrap();
    harness
        .eventually("the port again", async || {
            let found = service.get("demo-api").await.unwrap();
            let port = found.spec.as_ref()?.ports.as_ref()?.first()?.port;
            (port == 80 && found.labels().contains_key("mine")).then_some(())
        })
        .await;
    let events: Api<k8s_openapi::api::events::v1::Event> = harness.api();
    harness
        .eventually("an event that names the meddler", async || {
            let found = events.list(&ListParams::default()).await.unwrap();
            found.into_iter().find(|event| {
                event.reason.as_deref() == Some("FieldTakenBack")
                    && event.note.as_deref().unwrap_or("").contains("meddler")
            })
        })
        .await;
    harness.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_operator_finds_nothing_to_write() {
    let mut harness = Harness::new().await;
    let first = harness.start_operator("one");
    harness.apply("demo", json!({})).await;
    built(&harness).await;
    harness.condition("demo", "QueueReadable", |status, _| status == "False").await;
    // The scaler's first act is to make the replicas its own: the last write.
    harness
        .eventually("settled objects", async || {
            let worker = harness.exists::<Deployment>("demo-worker").await;
            rollout::owns_replicas(&worker, SCALER).then_some(())
        })
        .await;
    harness.stop_operator(first).await;
    let before = versions(&harness).await;
    let second = harness.start_operator("two");
    let passes = || harness.counted(second, "shop_operator_reconciles_total{outcome=\"ok\"}");
    harness.eventually("a pass of the second operator", async || (passes() > 0).then_some(())).await;
    let polls = || harness.counted(second, "shop_scaler_polls_total{outcome=\"failed\"}");
    harness.eventually("a look of its scaler", async || (polls() > 0).then_some(())).await;
    // A change that concerns nothing makes one more pass.
    let seen = passes();
    let annotate = json!({ "metadata": { "annotations": { "test/touch": "1" } } });
    harness.api::<ShopDeployment>().patch("demo", &PatchParams::default(), &Patch::Merge(&annotate)).await.unwrap();
    harness.eventually("another pass", async || (passes() > seen).then_some(())).await;
    // An apply that changes nothing leaves the version alone: only the operator itself can tell that it made none.
    let mut writes = harness.metrics(second, "shop_operator_writes_total{");
    writes.retain(|line| !line.contains("kind=\"ShopDeployment\""));
    assert_eq!(writes, Vec::<String>::new());
    assert_eq!(versions(&harness).await, before);
    harness.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_secret_is_named_and_its_arrival_is_noticed() {
    let harness = Harness::with_operator().await;
    harness.apply("demo", json!({ "redis": { "urlSecretRef": { "name": "redis" } } })).await;
    let message =
        harness.condition("demo", "ConfigValid", |status, reason| status == "False" && reason == "SecretMissing").await;
    assert!(message.contains("Secret redis (spec.redis.urlSecretRef) does not exist"), "{message}");
    harness.condition("demo", "Ready", |status, reason| status == "False" && reason == "SecretMissing").await;
    assert!(
        harness.api::<Deployment>().get_opt("demo-api").await.unwrap().is_none(),
        "nothing is made from a bad spec"
    );

    harness.secret("redis", &[("wrong", "x")]).await;
    harness.condition("demo", "ConfigValid", |_, reason| reason == "SecretKeyMissing").await;
    let right = json!({ "stringData": { "url": "redis://nowhere" } });
    harness.api::<Secret>().patch("redis", &PatchParams::default(), &Patch::Merge(&right)).await.unwrap();
    harness.condition("demo", "ConfigValid", |status, _| status == "True").await;
    harness.exists::<Deployment>("demo-api").await;
    harness.finish().await;
}

/// The pods and the ingress wait for these by themselves, or do without.
#[tokio::test(flavor = "multi_thread")]
async fn a_missing_secret_that_others_read_is_named_and_holds_nothing_up() {
    let harness = Harness::with_operator().await;
    let ingress = json!({ "enabled": true, "host": "shop.example", "tls": { "secretName": "certificate" } });
    let spec = json!({ "images": { "pullSecrets": [{ "name": "registry" }] }, "api": { "ingress": ingress } });
    harness.apply("demo", spec).await;
    built(&harness).await;
    for (name, field) in [("registry", "images.pullSecrets"), ("certificate", "api.ingress.tls.secretName")] {
        let names = format!("Secret {name} (spec.{field}) does not exist");
        harness
            .eventually(&names, async || {
                let shop = harness.shop("demo").await.status.unwrap_or_default();
                let degraded = shop.conditions.into_iter().find(|condition| condition.type_ == "Degraded")?;
                (degraded.reason == "SecretMissing" && degraded.message.contains(&names)).then_some(())
            })
            .await;
        harness.secret(name, &[("x", "y")]).await;
    }
    harness.condition("demo", "Degraded", |_, reason| reason != "SecretMissing").await;
    harness.api::<Secret>().delete("registry", &kube::api::DeleteParams::default()).await.unwrap();
    harness.condition("demo", "Degraded", |status, reason| status == "True" && reason == "SecretMissing").await;
    harness.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_change_harms_nothing_that_runs() {
    let harness = Harness::with_operator().await;
    harness.apply("demo", json!({})).await;
    built(&harness).await;
    let before = harness.exists::<Deployment>("demo-api").await;
    harness.apply("demo", json!({ "settings": { "trustedProxies": ["not-a-network"] } })).await;
    let message =
        harness.condition("demo", "ConfigValid", |status, reason| status == "False" && reason == "InvalidSpec").await;
    assert!(message.contains("not-a-network"), "{message}");
    assert_eq!(harness.exists::<Deployment>("demo-api").await.metadata.generation, before.metadata.generation);
    harness.apply("demo", json!({ "settings": { "trustedProxies": ["10.0.0.0/8"] } })).await;
    harness.condition("demo", "ConfigValid", |status, _| status == "True").await;
    harness.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_longer_wanted_goes() {
    let harness = Harness::with_operator().await;
    harness.apply("demo", json!({})).await;
    built(&harness).await;
    harness
        .apply("demo", json!({ "api": { "ingress": { "enabled": false } }, "networkPolicy": { "enabled": false } }))
        .await;
    harness
        .eventually("no Ingress and no NetworkPolicy", async || {
            let ingress = harness.api::<Ingress>().list(&ListParams::default()).await.unwrap();
            let policies = harness.api::<NetworkPolicy>().list(&ListParams::default()).await.unwrap();
            (ingress.items.is_empty() && policies.items.is_empty()).then_some(())
        })
        .await;
    harness.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_ones_object_is_not_taken() {
    let harness = Harness::with_operator().await;
    let taken = serde_json::from_value(json!({ "metadata": { "name": "demo-api" }, "data": { "mine": "yes" } }));
    harness.api::<ConfigMap>().create(&kube::api::PostParams::default(), &taken.unwrap()).await.unwrap();
    harness.apply("demo", json!({})).await;
    let message = harness.condition("demo", "Ready", |status, reason| status == "False" && reason == "NameTaken").await;
    assert!(message.contains("ConfigMap demo-api"), "{message}");
    assert_eq!(harness.exists::<ConfigMap>("demo-api").await.data.unwrap()["mine"], "yes");
    harness.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_that_are_anothers_or_damaged_are_not_used() {
    let harness = Harness::with_operator().await;
    harness.secret("demo-keys", &[("keys.json", "{}")]).await;
    harness.apply("demo", json!({})).await;
    let message = harness.condition("demo", "Ready", |status, reason| status == "False" && reason == "NameTaken").await;
    assert!(message.contains("Secret demo-keys") && message.contains("spec.auth.keysSecretRef"), "{message}");
    assert!(harness.api::<Deployment>().list(&ListParams::default()).await.unwrap().items.is_empty());

    let secrets = harness.api::<Secret>();
    secrets.delete("demo-keys", &DeleteParams::default()).await.unwrap();
    built(&harness).await;
    let nothing = json!({ "data": { "keys.json": null } });
    secrets.patch("demo-keys", &PatchParams::default(), &Patch::Merge(&nothing)).await.unwrap();
    let damaged = |status: &str, reason: &str| status == "True" && reason == "SecretKeyMissing";
    let message = harness.condition("demo", "Degraded", damaged).await;
    assert!(message.contains("Secret demo-keys has no key keys.json"), "{message}");
    harness.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_shop_is_only_watched() {
    let harness = Harness::with_operator().await;
    harness.apply("demo", json!({})).await;
    built(&harness).await;
    harness.apply("demo", json!({ "paused": true })).await;
    harness.condition("demo", "Paused", |status, _| status == "True").await;
    harness.condition("demo", "Ready", |_, reason| reason != "Paused").await;
    harness.api::<PodDisruptionBudget>().delete("demo-api", &DeleteParams::default()).await.unwrap();
    let before = versions(&harness).await;
    harness.apply("demo", json!({ "paused": true, "settings": { "displayName": "Other" } })).await;
    harness.condition("demo", "Paused", |status, _| status == "True").await;
    // `kubectl wait` for the new spec must not end.
    harness.condition("demo", "Ready", |status, reason| status == "False" && reason == "Paused").await;
    assert!(harness.api::<PodDisruptionBudget>().get_opt("demo-api").await.unwrap().is_none());
    assert_eq!(versions(&harness).await, before, "something was written");
    harness.apply("demo", json!({})).await;
    harness.exists::<PodDisruptionBudget>("demo-api").await;
    harness.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn manual_scaling_goes_through_the_scale_subresource() {
    let harness = Harness::with_operator().await;
    harness.apply("demo", json!({ "worker": { "autoscaling": { "mode": "Manual" } } })).await;
    built(&harness).await;
    let scale = json!({ "spec": { "replicas": 3 } });
    harness.api::<ShopDeployment>().patch_scale("demo", &PatchParams::default(), &Patch::Merge(&scale)).await.unwrap();
    harness
        .eventually("three workers", async || {
            (harness.exists::<Deployment>("demo-worker").await.spec.replicas == Some(3)).then_some(())
        })
        .await;
    let found = harness.api::<ShopDeployment>().get_scale("demo").await.unwrap();
    let selector = found.status.and_then(|status| status.selector).unwrap_or_default();
    assert_eq!(found.spec.and_then(|spec| spec.replicas), Some(3));
    assert!(selector.contains("component=worker") && selector.contains("instance=demo"), "{selector}");
    harness.condition("demo", "ScalingActive", |status, reason| status == "False" && reason == "ManualMode").await;
    harness
        .eventually("what is told to be what is done", async || {
            let scaling = harness.shop("demo").await.status?.autoscaling?;
            (scaling.desired == 3 && scaling.reason == "Manual").then_some(())
        })
        .await;

    let more = json!({ "spec": { "replicas": 5 } });
    harness.api::<ShopDeployment>().patch_scale("demo", &PatchParams::default(), &Patch::Merge(&more)).await.unwrap();
    let events: Api<k8s_openapi::api::events::v1::Event> = harness.api();
    for step in ["→ 3", "→ 5"] {
        harness
            .eventually("an event of its own for every step", async || {
                let found = events.list(&ListParams::default()).await.unwrap();
                found.into_iter().find(|event| event.note.as_deref().unwrap_or_default().contains(step))
            })
            .await;
    }

    harness.apply("other", json!({})).await;
    let refused =
        harness.api::<ShopDeployment>().patch_scale("other", &PatchParams::default(), &Patch::Merge(&scale)).await;
    let message = refused.unwrap_err().to_string();
    assert!(message.contains("needs autoscaling.mode Manual"), "{message}");
    harness.finish().await;
}

/// An autoscaler of the api, or a person, sets them; a shop that names them has them back.
#[tokio::test(flavor = "multi_thread")]
async fn the_apis_replicas_are_anothers_where_the_shop_names_none() {
    let harness = Harness::with_operator().await;
    harness.apply("demo", json!({})).await;
    built(&harness).await;
    let four = Patch::Merge(json!({ "spec": { "replicas": 4 } }));
    harness.api::<Deployment>().patch_scale("demo-api", &PatchParams::default(), &four).await.unwrap();
    let api = async || harness.exists::<Deployment>("demo-api").await;
    let before = api().await.annotations()["shop.xhipment.io/built"].clone();
    harness.apply("demo", json!({ "settings": { "displayName": "Other" } })).await;
    let rolled = async || (api().await.annotations()["shop.xhipment.io/built"] != before).then_some(());
    harness.eventually("a change of the api", rolled).await;
    assert_eq!(api().await.spec.replicas, Some(4));
    let count = async |replicas| {
        let what = format!("{replicas} of them");
        harness.eventually(&what, async || (api().await.spec.replicas == Some(replicas)).then_some(())).await;
    };
    harness.apply("demo", json!({ "api": { "replicas": 3 } })).await;
    count(3).await;
    // As many as it named go on, until somebody else says how many.
    let again = async |name: &str, replicas| {
        let before = api().await.annotations()["shop.xhipment.io/built"].clone();
        harness.apply("demo", json!({ "settings": { "displayName": name } })).await;
        let rolled = async || (api().await.annotations()["shop.xhipment.io/built"] != before).then_some(());
        harness.eventually("a change of the api", rolled).await;
        assert_eq!(api().await.spec.replicas, Some(replicas), "{name}");
    };
    again("First", 3).await;
    again("Second", 3).await;
    let five = Patch::Merge(json!({ "spec": { "replicas": 5 } }));
    harness.api::<Deployment>().patch_scale("demo-api", &PatchParams::default(), &five).await.unwrap();
    again("Third", 5).await;
    harness.apply("demo", json!({ "suspended": true })).await;
    count(0).await;
    harness.apply("demo", json!({})).await;
    count(1).await;
    again("Fourth", 1).await;
    harness.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_suspended_shop_keeps_everything_but_its_pods() {
    let harness = Harness::with_operator().await;
    harness.apply("demo", json!({})).await;
    built(&harness).await;
    let pause = json!({ "metadata": { "annotations": { "shop.xhipment.io/pause-scaling": "true" } } });
    harness.api::<ShopDeployment>().patch("demo", &PatchParams::default(), &Patch::Merge(&pause)).await.unwrap();
    harness.condition("demo", "ScalingActive", |_, reason| reason == "ScalingPaused").await;
    let names = async || {
        let versions = versions(&harness).await;
        versions.iter().map(|one| one.split(' ').take(2).collect::<Vec<_>>().join(" ")).collect::<Vec<_>>()
    };
    let before = names().await;
    harness.apply("demo", json!({ "suspended": true })).await;
    let replicas = async || {
        let api = harness.exists::<Deployment>("demo-api").await.spec.replicas;
        (api, harness.exists::<Deployment>("demo-worker").await.spec.replicas)
    };
    harness.eventually("no pods", async || (replicas().await == (Some(0), Some(0))).then_some(())).await;
    assert_eq!(names().await, before);
    harness.condition("demo", "Ready", |status, reason| status == "False" && reason == "Suspended").await;
    let go_on = json!({ "metadata": { "annotations": { "shop.xhipment.io/pause-scaling": null } } });
    harness.api::<ShopDeployment>().patch("demo", &PatchParams::default(), &Patch::Merge(&go_on)).await.unwrap();
    harness.apply("demo", json!({})).await;
    harness.eventually("pods again", async || (replicas().await == (Some(1), Some(1))).then_some(())).await;
    harness.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shop_that_is_deleted_or_another_operators_is_scaled_no_longer() {
    let mut harness = Harness::new().await;
    let operator = harness.start_operator("one");
    let scaled = |shop: &str| {
        let series = harness.metrics(operator, "shop_scaler_desired_workers{");
        series.iter().any(|line| line.contains(&format!("shop=\"{shop}\""))).then_some(())
    };
    for shop in ["gone", "moved"] {
        harness.apply(shop, json!({})).await;
        harness.eventually("a scaler", async || scaled(shop)).await;
        assert!(harness.shop(shop).await.finalizers().is_empty());
    }
    let shops = harness.api::<ShopDeployment>();
    shops.delete("gone", &DeleteParams::default()).await.unwrap();
    let other = json!({ "metadata": { "labels": { "shop.xhipment.io/operator-class": "another" } } });
    shops.patch("moved", &PatchParams::default(), &Patch::Merge(&other)).await.unwrap();
    for shop in ["gone", "moved"] {
        harness.eventually("the scaler's end", async || scaled(shop).is_none().then_some(())).await;
    }
    harness.finish().await;
}

/// Nobody scales it, and nothing holds its end up.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_told_any_more_of_a_shop_that_was_never_made() {
    let mut harness = Harness::new().await;
    let operator = harness.start_operator("one");
    harness.apply("demo", json!({ "mongodb": { "uriSecretRef": { "name": "nowhere" } } })).await;
    harness.condition("demo", "ConfigValid", |_, reason| reason == "SecretMissing").await;
    let told = || {
        let series = harness.metrics(operator, "shop_operator_condition{");
        series.iter().any(|line| line.contains("shop=\"demo\"")).then_some(())
    };
    harness.eventually("its conditions", async || told()).await;
    harness.api::<ShopDeployment>().delete("demo", &DeleteParams::default()).await.unwrap();
    harness.eventually("their end", async || told().is_none().then_some(())).await;
    harness.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn deleting_a_shop_with_an_existing_queue_needs_no_operator() {
    let mut harness = Harness::new().await;
    let operator = harness.start_operator("one");
    harness.apply("demo", json!({})).await;
    built(&harness).await;
    harness.stop_operator(operator).await;
    let shop = harness.shop("demo").await;
    assert!(shop.finalizers().is_empty());
    harness.api::<ShopDeployment>().delete("demo", &DeleteParams::default()).await.unwrap();
    harness.eventually("the garbage collector", async || versions(&harness).await.is_empty().then_some(())).await;
    harness.finish().await;
}
