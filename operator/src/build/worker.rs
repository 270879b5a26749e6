//! The worker's Deployment. How many pods it has is the scaler's business.

use k8s_openapi::{
    api::{
        apps::v1::{Deployment, DeploymentSpec},
        core::v1::{ConfigMap, PodSpec},
    },
    apimachinery::pkg::{apis::meta::v1::LabelSelector, util::intstr::IntOrString},
};

use kube::ResourceExt;

use super::{
    Live, metadata,
    pod::{self, Parts},
};
use crate::{
    crd::Mode,
    names::{self, Component, SCALER},
    rollout,
    validate::ValidatedShop,
};

pub const PROGRESS_DEADLINE_SECONDS: i32 = 180;

/// Without the number of pods: see [`replicas`].
pub fn deployment(shop: &ValidatedShop, config: &ConfigMap, (api, live): (&Deployment, &Live)) -> Deployment {
    let worker = &shop.spec.worker;
    let parts = Parts {
        component: Component::Worker,
        config,
        image: image(shop, api, live),
        resources: pod::resources(&worker.resources, ("25m", "32Mi"), ("1", "128Mi")),
        pod: &worker.pod,
        extra_env: &worker.env,
        grace_seconds: i64::from(worker.termination_grace_period_seconds),
    };
    let spec = PodSpec { containers: vec![pod::container(shop, &parts)], ..PodSpec::default() };
    Deployment {
        metadata: metadata(shop, Component::Worker),
        spec: DeploymentSpec {
            selector: LabelSelector {
                match_labels: Some(Component::Worker.selector(&shop.name)),
                ..LabelSelector::default()
            },
            strategy: Some(super::api::rolling(IntOrString::String("25%".to_owned()))),
            template: pod::template(shop, &parts, spec),
            revision_history_limit: Some(3),
            progress_deadline_seconds: Some(PROGRESS_DEADLINE_SECONDS),
            ..DeploymentSpec::default()
        },
        status: None,
    }
}

/// A new worker image waits until the api as it is wanted has rolled out: new api and old worker understand each other, by test.
fn image(shop: &ValidatedShop, api: &Deployment, live: &Live) -> String {
    let running = live.worker.as_deref().and_then(rollout::image);
    let built = |deployment: &Deployment| deployment.annotations().get(names::BUILT).cloned();
    let api_done = live.api.as_deref().is_some_and(|live| built(live) == built(api) && rollout::of(live).is_complete());
    match running {
        Some(old) if old != shop.worker_image && !api_done => old.to_owned(),
        _ => shop.worker_image.clone(),
    }
}

/// The live value until the scaler has made the field its own, then nothing. It is no part of the fingerprint: that the
/// scaler takes over changes nothing of what was built, and is no reason to write.
pub fn replicas(shop: &ValidatedShop, live: &Live) -> Option<i32> {
    let Some(worker) = live.worker.as_deref() else { return Some(first(shop)) };
    if rollout::owns_replicas(worker, SCALER) { None } else { worker.spec.replicas }
}

fn first(shop: &ValidatedShop) -> i32 {
    if shop.spec.suspended {
        return 0;
    }
    match shop.spec.worker.autoscaling.mode {
        Mode::Manual => shop.spec.worker.replicas.unwrap_or(1),
        Mode::DrainTime | Mode::Recommend => shop.spec.worker.autoscaling.min,
    }
}
