//! The chart's permissions are what the operator needs, no less and no more: it makes, keeps, scales and deletes a shop as
//! its own `ServiceAccount`, and all that it asks of the API server meanwhile is compared with the rules.

use crate::{
    audit::{Requests, Right, granted},
    harness::Harness,
};
use k8s_openapi::{
    NamespaceResourceScope,
    api::{
        apps::v1::Deployment,
        authentication::v1::TokenRequest,
        core::v1::{ConfigMap, Namespace, Pod, Service, ServiceAccount},
        events::v1::Event,
        networking::v1::Ingress,
        policy::v1::PodDisruptionBudget,
        rbac::v1::{ClusterRole, ClusterRoleBinding, Role, RoleBinding},
    },
};
use kube::{
    Api, Client, Config, Resource, ResourceExt,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams},
    config::{AuthInfo, Kubeconfig},
};
use rstest::rstest;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use shop_operator::crd::ShopDeployment;
use tempfile::NamedTempFile;
use tokio::sync::OnceCell;

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

pub fn all_rules() -> Vec<Value> {
    [chart_rules("rules"), chart_rules("leaderRules")].concat()
}

/// All rules without these verbs of one resource, and a rule of them alone.
fn without(resource: &str, verbs: &[&str]) -> (Vec<Value>, Value) {
    let (mut kept, mut taken) = (Vec::new(), None);
    for mut rule in all_rules() {
        let resources = rule["resources"].as_array_mut().unwrap();
        if let Some(at) = resources.iter().position(|name| name == resource) {
            let group = rule["apiGroups"].clone();
            let own = json!([rule["resources"].as_array_mut().unwrap().remove(at)]);
            let left = rule["verbs"].as_array().unwrap().iter().filter(|verb| !verbs.contains(&verb.as_str().unwrap()));
            kept.push(json!({ "apiGroups": group, "resources": own, "verbs": left.collect::<Vec<_>>() }));
            taken = Some(json!({ "apiGroups": group, "resources": own, "verbs": verbs }));
        }
        if rule["resources"] != json!([]) {
            kept.push(rule);
        }
    }
    (kept, taken.unwrap())
}

/// Group of the kind whose CRD may be missing.
pub const MONITORING: &str = "monitoring.coreos.com";
const ACCOUNT: &str = "operator";

/// Binds the operator's `ServiceAccount` to a role of this kind and name.
fn binding(harness: &Harness, kind: &str, name: &str) -> Value {
    json!({
        "metadata": { "name": name },
        "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": name },
        "subjects": [{ "kind": "ServiceAccount", "name": ACCOUNT, "namespace": harness.namespace }],
    })
}

async fn create<K>(api: Api<K>, object: Value)
where
    K: Resource + Clone + std::fmt::Debug + serde::Serialize + DeserializeOwned,
{
    api.create(&PostParams::default(), &serde_json::from_value(object).unwrap()).await.unwrap();
}

/// In namespaced mode: a Role with these rules in the test's namespace.
async fn grant_in_namespace(harness: &Harness, name: &str, rules: &[Value]) {
    create(harness.api::<Role>(), json!({ "metadata": { "name": name }, "rules": rules })).await;
    create(harness.api::<RoleBinding>(), binding(harness, "Role", name)).await;
}

/// In cluster mode: a `ClusterRole`, which ends with the test's namespace.
async fn grant_everywhere(harness: &Harness, rules: &[Value]) {
    let namespace = Api::<Namespace>::all(harness.client.clone()).get(&harness.namespace).await.unwrap();
    let owner = json!([{ "apiVersion": "v1", "kind": "Namespace", "name": harness.namespace, "uid": namespace.uid() }]);
    let role = json!({ "metadata": { "name": harness.namespace, "ownerReferences": owner }, "rules": rules });
    create(Api::<ClusterRole>::all(harness.client.clone()), role).await;
    let mut binding = binding(harness, "ClusterRole", &harness.namespace);
    binding["metadata"]["ownerReferences"] = owner;
    create(Api::<ClusterRoleBinding>::all(harness.client.clone()), binding).await;
}

/// A client that may do no more than the operator in namespaced mode.
pub async fn restricted(harness: &Harness) -> Client {
    grant_in_namespace(harness, ACCOUNT, &all_rules()).await;
    as_operator(harness).await
}

/// A file for `KUBECONFIG`, for a process that may do no more than the operator in namespaced mode.
pub async fn restricted_kubeconfig(harness: &Harness) -> NamedTempFile {
    grant_in_namespace(harness, ACCOUNT, &all_rules()).await;
    let mut kubeconfig = Kubeconfig::read().unwrap();
    let token = token(harness).await;
    for user in &mut kubeconfig.auth_infos {
        user.auth_info = Some(token.clone());
    }
    let file = NamedTempFile::new().unwrap();
    serde_yaml::to_writer(&file, &kubeconfig).unwrap();
    file
}

/// A client with a token of the operator's `ServiceAccount`.
async fn as_operator(harness: &Harness) -> Client {
    let mut config = Config::infer().await.unwrap();
    config.auth_info = token(harness).await;
    Client::try_from(config).unwrap()
}

async fn token(harness: &Harness) -> AuthInfo {
    let accounts = harness.api::<ServiceAccount>();
    create(accounts.clone(), json!({ "metadata": { "name": ACCOUNT } })).await;
    let asked = accounts.create_token_request(ACCOUNT, &PostParams::default(), &TokenRequest::default()).await.unwrap();
    AuthInfo { token: Some(asked.status.unwrap().token.unwrap().into()), ..AuthInfo::default() }
}

/// The operator's account, as the API server's log has it.
pub fn account(harness: &Harness) -> String {
    format!("system:serviceaccount:{}:{ACCOUNT}", harness.namespace)
}

/// Ends the test; returns what the operator asked for in it.
pub async fn finish(harness: Harness) -> Requests {
    let (client, account) = (harness.client.clone(), account(&harness));
    harness.finish().await;
    Requests::of(&client, &account).await
}

/// A shop's whole life, with everything that the operator ever does; both tests read what was asked for in it.
async fn a_whole_life() -> Requests {
    let mut harness = Harness::new().await;
    harness.operator_client = restricted(&harness).await;
    harness.start_operator("restricted");
    made_and_kept(&harness).await;
    new_keys_asked_for(&harness).await;
    earlier_versions_objects_go(&harness).await;
    meddled_with_twice(&harness).await;
    suspended(&harness).await;
    harness.api::<ShopDeployment>().delete("demo", &DeleteParams::default()).await.unwrap();
    finish(harness).await
}

async fn asked_for() -> &'static Requests {
    static ASKED: OnceCell<Requests> = OnceCell::const_new();
    ASKED.get_or_init(a_whole_life).await
}

async fn made_and_kept(harness: &Harness) {
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
}

/// The Secret of the keys is the one that the operator writes again.
async fn new_keys_asked_for(harness: &Harness) {
    let ask = json!({ "metadata": { "annotations": { "shop.xhipment.io/rotate-keys": "today" } } });
    harness.api::<ShopDeployment>().patch("demo", &PatchParams::default(), &Patch::Merge(&ask)).await.unwrap();
}

/// What an earlier version named otherwise is the shop's too, and no longer wanted.
async fn earlier_versions_objects_go(harness: &Harness) {
    let shop = harness.shop("demo").await;
    let metadata = json!({
        "name": "demo-earlier",
        "labels": { "app.kubernetes.io/managed-by": "shop-operator" },
        "ownerReferences": [shop.controller_owner_ref(&())],
    });
    let pods = json!({ "matchLabels": { "earlier": "yes" } });
    let template = json!({
        "metadata": { "labels": { "earlier": "yes" } },
        "spec": { "containers": [{ "name": "x", "image": "r.example/x:1" }] },
    });
    let deployment = json!({ "replicas": 0, "selector": pods, "template": template });
    let ports = json!({ "ports": [{ "port": 80 }] });
    create(harness.api::<ServiceAccount>(), json!({ "metadata": metadata })).await;
    create(harness.api::<ConfigMap>(), json!({ "metadata": metadata })).await;
    create(harness.api::<Service>(), json!({ "metadata": metadata, "spec": ports })).await;
    create(harness.api::<PodDisruptionBudget>(), json!({ "metadata": metadata, "spec": { "selector": pods } })).await;
    create(harness.api::<Deployment>(), json!({ "metadata": metadata, "spec": deployment })).await;
    // A pass comes by the events of these objects, and one of its own makes sure that they are all in it.
    harness.apply("demo", json!({ "settings": { "displayName": "Later" } })).await;
    gone::<ServiceAccount>(harness).await;
    gone::<ConfigMap>(harness).await;
    gone::<Service>(harness).await;
    gone::<PodDisruptionBudget>(harness).await;
    gone::<Deployment>(harness).await;
}

async fn gone<K>(harness: &Harness)
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + DeserializeOwned + std::fmt::Debug,
{
    let what = format!("no {} demo-earlier", K::kind(&()));
    harness
        .eventually(&what, async || harness.api::<K>().get_opt("demo-earlier").await.unwrap().is_none().then_some(()))
        .await;
}

/// The second event of one kind is counted on the first.
async fn meddled_with_twice(harness: &Harness) {
    let params = PatchParams { field_manager: Some("meddler".to_owned()), ..PatchParams::default() };
    for times in 0..2 {
        let meddling = json!({ "spec": { "maxUnavailable": 2 } });
        let budgets = harness.api::<PodDisruptionBudget>();
        budgets.patch("demo-api", &params, &Patch::Merge(&meddling)).await.unwrap();
        let events: Api<Event> = harness.api();
        harness
            .eventually("an event that counts", async || {
                let found = events.list(&ListParams::default()).await.unwrap();
                let told = found.into_iter().find(|event| event.reason.as_deref() == Some("FieldTakenBack"))?;
                (told.series.map_or(0, |series| series.count) >= times * 2).then_some(())
            })
            .await;
    }
}

async fn suspended(harness: &Harness) {
    // The pods that go are marked before: without the right to it they would stay.
    let workers = ListParams::default().labels("app.kubernetes.io/component=worker");
    harness
        .eventually("a worker to mark", async || harness.api::<Pod>().list(&workers).await.unwrap().into_iter().next())
        .await;
    harness.apply("demo", json!({ "suspended": true, "api": { "ingress": { "enabled": false } }, "networkPolicy": { "enabled": false } })).await;
    harness
        .eventually("no pods and no Ingress", async || {
            let worker = harness.exists::<Deployment>("demo-worker").await;
            let ingresses = harness.api::<Ingress>().list(&ListParams::default()).await.unwrap();
            (worker.spec.replicas == Some(0) && ingresses.items.is_empty()).then_some(())
        })
        .await;
    harness.condition("demo", "Ready", |status, reason| status == "False" && reason == "Suspended").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_charts_rules_suffice() {
    let requests = asked_for().await;
    assert!(requests.denied.is_empty(), "denied by the chart's rules: {:#?}", requests.denied);
    let granted = granted(&all_rules());
    let beyond: Vec<_> = requests.used.difference(&granted).map(Right::to_string).collect();
    assert_eq!(beyond, Vec::<String>::new(), "asked for without a rule");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_charts_rules_grant_nothing_that_is_not_used() {
    let requests = asked_for().await;
    let granted = granted(&all_rules());
    // What `monitoring` sees to, with a CRD that need not be there.
    let others = granted.difference(&requests.used).filter(|right| right.group != MONITORING);
    let unused: Vec<_> = others.map(Right::to_string).collect();
    assert_eq!(unused, Vec::<String>::new(), "take these verbs out of charts/shop-operator/templates/rbac.yaml");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_charts_rules_suffice_for_all_namespaces() {
    let mut harness = Harness::new().await;
    grant_everywhere(&harness, &chart_rules("rules")).await;
    grant_in_namespace(&harness, "leader", &chart_rules("leaderRules")).await;
    harness.operator_client = as_operator(&harness).await;
    harness.start_operator_with("cluster-wide", &["--watch-namespace", ""]);
    made_and_kept(&harness).await;
    harness.api::<ShopDeployment>().delete("demo", &DeleteParams::default()).await.unwrap();
    let denied = finish(harness).await.denied;
    assert!(denied.is_empty(), "denied: {denied:#?}");
}

/// A right that is missing stops what needs it, is named by the shop, and is noticed when it comes.
#[rstest]
#[case::to_see("ingresses", &["list", "watch"], "cannot watch ingresses: ")]
#[case::to_follow("poddisruptionbudgets", &["watch"], "cannot watch poddisruptionbudgets: ")]
#[case::to_make("ingresses", &["create", "patch"], "cannot apply Ingress demo-api")]
#[tokio::test(flavor = "multi_thread")]
async fn a_missing_right_is_named_until_it_is_there(
    #[case] resource: &str,
    #[case] verbs: &[&str],
    #[case] named: &str,
) {
    let mut harness = Harness::new().await;
    let (kept, taken) = without(resource, verbs);
    grant_in_namespace(&harness, ACCOUNT, &kept).await;
    harness.operator_client = as_operator(&harness).await;
    harness.start_operator("restricted");
    harness.apply("demo", json!({})).await;
    let told = async || {
        let conditions = harness.shop("demo").await.status.unwrap_or_default().conditions;
        conditions.into_iter().find(|condition| condition.type_ == "Degraded" && condition.reason == "ApplyForbidden")
    };
    let degraded = harness.eventually("a shop that names the right", told).await;
    assert!(degraded.message.contains(named) && degraded.message.contains("forbidden"), "{}", degraded.message);
    assert!(degraded.message.contains("upgrade the operator's release"), "{}", degraded.message);
    let sees = !named.starts_with("cannot watch");
    let told_by_readyz = async || {
        let told = harness.missing(0).iter().any(|part| part.starts_with("watches: ") && part.contains(named));
        (told != sees).then_some(())
    };
    harness.eventually("a /readyz that names it", told_by_readyz).await;

    grant_in_namespace(&harness, "rest", &[taken]).await;
    harness.exists::<Ingress>("demo-api").await;
    harness.exists::<PodDisruptionBudget>("demo-api").await;
    harness.eventually("a shop that names no right", async || told().await.is_none().then_some(())).await;
    harness.eventually("an operator that is ready", async || harness.missing(0).is_empty().then_some(())).await;
    harness.finish().await;
}
