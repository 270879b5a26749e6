//! `kubectl shop status`: conditions, pods, queue and scaling of a shop on one screen. Reading and drawing are apart.

use std::{collections::BTreeMap, fmt::Write as _, pin::pin, sync::Arc, time::Duration};

use anyhow::Result;
use futures::{Stream, StreamExt, stream};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::{
    ResourceExt,
    api::ListParams,
    runtime::{WatchStreamExt, watcher},
};
use serde::Serialize;
use shop_operator::{
    crd::{AutoscalingStatus, KeyRotationStatus, QueueStatus, ShopDeployment, ShopDeploymentStatus},
    names::{COMPONENT, INSTANCE, PAUSE_SCALE_DOWN, PAUSE_SCALING},
    rollout,
};
use shop_runtime::clock::Clock;

use crate::{
    cluster::Cluster,
    output::Output,
    text::{Cell, Tone, age, table, toned},
};

/// Changes that come together are drawn together.
const SETTLE: Duration = Duration::from_millis(200);

/// What is shown.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Report {
    name: String,
    namespace: String,
    version: Option<String>,
    /// The operator has seen the newest spec.
    current: bool,
    /// What the owner has switched off.
    switches: Vec<&'static str>,
    conditions: Vec<Condition>,
    parts: Vec<Part>,
    pods: Vec<PodReport>,
    queue: Option<QueueStatus>,
    autoscaling: Option<AutoscalingStatus>,
    key_rotation: Option<KeyRotationStatus>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Condition {
    #[serde(rename = "type")]
    kind: String,
    status: String,
    reason: String,
    message: String,
    seconds: i64,
}

#[derive(Debug, Serialize)]
struct Part {
    name: &'static str,
    ready: i32,
    desired: i32,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct PodReport {
    name: String,
    part: String,
    ready: bool,
    restarts: i32,
    age_seconds: i64,
    /// What is or was the matter with it.
    reason: String,
}

pub async fn once(cluster: &Cluster, output: Output, name: &str) -> Result<()> {
    let report = read(cluster, name).await?;
    output.print(&report, || render(&report))
}

/// Draws again whenever the shop or one of its pods changes, until Ctrl-C.
pub async fn watch(cluster: &Cluster, output: Output, name: &str) -> Result<()> {
    // Listened for all the time: also what is pressed while something is read ends it.
    tokio::select! {
        ended = tokio::signal::ctrl_c() => Ok(ended?),
        drawn = draw(cluster, output, name) => drawn,
    }
}

async fn draw(cluster: &Cluster, output: Output, name: &str) -> Result<()> {
    let mut changes = pin!(changes(cluster, name));
    loop {
        let report = read(cluster, name).await?;
        output.print_next(&report, || render(&report))?;
        changes.next().await.transpose()?;
        let settled =
            async { while tokio::time::timeout(SETTLE, changes.next()).await.is_ok_and(|change| change.is_some()) {} };
        // What changes all the time is drawn as well.
        let _settled = tokio::time::timeout(SETTLE * 5, settled).await;
    }
}

/// A broken watch is taken up again.
fn changes(cluster: &Cluster, name: &str) -> impl Stream<Item = Result<()>> {
    let shop = watcher::Config::default().fields(&format!("metadata.name={name}"));
    let shops = watcher(cluster.api::<ShopDeployment>(), shop).default_backoff().touched_objects().map(|_| Ok(()));
    let pods = watcher(cluster.api::<Pod>(), watcher::Config::default().labels(&format!("{INSTANCE}={name}")));
    stream::select(shops, pods.default_backoff().touched_objects().map(|_| Ok(())))
}

async fn read(cluster: &Cluster, name: &str) -> Result<Report> {
    let shop = cluster.shop(name).await?;
    let selector = ListParams::default().labels(&format!("{INSTANCE}={name}"));
    let doing = format!("list the pods of namespace {}", cluster.namespace);
    let pods = cluster.api::<Pod>().list(&selector).await.map_err(|error| cluster.problem(&doing, error))?;
    Ok(report(&shop, pods.items, Clock::system().now()))
}

fn report(shop: &ShopDeployment, pods: Vec<Pod>, now: Timestamp) -> Report {
    let status = shop.status.clone().unwrap_or_default();
    let condition = |condition: &k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition| Condition {
        kind: condition.type_.clone(),
        status: condition.status.clone(),
        reason: condition.reason.clone(),
        message: condition.message.clone(),
        seconds: seconds_since(condition.last_transition_time.0, now),
    };
    let mut pods: Vec<_> = pods.into_iter().map(Arc::new).map(|pod| pod_report(&pod, now)).collect();
    pods.sort_by(|a, b| (&a.part, &a.name).cmp(&(&b.part, &b.name)));
    Report {
        name: shop.name_any(),
        namespace: shop.namespace().unwrap_or_default(),
        current: status.observed_generation == shop.metadata.generation,
        switches: switches(shop),
        conditions: status.conditions.iter().map(condition).collect(),
        parts: parts(&status),
        pods,
        version: status.version,
        queue: status.queue,
        autoscaling: status.autoscaling,
        key_rotation: status.key_rotation,
    }
}

/// What keeps the operator from doing all that it would.
pub fn switches(shop: &ShopDeployment) -> Vec<&'static str> {
    let annotated = |key: &str| shop.annotations().get(key).is_some_and(|value| value != "false");
    let all = [
        (shop.spec.paused, "paused"),
        (shop.spec.suspended, "suspended"),
        (annotated(PAUSE_SCALING), "scaling paused"),
        (annotated(PAUSE_SCALE_DOWN), "scaling down paused"),
    ];
    all.into_iter().filter_map(|(on, name)| on.then_some(name)).collect()
}

fn parts(status: &ShopDeploymentStatus) -> Vec<Part> {
    let api = status.api.as_ref().map(|api| Part { name: "api", ready: api.ready, desired: api.desired });
    let worker = status.worker.as_ref().map(|part| Part { name: "worker", ready: part.ready, desired: part.desired });
    api.into_iter().chain(worker).collect()
}

fn pod_report(pod: &Arc<Pod>, now: Timestamp) -> PodReport {
    let containers = pod.status.iter().flat_map(|status| status.container_statuses.iter().flatten());
    PodReport {
        name: pod.name_any(),
        part: pod.labels().get(COMPONENT).cloned().unwrap_or_default(),
        ready: rollout::is_ready(pod),
        restarts: containers.map(|container| container.restart_count).sum(),
        age_seconds: pod.creation_timestamp().map_or(0, |created| seconds_since(created.0, now)),
        reason: reason(pod, now).unwrap_or_default(),
    }
}

/// What is the matter with a pod, or was when it was last started anew.
fn reason(pod: &Arc<Pod>, now: Timestamp) -> Option<String> {
    if pod.metadata.deletion_timestamp.is_some() {
        return Some("ending".to_owned());
    }
    let prefix = format!("pod {}: ", pod.name_any());
    let complaint = rollout::complaint(std::slice::from_ref(pod), None, now);
    let complaint = complaint.map(|text| text.strip_prefix(&prefix).unwrap_or(&text).to_owned());
    complaint.or_else(|| {
        let mut containers = pod.status.as_ref()?.container_statuses.iter().flatten();
        let last = containers.find_map(|container| container.last_state.as_ref()?.terminated.as_ref())?;
        Some(format!(
            "started anew after {} (exit code {})",
            last.reason.as_deref().unwrap_or("its end"),
            last.exit_code
        ))
    })
}

fn seconds_since(then: Timestamp, now: Timestamp) -> i64 {
    now.duration_since(then).as_secs()
}

/// Whether a condition's status is what one wants; some are neither good nor bad.
fn tone(kind: &str, status: &str) -> Tone {
    let good = match kind {
        "Progressing" | "Paused" | "ScalingActive" => return Tone::Plain,
        "Degraded" | "ScalingLimited" => "False",
        _ => "True",
    };
    match status {
        "Unknown" => Tone::Plain,
        status if status == good => Tone::Good,
        _ => Tone::Bad,
    }
}

fn render(report: &Report) -> String {
    let mut blocks = vec![head(report)];
    if !report.conditions.is_empty() {
        blocks.push(conditions(&report.conditions));
    }
    blocks.push(pods(report));
    let fact = |(name, text): (&'static str, String)| format!("{} {text}\n", toned(Tone::Head, name));
    blocks.push(facts(report).into_iter().map(fact).collect::<Vec<_>>().concat());
    blocks.retain(|block| !block.is_empty());
    blocks.join("\n")
}

fn head(report: &Report) -> String {
    let name = toned(Tone::Head, &report.name);
    let version = report.version.as_deref().map(|version| format!(", version {version}")).unwrap_or_default();
    let mut text = format!("{name} in {}{version}\n", report.namespace);
    if !report.switches.is_empty() {
        let switches = report.switches.join(", ");
        let (switches, name, namespace) = (toned(Tone::Bad, &switches), &report.name, &report.namespace);
        let _ = writeln!(text, "{switches}: `kubectl shop resume {name} -n {namespace}` undoes it");
    }
    if !report.current {
        text += "the operator has not seen the newest spec yet: is it running?\n";
    }
    text
}

fn conditions(conditions: &[Condition]) -> String {
    let row = |condition: &Condition| {
        vec![
            Cell::plain(&condition.kind),
            Cell::new(tone(&condition.kind, &condition.status), &condition.status),
            Cell::plain(&condition.reason),
            Cell::plain(age(condition.seconds)),
            Cell::plain(&condition.message),
        ]
    };
    table(&["CONDITION", "STATUS", "REASON", "FOR", "MESSAGE"], &conditions.iter().map(row).collect::<Vec<_>>())
}

fn pods(report: &Report) -> String {
    let counts: BTreeMap<_, _> = report.parts.iter().map(|part| (part.name, part)).collect();
    let part = |name: &str| {
        let count = counts.get(name);
        count.map_or_else(|| name.to_owned(), |part| format!("{name} {}/{}", part.ready, part.desired))
    };
    let row = |pod: &PodReport| {
        vec![
            Cell::plain(&pod.name),
            Cell::plain(part(&pod.part)),
            if pod.ready { Cell::new(Tone::Good, "yes") } else { Cell::new(Tone::Bad, "no") },
            Cell::new(if pod.restarts > 0 { Tone::Bad } else { Tone::Plain }, pod.restarts.to_string()),
            Cell::plain(age(pod.age_seconds)),
            Cell::plain(&pod.reason),
        ]
    };
    let rows: Vec<_> = report.pods.iter().map(row).collect();
    if rows.is_empty() {
        "no pods\n".to_owned()
    } else {
        table(&["POD", "PART", "READY", "RESTARTS", "AGE", "REASON"], &rows)
    }
}

fn facts(report: &Report) -> Vec<(&'static str, String)> {
    let mut facts = Vec::new();
    if let Some(queue) = &report.queue {
        facts.push(("queue  ", depth(queue)));
    }
    if let Some(scaling) = &report.autoscaling {
        let wait = if scaling.wait.is_empty() { "–" } else { &scaling.wait };
        facts.push(("wait   ", format!("{wait} for a message that comes now")));
        facts.push(("scaling", format!("{} workers wanted, {}: {}", scaling.desired, scaling.reason, scaling.explain)));
    }
    if let Some(rotation) = report.key_rotation.as_ref().filter(|rotation| !rotation.step.is_empty()) {
        facts.push(("keys   ", format!("{}: {}", rotation.step, rotation.message)));
    }
    facts
}

/// The queue's counts in words.
pub fn depth(queue: &QueueStatus) -> String {
    match (queue.visible, queue.in_flight, queue.delayed) {
        (Some(visible), in_flight, delayed) => {
            let [in_flight, delayed] = [in_flight, delayed].map(Option::unwrap_or_default);
            format!("{visible} waiting, {in_flight} in work, {delayed} not due yet")
        }
        (None, ..) => toned(Tone::Bad, "cannot be read: condition QueueReadable says why"),
    }
}

#[cfg(test)]
pub mod tests {
    use rstest::rstest;
    use serde_json::{Value, json};

    use super::*;
    use crate::text::tests::bare;

    const NOW: &str = "2026-01-02T01:00:00Z";

    pub fn shop(patch: impl FnOnce(&mut Value)) -> ShopDeployment {
        let condition = |kind: &str, status: &str, reason: &str, message: &str| json!({ "type": kind, "status": status, "reason": reason, "message": message, "lastTransitionTime": "2026-01-02T00:30:00Z" });
        let mut shop = json!({
            "apiVersion": "shop.xhipment.io/v1alpha1", "kind": "ShopDeployment",
            "metadata": { "name": "demo", "namespace": "shops", "generation": 2 },
            "spec": {
                "mongodb": { "uriSecretRef": { "name": "mongodb" } }, "queue": { "name": "orders" },
                "mail": { "from": "shop@example.com" }
            },
            "status": {
                "observedGeneration": 2, "version": "1.2.3",
                "conditions": [
                    condition("Ready", "True", "AllGood", ""),
                    condition("ScalingLimited", "True", "MaxReached", "more than max 8 would be needed"),
                ],
                "api": { "ready": 1, "desired": 1, "summary": "1/1", "image": "api:1.2.3" },
                "worker": { "ready": 1, "desired": 2, "summary": "1/2", "image": "worker:1.2.3", "selector": "" },
                "queue": { "url": "http://q", "visible": 12, "inFlight": 4, "delayed": 0 },
                "autoscaling": {
                    "desired": 2, "reason": "Drain", "explain": "2 = keep-up 1 + drain 1", "arrivalsPerSecond": 1.5,
                    "secondsPerMessage": 0.4, "wait": "3.5s"
                },
                "keyRotation": { "step": "Done", "message": "key 2" }
            }
        });
        patch(&mut shop);
        serde_json::from_value(shop).unwrap()
    }

    fn pod(name: &str, part: &str, status: &Value) -> Pod {
        serde_json::from_value(json!({
            "metadata": {
                "name": name, "creationTimestamp": "2026-01-02T00:00:00Z",
                "labels": { "app.kubernetes.io/component": part }
            },
            "status": status,
        }))
        .unwrap()
    }

    fn pods() -> Vec<Pod> {
        let ready = json!([{ "type": "Ready", "status": "True" }]);
        vec![
            pod(
                "demo-worker-b",
                "worker",
                &json!({ "containerStatuses": [
                    { "name": "worker", "image": "", "imageID": "", "ready": false, "restartCount": 0,
                      "state": { "waiting": { "reason": "ErrImagePull", "message": "no such image" } } }
                ]}),
            ),
            pod(
                "demo-api-a",
                "api",
                &json!({ "conditions": ready, "containerStatuses": [
                    { "name": "api", "image": "", "imageID": "", "ready": true, "restartCount": 2, "state": { "running": {} },
                      "lastState": { "terminated": { "reason": "OOMKilled", "exitCode": 137 } } }
                ]}),
            ),
        ]
    }

    fn seen(shop: &ShopDeployment, pods: Vec<Pod>) -> Report {
        report(shop, pods, NOW.parse().unwrap())
    }

    #[test]
    fn a_screen() {
        insta::assert_snapshot!(bare(&render(&seen(&shop(|_| {}), pods()))));
    }

    #[test]
    fn a_shop_that_nobody_looks_after_yet() {
        let new = shop(|shop| {
            shop["status"] = json!({});
            shop["spec"]["suspended"] = json!(true);
            shop["metadata"]["annotations"] = json!({ "shop.xhipment.io/pause-scale-down": "true" });
        });
        insta::assert_snapshot!(bare(&render(&seen(&new, Vec::new()))));
    }

    #[test]
    fn as_json() {
        insta::assert_json_snapshot!(seen(&shop(|_| {}), pods()));
    }

    #[test]
    fn an_unreadable_queue_is_said() {
        let queue = QueueStatus { url: "http://q".to_owned(), ..QueueStatus::default() };
        assert_eq!(bare(&depth(&queue)), "cannot be read: condition QueueReadable says why");
    }

    #[rstest]
    #[case("Ready", "True", Tone::Good)]
    #[case("Ready", "False", Tone::Bad)]
    #[case("Degraded", "False", Tone::Good)]
    #[case("ScalingLimited", "True", Tone::Bad)]
    #[case("Progressing", "True", Tone::Plain)]
    #[case("QueueReadable", "Unknown", Tone::Plain)]
    fn tones(#[case] kind: &str, #[case] status: &str, #[case] expected: Tone) {
        assert_eq!(tone(kind, status), expected);
    }
}
