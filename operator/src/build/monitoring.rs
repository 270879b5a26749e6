//! What Prometheus finds the pods by, where a shop asks for it: a headless Service over both components' metrics ports, and
//! a `ServiceMonitor` of the Prometheus operator that reads it.

use k8s_openapi::{
    api::core::v1::{Service, ServicePort, ServiceSpec},
    apimachinery::pkg::{
        apis::meta::v1::{LabelSelector, ObjectMeta},
        util::intstr::IntOrString,
    },
};
use kube::CustomResource;
use serde::{Deserialize, Serialize};

use super::pod::OPS;
use crate::{names, validate::ValidatedShop};

const COMPONENT: &str = "metrics";

/// As much of a `ServiceMonitor` as shops need.
#[derive(CustomResource, Clone, Debug, Deserialize, Serialize, PartialEq)]
#[kube(group = "monitoring.coreos.com", version = "v1", kind = "ServiceMonitor", namespaced, schema = "disabled")]
#[serde(rename_all = "camelCase")]
pub struct ServiceMonitorSpec {
    pub selector: LabelSelector,
    pub endpoints: Vec<Endpoint>,
    /// Labels of the pods that their series get.
    pub pod_target_labels: Vec<String>,
}

#[derive(Clone, Debug, Deserialize, Serialize, PartialEq, Eq)]
pub struct Endpoint {
    pub port: String,
    pub path: String,
}

pub fn service(shop: &ValidatedShop) -> Option<Service> {
    let selector = [(names::NAME, names::APP), (names::INSTANCE, &shop.name)];
    let spec = ServiceSpec {
        cluster_ip: Some("None".to_owned()),
        // A pod that is not ready is the one to look at.
        publish_not_ready_addresses: Some(true),
        selector: Some(selector.map(|(key, value)| (key.to_owned(), value.to_owned())).into()),
        ports: Some(vec![ServicePort {
            name: Some(OPS.to_owned()),
            port: super::pod::OPS_PORT,
            target_port: Some(IntOrString::String(OPS.to_owned())),
            ..ServicePort::default()
        }]),
        ..ServiceSpec::default()
    };
    is_wanted(shop).then(|| Service { metadata: metadata(shop), spec: Some(spec), status: None })
}

pub fn service_monitor(shop: &ValidatedShop) -> Option<ServiceMonitor> {
    if !is_wanted(shop) {
        return None;
    }
    let mut metadata = metadata(shop);
    let selector = metadata.labels.clone();
    // Our own labels win: they are what the object is found by.
    let own = metadata.labels.replace(shop.spec.monitoring.labels.clone()).unwrap_or_default();
    metadata.labels.get_or_insert_default().extend(own);
    let spec = ServiceMonitorSpec {
        selector: LabelSelector { match_labels: selector, ..LabelSelector::default() },
        endpoints: vec![Endpoint { port: OPS.to_owned(), path: "/metrics".to_owned() }],
        pod_target_labels: vec![names::INSTANCE.to_owned(), names::COMPONENT.to_owned()],
    };
    Some(ServiceMonitor { metadata, spec })
}

fn is_wanted(shop: &ValidatedShop) -> bool {
    shop.spec.monitoring.service_monitor
}

fn metadata(shop: &ValidatedShop) -> ObjectMeta {
    let labels = [
        (names::NAME, names::APP),
        (names::INSTANCE, shop.name.as_str()),
        (names::COMPONENT, COMPONENT),
        (names::MANAGED_BY, names::MANAGER),
    ];
    ObjectMeta {
        name: Some(names::metrics(&shop.name)),
        namespace: Some(shop.namespace.clone()),
        labels: Some(labels.map(|(key, value)| (key.to_owned(), value.to_owned())).into()),
        owner_references: Some(vec![shop.owner.clone()]),
        ..ObjectMeta::default()
    }
}
