//! What the pods of both components have in common: identity, security, environment, probes.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::core::v1::{
        Capabilities, ConfigMap, ConfigMapEnvSource, Container, ContainerPort, EnvFromSource, EnvVar, EnvVarSource,
        HTTPGetAction, KeyToPath, LocalObjectReference, PodSecurityContext, PodSpec, PodTemplateSpec, Probe,
        ResourceRequirements, SeccompProfile, SecretKeySelector, SecretVolumeSource, SecurityContext, ServiceAccount,
        Toleration, TopologySpreadConstraint, Volume, VolumeMount,
    },
    apimachinery::pkg::{
        api::resource::Quantity,
        apis::meta::v1::{LabelSelector, ObjectMeta},
        util::intstr::IntOrString,
    },
};

use super::{fingerprint, metadata};
use crate::{
    crd::{self, CaSecretRef, Pod, PullPolicy, Resources, TopologySpread, WhenUnsatisfiable},
    names::{self, Component},
    validate::{Digest, ValidatedShop},
};

/// Variables that the operator itself puts into the containers, besides those of the `ConfigMap`s, or goes by itself: the port
/// that the Service names, the queue that the scaler reads.
pub const RESERVED_ENV: [&str; 14] = [
    "SHOP_CA_FILE",
    "SHOP_MONGODB_URI",
    "SHOP_REDIS_URL",
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "SHOP_STAFF_EMAIL",
    "SHOP_STAFF_PASSWORD",
    "SHOP_AUTH_KEYS_FILE",
    "SHOP_METRICS_ADDR",
    "SHOP_HTTP_ADDR",
    "SHOP_SQS_QUEUE_NAME",
    "SHOP_SQS_QUEUE_URL",
    "SHOP_SQS_ENDPOINT",
    "SHOP_SQS_REGION",
];

const NON_ROOT: i64 = 65532;
pub const OPS: &str = "ops";
pub const OPS_PORT: i32 = 9090;
const CA_PATH: &str = "/etc/xhipment/ca";
const CA_FILE: &str = "ca.crt";

/// What the two components' pods differ in.
pub struct Parts<'a> {
    pub component: Component,
    pub config: &'a ConfigMap,
    pub image: String,
    pub resources: ResourceRequirements,
    pub pod: &'a Pod,
    pub extra_env: &'a [crd::EnvVar],
    pub grace_seconds: i64,
}

pub fn service_account(shop: &ValidatedShop, component: Component) -> ServiceAccount {
    let annotations = &shop.spec.aws.service_account_annotations;
    let mut metadata = metadata(shop, component);
    metadata.annotations = (!annotations.is_empty()).then(|| annotations.clone());
    ServiceAccount { metadata, automount_service_account_token: Some(false), ..ServiceAccount::default() }
}

/// The pod template around one main container; the component adds to the container and the volumes.
pub fn template(shop: &ValidatedShop, parts: &Parts<'_>, mut spec: PodSpec) -> PodTemplateSpec {
    if let Some(ca) = &shop.spec.ca_secret_ref {
        spec.volumes.get_or_insert_default().push(ca_volume(ca));
    }
    let mut labels = parts.component.selector(&shop.name);
    labels.insert(names::MANAGED_BY.to_owned(), names::MANAGER.to_owned());
    labels.insert(names::VERSION.to_owned(), names::image_version(&parts.image));
    // One digest of everything, with the shop's uid: a weak value cannot be tried without the strong ones beside it.
    let config = fingerprint(&(&shop.owner.uid, &parts.config.data, secrets(shop, parts.component)));
    PodTemplateSpec {
        metadata: Some(ObjectMeta {
            labels: Some(labels),
            annotations: Some([(names::CONFIG.to_owned(), config)].into()),
            ..ObjectMeta::default()
        }),
        spec: Some(PodSpec {
            service_account_name: Some(parts.component.object_name(&shop.name)),
            automount_service_account_token: Some(false),
            enable_service_links: Some(false),
            image_pull_secrets: pull_secrets(shop),
            node_selector: (!parts.pod.node_selector.is_empty()).then(|| parts.pod.node_selector.clone()),
            affinity: parts.pod.affinity.clone(),
            tolerations: tolerations(parts.pod),
            priority_class_name: parts.pod.priority_class_name.clone(),
            security_context: Some(pod_security()),
            termination_grace_period_seconds: Some(parts.grace_seconds),
            topology_spread_constraints: Some(spread(shop, parts)),
            ..spec
        }),
    }
}

pub fn container(shop: &ValidatedShop, parts: &Parts<'_>) -> Container {
    Container {
        name: parts.component.as_str().to_owned(),
        image: Some(parts.image.clone()),
        image_pull_policy: Some(pull_policy(shop.spec.images.pull_policy).to_owned()),
        env: Some(env(shop, parts)),
        env_from: Some(vec![EnvFromSource {
            config_map_ref: Some(ConfigMapEnvSource { name: parts.component.object_name(&shop.name), optional: None }),
            ..EnvFromSource::default()
        }]),
        ports: Some(vec![port(OPS, OPS_PORT)]),
        volume_mounts: shop.spec.ca_secret_ref.as_ref().map(|_| vec![mount("ca", CA_PATH)]),
        // A container that ended says why in the pod's status: in its last words, which hold no secret.
        termination_message_policy: Some("FallbackToLogsOnError".to_owned()),
        resources: Some(parts.resources.clone()),
        security_context: Some(container_security()),
        // Start-up may take a minute where a disk is slow; after that a second's delay is all that readiness costs.
        startup_probe: Some(probe("/livez", 1, 60)),
        readiness_probe: Some(probe("/readyz", 1, 3)),
        liveness_probe: Some(probe("/livez", 10, 6)),
        ..Container::default()
    }
}

pub fn port(name: &str, number: i32) -> ContainerPort {
    ContainerPort { name: Some(name.to_owned()), container_port: number, ..ContainerPort::default() }
}

/// Files of a Secret, read-only.
pub fn mount(volume: &str, path: &str) -> VolumeMount {
    VolumeMount {
        name: volume.to_owned(),
        mount_path: path.to_owned(),
        read_only: Some(true),
        ..VolumeMount::default()
    }
}

pub fn secret_volume(name: &str, source: SecretVolumeSource) -> Volume {
    // Readable by the group, which is the pods' own.
    let source = SecretVolumeSource { default_mode: Some(0o440), ..source };
    Volume { name: name.to_owned(), secret: Some(source), ..Volume::default() }
}

/// One key of the Secret under one name: the shop's setting never changes with the key's.
fn ca_volume(ca: &CaSecretRef) -> Volume {
    let item = KeyToPath { key: ca.key.clone(), path: CA_FILE.to_owned(), ..KeyToPath::default() };
    let source = SecretVolumeSource {
        secret_name: Some(ca.name.clone()),
        items: Some(vec![item]),
        ..SecretVolumeSource::default()
    };
    secret_volume("ca", source)
}

/// Requests and limits, with defaults where the owner says nothing.
pub fn resources(wanted: &Resources, requests: (&str, &str), limits: (&str, &str)) -> ResourceRequirements {
    let amounts = |wanted: &crd::Amounts, (cpu, memory): (&str, &str)| {
        let or =
            |wanted: &Option<Quantity>, default: &str| wanted.clone().unwrap_or_else(|| Quantity(default.to_owned()));
        BTreeMap::from([("cpu".to_owned(), or(&wanted.cpu, cpu)), ("memory".to_owned(), or(&wanted.memory, memory))])
    };
    ResourceRequirements {
        requests: Some(amounts(&wanted.requests, requests)),
        limits: Some(amounts(&wanted.limits, limits)),
        ..ResourceRequirements::default()
    }
}

fn env(shop: &ValidatedShop, parts: &Parts<'_>) -> Vec<EnvVar> {
    let spec = &shop.spec;
    let mongodb = &spec.mongodb.uri_secret_ref;
    let mut env = vec![from_secret("SHOP_MONGODB_URI", &mongodb.name, &mongodb.key)];
    if let Some(redis) = &spec.redis {
        env.push(from_secret("SHOP_REDIS_URL", &redis.url_secret_ref.name, &redis.url_secret_ref.key));
    }
    if spec.ca_secret_ref.is_some() {
        env.push(plain("SHOP_CA_FILE", &format!("{CA_PATH}/{CA_FILE}")));
    }
    if let Some(aws) = &spec.aws.credentials_secret_ref {
        env.push(from_secret("AWS_ACCESS_KEY_ID", &aws.name, "accessKeyId"));
        env.push(from_secret("AWS_SECRET_ACCESS_KEY", &aws.name, "secretAccessKey"));
    }
    if let (Component::Api, Some(staff)) = (parts.component, &spec.auth.staff_secret_ref) {
        env.push(from_secret("SHOP_STAFF_EMAIL", &staff.name, "email"));
        env.push(from_secret("SHOP_STAFF_PASSWORD", &staff.name, "password"));
    }
    env.extend(parts.extra_env.iter().map(|variable| plain(&variable.name, &variable.value)));
    env
}

pub fn plain(name: &str, value: &str) -> EnvVar {
    // The API server leaves an empty value out: built with it, the object would never be what it gives back.
    EnvVar { name: name.to_owned(), value: (!value.is_empty()).then(|| value.to_owned()), value_from: None }
}

fn from_secret(variable: &str, secret: &str, key: &str) -> EnvVar {
    let selector = SecretKeySelector { name: secret.to_owned(), key: key.to_owned(), optional: None };
    let source = EnvVarSource { secret_key_ref: Some(selector), ..EnvVarSource::default() };
    EnvVar { name: variable.to_owned(), value: None, value_from: Some(source) }
}

/// What a pod reads of Secrets at start, as digests: a changed value rolls the pods that read it, a changed label none. The
/// token keys are not among them: the api reads their file again by itself.
fn secrets(shop: &ValidatedShop, component: Component) -> Vec<Option<&Digest>> {
    let spec = &shop.spec;
    let mongodb = &spec.mongodb.uri_secret_ref;
    let mut read = vec![(&mongodb.name, mongodb.key.as_str())];
    read.extend(spec.redis.as_ref().map(|redis| (&redis.url_secret_ref.name, redis.url_secret_ref.key.as_str())));
    let aws = spec.aws.credentials_secret_ref.iter();
    read.extend(aws.flat_map(|secret| [(&secret.name, "accessKeyId"), (&secret.name, "secretAccessKey")]));
    read.extend(spec.ca_secret_ref.as_ref().map(|ca| (&ca.name, ca.key.as_str())));
    if component == Component::Api {
        let staff = spec.auth.staff_secret_ref.iter();
        read.extend(staff.flat_map(|secret| [(&secret.name, "email"), (&secret.name, "password")]));
    }
    read.into_iter().map(|(name, key)| shop.secret_digest(name, key)).collect()
}

fn probe(path: &str, period: i32, failures: i32) -> Probe {
    let port = IntOrString::String(OPS.to_owned());
    Probe {
        http_get: Some(HTTPGetAction { path: Some(path.to_owned()), port, ..HTTPGetAction::default() }),
        period_seconds: Some(period),
        failure_threshold: Some(failures),
        timeout_seconds: Some(2),
        ..Probe::default()
    }
}

fn pod_security() -> PodSecurityContext {
    PodSecurityContext {
        run_as_non_root: Some(true),
        run_as_user: Some(NON_ROOT),
        run_as_group: Some(NON_ROOT),
        fs_group: Some(NON_ROOT),
        seccomp_profile: Some(SeccompProfile { type_: "RuntimeDefault".to_owned(), localhost_profile: None }),
        ..PodSecurityContext::default()
    }
}

pub fn container_security() -> SecurityContext {
    SecurityContext {
        allow_privilege_escalation: Some(false),
        read_only_root_filesystem: Some(true),
        capabilities: Some(Capabilities { drop: Some(vec!["ALL".to_owned()]), add: None }),
        ..SecurityContext::default()
    }
}

/// As the owner says, or else over the nodes.
fn spread(shop: &ValidatedShop, parts: &Parts<'_>) -> Vec<TopologySpreadConstraint> {
    let selector =
        LabelSelector { match_labels: Some(parts.component.selector(&shop.name)), ..LabelSelector::default() };
    let constraint = |wanted: &TopologySpread| TopologySpreadConstraint {
        max_skew: wanted.max_skew,
        topology_key: wanted.topology_key.clone(),
        when_unsatisfiable: format!("{:?}", wanted.when_unsatisfiable),
        label_selector: Some(selector.clone()),
        ..TopologySpreadConstraint::default()
    };
    let over_nodes = TopologySpread {
        topology_key: "kubernetes.io/hostname".to_owned(),
        max_skew: 1,
        when_unsatisfiable: WhenUnsatisfiable::ScheduleAnyway,
    };
    let wanted = &parts.pod.topology_spread;
    if wanted.is_empty() { vec![constraint(&over_nodes)] } else { wanted.iter().map(constraint).collect() }
}

fn pull_secrets(shop: &ValidatedShop) -> Option<Vec<LocalObjectReference>> {
    let secrets = &shop.spec.images.pull_secrets;
    let references = secrets.iter().map(|secret| LocalObjectReference { name: secret.name.clone() });
    (!secrets.is_empty()).then(|| references.collect())
}

fn tolerations(pod: &Pod) -> Option<Vec<Toleration>> {
    let tolerations = pod.tolerations.iter().map(|toleration| Toleration {
        key: toleration.key.clone(),
        operator: Some(format!("{:?}", toleration.operator)),
        value: toleration.value.clone(),
        effect: toleration.effect.map(|effect| format!("{effect:?}")),
        toleration_seconds: toleration.toleration_seconds,
    });
    (!pod.tolerations.is_empty()).then(|| tolerations.collect())
}

fn pull_policy(policy: PullPolicy) -> &'static str {
    match policy {
        PullPolicy::Always => "Always",
        PullPolicy::IfNotPresent => "IfNotPresent",
        PullPolicy::Never => "Never",
    }
}
