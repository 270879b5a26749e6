//! Reading a Deployment: how far its rollout is, which image it runs, who owns its replicas.

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
    Rollout {
        desired,
        ready: status.ready_replicas.unwrap_or(0),
        updated: status.updated_replicas.unwrap_or(0),
        available: status.available_replicas.unwrap_or(0),
        total: status.replicas.unwrap_or(0),
        observed: has_observed(deployment, deployment.metadata.generation),
        deadline_exceeded: conditions.iter().any(|c| {
            c.type_.as_deref() == Some("Progressing") && c.reason.as_deref() == Some("ProgressDeadlineExceeded")
        }),
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

/// Why a pod does not run, in the kubelet's or the scheduler's own words.
pub fn trouble(pod: &Pod) -> Option<String> {
    let status = pod.status.as_ref()?;
    let mut containers = status.init_container_statuses.iter().chain(&status.container_statuses).flatten();
    let why = containers
        .find_map(|container| waits(container).or_else(|| fails(container)))
        .or_else(|| unscheduled(status))?;
    let why: String = why.chars().take(300).collect();
    Some(format!("pod {}: {why}", pod.name_any()))
}

fn waits(container: &ContainerStatus) -> Option<String> {
    let waiting = container.state.as_ref()?.waiting.as_ref()?;
    let reason = waiting.reason.as_deref().filter(|r| !matches!(*r, "PodInitializing" | "ContainerCreating"))?;
    Some(format!("{reason}: {}", waiting.message.as_deref().unwrap_or_default()))
}

/// A container that ended badly and is not up again, or not for long.
fn fails(container: &ContainerStatus) -> Option<String> {
    let ended =
        |state: &Option<ContainerState>| state.as_ref()?.terminated.clone().filter(|ended| ended.exit_code != 0);
    let ended = ended(&container.state).or_else(|| ended(&container.last_state)).filter(|_| !container.ready)?;
    let (name, code, times) = (&container.name, ended.exit_code, container.restart_count);
    Some(format!("container {name} ended with code {code} and was restarted {times} times: see its log"))
}

fn unscheduled(status: &PodStatus) -> Option<String> {
    let conditions = status.conditions.as_deref().unwrap_or_default();
    let pending = conditions.iter().find(|c| c.type_ == "PodScheduled" && c.status == "False")?;
    Some(format!("{}: {}", pending.reason.as_deref()?, pending.message.as_deref().unwrap_or_default()))
}

/// Whether a pod belongs to a shop's component.
pub fn belongs(pod: &Pod, shop: &str, component: names::Component) -> bool {
    component.selector(shop).iter().all(|(key, value)| pod.labels().get(key) == Some(value))
}

pub fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    conditions.iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

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
}
