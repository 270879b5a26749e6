//! Where the tests of correctness play: one namespace whose pods a stand-in kubelet calls ready, operators that can be
//! killed, and pictures of all that a shop consists of, to be compared.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use k8s_openapi::api::{
    apps::v1::Deployment,
    core::v1::{ConfigMap, Pod, Secret, Service, ServiceAccount},
    networking::v1::{Ingress, NetworkPolicy},
    policy::v1::PodDisruptionBudget,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{
    Api, Client, ResourceExt,
    api::{DeleteParams, ListParams, Patch, PatchParams},
    client::ClientBuilder,
};
use serde_json::{Value, json};
use shop_operator::{
    crd::ShopDeployment,
    deadline::Deadline,
    metrics::Metrics,
    names::{self, SCALER},
    rollout,
    run::Operator,
};
use shop_runtime::{health::Readiness, metrics, shutdown::Shutdown};
use tokio::{runtime::Runtime, time::Instant};

use crate::{harness::Harness, queue::Sqs, wire::Wire};

const OURS: &str = "app.kubernetes.io/managed-by=shop-operator";

/// Object → what it is like, without what differs from run to run.
pub type Picture = BTreeMap<String, Value>;

/// Whether the exhaustive runs are wanted.
pub fn is_long() -> bool {
    std::env::var_os("SHOP_TEST_LONG").is_some()
}

pub struct Stage {
    pub harness: Harness,
    pub sqs: Sqs,
    kubelet: tokio::task::JoinHandle<()>,
}

impl Stage {
    pub async fn new() -> Self {
        let (harness, sqs) = (Harness::new().await, Sqs::new().await);
        let pods = harness.api::<Pod>();
        let kubelet = tokio::spawn(kubelet(pods));
        Self { harness, sqs, kubelet }
    }

    /// A shop with a Managed queue that can be read, whose pods no node takes: the stand-in kubelet has them.
    pub fn spec(&self, patch: Value) -> Value {
        let pod = json!({ "nodeSelector": { "shop.xhipment.io/test": "none" } });
        let mut spec = self.sqs.spec(json!({
            "api": { "replicas": 1, "ingress": { "enabled": true }, "pod": pod },
            "worker": { "pod": pod },
        }));
        spec["queue"]["deletionPolicy"] = json!("Retain");
        crate::harness::merge(&mut spec, patch);
        spec
    }

    pub async fn apply(&self, spec: &Value) {
        self.harness.apply("demo", spec.clone()).await;
    }

    /// Gives a Secret that is there these contents.
    pub async fn secret(&self, name: &str, data: &[(&str, &str)]) {
        let data: BTreeMap<_, _> = data.iter().copied().collect();
        let change = Patch::Merge(json!({ "stringData": data }));
        self.harness.api::<Secret>().patch(name, &PatchParams::default(), &change).await.unwrap();
    }

    /// An operator on this wire, as a pod of this name.
    pub fn start(&self, pod: &str, wire: &Wire) -> Process {
        Process::start(&self.harness, pod, wire)
    }

    /// Waits for a shop that is all there and ready, and of which nothing is left to be told.
    pub async fn ready(&self, process: &Process, wire: &Wire) {
        self.harness.condition("demo", "Ready", |status, _| status == "True").await;
        self.harness
            .eventually("a shop of which all is well", async || {
                let status = self.harness.shop("demo").await.status?;
                let current = |c: &Condition| c.observed_generation == status.observed_generation;
                let settled = |c: &Condition| match c.type_.as_str() {
                    "Progressing" => c.status == "False",
                    // A pod's complaint that is over by now is taken back within ten seconds.
                    "ApiAvailable" | "WorkerAvailable" => c.status == "True" && c.message.is_empty(),
                    _ => true,
                };
                // The scaler's first act is to make the replicas its own.
                let worker = self.harness.exists::<Deployment>("demo-worker").await;
                let theirs = rollout::owns_replicas(&worker, SCALER);
                (theirs && status.conditions.iter().all(|c| current(c) && settled(c))).then_some(())
            })
            .await;
        self.quiet(process, wire, 3).await;
    }

    /// Waits until there are so many workers, and the shop says so.
    pub async fn workers(&self, count: i32) {
        let told = async || {
            let worker = self.harness.shop("demo").await.status?.worker?;
            (worker.ready == count && worker.desired == count).then_some(())
        };
        self.harness.eventually(&format!("{count} workers"), told).await;
    }

    /// Waits for 50 passes in a row without a write but the Lease's; for fewer in a sample.
    pub async fn at_rest(&self, process: &Process, wire: &Wire) {
        self.quiet(process, wire, if is_long() { 50 } else { 15 }).await;
    }

    async fn quiet(&self, process: &Process, wire: &Wire, passes: u32) {
        let started = Instant::now();
        loop {
            let before = wire.writes().len();
            for number in 0..passes {
                self.one_pass(process, number).await;
            }
            let written = wire.writes().split_off(before);
            if written.is_empty() {
                return;
            }
            assert!(started.elapsed() < Duration::from_secs(40), "never at rest: {written:?}");
        }
    }

    /// A bare annotation makes a pass.
    async fn one_pass(&self, process: &Process, number: u32) {
        let seen = process.passes();
        let touch = json!({ "metadata": { "annotations": { "test/touch": number.to_string() } } });
        let shops = self.harness.api::<ShopDeployment>();
        shops.patch("demo", &PatchParams::default(), &Patch::Merge(&touch)).await.unwrap();
        let started = Instant::now();
        while process.passes() == seen {
            assert!(started.elapsed() < Duration::from_secs(20), "no pass follows a change of the shop");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Everything there is of the shop.
    pub async fn picture(&self) -> Picture {
        let mut picture = Picture::new();
        macro_rules! add {
            ($($kind:ty),*) => {$(
                for object in self.harness.api::<$kind>().list(&ListParams::default().labels(OURS)).await.unwrap() {
                    let name = format!("{} {}", stringify!($kind), object.name_any());
                    picture.insert(name, plain(&serde_json::to_value(&object).unwrap()));
                }
            )*};
        }
        add!(ServiceAccount, ConfigMap, Secret, NetworkPolicy, Service, Ingress, PodDisruptionBudget, Deployment);
        for shop in self.harness.api::<ShopDeployment>().list(&ListParams::default()).await.unwrap() {
            picture.insert(format!("ShopDeployment {}", shop.name_any()), plain(&told(&shop)));
        }
        let queues = [self.sqs.name.clone(), format!("{}-dlq", self.sqs.name)];
        for name in queues {
            if self.sqs.url(&name).await.is_some() {
                picture.insert(format!("Queue {name}"), Value::Null);
            }
        }
        picture
    }

    /// The version of everything there is of the shop; what only the Deployment's controller writes does not count.
    pub async fn versions(&self) -> BTreeMap<String, String> {
        let mut versions = BTreeMap::new();
        macro_rules! add {
            ($($kind:ty),*) => {$(
                for object in self.harness.api::<$kind>().list(&ListParams::default().labels(OURS)).await.unwrap() {
                    let name = format!("{} {}", stringify!($kind), object.name_any());
                    let (uid, version) = (object.uid(), object.resource_version());
                    versions.insert(name, format!("{uid:?} {version:?}"));
                }
            )*};
        }
        add!(ServiceAccount, ConfigMap, Secret, NetworkPolicy, Service, Ingress, PodDisruptionBudget, Deployment);
        for shop in self.harness.api::<ShopDeployment>().list(&ListParams::default()).await.unwrap() {
            versions.insert(format!("ShopDeployment {}", shop.name_any()), format!("{:?}", shop.resource_version()));
        }
        versions
    }

    /// Waits until everything is as in this picture.
    pub async fn same(&self, wanted: &Picture, what: &str) {
        self.same_in(wanted, what, |picture| picture).await;
    }

    /// Waits until everything is as in this picture, but for how many rollouts there have been.
    pub async fn same_after_all(&self, wanted: &Picture, what: &str) {
        self.same_in(&without_revisions(wanted.clone()), what, without_revisions).await;
    }

    async fn same_in(&self, wanted: &Picture, what: &str, view: fn(Picture) -> Picture) {
        let started = Instant::now();
        loop {
            let found = view(self.picture().await);
            if found == *wanted {
                return;
            }
            assert!(started.elapsed() < Duration::from_mins(1), "{what}: {}", difference(wanted, &found));
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    /// Removes the shop, its objects and its queues.
    pub async fn clear(&self) {
        let shops = self.harness.api::<ShopDeployment>();
        let _gone = shops.delete("demo", &DeleteParams::default()).await;
        let none = json!({ "metadata": { "finalizers": null } });
        let _gone = shops.patch("demo", &PatchParams::default(), &Patch::Merge(&none)).await;
        self.sqs.clean().await;
        self.same(&Picture::new(), "a cleared stage").await;
        let events: Api<k8s_openapi::api::events::v1::Event> = self.harness.api();
        events.delete_collection(&DeleteParams::default(), &ListParams::default()).await.unwrap();
    }

    pub async fn finish(self) {
        self.clear().await;
        self.kubelet.abort();
        self.harness.finish().await;
    }
}

/// An operator that can be killed: everything of it runs in a runtime of its own.
pub struct Process {
    runtime: Option<Runtime>,
    registry: metrics::Metrics,
}

impl Process {
    fn start(harness: &Harness, pod: &str, wire: &Wire) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let registry = metrics::Metrics::default();
        let metrics = Metrics::register(&registry);
        let operator = Operator {
            config: harness.config(pod),
            shutdown: Shutdown::manual(),
            readiness: Readiness::default(),
            metrics,
        };
        let wire = wire.clone();
        runtime.spawn(async move { operator.run(client(&wire).await).await });
        Self { runtime: Some(runtime), registry }
    }

    /// In the middle of whatever it does.
    pub fn kill(mut self) {
        self.end();
    }

    fn end(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }

    pub fn passes(&self) -> u64 {
        let text = self.registry.encode().unwrap();
        let lines = text.lines().filter_map(|line| line.strip_prefix("shop_operator_reconciles_total{"));
        lines.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.end();
    }
}

/// The operator's client of the API server, behind this wire.
pub async fn client(wire: &Wire) -> Client {
    let config = kube::Config::infer().await.unwrap();
    ClientBuilder::try_from(config).unwrap().with_layer(wire).with_layer(&Deadline::default()).build()
}

/// Calls every pod ready that no node takes.
async fn kubelet(pods: Api<Pod>) {
    let ready = json!({ "status": { "phase": "Running", "conditions": [
        { "type": "PodScheduled", "status": "True" }, { "type": "Ready", "status": "True" },
    ] } });
    loop {
        let found = pods.list(&ListParams::default().labels(OURS)).await.map(|list| list.items).unwrap_or_default();
        // The scheduler has its own word now and then.
        for pod in found.iter().filter(|pod| !rollout::is_ready(pod) || is_troubled(pod)) {
            let _gone = pods.patch_status(&pod.name_any(), &PatchParams::default(), &Patch::Strategic(&ready)).await;
        }
        tokio::time::sleep(Duration::from_millis(150)).await;
    }
}

fn is_troubled(pod: &Pod) -> bool {
    rollout::complaint(&[Arc::new(pod.clone())], None, shop_runtime::clock::Clock::system().now()).is_some()
}

fn is_available(condition: &Condition) -> bool {
    matches!(condition.type_.as_str(), "ApiAvailable" | "WorkerAvailable") && condition.status == "True"
}

/// What a shop says of itself, without numbers and times.
fn told(shop: &ShopDeployment) -> Value {
    let mut object = serde_json::to_value(shop).unwrap();
    let status = shop.status.clone().unwrap_or_default();
    let current = shop.metadata.generation;
    let conditions: Vec<_> = status
        .conditions
        .iter()
        .map(|c| {
            // What the scheduler says of a pod that no node takes comes and goes.
            let message = if is_available(c) { "" } else { &c.message };
            json!([c.type_, c.status, c.reason, message, c.observed_generation == current])
        })
        .collect();
    object["status"] = json!({
        "current": status.observed_generation == current,
        "conditions": conditions,
        "api": status.api,
        "worker": status.worker,
        "queue": status.queue.map(|queue| (queue.url, queue.dead_letter_url)),
        "desired": status.autoscaling.map(|scaling| scaling.desired),
    });
    object
}

/// Without what differs from run to run: identities, versions, times, generated values, what other controllers say.
fn plain(object: &Value) -> Value {
    let meta = &object["metadata"];
    let owner = meta["ownerReferences"][0]["uid"].as_str().or_else(|| meta["uid"].as_str()).unwrap_or_default();
    let mut object: Value = serde_json::from_str(&object.to_string().replace(owner, "UID")).unwrap();
    let fields = object["metadata"]["managedFields"].take();
    let mut ours: Vec<_> = fields.as_array().into_iter().flatten().filter(|entry| is_ours(entry)).map(owned).collect();
    ours.sort();
    object["metadata"]["fields"] = json!(ours);
    if object["status"].get("current").is_none() {
        let status = &object["status"];
        object["status"] = ["replicas", "readyReplicas", "updatedReplicas"].map(|key| status[key].clone()).into();
    }
    if object["data"].get("keys.json").is_some() {
        object["data"].as_object_mut().unwrap().values_mut().for_each(|value| *value = Value::Null);
    }
    if let Some(annotations) = object["metadata"].get_mut("annotations").and_then(Value::as_object_mut) {
        annotations.remove("test/touch");
        if annotations.is_empty() {
            object["metadata"].as_object_mut().unwrap().remove("annotations");
        }
    }
    for path in DIFFERENT {
        if let Some(value) = object.pointer_mut(path) {
            *value = Value::Null;
        }
    }
    object
}

/// The fingerprints have the owner's uid and the versions of Secrets in them.
const DIFFERENT: [&str; 9] = [
    "/metadata/uid",
    "/metadata/resourceVersion",
    "/metadata/creationTimestamp",
    "/metadata/generation",
    "/metadata/managedFields",
    "/metadata/annotations/shop.xhipment.io~1built",
    "/spec/template/metadata/annotations/shop.xhipment.io~1config",
    "/spec/clusterIP",
    "/spec/clusterIPs",
];

/// What the status says is looked at by itself.
fn is_ours(entry: &Value) -> bool {
    entry["subresource"] != "status" && entry["manager"].as_str().is_some_and(|manager| manager.starts_with("shop-"))
}

/// The replicas that the builder set first stay its own beside the scaler's until the scaler sets another number.
fn owned(entry: &Value) -> String {
    let mut fields = entry["fieldsV1"].clone();
    if entry["manager"] == names::MANAGER
        && let Some(spec) = fields["f:spec"].as_object_mut()
    {
        spec.remove("f:replicas");
    }
    format!("{} {} {} {fields}", entry["manager"], entry["operation"], entry["subresource"])
}

/// Without how many rollouts there have been, which of a new Deployment is not known at once.
pub fn without_revisions(mut picture: Picture) -> Picture {
    for object in picture.values_mut() {
        let annotations = object.pointer_mut("/metadata/annotations").and_then(Value::as_object_mut);
        annotations.and_then(|annotations| annotations.remove("deployment.kubernetes.io/revision"));
    }
    picture
}

/// Each field that differs.
pub fn difference(wanted: &Picture, found: &Picture) -> String {
    let names: std::collections::BTreeSet<_> = wanted.keys().chain(found.keys()).collect();
    names.into_iter().map(|name| differs(name, wanted.get(name), found.get(name))).collect()
}

/// The fields that differ, each on a line.
fn differs(path: &str, wanted: Option<&Value>, found: Option<&Value>) -> String {
    match (wanted, found) {
        (wanted, found) if wanted == found => String::new(),
        (Some(Value::Object(wanted)), Some(Value::Object(found))) => {
            let keys: std::collections::BTreeSet<_> = wanted.keys().chain(found.keys()).collect();
            keys.into_iter().map(|key| differs(&format!("{path}/{key}"), wanted.get(key), found.get(key))).collect()
        }
        (wanted, found) => {
            let show = |value: Option<&Value>| {
                value.map_or_else(|| "not there".to_owned(), |value| value.to_string().chars().take(700).collect())
            };
            format!("\n{path}:\n  wanted {}\n  found  {}", show(wanted), show(found))
        }
    }
}
