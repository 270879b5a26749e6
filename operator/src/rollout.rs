//! Reading a Deployment: how far its rollout is, which image it runs, who owns its replicas.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::{
    apps::v1::Deployment,
    core::v1::{ContainerState, ContainerStatus, Pod, PodStatus},
};
use kube::ResourceExt;

use crate::names;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rollout {
    pub desired: i32,
    pub ready: i32,
    pub updated: i32,
    pub available: i32,
    pub total: i32,
    /// The deployment controller has seen the newest spec.
    pub observed: bool,
    /// The controller gave up waiting.
    pub deadline_exceeded: bool,
    /// The newest template has been rolled out before: what is missing now is no rollout's.
    pub done_before: bool,
}

impl Rollout {
    /// Every pod is of the newest template and available.
    pub fn is_complete(self) -> bool {
        self.observed && self.updated == self.desired && self.total == self.updated && self.available == self.desired
    }
}

/// The generation since which a Deployment is as it was built: later ones only changed the number of its pods.
#[derive(Clone, Debug, Default)]
pub struct Built {
    uid: Option<String>,
    fingerprint: Option<String>,
    since: Option<i64>,
}

impl Built {
    /// Takes note of the Deployment as it is now. One that was not known counts as just built: the safe side.
    pub fn since(&mut self, deployment: &Deployment) -> Option<i64> {
        let (uid, fingerprint) = (deployment.uid(), deployment.annotations().get(names::BUILT).cloned());
        if self.uid != uid || self.fingerprint != fingerprint {
            *self = Self { uid, fingerprint, since: deployment.metadata.generation };
        }
        self.since
    }
}

pub fn of(deployment: &Deployment) -> Rollout {
    let desired = deployment.spec.replicas.unwrap_or(1);
    let Some(status) = &deployment.status else { return Rollout { desired, ..Rollout::default() } };
    let conditions = status.conditions.as_deref().unwrap_or_default();
    let progress = |reason: &str| {
        conditions.iter().any(|c| c.type_.as_deref() == Some("Progressing") && c.reason.as_deref() == Some(reason))
    };
    Rollout {
        desired,
        ready: status.ready_replicas.unwrap_or(0),
        updated: status.updated_replicas.unwrap_or(0),
        available: status.available_replicas.unwrap_or(0),
        total: status.replicas.unwrap_or(0),
        observed: has_observed(deployment, deployment.metadata.generation),
        deadline_exceeded: progress("ProgressDeadlineExceeded"),
        done_before: progress("NewReplicaSetAvailable"),
    }
}

/// Whether the deployment controller has seen this generation.
pub fn has_observed(deployment: &Deployment, generation: Option<i64>) -> bool {
    deployment.status.as_ref().and_then(|status| status.observed_generation) >= generation
}

/// The image of the main container.
pub fn image(deployment: &Deployment) -> Option<&str> {
    let spec = deployment.spec.template.spec.as_ref()?;
    spec.containers.first()?.image.as_deref()
}

/// Whether `manager` applied `spec.replicas`.
pub fn owns_replicas(deployment: &Deployment, manager: &str) -> bool {
    deployment.managed_fields().iter().any(|entry| {
        entry.manager.as_deref() == Some(manager)
            && entry.subresource.is_none()
            && entry.fields_v1.as_ref().is_some_and(|fields| fields.0["f:spec"].get("f:replicas").is_some())
    })
}

/// Whether a pod was made from the Deployment's present template: everything annotated there is annotated on the pod.
/// (Ours is a fingerprint of the configuration; `kubectl rollout restart` adds a time.)
pub fn is_current(pod: &Pod, deployment: &Deployment) -> bool {
    let wanted = deployment.spec.template.metadata.as_ref().and_then(|meta| meta.annotations.as_ref());
    let annotated =
        wanted.is_none_or(|wanted| wanted.iter().all(|(key, value)| pod.annotations().get(key) == Some(value)));
    let pod_image = pod.spec.as_ref().and_then(|spec| spec.containers.first()).and_then(|main| main.image.as_deref());
    annotated && pod_image == image(deployment)
}

/// The first complaint of a component's pods: one of the newest template's before an older one's, as the rollout waits for it.
pub fn complaint(pods: &[Arc<Pod>], deployment: Option<&Deployment>, now: Timestamp) -> Option<String> {
    let mut pods: Vec<_> = pods.iter().filter(|pod| pod.metadata.deletion_timestamp.is_none()).collect();
    pods.sort_by_key(|pod| (deployment.is_some_and(|deployment| !is_current(pod, deployment)), pod.name_any()));
    pods.into_iter().find_map(|pod| trouble(pod, now))
}

/// Why a pod does not run or serve, in the kubelet's, the scheduler's or the container's own words.
fn trouble(pod: &Pod, now: Timestamp) -> Option<String> {
    let status = pod.status.as_ref()?;
    let mut containers = status.init_container_statuses.iter().chain(&status.container_statuses).flatten();
    let why = containers
        .find_map(|container| waits(container).or_else(|| fails(container)))
        .or_else(|| unscheduled(status))
        .or_else(|| unready(status, now))?;
    let why: String = why.chars().take(400).collect();
    Some(format!("pod {}: {why}", pod.name_any()))
}

fn waits(container: &ContainerStatus) -> Option<String> {
    let waiting = container.state.as_ref()?.waiting.as_ref()?;
    let reason = waiting.reason.as_deref().filter(|r| !matches!(*r, "PodInitializing" | "ContainerCreating"))?;
    // Why it ended says more than for how long the kubelet waits now.
    let why = fails(container).unwrap_or_else(|| waiting.message.clone().unwrap_or_default());
    Some(format!("{reason}: {why}"))
}

/// A container that ended badly and is not up again, or not for long: with its last words.
fn fails(container: &ContainerStatus) -> Option<String> {
    let ended =
        |state: &Option<ContainerState>| state.as_ref()?.terminated.clone().filter(|ended| ended.exit_code != 0);
    let ended = ended(&container.state).or_else(|| ended(&container.last_state)).filter(|_| !container.ready)?;
    let (name, code, times) = (&container.name, ended.exit_code, container.restart_count);
    let reason = ended.reason.filter(|reason| reason != "Error").map_or_else(String::new, |why| format!(" ({why})"));
    let words = ended.message.unwrap_or_default();
    let last: String = last_words(&words).chars().take(240).collect();
    Some(format!("container {name} ended with code {code}{reason} and was restarted {times} times: {last}"))
}

/// The last line that speaks of an error, as advice may follow it; or else the last one.
fn last_words(words: &str) -> &str {
    let mut lines = words.lines().map(str::trim).filter(|line| !line.is_empty());
    let error = lines.clone().rfind(|line| line.to_ascii_lowercase().contains("error"));
    error.or_else(|| lines.next_back()).unwrap_or("see its log")
}

/// Started, but not ready for longer than a first look at MongoDB takes.
fn unready(status: &PodStatus, now: Timestamp) -> Option<String> {
    const FIRST_LOOK: SignedDuration = SignedDuration::from_secs(10);
    let started = status.container_statuses.as_ref()?.iter().find(|c| c.started == Some(true) && !c.ready)?;
    let ready = status.conditions.iter().flatten().find(|c| c.type_ == "Ready" && c.status == "False")?;
    let long = now.duration_since(ready.last_transition_time.as_ref()?.0) > FIRST_LOOK;
    long.then(|| {
        format!("container {} runs and is not ready: /readyz on its port 9090 says what is missing", started.name)
    })
}

fn unscheduled(status: &PodStatus) -> Option<String> {
    let conditions = status.conditions.as_deref().unwrap_or_default();
    let pending = conditions.iter().find(|c| c.type_ == "PodScheduled" && c.status == "False")?;
    Some(format!("{}: {}", pending.reason.as_deref()?, pending.message.as_deref().unwrap_or_default()))
}

pub fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    conditions.iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

/// Whether a pod answers requests, or may do so soon with what it has read at its start; also one that is going still answers.
pub fn may_serve(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    let placed = pod.spec.as_ref().is_some_and(|spec| spec.node_name.is_some());
    !matches!(phase, Some("Succeeded" | "Failed")) && (placed || is_ready(pod))
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::{Value, json};

    use super::*;

    fn deployment(uid: &str, fingerprint: &str, generation: i64) -> Deployment {
        serde_json::from_value(json!({
            "metadata": { "uid": uid, "generation": generation, "annotations": { names::BUILT: fingerprint } },
            "spec": { "selector": {}, "template": {} },
        }))
        .unwrap()
    }

    #[test]
    fn a_generation_counts_when_something_else_was_built() {
        let mut built = Built::default();
        let mut since = |uid, fingerprint, generation| built.since(&deployment(uid, fingerprint, generation));
        assert_eq!(since("1", "a", 4), Some(4), "not known: the safe side");
        assert_eq!(since("1", "a", 6), Some(4), "scaled twice");
        assert_eq!(since("1", "b", 7), Some(7), "changed");
        assert_eq!(since("1", "a", 9), Some(9), "changed back");
        assert_eq!(since("2", "a", 1), Some(1), "made anew");
    }

    #[rstest]
    #[case("", "see its log")]
    #[case("one\n two \n\n", "two")]
    #[case(
        "error: invalid value 'soon' for X\n\nFor more information, try '--help'.\n",
        "error: invalid value 'soon' for X"
    )]
    #[case("{\"level\":\"ERROR\"}\nbye", "{\"level\":\"ERROR\"}")]
    fn the_last_words_are_those_about_an_error(#[case] words: &str, #[case] last: &str) {
        assert_eq!(last_words(words), last);
    }

    #[expect(clippy::needless_pass_by_value, reason = "the tables read better")]
    fn pod(name: &str, image: &str, status: Value) -> Arc<Pod> {
        let containers = json!([{ "name": "api", "image": image }]);
        let metadata = json!({ "name": name });
        Arc::new(
            serde_json::from_value(
                json!({ "metadata": metadata, "spec": { "containers": containers }, "status": status }),
            )
            .unwrap(),
        )
    }

    #[expect(clippy::needless_pass_by_value, reason = "the tables read better")]
    fn container(state: Value, last: Value) -> Value {
        json!({ "containerStatuses": [{
            "name": "api", "image": "", "imageID": "", "ready": false, "started": state.get("running").is_some(),
            "restartCount": 4, "state": state, "lastState": last,
        }] })
    }

    fn ended(code: i32, reason: &str, words: &str) -> Value {
        json!({ "terminated": { "exitCode": code, "reason": reason, "message": words } })
    }

    #[rstest]
    #[case::image(
        container(json!({ "waiting": { "reason": "ImagePullBackOff", "message": "no such image" } }), json!({})),
        Some("pod a: ImagePullBackOff: no such image")
    )]
    #[case::crash_loop(
        container(
            json!({ "waiting": { "reason": "CrashLoopBackOff", "message": "back-off 5m0s" } }),
            ended(1, "Error", "{\"level\":\"info\"}\nshop-api: SHOP_MONGODB_URI is no URI\n"),
        ),
        Some("pod a: CrashLoopBackOff: container api ended with code 1 and was restarted 4 times: shop-api: SHOP_MONGODB_URI is no URI")
    )]
    #[case::out_of_memory(
        container(ended(137, "OOMKilled", ""), json!({})),
        Some("pod a: container api ended with code 137 (OOMKilled) and was restarted 4 times: see its log")
    )]
    #[case::starting(container(json!({ "waiting": { "reason": "ContainerCreating" } }), json!({})), None)]
    #[case::unschedulable(
        json!({ "conditions": [{ "type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "no node" }] }),
        Some("pod a: Unschedulable: no node")
    )]
    fn a_pod_tells_what_is_wrong(#[case] status: Value, #[case] expected: Option<&str>) {
        assert_eq!(trouble(&pod("a", "x", status), Timestamp::UNIX_EPOCH).as_deref(), expected);
    }

    #[rstest]
    #[case(9, false)]
    #[case(11, true)]
    fn a_pod_that_stays_unready_is_in_trouble(#[case] seconds: i64, #[case] told: bool) {
        let mut status = container(json!({ "running": {} }), json!({}));
        status["conditions"] =
            json!([{ "type": "Ready", "status": "False", "lastTransitionTime": "1970-01-01T00:00:00Z" }]);
        let trouble = trouble(&pod("a", "x", status), Timestamp::from_second(seconds).unwrap());
        assert_eq!(trouble.is_some_and(|why| why.contains("/readyz")), told);
    }

    #[test]
    fn what_the_newest_template_complains_of_goes_first() {
        let complains = |reason: &str| container(json!({ "waiting": { "reason": reason } }), json!({}));
        let pods = [pod("a", "old", complains("Old")), pod("b", "new", complains("New"))];
        let mut deployment = deployment("1", "a", 1);
        deployment.spec.template =
            serde_json::from_value(json!({ "spec": { "containers": [{ "name": "api", "image": "new" }] } })).unwrap();
        let told = |pods: &[Arc<Pod>]| complaint(pods, Some(&deployment), Timestamp::UNIX_EPOCH).unwrap();
        assert_eq!((told(&pods), told(&pods[..1])), ("pod b: New: ".to_owned(), "pod a: Old: ".to_owned()));
    }
}
