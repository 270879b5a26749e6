//! Writes what was decided: the victims' marks, then the worker's replicas. Decides nothing.

use std::sync::Arc;

use k8s_openapi::api::{apps::v1::Deployment, core::v1::Pod};
use kube::{
    ResourceExt,
    api::{Patch, PatchParams},
};
use serde_json::json;

use crate::{
    context::Context,
    names::{DELETION_COST, SCALER, VICTIM, is_victim},
    rollout,
};

#[derive(Debug, thiserror::Error)]
pub enum ActError {
    #[error("cannot set the replicas of {name}")]
    Scale {
        name: String,
        #[source]
        source: kube::Error,
    },
    #[error("cannot mark pod {name}")]
    Mark {
        name: String,
        #[source]
        source: kube::Error,
    },
}

/// Sets the number of pods, and makes the field the scaler's own. Nothing is written where both are so already.
/// A Deployment that has changed since the decision is left alone: the next poll decides on what it is now.
pub async fn scale(ctx: &Context, worker: &Deployment, replicas: u32) -> Result<bool, ActError> {
    let wanted = i32::try_from(replicas).unwrap_or(i32::MAX);
    let current = worker.spec.replicas;
    if current == Some(wanted) && rollout::owns_replicas(worker, SCALER) {
        return Ok(false);
    }
    let name = worker.name_any();
    let patch = json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": { "name": name, "resourceVersion": worker.resource_version() },
        "spec": { "replicas": wanted },
    });
    let api = ctx.api::<Deployment>(&worker.namespace().unwrap_or_default());
    match api.patch(&name, &PatchParams::apply(SCALER).force(), &Patch::Apply(&patch)).await {
        Ok(_) => Ok(current != Some(wanted)),
        Err(kube::Error::Api(status)) if status.is_conflict() || status.is_not_found() => {
            tracing::debug!(deployment = name, "changed since the decision: deciding again");
            Ok(false)
        }
        Err(source) => Err(ActError::Scale { name, source }),
    }
}

/// Marks the pods that should go first, and takes off what an earlier decision left. False where a pod has changed since
/// the decision: the next poll decides on what it is now.
pub async fn mark(ctx: &Context, pods: &[Arc<Pod>], victims: &[Arc<Pod>]) -> Result<bool, ActError> {
    for pod in pods.iter().filter(|pod| pod.metadata.deletion_timestamp.is_none()) {
        let chosen = victims.iter().any(|victim| victim.uid() == pod.uid());
        if chosen == is_victim(pod) {
            continue;
        }
        let name = pod.name_any();
        let cost = json!({ DELETION_COST: chosen.then_some(VICTIM) });
        let patch = json!({ "metadata": { "resourceVersion": pod.resource_version(), "annotations": cost } });
        let api = ctx.api::<Pod>(&pod.namespace().unwrap_or_default());
        let params = PatchParams { field_manager: Some(SCALER.to_owned()), ..PatchParams::default() };
        match api.patch(&name, &params, &Patch::Merge(&patch)).await {
            Err(kube::Error::Api(status)) if status.is_not_found() => {}
            Err(kube::Error::Api(status)) if status.is_conflict() => return Ok(false),
            Err(source) => return Err(ActError::Mark { name, source }),
            Ok(_) => {}
        }
    }
    Ok(true)
}
