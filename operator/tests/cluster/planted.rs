//! No value of a Secret leaves it: recognisable values in every Secret that a shop can name, the operator as a process through
//! a shop's whole life, and then a search of everything that it said and wrote.

use std::{
    collections::BTreeSet,
    io::Read,
    process::{Child, Command, Stdio},
    thread::JoinHandle,
};

use base64::{Engine, engine::general_purpose::STANDARD};
use k8s_openapi::{
    NamespaceResourceScope,
    api::{
        apps::v1::{Deployment, ReplicaSet},
        core::v1::{ConfigMap, Pod, Secret, Service, ServiceAccount},
        events::v1::Event,
        networking::v1::{Ingress, NetworkPolicy},
        policy::v1::PodDisruptionBudget,
    },
};
use kube::{
    Api, CustomResourceExt, Resource,
    api::{DeleteParams, ListParams, Patch, PatchParams},
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};
use shop_operator::{crd::ShopDeployment, names::ROTATE_KEYS};
use shop_runtime::ids::random_hex;

use crate::harness::Harness;

/// Where a spec names a Secret, and the keys that are read from it.
const NAMED: [(&str, &[&str]); 7] = [
    ("mongodb.uriSecretRef", &["uri"]),
    ("redis.urlSecretRef", &["url"]),
    ("aws.credentialsSecretRef", &["accessKeyId", "secretAccessKey"]),
    ("auth.staffSecretRef", &["email", "password"]),
    ("auth.keysSecretRef", &["keys.json"]),
    ("images.pullSecrets", &[".dockerconfigjson"]),
    ("api.ingress.tls.secretName", &["tls.crt", "tls.key"]),
];

/// What a spec names of which nothing is secret: certificates.
const PUBLIC: &str = "caSecretRef";

/// Planted values, and what is searched for them.
struct Search {
    values: Vec<String>,
    haystack: Vec<(String, String)>,
}

impl Search {
    fn plant(&mut self) -> String {
        let value = format!("planted-{}", random_hex::<12>().unwrap());
        self.values.push(value.clone());
        value
    }

    fn look_into(&mut self, what: impl Into<String>, text: impl Into<String>) {
        self.haystack.push((what.into(), text.into()));
    }

    /// The planted value that stands in a text, as it is or encoded as Secrets are.
    fn hit(&self, text: &str) -> Option<&String> {
        self.values.iter().find(|value| text.contains(*value) || text.contains(&STANDARD.encode(value)))
    }

    fn found(&self) -> Vec<String> {
        let hits = self.haystack.iter().filter_map(|(what, text)| Some(format!("{} in {what}", self.hit(text)?)));
        hits.collect()
    }
}

/// The operator as a process of its own. What it says is read while it runs: a full pipe would stop it.
struct Process {
    child: Child,
    output: Vec<JoinHandle<String>>,
}

impl Process {
    /// With nothing in its environment but what it is given here.
    fn start(harness: &Harness) -> Self {
        #[expect(clippy::disallowed_methods, reason = "the cluster's address is in the tests' environment")]
        let environment = ["KUBECONFIG", "HOME", "PATH"].map(|name| (name, std::env::var(name).unwrap_or_default()));
        let ours = [
            ("SHOP_API_IMAGE", "r.example/api:1"),
            ("SHOP_WORKER_IMAGE", "r.example/worker:1"),
            ("SHOP_WATCH_NAMESPACE", &harness.namespace),
            ("SHOP_OPERATOR_CLASS", &harness.namespace),
            ("SHOP_POD_NAMESPACE", &harness.namespace),
            ("SHOP_METRICS_ADDR", "127.0.0.1:0"),
            // More than `debug`: whatever our own code says at all.
            ("SHOP_LOG_LEVEL", "trace"),
        ];
        let mut command = Command::new(env!("CARGO_BIN_EXE_shop-operator"));
        command.env_clear().envs(environment).envs(ours);
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let output = vec![reading(child.stdout.take().unwrap()), reading(child.stderr.take().unwrap())];
        Self { child, output }
    }

    fn look_into(&self, search: &mut Search) {
        for file in ["cmdline", "environ"] {
            let bytes = std::fs::read(format!("/proc/{}/{file}", self.child.id())).unwrap();
            assert!(!bytes.is_empty());
            search.look_into(format!("/proc/PID/{file}"), String::from_utf8_lossy(&bytes).into_owned());
        }
    }

    /// Asks it to end, and returns all that it said.
    fn stop(mut self) -> Vec<String> {
        let asked = Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status().unwrap();
        assert!(asked.success());
        let output = std::mem::take(&mut self.output);
        output.into_iter().map(|output| output.join().unwrap()).collect()
    }
}

impl Drop for Process {
    /// Also after a failure no process stays behind; one that has ended already is only waited for.
    fn drop(&mut self) {
        let _ended = self.child.kill();
        self.child.wait().unwrap();
    }
}

fn reading(mut stream: impl Read + Send + 'static) -> JoinHandle<String> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).unwrap();
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

/// Makes the Secrets, or gives each of their keys a new value.
async fn plant(harness: &Harness, search: &mut Search) {
    for (field, keys) in NAMED {
        let name = secret_name(field);
        let data: serde_json::Map<_, _> = keys.iter().map(|key| ((*key).to_owned(), json!(search.plant()))).collect();
        let secret = json!({ "apiVersion": "v1", "kind": "Secret", "metadata": { "name": name }, "stringData": data });
        let params = PatchParams::apply("test").force();
        harness.api::<Secret>().patch(&name, &params, &Patch::Apply(&secret)).await.unwrap();
    }
}

fn secret_name(field: &str) -> String {
    format!("planted-in-{}", field.replace('.', "-").to_lowercase())
}

fn spec(queue: &Value) -> Value {
    let named = |field: &str| json!({ "name": secret_name(field) });
    json!({
        "mongodb": { "uriSecretRef": named("mongodb.uriSecretRef") },
        "redis": { "urlSecretRef": named("redis.urlSecretRef") },
        "aws": { "credentialsSecretRef": named("aws.credentialsSecretRef") },
        "auth": { "staffSecretRef": named("auth.staffSecretRef"), "keysSecretRef": named("auth.keysSecretRef") },
        "images": { "pullSecrets": [named("images.pullSecrets")] },
        "api": { "ingress": { "host": "planted.example", "tls": { "secretName": secret_name("api.ingress.tls.secretName") } } },
        "queue": queue,
    })
}

/// Everything but Secrets, as the API server has it, with managed fields and all.
async fn look_at_the_cluster(harness: &Harness, search: &mut Search) {
    async fn look<K>(harness: &Harness, search: &mut Search)
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>
            + Clone
            + DeserializeOwned
            + std::fmt::Debug
            + Serialize,
    {
        let api: Api<K> = harness.api();
        for object in api.list(&ListParams::default()).await.unwrap() {
            let name = object.meta().name.clone().unwrap_or_default();
            search.look_into(format!("{} {name}", K::kind(&())), serde_json::to_string(&object).unwrap());
        }
    }
    look::<ShopDeployment>(harness, search).await;
    look::<Event>(harness, search).await;
    look::<Deployment>(harness, search).await;
    look::<ReplicaSet>(harness, search).await;
    look::<Pod>(harness, search).await;
    look::<ConfigMap>(harness, search).await;
    look::<Service>(harness, search).await;
    look::<ServiceAccount>(harness, search).await;
    look::<Ingress>(harness, search).await;
    look::<NetworkPolicy>(harness, search).await;
    look::<PodDisruptionBudget>(harness, search).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_value_of_a_secret_is_told() {
    let harness = Harness::new().await;
    let mut search = Search { values: Vec::new(), haystack: Vec::new() };
    plant(&harness, &mut search).await;
    let operator = Process::start(&harness);
    live(&harness, &mut search).await;
    operator.look_into(&mut search);
    look_at_the_cluster(&harness, &mut search).await;
    let shops = harness.api::<ShopDeployment>();
    for name in ["demo", "own", "refused"] {
        shops.delete(name, &DeleteParams::default()).await.unwrap();
        harness.eventually("the shop's end", async || shops.get_opt(name).await.unwrap().is_none().then_some(())).await;
    }
    let said = tokio::task::spawn_blocking(|| operator.stop()).await.unwrap();
    assert!(said[0].contains("applied"), "nothing was logged to search in: {said:?}");
    for text in said {
        search.look_into("the operator's output", text);
    }
    // The one place where they are, and the proof that the search would find them.
    let secrets = harness.api::<Secret>().list(&ListParams::default()).await.unwrap();
    assert!(search.hit(&serde_json::to_string(&secrets.items).unwrap()).is_some(), "the search finds nothing at all");
    assert!(search.haystack.len() > 20, "only {} texts were searched", search.haystack.len());
    assert_eq!(search.found(), Vec::<String>::new());
    harness.finish().await;
}

/// Made, changed with its Secrets, failing in every way that has to do with them.
async fn live(harness: &Harness, search: &mut Search) {
    let managed = json!({ "endpoint": sqs(), "management": "Managed", "deletionPolicy": "Delete",
                          "name": format!("planted-{}", random_hex::<5>().unwrap()) });
    harness.apply("demo", spec(&managed)).await;
    harness.condition("demo", "QueueReadable", |status, _| status == "True").await;
    // The queue is away for this one: the answer to its credentials is a failure.
    harness.apply("refused", spec(&json!({}))).await;
    harness.condition("refused", "QueueReadable", |status, _| status == "False").await;
    generated(harness, search).await;
    plant(harness, search).await;
    let mut changed = spec(&managed);
    changed["settings"] = json!({ "displayName": "Changed" });
    harness.apply("demo", changed).await;
    harness.condition("demo", "ConfigValid", |status, _| status == "True").await;
    look_at_the_cluster(harness, search).await;
    let secrets = harness.api::<Secret>();
    let (aws, staff) = (secret_name("aws.credentialsSecretRef"), secret_name("auth.staffSecretRef"));
    let no_key = json!({ "data": { "secretAccessKey": null } });
    secrets.patch(&aws, &PatchParams::default(), &Patch::Merge(&no_key)).await.unwrap();
    harness.condition("demo", "ConfigValid", |_, reason| reason == "SecretKeyMissing").await;
    plant(harness, search).await;
    harness.condition("demo", "ConfigValid", |status, _| status == "True").await;
    secrets.delete(&staff, &DeleteParams::default()).await.unwrap();
    harness.condition("demo", "ConfigValid", |_, reason| reason == "SecretMissing").await;
    look_at_the_cluster(harness, search).await;
    plant(harness, search).await;
    harness.condition("demo", "ConfigValid", |status, _| status == "True").await;
}

/// Keys that the operator makes, and a rotation of them, are secrets too.
async fn generated(harness: &Harness, search: &mut Search) {
    let mut own = spec(&json!({}));
    own["auth"] = json!({});
    harness.apply("own", own).await;
    for (request, count) in [("", 1), ("now", 2)] {
        let rotate = json!({ "metadata": { "annotations": { ROTATE_KEYS: request } } });
        let params = PatchParams::default();
        harness.api::<ShopDeployment>().patch("own", &params, &Patch::Merge(&rotate)).await.unwrap();
        let keys = async || {
            let file = harness.api::<Secret>().get_opt("own-keys").await.unwrap()?.data?.remove("keys.json")?;
            let file: Value = serde_json::from_slice(&file.0).unwrap();
            file["keys"].as_object().filter(|keys| keys.len() == count).cloned()
        };
        let keys = harness.eventually("generated keys", keys).await;
        search.values.extend(keys.values().map(|key| key.as_str().unwrap().to_owned()));
    }
}

fn sqs() -> String {
    let help = "SHOP_TEST_SQS_ENDPOINT is not set: run `cargo xtask test operator`, which starts SQS";
    #[expect(clippy::disallowed_methods, reason = "tests take the servers' addresses from the environment")]
    std::env::var("SHOP_TEST_SQS_ENDPOINT").expect(help)
}

/// Paths of the spec that name a Secret, by the schema.
fn naming(schema: &Value, path: &str, found: &mut BTreeSet<String>) {
    for (name, field) in schema["properties"].as_object().into_iter().flatten() {
        let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
        let lower = name.to_lowercase();
        if lower.contains("secret") && !lower.contains("annotation") {
            found.insert(path);
        } else {
            naming(field, &path, found);
            naming(&field["items"], &path, found);
        }
    }
}

#[test]
fn every_field_that_names_a_secret_is_planted() {
    let crd = serde_json::to_value(ShopDeployment::crd()).unwrap();
    let spec = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"];
    let mut found = BTreeSet::new();
    naming(spec, "", &mut found);
    let fields = NAMED.iter().map(|(field, _)| *field).chain([PUBLIC]);
    let planted: BTreeSet<_> = fields.map(str::to_owned).collect();
    assert_eq!(found, planted, "name the new field's Secret in NAMED and in spec()");
}
