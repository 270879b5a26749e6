//! Where pods run: the fields of a pod's own spec, with bounds.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Affinity;
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, de::IntoDeserializer};

use super::bounds;

/// Where the pods may run.
#[derive(Clone, Debug, Default, Deserialize, Serialize, KubeSchema, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Pod {
    /// Labels that a node must have.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 16, "additionalProperties" = { "type": "string", "maxLength": 63 }))]
    pub node_selector: BTreeMap<String, String>,
    /// Taints that the pods put up with.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub tolerations: Vec<Toleration>,
    /// Which nodes and which neighbours the pods want or shun: as in a pod's own spec.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "bounds::bounded::<Affinity>")]
    pub affinity: Option<Affinity>,
    /// How the pods are spread. Left out: over the nodes, as evenly as there is room.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    #[x_kube(merge_strategy = kube::core::ListMerge::Map(vec!["topologyKey".into()]))]
    pub topology_spread: Vec<TopologySpread>,
    /// Name of a PriorityClass. Left out: the cluster's default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub priority_class_name: Option<String>,
}

/// A taint that is put up with: the same fields as a pod's own.
#[derive(Clone, Debug, Default, Deserialize, Serialize, KubeSchema, PartialEq, Eq)]
#[x_kube(validation = Rule::new("self.operator == 'Exists' ? !has(self.value) : has(self.key)")
    .message("pod.tolerations: operator Equal needs key, operator Exists takes no value"))]
#[x_kube(validation = Rule::new("!has(self.tolerationSeconds) || (has(self.effect) && self.effect == 'NoExecute')")
    .message("pod.tolerations: tolerationSeconds needs effect NoExecute"))]
#[serde(rename_all = "camelCase")]
pub struct Toleration {
    /// Key of the taint. Left out, with operator Exists: every taint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 317))]
    pub key: Option<String>,
    /// Equal: the taint's value must be `value`. Exists: any value.
    #[serde(default)]
    pub operator: TolerationOperator,
    /// Value of the taint. Left out: empty.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63))]
    pub value: Option<String>,
    /// Effect of the taint. Left out: all effects.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "empty_is_none")]
    pub effect: Option<TaintEffect>,
    /// With effect NoExecute: seconds for which a pod stays on a node after the taint has come. Left out: for ever.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 31_536_000))]
    pub toleration_seconds: Option<i64>,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
pub enum TolerationOperator {
    #[default]
    // As a pod may have it, and a shop of version 0.1.0.
    #[serde(alias = "")]
    Equal,
    Exists,
}

#[derive(Clone, Copy, Debug, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
pub enum TaintEffect {
    NoSchedule,
    PreferNoSchedule,
    NoExecute,
}

/// The empty text is all effects in a pod, and in a shop of version 0.1.0. A shop that cannot be read would hide all others.
fn empty_is_none<'de, D: Deserializer<'de>>(effect: D) -> Result<Option<TaintEffect>, D::Error> {
    let text = Option::<String>::deserialize(effect)?.filter(|text| !text.is_empty());
    text.map(|text| TaintEffect::deserialize(text.into_deserializer())).transpose()
}

/// Pods spread over the values of one node label.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct TopologySpread {
    /// The node label, such as topology.kubernetes.io/zone.
    #[schemars(length(min = 1, max = 317))]
    pub topology_key: String,
    /// By how many pods two values of the label may differ.
    #[serde(default = "TopologySpread::skew")]
    #[schemars(range(min = 1, max = 100))]
    pub max_skew: i32,
    /// What becomes of a pod that does not fit in: ScheduleAnyway, or DoNotSchedule.
    #[serde(default)]
    pub when_unsatisfiable: WhenUnsatisfiable,
}

impl TopologySpread {
    fn skew() -> i32 {
        1
    }
}

#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
pub enum WhenUnsatisfiable {
    #[default]
    ScheduleAnyway,
    DoNotSchedule,
}
