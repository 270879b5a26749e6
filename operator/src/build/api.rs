//! The api's objects: Deployment, Service, Ingress.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::{
        apps::v1::{Deployment, DeploymentSpec, DeploymentStrategy, RollingUpdateDeployment},
        core::v1::{ConfigMap, Container, PodSpec, SecretVolumeSource, Service, ServicePort, ServiceSpec, Volume},
        networking::v1::{
            HTTPIngressPath, HTTPIngressRuleValue, Ingress, IngressBackend, IngressRule, IngressServiceBackend,
            IngressSpec, IngressTLS, ServiceBackendPort,
        },
    },
    apimachinery::pkg::{apis::meta::v1::LabelSelector, util::intstr::IntOrString},
};
use kube::ResourceExt;

use super::{
    metadata,
    pod::{self, Parts},
};
use crate::{
    names::{self, Component},
    rollout,
    validate::ValidatedShop,
};

pub const HTTP_PORT: i32 = 3000;
const KEYS_PATH: &str = "/etc/xhipment/keys";
/// On SIGTERM the api goes on answering for settings.drainSeconds, with `Connection: close`; a preStop hook would only hide
/// the signal. What is in flight then has 20 s more, and the process some to end.
const AFTER_DRAIN_SECONDS: i64 = 25;

pub fn deployment(shop: &ValidatedShop, config: &ConfigMap) -> Deployment {
    let parts = Parts {
        component: Component::Api,
        config,
        image: shop.api_image.clone(),
        resources: pod::resources(&shop.spec.api.resources, ("50m", "64Mi"), ("2", "256Mi")),
        pod: &shop.spec.api.pod,
        extra_env: &shop.spec.api.env,
        grace_seconds: i64::from(shop.spec.settings.drain_seconds) + AFTER_DRAIN_SECONDS,
    };
    let spec = PodSpec {
        init_containers: Some(vec![migrate(shop, &parts)]),
        containers: vec![serve(shop, &parts)],
        volumes: Some(vec![keys_volume(shop)]),
        ..PodSpec::default()
    };
    Deployment {
        metadata: metadata(shop, Component::Api),
        spec: DeploymentSpec {
            replicas: if shop.spec.suspended { Some(0) } else { shop.spec.api.replicas },
            selector: LabelSelector {
                match_labels: Some(Component::Api.selector(&shop.name)),
                ..LabelSelector::default()
            },
            strategy: Some(rolling(IntOrString::Int(0))),
            template: pod::template(shop, &parts, spec),
            revision_history_limit: Some(3),
            progress_deadline_seconds: Some(super::worker::PROGRESS_DEADLINE_SECONDS),
            ..DeploymentSpec::default()
        },
        status: None,
    }
}

/// Where the shop names no number it is free for `kubectl scale` and for a `HorizontalPodAutoscaler`. As long as it is still
/// the operator's own, from a time when the shop named one or was suspended, it stays as it is: what its only owner leaves
/// out the API server would set to 1.
pub fn replicas(live: Option<&Deployment>) -> Option<i32> {
    let own = live.filter(|live| rollout::owns_replicas(live, names::MANAGER))?;
    own.spec.replicas.map(|replicas| replicas.max(1))
}

pub fn rolling(max_unavailable: IntOrString) -> DeploymentStrategy {
    DeploymentStrategy {
        type_: Some("RollingUpdate".to_owned()),
        rolling_update: Some(RollingUpdateDeployment {
            max_surge: Some(IntOrString::Int(1)),
            max_unavailable: Some(max_unavailable),
        }),
    }
}

fn serve(shop: &ValidatedShop, parts: &Parts<'_>) -> Container {
    let mut container = pod::container(shop, parts);
    container.ports.get_or_insert_default().insert(0, pod::port("http", HTTP_PORT));
    with_keys(container)
}

/// Makes the indexes before the new version serves.
fn migrate(shop: &ValidatedShop, parts: &Parts<'_>) -> Container {
    let main = pod::container(shop, parts);
    with_keys(Container {
        name: "migrate".to_owned(),
        args: Some(vec!["migrate".to_owned()]),
        ports: None,
        startup_probe: None,
        readiness_probe: None,
        liveness_probe: None,
        ..main
    })
}

fn with_keys(mut container: Container) -> Container {
    let file = format!("{KEYS_PATH}/{}", names::KEYS_FILE);
    container.env.get_or_insert_default().push(pod::plain("SHOP_AUTH_KEYS_FILE", &file));
    container.volume_mounts.get_or_insert_default().push(pod::mount("keys", KEYS_PATH));
    container
}

fn keys_volume(shop: &ValidatedShop) -> Volume {
    let source = SecretVolumeSource { secret_name: Some(shop.keys_secret.clone()), ..SecretVolumeSource::default() };
    pod::secret_volume("keys", source)
}

pub fn service(shop: &ValidatedShop) -> Service {
    Service {
        metadata: metadata(shop, Component::Api),
        spec: Some(ServiceSpec {
            selector: Some(Component::Api.selector(&shop.name)),
            ports: Some(vec![ServicePort {
                name: Some("http".to_owned()),
                port: 80,
                target_port: Some(IntOrString::String("http".to_owned())),
                ..ServicePort::default()
            }]),
            ..ServiceSpec::default()
        }),
        status: None,
    }
}

/// Without a class in the spec it is the cluster's default, which the API server gives to new ones alone: one whose class the
/// spec gave before goes, and is made anew once it is gone.
pub fn ingress(shop: &ValidatedShop, live: Option<&Ingress>) -> Option<Ingress> {
    let wanted = &shop.spec.api.ingress;
    let was_given = live.is_some_and(|live| live.annotations().contains_key(names::CLASS_GIVEN));
    if !wanted.enabled || (was_given && wanted.class_name.is_none()) {
        return None;
    }
    let backend = IngressBackend {
        service: Some(IngressServiceBackend {
            name: Component::Api.object_name(&shop.name),
            port: Some(ServiceBackendPort { name: Some("http".to_owned()), number: None }),
        }),
        resource: None,
    };
    let path = HTTPIngressPath { backend, path: Some("/".to_owned()), path_type: "Prefix".to_owned() };
    let tls = wanted.tls.as_ref().map(|tls| IngressTLS {
        hosts: wanted.host.clone().map(|host| vec![host]),
        secret_name: Some(tls.secret_name.clone()),
    });
    let mut metadata = metadata(shop, Component::Api);
    let mut annotations = BTreeMap::clone(&wanted.annotations);
    // Ours to say: with it in the spec, and no class, the Ingress would be made anew for ever.
    annotations.remove(names::CLASS_GIVEN);
    annotations.extend(wanted.class_name.is_some().then(|| (names::CLASS_GIVEN.to_owned(), "true".to_owned())));
    metadata.annotations = (!annotations.is_empty()).then_some(annotations);
    Some(Ingress {
        metadata,
        spec: Some(IngressSpec {
            ingress_class_name: wanted.class_name.clone(),
            rules: Some(vec![IngressRule {
                host: wanted.host.clone(),
                http: Some(HTTPIngressRuleValue { paths: vec![path] }),
            }]),
            tls: tls.map(|tls| vec![tls]),
            ..IngressSpec::default()
        }),
        status: None,
    })
}
