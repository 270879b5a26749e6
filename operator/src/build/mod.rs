//! From a validated shop to the objects it consists of. Pure: no client, no clock, no environment.

mod api;
mod config;
mod monitoring;
mod network;
mod pod;
mod worker;

use std::{collections::BTreeSet, marker::PhantomData, sync::Arc};

use k8s_openapi::{
    api::{
        apps::v1::Deployment,
        core::v1::{ConfigMap, Service, ServiceAccount},
        networking::v1::{Ingress, NetworkPolicy},
        policy::v1::{PodDisruptionBudget, PodDisruptionBudgetSpec},
    },
    apimachinery::pkg::{
        apis::meta::v1::{LabelSelector, ObjectMeta},
        util::intstr::IntOrString,
    },
};
use kube::Resource;
use serde::Serialize;
use sha2::{Digest, Sha256};

pub use monitoring::ServiceMonitor;

use crate::{
    names::{self, Component, image_version},
    validate::ValidatedShop,
};

/// Built, not yet in the cluster.
#[derive(Clone, Debug)]
pub struct Prepared;
/// In the cluster, as the API server answered.
#[derive(Clone, Debug)]
pub struct Applied;

/// Everything a shop consists of, apart from the generated keys and the queue.
#[derive(Clone, Debug)]
pub struct Resources<Stage> {
    pub service_accounts: Vec<ServiceAccount>,
    pub config_maps: Vec<ConfigMap>,
    pub network_policies: Vec<NetworkPolicy>,
    pub api: Deployment,
    pub service: Service,
    pub ingress: Option<Ingress>,
    pub worker: Deployment,
    pub budgets: Vec<PodDisruptionBudget>,
    pub metrics_service: Option<Service>,
    pub service_monitor: Option<ServiceMonitor>,
    pub stage: PhantomData<Stage>,
}

/// What the builder must know of what there is: who owns the replicas, which images are rolled out, and whose the
/// Ingress's class is.
#[derive(Clone, Debug, Default)]
pub struct Live {
    pub api: Option<Arc<Deployment>>,
    pub worker: Option<Arc<Deployment>>,
    pub ingress: Option<Arc<Ingress>>,
}

/// Names of the variables that the component's containers have from the operator, or that it goes by itself.
pub fn variables(shop: &ValidatedShop, component: Component) -> BTreeSet<String> {
    let config = config::build(shop);
    let config = if component == Component::Api { config.api } else { config.worker };
    let reserved = pod::RESERVED_ENV.map(str::to_owned);
    config.data.unwrap_or_default().into_keys().chain(reserved).collect()
}

pub fn build(shop: &ValidatedShop, live: &Live) -> Resources<Prepared> {
    let config = config::build(shop);
    let mut api = sealed(api::deployment(shop, &config.api));
    let mut worker = sealed(worker::deployment(shop, &config.worker, (&api, live)));
    worker.spec.replicas = worker::replicas(shop, live);
    api.spec.replicas = api.spec.replicas.or_else(|| self::api::replicas(live.api.as_deref()));
    Resources {
        service_accounts: both(|component| sealed(pod::service_account(shop, component))),
        network_policies: network::policies(shop).into_iter().map(sealed).collect(),
        service: sealed(self::api::service(shop)),
        ingress: self::api::ingress(shop, live.ingress.as_deref()).map(sealed),
        worker,
        budgets: both(|component| sealed(budget(shop, component))),
        api,
        config_maps: vec![sealed(config.api), sealed(config.worker)],
        metrics_service: monitoring::service(shop).map(sealed),
        service_monitor: monitoring::service_monitor(shop).map(sealed),
        stage: PhantomData,
    }
}

fn both<T>(make: impl Fn(Component) -> T) -> Vec<T> {
    vec![make(Component::Api), make(Component::Worker)]
}

/// Metadata of one of the shop's objects.
fn metadata(shop: &ValidatedShop, component: Component) -> ObjectMeta {
    let image = match component {
        Component::Api => &shop.api_image,
        Component::Worker => &shop.worker_image,
    };
    let mut labels = component.selector(&shop.name);
    labels.insert(names::MANAGED_BY.to_owned(), names::MANAGER.to_owned());
    labels.insert(names::VERSION.to_owned(), image_version(image));
    ObjectMeta {
        name: Some(component.object_name(&shop.name)),
        namespace: Some(shop.namespace.clone()),
        labels: Some(labels),
        owner_references: Some(vec![shop.owner.clone()]),
        ..ObjectMeta::default()
    }
}

/// Writes the object's fingerprint into it.
fn sealed<K: Resource + Serialize>(mut object: K) -> K {
    let fingerprint = fingerprint(&object);
    object.meta_mut().annotations.get_or_insert_default().insert(names::BUILT.to_owned(), fingerprint);
    object
}

fn fingerprint(value: &impl Serialize) -> String {
    // Our own types always serialise; an empty text would only cost an apply.
    let text = serde_json::to_vec(value).unwrap_or_default();
    hex::encode(&Sha256::digest(text)[..8])
}

fn budget(shop: &ValidatedShop, component: Component) -> PodDisruptionBudget {
    let selector = LabelSelector { match_labels: Some(component.selector(&shop.name)), ..LabelSelector::default() };
    PodDisruptionBudget {
        metadata: metadata(shop, component),
        spec: Some(PodDisruptionBudgetSpec {
            max_unavailable: Some(IntOrString::Int(1)),
            selector: Some(selector),
            ..PodDisruptionBudgetSpec::default()
        }),
        status: None,
    }
}

#[cfg(test)]
mod tests;
