//! Plays the kubelet: the pods of a shop that no node takes have the status that a test gives them, and the Deployment
//! controller rolls out by it.

use k8s_openapi::api::core::v1::Pod;
use kube::{
    ResourceExt,
    api::{ListParams, Patch, PatchParams},
};
use serde_json::{Value, json};
use shop_operator::rollout;

use crate::harness::{Harness, merge};

/// A shop's spec whose pods no node takes, with `patch` merged over it.
pub fn nowhere(patch: Value) -> Value {
    let pod = json!({ "nodeSelector": { "test/there-is": "no-such-node" } });
    let mut spec = json!({ "api": { "pod": pod }, "worker": { "pod": pod } });
    merge(&mut spec, patch);
    spec
}

/// The image of a pod's main container.
pub fn image(pod: &Pod) -> &str {
    pod.spec.as_ref().unwrap().containers[0].image.as_deref().unwrap()
}

/// Gives every pod that is not ready, and not going, the status that `of` says; none where it says nothing.
pub async fn play(harness: &Harness, of: impl Fn(&Pod) -> Option<Value>) {
    let pods = harness.api::<Pod>();
    for pod in pods.list(&ListParams::default()).await.unwrap() {
        let idle = !rollout::is_ready(&pod) && pod.metadata.deletion_timestamp.is_none();
        if let Some(status) = of(&pod).filter(|_| idle) {
            let patch = Patch::Merge(json!({ "status": status }));
            // It may be gone by now.
            let _gone = pods.patch_status(&pod.name_any(), &PatchParams::default(), &patch).await;
        }
    }
}

/// The status of a pod that serves at this address.
pub fn serving(pod: &Pod, address: &str) -> Value {
    let ready = json!({ "type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z" });
    json!({
        "phase": "Running", "podIP": address, "podIPs": [{ "ip": address }], "conditions": [ready],
        "containerStatuses": [container(pod, &json!({ "running": {} }), &json!({}))],
    })
}

/// The status of a pod whose container ends again and again with these last words.
pub fn crashing(pod: &Pod, words: &str) -> Value {
    let waiting = json!({ "waiting": { "reason": "CrashLoopBackOff", "message": "back-off 10s" } });
    let ended = json!({ "terminated": { "exitCode": 1, "reason": "Error", "message": words } });
    json!({ "phase": "Running", "containerStatuses": [container(pod, &waiting, &ended)] })
}

fn container(pod: &Pod, state: &Value, last: &Value) -> Value {
    let runs = state.get("running").is_some();
    json!({
        "name": pod.spec.as_ref().unwrap().containers[0].name, "image": image(pod), "imageID": "", "ready": runs,
        "started": runs, "restartCount": 3, "state": state, "lastState": last,
    })
}

/// Every pod serves, at an address where nobody answers.
pub async fn all_serve(harness: &Harness) {
    play(harness, |pod| Some(serving(pod, "127.0.0.1"))).await;
}

/// Lets every pod serve until the shop is Ready.
pub async fn ready(harness: &Harness, name: &str) {
    harness
        .eventually("a shop that is Ready", async || {
            all_serve(harness).await;
            let shop = harness.shop(name).await;
            let status = shop.status?;
            let current = status.observed_generation == shop.metadata.generation;
            status.conditions.iter().find(|c| c.type_ == "Ready" && c.status == "True" && current).map(|_| ())
        })
        .await;
}
