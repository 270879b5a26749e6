//! Who may connect to the pods, and who watches them.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::common::yes;

/// Ingress rules of the pods; they work where the cluster's network enforces NetworkPolicies.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct NetworkPolicy {
    /// Whether there are NetworkPolicies.
    #[serde(default = "yes")]
    pub enabled: bool,
    /// Who may call the api's port 3000. Left out: everyone.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub ingress_from: Vec<Peer>,
    /// Who may read metrics on port 9090, besides the operator.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub metrics_from: Vec<Peer>,
}

impl Default for NetworkPolicy {
    fn default() -> Self {
        Self { enabled: true, ingress_from: Vec::new(), metrics_from: Vec::new() }
    }
}

/// Pods by labels of their namespace and their own. Both left out: all pods of the shop's namespace.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Peer {
    /// Labels of the namespace. Left out: the shop's own namespace.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 8, "additionalProperties" = { "type": "string", "maxLength": 63 }))]
    pub namespace_labels: BTreeMap<String, String>,
    /// Labels of the pods. Left out: all.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 8, "additionalProperties" = { "type": "string", "maxLength": 63 }))]
    pub pod_labels: BTreeMap<String, String>,
}

/// What makes Prometheus read the pods' metrics.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "camelCase", default)]
pub struct Monitoring {
    /// Whether there is a ServiceMonitor (and the headless Service NAME-metrics that it reads). It needs the Prometheus
    /// operator's CRDs. Where NetworkPolicies are enforced, name Prometheus in networkPolicy.metricsFrom.
    pub service_monitor: bool,
    /// Labels of the ServiceMonitor, for a Prometheus that selects by them.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 16, "additionalProperties" = { "type": "string", "maxLength": 63 }))]
    pub labels: BTreeMap<String, String>,
}
