//! The HTTP service and the way in.

use std::collections::BTreeMap;

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    common::{EnvVar, Resources},
    pod::Pod,
};

/// The HTTP service.
#[derive(Clone, Debug, Default, Deserialize, Serialize, KubeSchema, PartialEq)]
#[x_kube(validation = Rule::new("quantity(has(self.resources.requests.cpu) ? string(self.resources.requests.cpu) : '50m')\
        .compareTo(quantity(has(self.resources.limits.cpu) ? string(self.resources.limits.cpu) : '2')) <= 0 \
        && quantity(has(self.resources.requests.memory) ? string(self.resources.requests.memory) : '64Mi')\
        .compareTo(quantity(has(self.resources.limits.memory) ? string(self.resources.limits.memory) : '256Mi')) <= 0")
    .message("api.resources: requests must not be above limits; left out, they are 50m and 64Mi, 2 and 256Mi"))]
#[serde(rename_all = "camelCase")]
pub struct Api {
    /// Number of pods. Left out: as many as there are, one at first and after a suspension, and yours or a
    /// HorizontalPodAutoscaler's to change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100))]
    pub replicas: Option<i32>,
    /// CPU and memory. What is left out: requests 50m and 64Mi, limits 2 and 256Mi (a login takes 19 MiB while it is checked).
    #[serde(default)]
    pub resources: Resources,
    /// Further environment variables.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    #[x_kube(merge_strategy = kube::core::ListMerge::Map(vec!["name".into()]))]
    pub env: Vec<EnvVar>,
    /// The way in from outside the cluster.
    #[serde(default)]
    pub ingress: Ingress,
    /// Where the pods may run.
    #[serde(default)]
    pub pod: Pod,
}

/// The way in from outside the cluster.
#[derive(Clone, Debug, Default, Deserialize, Serialize, KubeSchema, PartialEq, Eq)]
#[x_kube(validation = Rule::new("!has(self.tls) || has(self.host)").message("api.ingress: tls needs host"))]
#[serde(rename_all = "camelCase")]
pub struct Ingress {
    /// Whether there is an Ingress.
    #[serde(default)]
    pub enabled: bool,
    /// Name of the IngressClass. Left out: the cluster's default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub class_name: Option<String>,
    /// Host name. Left out: every name that reaches the ingress.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub host: Option<String>,
    /// Serve HTTPS with the certificate in a Secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<IngressTls>,
    /// Annotations for the ingress controller.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 32, "additionalProperties" = { "type": "string", "maxLength": 4096 }))]
    pub annotations: BTreeMap<String, String>,
}

/// HTTPS at the ingress.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct IngressTls {
    /// A TLS Secret of the same namespace.
    #[schemars(length(min = 1, max = 253))]
    pub secret_name: String,
}
