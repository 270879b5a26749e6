//! The rotation of the signing keys, step by step, over restarts of the operator, with api pods that the test speaks for.

use std::sync::{Arc, Mutex};

use k8s_openapi::api::{
    apps::v1::Deployment,
    core::v1::{Pod, Secret},
    events::v1::Event,
};
use kube::{
    ResourceExt,
    api::{ListParams, Patch, PatchParams},
};
use serde_json::{Value, json};
use shop_operator::{
    crd::ShopDeployment,
    keys::{KeysFile, Rotation, Step},
};
use shop_runtime::ids::random_bytes;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

use crate::{
    harness::Harness,
    kubelet::{all_serve, image, nowhere, play, ready, serving},
};

/// An api pod's operations port, at a loopback address of its own.
struct ApiPod {
    address: String,
    report: Arc<Mutex<String>>,
}

impl ApiPod {
    async fn start() -> Self {
        let [a, b, c] = random_bytes::<3>().unwrap();
        let address = format!("127.{}.{b}.{}", a.max(1), c.clamp(1, 254));
        let listener = TcpListener::bind((address.as_str(), 9090)).await.unwrap();
        let report = Arc::new(Mutex::new(String::new()));
        let answers = report.clone();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let answers = answers.clone();
                tokio::spawn(async move {
                    let mut request = [0; 2048];
                    while stream.read(&mut request).await.is_ok_and(|read| read > 0) {
                        let body = answers.lock().unwrap().clone();
                        let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len());
                        if stream.write_all(answer.as_bytes()).await.is_err() {
                            return;
                        }
                    }
                });
            }
        });
        Self { address, report }
    }

    /// Reports these keys, of which the first signs.
    fn reports(&self, keys: &[&str]) {
        *self.report.lock().unwrap() = json!({ "signingKey": keys[0], "acceptedKeys": keys }).to_string();
    }
}

struct Shop {
    harness: Harness,
    pods: [ApiPod; 2],
}

impl Shop {
    /// A shop that is Ready, with two api pods that know its first key.
    async fn ready() -> Self {
        let harness = Harness::with_operator().await;
        let pods = [ApiPod::start().await, ApiPod::start().await];
        for pod in &pods {
            pod.reports(&["k1"]);
        }
        harness.apply("demo", nowhere(json!({ "api": { "replicas": 2 } }))).await;
        let shop = Self { harness, pods };
        shop.harness
            .eventually("two api pods", async || {
                let api = ListParams::default().labels("app.kubernetes.io/component=api");
                let mut names: Vec<_> =
                    shop.harness.api::<Pod>().list(&api).await.unwrap().iter().map(ResourceExt::name_any).collect();
                names.sort();
                if names.len() < 2 {
                    return None;
                }
                let address = |pod: &Pod| {
                    names.iter().position(|name| *name == pod.name_any()).map(|at| shop.pods[at].address.as_str())
                };
                play(&shop.harness, |pod| {
                    image(pod).contains("/api").then(|| serving(pod, address(pod).unwrap_or("127.0.0.1")))
                })
                .await;
                Some(())
            })
            .await;
        ready(&shop.harness, "demo").await;
        shop
    }

    async fn ask(&self, request: &str) {
        let patch = json!({ "metadata": { "annotations": { "shop.xhipment.io/rotate-keys": request } } });
        self.harness
            .api::<ShopDeployment>()
            .patch("demo", &PatchParams::default(), &Patch::Merge(&patch))
            .await
            .unwrap();
    }

    async fn secret(&self) -> (KeysFile, Option<Rotation>, Secret) {
        let secret: Secret = self.harness.exists("demo-keys").await;
        let file = serde_json::from_slice(&secret.data.as_ref().unwrap()["keys.json"].0).unwrap();
        let note =
            secret.annotations().get("shop.xhipment.io/rotation").map(|text| serde_json::from_str(text).unwrap());
        (file, note, secret)
    }

    /// Waits for a step; gives which key signs and which are accepted.
    async fn step(&self, step: Step, request: &str) -> (String, Vec<String>) {
        let what = format!("step {step:?} of {request}");
        self.harness
            .eventually(&what, async || {
                let (file, rotation, _) = self.secret().await;
                let here = rotation.is_some_and(|rotation| rotation.step == step && rotation.request == request);
                here.then(|| (file.signing, file.keys.into_keys().collect()))
            })
            .await
    }

    async fn told(&self, what: &str, holds: impl Fn(&str, &str) -> bool) {
        self.harness
            .eventually(what, async || {
                let rotation = self.harness.shop("demo").await.status?.key_rotation?;
                holds(&rotation.step, &rotation.message).then_some(())
            })
            .await;
    }

    /// Moves the beginning of the step an hour back.
    async fn wait_an_hour(&self) {
        let mut rotation = self.secret().await.1.unwrap();
        rotation.since -= k8s_openapi::jiff::SignedDuration::from_hours(1);
        let note = serde_json::to_string(&rotation).unwrap();
        let patch = json!({ "metadata": { "annotations": { "shop.xhipment.io/rotation": note } } });
        self.harness.api::<Secret>().patch("demo-keys", &PatchParams::default(), &Patch::Merge(&patch)).await.unwrap();
    }

    async fn restart(&mut self, last: usize) -> usize {
        self.harness.stop_operator(last).await;
        self.harness.start_operator("next")
    }
}

fn keys(signing: &str, accepted: &[&str]) -> (String, Vec<String>) {
    (signing.to_owned(), accepted.iter().map(|id| (*id).to_owned()).collect())
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_are_rotated_in_steps_that_outlive_the_operator() {
    let mut shop = Shop::ready().await;
    let api_before = shop.harness.exists::<Deployment>("demo-api").await.metadata.generation;
    let first = shop.secret().await.0;
    shop.ask("may").await;
    assert_eq!(shop.step(Step::Accept, "may").await, keys("k1", &["k1", "k2"]));
    shop.pods[0].reports(&["k1", "k2"]);
    let of = |message: &str| message.matches("demo-api-").count();
    shop.told("the one pod that does not know it yet", |step, message| step == "Accept" && of(message) == 1).await;
    assert_eq!(shop.step(Step::Accept, "may").await.0, "k1", "nobody signs with what one pod does not accept");

    let second = shop.restart(0).await;
    shop.pods[1].reports(&["k1", "k2"]);
    assert_eq!(shop.step(Step::Sign, "may").await, keys("k2", &["k1", "k2"]));
    shop.pods[0].reports(&["k2", "k1"]);
    let third = shop.restart(second).await;
    shop.told("the one pod that signs with the old key", |step, message| step == "Sign" && of(message) == 1).await;
    shop.pods[1].reports(&["k2", "k1"]);
    assert_eq!(shop.step(Step::Expire, "may").await, keys("k2", &["k1", "k2"]), "old tokens are still good");

    shop.restart(third).await;
    shop.told("what is waited for", |step, message| step == "Expire" && message.contains("expire")).await;
    assert_eq!(shop.step(Step::Expire, "may").await.1.len(), 2, "a restart shortens no token's life");
    shop.wait_an_hour().await;
    assert_eq!(shop.step(Step::Done, "may").await, keys("k2", &["k2"]));
    shop.told("the end", |step, _| step == "Done").await;

    shop.ask("june").await;
    assert_eq!(shop.step(Step::Accept, "june").await, keys("k2", &["k2", "k3"]));
    let api_after = shop.harness.exists::<Deployment>("demo-api").await.metadata.generation;
    assert_eq!(api_after, api_before, "no pod was rolled");
    let last = shop.secret().await.0;
    is_told_without_keys(&shop.harness, first.keys.values().chain(last.keys.values())).await;
    shop.harness.finish().await;
}

/// Every step has an event, and no key is in one, nor in the shop.
async fn is_told_without_keys(harness: &Harness, keys: impl Iterator<Item = &String>) {
    let steps = [
        "is made; the pods are to accept it",
        "they are to sign with it",
        "is dropped after one token life",
        "is done",
    ];
    let events = harness
        .eventually("an event of each step", async || {
            let events = harness.api::<Event>().list(&ListParams::default()).await.unwrap().items;
            let told =
                |step: &str| events.iter().any(|event| event.note.as_deref().is_some_and(|note| note.contains(step)));
            steps.iter().all(|step| told(step)).then_some(events)
        })
        .await;
    let text = format!("{}{}", json!(events), json!(harness.shop("demo").await));
    assert!(keys.into_iter().all(|key| !text.contains(key.as_str())), "a key is told");
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_that_are_the_owners_are_left_to_the_owner() {
    let harness = Harness::with_operator().await;
    harness.secret("mine", &[("keys.json", "{}")]).await;
    harness.apply("demo", nowhere(json!({ "auth": { "keysSecretRef": { "name": "mine" } } }))).await;
    ready(&harness, "demo").await;
    let before = harness.exists::<Secret>("mine").await;
    let patch = json!({ "metadata": { "annotations": { "shop.xhipment.io/rotate-keys": "may" } } });
    harness.api::<ShopDeployment>().patch("demo", &PatchParams::default(), &Patch::Merge(&patch)).await.unwrap();
    let message = harness
        .eventually("an answer", async || {
            all_serve(&harness).await;
            let rotation = harness.shop("demo").await.status?.key_rotation?;
            (rotation.step == "NotManaged").then_some(rotation.message)
        })
        .await;
    assert!(message.contains("Secret mine (spec.auth.keysSecretRef) is yours"), "{message}");
    assert_eq!(harness.exists::<Secret>("mine").await, before);
    assert_eq!(harness.api::<Secret>().get_opt("demo-keys").await.unwrap(), None);
    harness.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_note_that_makes_no_sense_stops_the_rotation_alone() {
    let harness = Harness::with_operator().await;
    harness.apply("demo", nowhere(json!({}))).await;
    ready(&harness, "demo").await;
    let secrets = harness.api::<Secret>();
    let note = |text: Value| json!({ "metadata": { "annotations": { "shop.xhipment.io/rotation": text } } });
    let step = async |wanted: &str| {
        harness
            .eventually(wanted, async || {
                let rotation = harness.shop("demo").await.status?.key_rotation?;
                (rotation.step == wanted).then_some(rotation.message)
            })
            .await
    };
    secrets.patch("demo-keys", &PatchParams::default(), &Patch::Merge(note(json!("?")))).await.unwrap();
    let message = step("Blocked").await;
    assert!(message.contains("restore it, or remove it"), "{message}");
    harness.condition("demo", "Ready", |status, _| status == "True").await;
    secrets.patch("demo-keys", &PatchParams::default(), &Patch::Merge(note(Value::Null))).await.unwrap();
    let patch = json!({ "metadata": { "annotations": { "shop.xhipment.io/rotate-keys": "may" } } });
    harness.api::<ShopDeployment>().patch("demo", &PatchParams::default(), &Patch::Merge(&patch)).await.unwrap();
    step("Accept").await;
    harness.finish().await;
}

/// Tokens of the longer life are valid for as long as it was, whatever the spec says by now.
#[tokio::test(flavor = "multi_thread")]
async fn a_shorter_token_life_is_noted_beside_the_longer_one() {
    let harness = Harness::with_operator().await;
    let noted = async |parts: &[&str]| {
        let note = async || {
            let secret = harness.api::<Secret>().get_opt("demo-keys").await.unwrap()?;
            let note = secret.annotations().get("shop.xhipment.io/token-life")?.clone();
            parts.iter().all(|part| note.contains(part)).then_some(())
        };
        harness.eventually(&format!("a note of {parts:?}"), note).await;
    };
    harness.apply("demo", json!({ "auth": { "accessTokenMinutes": 60 } })).await;
    noted(&[r#"{"minutes":60}"#]).await;
    harness.apply("demo", json!({ "auth": { "accessTokenMinutes": 5 } })).await;
    noted(&[r#""minutes":5,"#, r#""longer":{"minutes":60,"#]).await;
    harness.finish().await;
}
