//! A namespace and an operator of its own for each test, on the cluster that KUBECONFIG names. Fails without one.

use std::{fmt::Debug, sync::OnceLock, time::Duration};

use clap::Parser;
use k8s_openapi::{
    NamespaceResourceScope,
    api::core::v1::{Namespace, Secret},
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
};
use kube::{
    Api, Client, CustomResourceExt, Resource, ResourceExt,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams},
    runtime::{conditions::is_crd_established, wait::await_condition},
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};
use shop_operator::{config::Config, crd::ShopDeployment, metrics::Metrics, run::Operator};
use shop_runtime::{health::Readiness, ids::random_hex, metrics, shutdown::Shutdown};
use tokio::time::Instant;

/// What a shop runs that names no image.
pub const WORKER_IMAGE: &str = "r.example/worker:1";
pub const PATIENCE: Duration = Duration::from_mins(1);
const CLASS: &str = "shop.xhipment.io/operator-class";

pub struct Harness {
    pub client: Client,
    pub namespace: String,
    /// What operators are started with: the tests' own client, unless a test is about permissions.
    pub operator_client: Client,
    operators: Vec<Started>,
}

struct Started {
    shutdown: Shutdown,
    metrics: metrics::Metrics,
    readiness: Readiness,
}

impl Harness {
    /// A namespace with the Secret that every shop needs; no operator yet.
    pub async fn new() -> Self {
        let client = client().await;
        install_crd(&client).await;
        let namespace = format!("shop-test-{}", random_hex::<5>().unwrap());
        let object = json!({ "metadata": { "name": namespace, "labels": { "shop.xhipment.io/test": "true" } } });
        let namespaces: Api<Namespace> = Api::all(client.clone());
        namespaces.create(&PostParams::default(), &serde_json::from_value(object).unwrap()).await.unwrap();
        let harness = Self { operator_client: client.clone(), client, namespace, operators: Vec::new() };
        harness.secret("mongodb", &[("uri", "mongodb://nowhere")]).await;
        harness.secret("aws", &[("accessKeyId", "test"), ("secretAccessKey", "test")]).await;
        harness
    }

    pub async fn with_operator() -> Self {
        let mut harness = Self::new().await;
        harness.start_operator("one");
        harness
    }

    /// Starts an operator for this namespace alone. A deployed one leaves its shops alone, by their class.
    pub fn start_operator(&mut self, name: &str) -> usize {
        self.start_operator_with(name, &["--watch-namespace", &self.namespace.clone()])
    }

    /// Starts an operator with more arguments.
    pub fn start_operator_with(&mut self, name: &str, more: &[&str]) -> usize {
        let more = more.iter().map(ToString::to_string);
        let config =
            Config::parse_from(std::iter::once("shop-operator".to_owned()).chain(self.usual(name)).chain(more));
        let started = Started {
            shutdown: Shutdown::manual(),
            metrics: metrics::Metrics::default(),
            readiness: Readiness::default(),
        };
        let operator = Operator {
            config,
            shutdown: started.shutdown.clone(),
            readiness: started.readiness.clone(),
            metrics: Metrics::register(&started.metrics),
        };
        started.shutdown.spawn(operator.run(self.operator_client.clone()));
        self.operators.push(started);
        self.operators.len() - 1
    }

    /// The arguments of an operator for this namespace alone, as a pod of this name.
    pub fn arguments(&self, name: &str) -> Vec<String> {
        self.usual(name).into_iter().chain([format!("--watch-namespace={}", self.namespace)]).collect()
    }

    fn usual(&self, name: &str) -> [String; 5] {
        let namespace = &self.namespace;
        [
            "--api-image=r.example/api:1".to_owned(),
            format!("--worker-image={WORKER_IMAGE}"),
            format!("--operator-class={namespace}"),
            format!("--pod-name={name}"),
            format!("--pod-namespace={namespace}"),
        ]
    }

    pub fn config(&self, name: &str) -> Config {
        Config::parse_from(std::iter::once("shop-operator".to_owned()).chain(self.arguments(name)))
    }

    /// Stops an operator in good order.
    pub async fn stop_operator(&self, index: usize) {
        let shutdown = &self.operators[index].shutdown;
        shutdown.drain();
        assert!(shutdown.wait(Duration::from_secs(10)).await, "the operator did not stop in time");
    }

    /// What an operator's `/readyz` says is missing.
    pub fn missing(&self, index: usize) -> Vec<String> {
        self.operators[index].readiness.missing()
    }

    /// The lines of an operator's metrics that begin like this.
    pub fn metrics(&self, index: usize, start: &str) -> Vec<String> {
        let text = self.operators[index].metrics.encode().unwrap();
        text.lines().filter(|line| line.starts_with(start)).map(str::to_owned).collect()
    }

    /// The value of one of an operator's metrics; what was never counted is 0.
    pub fn counted(&self, index: usize, series: &str) -> u64 {
        let found = self.metrics(index, &format!("{series} "));
        found.first().map_or(0, |line| line[series.len()..].trim().parse().unwrap())
    }

    pub fn api<K>(&self) -> Api<K>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
    {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    pub async fn secret(&self, name: &str, data: &[(&str, &str)]) {
        let data: serde_json::Map<_, _> = data.iter().map(|(key, value)| ((*key).to_owned(), json!(value))).collect();
        let secret = serde_json::from_value(json!({ "metadata": { "name": name }, "stringData": data })).unwrap();
        self.api::<Secret>().create(&PostParams::default(), &secret).await.unwrap();
    }

    /// A shop manifest of this test's class, with `patch` merged over a minimal spec.
    pub fn manifest(&self, name: &str, patch: Value) -> Value {
        let mut object = json!({
            "apiVersion": "shop.xhipment.io/v1alpha1",
            "kind": "ShopDeployment",
            "metadata": { "name": name, "namespace": self.namespace, "labels": { CLASS: self.namespace } },
            "spec": {
                "mongodb": { "uriSecretRef": { "name": "mongodb" } },
                // Nobody listens there: connections are refused at once.
                "queue": { "name": format!("orders-{name}"), "endpoint": "http://127.0.0.1:1" },
                "mail": { "from": "shop@example.com" },
                "aws": { "credentialsSecretRef": { "name": "aws" } },
                "api": { "ingress": { "enabled": true } },
            },
        });
        merge(&mut object["spec"], patch);
        object
    }

    pub async fn try_apply(&self, manifest: &Value) -> Result<ShopDeployment, kube::Error> {
        let name = manifest["metadata"]["name"].as_str().unwrap();
        self.api().patch(name, &PatchParams::apply("test").force(), &Patch::Apply(manifest)).await
    }

    pub async fn apply(&self, name: &str, patch: Value) -> ShopDeployment {
        self.try_apply(&self.manifest(name, patch)).await.unwrap()
    }

    pub async fn shop(&self, name: &str) -> ShopDeployment {
        self.api().get(name).await.unwrap()
    }

    /// Waits until the shop's condition of this type is as `holds` wants it.
    pub async fn condition(&self, name: &str, kind: &str, holds: impl Fn(&str, &str) -> bool) -> String {
        self.eventually(&format!("condition {kind} of {name}"), async || {
            let shop: ShopDeployment = self.api().get(name).await.unwrap();
            let status = shop.status.unwrap_or_default();
            let current = status.observed_generation == shop.metadata.generation;
            let found = status.conditions.into_iter().find(|condition| condition.type_ == kind && current)?;
            holds(&found.status, &found.reason).then_some(found.message)
        })
        .await
    }

    /// Asks again and again until there is an answer; fails after a minute, naming what was waited for.
    pub async fn eventually<T>(&self, what: &str, ask: impl AsyncFnMut() -> Option<T>) -> T {
        self.within(PATIENCE, what, ask).await
    }

    /// The same with more patience.
    pub async fn within<T>(&self, patience: Duration, what: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
        let started = Instant::now();
        loop {
            if let Some(answer) = ask().await {
                return answer;
            }
            if started.elapsed() > patience {
                let shops = self.api::<ShopDeployment>().list(&ListParams::default()).await.unwrap();
                let status: Vec<_> = shops.items.into_iter().map(|shop| shop.status).collect();
                panic!(
                    "waited in vain for: {what}; the shops' status: {}",
                    serde_json::to_string_pretty(&status).unwrap()
                );
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Waits for an object of this name.
    pub async fn exists<K>(&self, name: &str) -> K
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + DeserializeOwned + Debug + Serialize,
    {
        let what = format!("{} {name}", K::kind(&()));
        self.eventually(&what, async || self.api::<K>().get_opt(name).await.unwrap()).await
    }

    /// Stops the operators in good order and removes what the test made.
    pub async fn finish(self) {
        remove_shops(&self.client, &self.namespace).await;
        for index in 0..self.operators.len() {
            self.stop_operator(index).await;
        }
    }
}

impl Drop for Harness {
    /// Also after a failure: the namespace must not stay behind, nor a finalizer without its operator.
    fn drop(&mut self) {
        for operator in &self.operators {
            operator.shutdown.drain();
        }
        let namespace = self.namespace.clone();
        let cleaning = std::thread::spawn(move || {
            // A client belongs to the runtime it was made in.
            tokio::runtime::Runtime::new().unwrap().block_on(async {
                let client = Client::try_default().await.unwrap();
                remove_shops(&client, &namespace).await;
                let namespaces: Api<Namespace> = Api::all(client);
                match namespaces.delete(&namespace, &DeleteParams::default()).await {
                    Err(kube::Error::Api(status)) if status.is_not_found() || status.is_conflict() => {}
                    deleted => drop(deleted.unwrap()),
                }
            });
        });
        if let Err(error) = cleaning.join() {
            eprintln!("namespace {} is left behind: {error:?}", self.namespace);
        }
    }
}

async fn remove_shops(client: &Client, namespace: &str) {
    let shops: Api<ShopDeployment> = Api::namespaced(client.clone(), namespace);
    for shop in shops.list(&ListParams::default()).await.unwrap() {
        let _gone = shops.delete(&shop.name_any(), &DeleteParams::default()).await;
        let none = json!({ "metadata": { "finalizers": null } });
        let _gone = shops.patch(&shop.name_any(), &PatchParams::default(), &Patch::Merge(&none)).await;
    }
}

pub fn merge(target: &mut Value, patch: Value) {
    match (target, patch) {
        (Value::Object(target), Value::Object(patch)) => {
            for (key, value) in patch {
                if value.is_null() {
                    target.remove(&key);
                } else {
                    merge(target.entry(key).or_insert(Value::Null), value);
                }
            }
        }
        (target, patch) => *target = patch,
    }
}

async fn client() -> Client {
    static LOGGING: OnceLock<()> = OnceLock::new();
    shop_runtime::install_tls_provider();
    LOGGING.get_or_init(|| shop_runtime::telemetry::init("warn,shop_operator=info").unwrap());
    let help = "no Kubernetes cluster: set KUBECONFIG, or run `cargo xtask test operator`, which starts one";
    let client = Client::try_default().await.unwrap_or_else(|error| panic!("{help} ({error})"));
    client.apiserver_version().await.unwrap_or_else(|error| panic!("{help} ({error})"));
    client
}

async fn install_crd(client: &Client) {
    let crds: Api<CustomResourceDefinition> = Api::all(client.clone());
    let name = "shopdeployments.shop.xhipment.io";
    let params = PatchParams::apply("shop-operator-tests").force();
    crds.patch(name, &params, &Patch::Apply(ShopDeployment::crd())).await.unwrap();
    let established = await_condition(crds, name, is_crd_established());
    tokio::time::timeout(PATIENCE, established).await.expect("the CRD was not established in time").unwrap();
}
