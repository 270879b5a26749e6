//! What the caches keep of an object: what is looked at all the time as it is, what only an apply compares as text, and
//! nothing else. An object as it comes takes several times as much memory, most of it for its `managedFields`.

use std::{borrow::Cow, collections::BTreeMap, fmt, sync::Arc};

use k8s_openapi::{
    api::{
        apps::v1::{Deployment, DeploymentSpec},
        core::v1::{Container, ContainerStatus, Pod, PodSpec, PodTemplateSpec, Secret},
        networking::v1::Ingress,
    },
    apimachinery::pkg::apis::meta::v1::{FieldsV1, ManagedFieldsEntry, ObjectMeta},
};
use kube::{Resource, api::PartialObjectMeta};
use serde::Serialize;
use serde_json::{Value, json};

use crate::{contained::contained, crd::ShopDeployment, names};

/// kubectl's copy of what was applied, as long as the object itself.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// A kind that is kept in two parts.
pub trait Gist: Resource<DynamicType = ()> + Clone + Serialize {
    /// What tells the object from others, and what is looked at between applies: no labels and hardly an annotation, whose
    /// maps would take more than all the rest.
    #[must_use]
    fn gist(&self) -> Self;
}

/// One of a shop's objects.
#[derive(Clone)]
pub struct Kept<K> {
    gist: Arc<K>,
    /// All but the status, as JSON; of the metadata the labels and annotations.
    rest: Arc<str>,
}

impl<K> Kept<K> {
    pub fn gist(&self) -> &Arc<K> {
        &self.gist
    }
}

impl<K: Gist> Kept<K> {
    pub fn of(mut object: K) -> Self {
        trim(object.meta_mut());
        // The API server's own objects always serialise; what is empty would only cost an apply.
        let mut rest = serde_json::to_value(&object).unwrap_or_default();
        if let Some(fields) = rest.as_object_mut() {
            fields.remove("status");
            if let Some(Value::Object(metadata)) = fields.get_mut("metadata") {
                metadata.retain(|name, _| matches!(name.as_str(), "labels" | "annotations"));
            }
        }
        Self { gist: Arc::new(object.gist()), rest: rest.to_string().into() }
    }

    /// Whether all that is wanted is there already.
    pub fn contains(&self, wanted: &K) -> bool {
        let live = self.whole();
        live.is_some() && serde_json::to_value(wanted).is_ok_and(|wanted| contained(&wanted, live.as_ref()))
    }

    pub fn annotation(&self, name: &str) -> Option<String> {
        self.whole()?["metadata"]["annotations"][name].as_str().map(str::to_owned)
    }

    fn whole(&self) -> Option<Value> {
        let mut live: Value = serde_json::from_str(&self.rest).ok()?;
        let Ok(Value::Object(mut metadata)) = serde_json::to_value(self.gist.meta()) else { return None };
        if let Value::Object(texts) = live["metadata"].take() {
            metadata.extend(texts);
        }
        live["metadata"] = metadata.into();
        Some(live)
    }
}

impl<K: Gist> Resource for Kept<K> {
    type DynamicType = ();
    type Scope = K::Scope;

    fn kind((): &()) -> Cow<'_, str> {
        K::kind(&())
    }

    fn group((): &()) -> Cow<'_, str> {
        K::group(&())
    }

    fn version((): &()) -> Cow<'_, str> {
        K::version(&())
    }

    fn plural((): &()) -> Cow<'_, str> {
        K::plural(&())
    }

    fn meta(&self) -> &ObjectMeta {
        self.gist.meta()
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        Arc::make_mut(&mut self.gist).meta_mut()
    }
}

impl<K: fmt::Debug> fmt::Debug for Kept<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.gist.fmt(f)
    }
}

macro_rules! metadata_only {
    ($($kind:ty),*) => {
        $(impl Gist for $kind {
            fn gist(&self) -> Self {
                Self { metadata: identity(&self.metadata), ..Self::default() }
            }
        })*
    };
}
metadata_only!(
    k8s_openapi::api::core::v1::ConfigMap,
    k8s_openapi::api::core::v1::Service,
    k8s_openapi::api::core::v1::ServiceAccount,
    k8s_openapi::api::networking::v1::NetworkPolicy,
    k8s_openapi::api::policy::v1::PodDisruptionBudget
);

impl Gist for Ingress {
    /// With whether the spec gives its class.
    fn gist(&self) -> Self {
        let metadata = ObjectMeta { annotations: one(&self.metadata, names::CLASS_GIVEN), ..identity(&self.metadata) };
        Self { metadata, ..Self::default() }
    }
}

impl Gist for Deployment {
    /// With the status, the number of pods, what the object was built from, and what tells the template's pods from others.
    fn gist(&self) -> Self {
        let built = one(&self.metadata, names::BUILT);
        let template = &self.spec.template;
        let annotations = template.metadata.as_ref().and_then(|metadata| metadata.annotations.clone());
        let template = PodTemplateSpec {
            metadata: Some(ObjectMeta { annotations, ..ObjectMeta::default() }),
            spec: template.spec.as_ref().map(image_only),
        };
        Self {
            metadata: ObjectMeta { annotations: built, ..identity(&self.metadata) },
            spec: DeploymentSpec { replicas: self.spec.replicas, template, ..DeploymentSpec::default() },
            status: self.status.clone(),
        }
    }
}

/// A shop is looked at whole.
pub fn shop(mut shop: ShopDeployment) -> ShopDeployment {
    trim(&mut shop.metadata);
    shop.metadata.managed_fields = None;
    if let Some(annotations) = &mut shop.metadata.annotations {
        annotations.remove(LAST_APPLIED);
    }
    shop
}

/// A pod's identity, where and of what template it is, and how it is.
pub fn pod(mut pod: Pod) -> Pod {
    pod.metadata.managed_fields = None;
    if let Some(status) = &mut pod.status {
        for container in status.init_container_statuses.iter_mut().chain(&mut status.container_statuses).flatten() {
            *container = ContainerStatus {
                name: std::mem::take(&mut container.name),
                ready: container.ready,
                restart_count: container.restart_count,
                started: container.started,
                state: container.state.take(),
                last_state: container.last_state.take(),
                ..ContainerStatus::default()
            };
        }
        if let Some(conditions) = &mut status.conditions {
            conditions.retain(|condition| matches!(condition.type_.as_str(), "Ready" | "PodScheduled"));
            conditions.shrink_to_fit();
        }
        status.host_ips = None;
        status.pod_ips = None;
    }
    Pod { metadata: pod.metadata, spec: pod.spec.as_ref().map(image_only), status: pod.status }
}

/// Contents never come by watch, and of the metadata only what the generated keys are told by, and their notes.
pub fn secret(secret: PartialObjectMeta<Secret>) -> PartialObjectMeta<Secret> {
    let ObjectMeta { name, namespace, uid, resource_version, owner_references, annotations, .. } = secret.metadata;
    let notes = annotations.map(|mut annotations| {
        annotations.retain(|name, _| matches!(name.as_str(), names::ROTATION | names::TOKEN_LIFE));
        annotations
    });
    let annotations = notes.filter(|notes| !notes.is_empty());
    let metadata =
        ObjectMeta { name, namespace, uid, resource_version, owner_references, annotations, ..ObjectMeta::default() };
    PartialObjectMeta { types: None, metadata, ..secret }
}

/// The node, and the main container's image.
fn image_only(spec: &PodSpec) -> PodSpec {
    let main = spec.containers.first();
    let image =
        |main: &Container| Container { name: main.name.clone(), image: main.image.clone(), ..Container::default() };
    PodSpec {
        node_name: spec.node_name.clone(),
        containers: main.map(image).into_iter().collect(),
        ..PodSpec::default()
    }
}

fn identity(metadata: &ObjectMeta) -> ObjectMeta {
    let metadata = metadata.clone();
    ObjectMeta { labels: None, annotations: None, ..metadata }
}

/// This annotation alone.
fn one(metadata: &ObjectMeta, annotation: &str) -> Option<BTreeMap<String, String>> {
    let (name, value) = metadata.annotations.as_ref()?.get_key_value(annotation)?;
    Some([(name.clone(), value.clone())].into())
}

/// Of `managedFields` only who else has written the object and when, and who owns the replicas.
fn trim(metadata: &mut ObjectMeta) {
    let entries = metadata.managed_fields.take().unwrap_or_default();
    let entries = entries.into_iter().filter(|entry| entry.subresource.is_none()).map(brief);
    let kept: Vec<_> =
        entries.filter(|entry| entry.manager.as_deref() != Some(names::MANAGER) || entry.fields_v1.is_some()).collect();
    metadata.managed_fields = (!kept.is_empty()).then_some(kept);
}

fn brief(entry: ManagedFieldsEntry) -> ManagedFieldsEntry {
    let owns = entry.fields_v1.is_some_and(|fields| fields.0["f:spec"].get("f:replicas").is_some());
    let replicas = || FieldsV1(json!({ "f:spec": { "f:replicas": {} } }));
    ManagedFieldsEntry {
        manager: entry.manager,
        time: entry.time,
        fields_v1: owns.then(replicas),
        ..ManagedFieldsEntry::default()
    }
}

#[cfg(test)]
mod tests;
