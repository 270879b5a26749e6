//! From what is there to what may be built: every fault is collected, nothing is read or written.

use std::{collections::BTreeMap, fmt};

use jiff::SignedDuration;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::{Resource, ResourceExt};
use serde::Serialize;
use sha2::{Digest as _, Sha256};

use crate::{
    build,
    conditions::Reason,
    crd::{DeletionPolicy, FailurePolicy, Management, Mode, Queue, ShopDeployment, ShopDeploymentSpec},
    names::{self, Component, keys_secret},
    scale::{Opening, Pause, Schedule},
};

/// What a shop refers to, as it was found.
#[derive(Clone, Debug, Default)]
pub struct World {
    /// Images for shops that name none.
    pub api_image: String,
    pub worker_image: String,
    /// The Secrets of the shop's namespace that it names.
    pub secrets: BTreeMap<String, FoundSecret>,
    /// The other shops this operator knows of.
    pub others: Vec<OtherShop>,
}

/// A Secret's keys with the digests of what they hold: enough to see a change, and nothing to leak.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FoundSecret {
    pub keys: BTreeMap<String, Digest>,
    pub version: String,
}

/// SHA-256 of a secret value. It stays in memory: of a weak value it could be guessed.
#[derive(Clone, PartialEq, Eq, Serialize)]
pub struct Digest([u8; 32]);

impl Digest {
    pub fn of(value: &[u8]) -> Self {
        Self(Sha256::digest(value).into())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Digest(..)")
    }
}

/// Another shop, as far as sharing a queue goes.
#[derive(Clone, Debug)]
pub struct OtherShop {
    pub name: String,
    pub queue: Queue,
    /// Older shops win: creation time, then uid.
    pub age: (Option<String>, String),
}

/// A shop that can be built: every reference leads somewhere and every number fits.
#[derive(Clone, Debug)]
pub struct ValidatedShop {
    pub name: String,
    pub namespace: String,
    pub owner: OwnerReference,
    pub spec: ShopDeploymentSpec,
    pub api_image: String,
    pub worker_image: String,
    pub keys_secret: String,
    pub concurrency: u32,
    pub scaling: Scaling,
    secrets: BTreeMap<String, FoundSecret>,
}

/// `spec.worker.autoscaling` with its neighbours, in the scaler's terms.
#[derive(Clone, Debug, PartialEq)]
pub struct Scaling {
    pub mode: Mode,
    pub replicas: Option<u32>,
    pub suspended: bool,
    pub pause: Pause,
    pub target_wait_seconds: u32,
    pub expected_seconds_per_message: f64,
    pub min: u32,
    pub max: u32,
    pub activation: u64,
    pub to_zero_cooldown_seconds: u32,
    pub window_seconds: u32,
    pub max_percent: u32,
    pub failure_after_seconds: u32,
    pub fallback: Option<u32>,
    pub poll_seconds: u32,
    pub schedules: Vec<Schedule>,
}

/// One thing that keeps a shop from being built, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    pub reason: Reason,
    pub message: String,
}

impl ValidatedShop {
    pub fn is_managed(&self) -> bool {
        self.spec.queue.management == Management::Managed
    }

    /// Whether the queue goes when the shop goes, which takes a finalizer.
    pub fn deletes_queue(&self) -> bool {
        self.is_managed() && self.spec.queue.deletion_policy == DeletionPolicy::Delete
    }

    pub fn generates_keys(&self) -> bool {
        self.spec.auth.keys_secret_ref.is_none()
    }

    /// The versions of all Secrets that the shop names.
    pub fn secret_versions(&self) -> &BTreeMap<String, FoundSecret> {
        &self.secrets
    }

    /// Digest of what a Secret that the shop names holds under a key.
    pub fn secret_digest(&self, name: &str, key: &str) -> Option<&Digest> {
        self.secrets.get(name)?.keys.get(key)
    }
}

/// Name, uid and age of a shop, and its queue, for the others.
pub fn as_other(shop: &ShopDeployment) -> OtherShop {
    let created = shop.creation_timestamp().map(|time| time.0.to_string());
    OtherShop {
        name: format!("{}/{}", shop.namespace().unwrap_or_default(), shop.name_any()),
        queue: shop.spec.queue.clone(),
        age: (created, shop.uid().unwrap_or_default()),
    }
}

/// The Secrets a shop names and the keys that it needs in each.
pub fn needed_secrets(spec: &ShopDeploymentSpec) -> Vec<(&'static str, String, Vec<String>)> {
    let mut needed = Vec::new();
    let mongodb = &spec.mongodb.uri_secret_ref;
    needed.push(("mongodb.uriSecretRef", mongodb.name.clone(), vec![mongodb.key.clone()]));
    if let Some(redis) = &spec.redis {
        let secret = &redis.url_secret_ref;
        needed.push(("redis.urlSecretRef", secret.name.clone(), vec![secret.key.clone()]));
    }
    if let Some(secret) = &spec.aws.credentials_secret_ref {
        let keys = ["accessKeyId", "secretAccessKey"].map(str::to_owned).to_vec();
        needed.push(("aws.credentialsSecretRef", secret.name.clone(), keys));
    }
    if let Some(ca) = &spec.ca_secret_ref {
        needed.push(("caSecretRef", ca.name.clone(), vec![ca.key.clone()]));
    }
    if let Some(secret) = &spec.auth.staff_secret_ref {
        needed.push(("auth.staffSecretRef", secret.name.clone(), ["email", "password"].map(str::to_owned).to_vec()));
    }
    if let Some(secret) = &spec.auth.keys_secret_ref {
        needed.push(("auth.keysSecretRef", secret.name.clone(), vec![names::KEYS_FILE.to_owned()]));
    }
    needed
}

/// A Secret that a shop names and that the operator does not read: others wait for it, or do without.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OptionalSecret<'a> {
    field: &'static str,
    pub name: &'a str,
    without: &'static str,
}

impl OptionalSecret<'_> {
    pub fn missing(&self) -> Fault {
        let Self { field, name, without } = self;
        let message = format!(
            "Secret {name} (spec.{field}) does not exist: create it, or wait for whoever issues it; until then {without}"
        );
        Fault { reason: Reason::SecretMissing, message }
    }
}

pub fn optional_secrets(spec: &ShopDeploymentSpec) -> Vec<OptionalSecret<'_>> {
    let without = "an image of a private registry cannot be pulled";
    let pull = |secret| OptionalSecret { field: "images.pullSecrets", name: secret, without };
    let ingress = &spec.api.ingress;
    let certificate = ingress.tls.iter().filter(|_| ingress.enabled).map(|tls| OptionalSecret {
        field: "api.ingress.tls.secretName",
        name: &tls.secret_name,
        without: "the ingress shows a certificate of its own, or none",
    });
    spec.images.pull_secrets.iter().map(|secret| pull(&secret.name)).chain(certificate).collect()
}

/// All faults at once, or a shop that can be built.
pub fn validate(shop: &ShopDeployment, world: &World) -> Result<ValidatedShop, Vec<Fault>> {
    let spec = &shop.spec;
    let mut faults = secret_faults(spec, world);
    faults.extend(queue_faults(shop, world));
    faults.extend(number_faults(spec));
    faults.extend(text_faults(spec));
    let (schedules, unreadable) = schedules(spec);
    faults.extend(unreadable);
    let Some(owner) = shop.controller_owner_ref(&()) else {
        return Err(vec![invalid("metadata: the object has no name or uid".to_owned())]);
    };
    let shop = ValidatedShop {
        name: shop.name_any(),
        namespace: shop.namespace().unwrap_or_default(),
        owner,
        api_image: spec.images.api.clone().unwrap_or_else(|| world.api_image.clone()),
        worker_image: spec.images.worker.clone().unwrap_or_else(|| world.worker_image.clone()),
        keys_secret: spec
            .auth
            .keys_secret_ref
            .as_ref()
            .map_or_else(|| keys_secret(&shop.name_any()), |s| s.name.clone()),
        concurrency: unsigned(spec.worker.concurrency),
        scaling: scaling(shop, schedules),
        secrets: world.secrets.clone(),
        spec: spec.clone(),
    };
    faults.extend(env_faults(&shop));
    if faults.is_empty() { Ok(shop) } else { Err(faults) }
}

/// A pod's own variable goes before that of its `ConfigMap`: the operator, and what depends on a field, would not know of it.
fn env_faults(shop: &ValidatedShop) -> Vec<Fault> {
    let mut faults = Vec::new();
    for (component, env) in [(Component::Api, &shop.spec.api.env), (Component::Worker, &shop.spec.worker.env)] {
        let taken = build::variables(shop, component);
        for variable in env.iter().filter(|variable| taken.contains(variable.name.as_str())) {
            faults.push(invalid(format!(
                "spec.{}.env: {} is taken from a Secret or set by the operator: use the typed field, if there is one",
                component.as_str(),
                variable.name
            )));
        }
    }
    faults
}

fn secret_faults(spec: &ShopDeploymentSpec, world: &World) -> Vec<Fault> {
    let mut faults = Vec::new();
    for (field, name, keys) in needed_secrets(spec) {
        match world.secrets.get(&name) {
            None => faults.push(Fault {
                reason: Reason::SecretMissing,
                message: format!(
                    "Secret {name} (spec.{field}) does not exist: create it with the key {}",
                    keys.join(" and ")
                ),
            }),
            Some(found) => faults.extend(keys.iter().filter(|key| !found.keys.contains_key(*key)).map(|key| Fault {
                reason: Reason::SecretKeyMissing,
                message: format!("Secret {name} (spec.{field}) has no key {key}: add it"),
            })),
        }
    }
    faults
}

fn queue_faults(shop: &ShopDeployment, world: &World) -> Vec<Fault> {
    let me = as_other(shop);
    let mut faults = Vec::new();
    if let Some(first) = world.others.iter().find(|other| other.age < me.age && same_queue(&other.queue, &me.queue)) {
        let message = format!(
            "spec.queue is the queue of the older shop {} already, or its dead-letter queue: give this shop one of its own \
             (where only the AWS accounts differ, say so with queue.url)",
            first.name
        );
        faults.push(Fault { reason: Reason::QueueInUse, message });
    }
    if shop.spec.queue.name.is_some() == shop.spec.queue.url.is_some() {
        faults.push(invalid("spec.queue: set exactly one of url and name".to_owned()));
    }
    faults
}

/// The same server, name and account; an account that is not said counts as the same. The dead-letter queue of a Managed
/// queue is its shop's as well.
fn same_queue(a: &Queue, b: &Queue) -> bool {
    let (a_account, a_name) = account_and_name(a);
    let (b_account, b_name) = account_and_name(b);
    let accounts_differ = matches!((a_account, b_account), (Some(a), Some(b)) if a != b);
    let is_dead_letters_of = |queue: &Queue, name: &str, other: &str| {
        queue.management == Management::Managed && names::dead_letter_queue(name) == other
    };
    let names_meet = a_name == b_name || is_dead_letters_of(a, a_name, b_name) || is_dead_letters_of(b, b_name, a_name);
    let (a_servers, b_servers) = (servers(a), servers(b));
    a_servers.iter().any(|server| b_servers.contains(server)) && names_meet && !accounts_differ
}

/// The servers that a queue is said to be on: its URL's, its endpoint, or else AWS's in its region.
fn servers(queue: &Queue) -> Vec<String> {
    let mut servers: Vec<_> = queue.url.iter().chain(&queue.endpoint).map(|url| server(url)).collect();
    if servers.is_empty() {
        servers.push(format!("sqs.{}.amazonaws.com", queue.region));
    }
    servers
}

/// Host and port in one spelling; AWS answers for its queues under older names as well.
fn server(url: &str) -> String {
    let authority = url.split_once("://").map_or(url, |(_, rest)| rest).split('/').next().unwrap_or_default();
    let host = authority.to_ascii_lowercase();
    let host = host.strip_suffix(":443").or_else(|| host.strip_suffix(":80")).unwrap_or(&host);
    match host.strip_suffix("queue.amazonaws.com") {
        Some("") => "sqs.us-east-1.amazonaws.com".to_owned(),
        Some(region) => format!("sqs.{region}amazonaws.com"),
        None => host.to_owned(),
    }
}

fn account_and_name(queue: &Queue) -> (Option<&str>, &str) {
    match (&queue.url, &queue.name) {
        (Some(url), _) => {
            let mut parts = url.trim_end_matches('/').rsplit('/');
            let name = parts.next().unwrap_or_default();
            // Stand-ins write what they like in its place.
            let account = parts.next().filter(|part| part.len() == 12 && *part != "000000000000");
            (account, name)
        }
        (None, name) => (None, name.as_deref().unwrap_or_default()),
    }
}

/// What the schema checks too: an operator may meet objects that an older schema let in.
fn number_faults(spec: &ShopDeploymentSpec) -> Vec<Fault> {
    let (worker, scaling) = (&spec.worker, &spec.worker.autoscaling);
    let mut faults = Vec::new();
    if scaling.min > scaling.max {
        faults.push(invalid(format!("spec.worker.autoscaling: min {} is above max {}", scaling.min, scaling.max)));
    }
    let grace = worker.max_processing_seconds + 30;
    if worker.termination_grace_period_seconds < grace {
        faults.push(invalid(format!(
            "spec.worker.terminationGracePeriodSeconds must be at least maxProcessingSeconds + 30, which is {grace}"
        )));
    }
    if worker.concurrency < 1 || !scaling.expected_seconds_per_message.is_finite() {
        faults.push(invalid("spec.worker: concurrency and expectedSecondsPerMessage must be positive".to_owned()));
    }
    faults
}

fn text_faults(spec: &ShopDeploymentSpec) -> Vec<Fault> {
    let mut faults = Vec::new();
    for network in spec.settings.trusted_proxies.iter().filter(|network| !is_network(network)) {
        faults.push(invalid(format!("spec.settings.trustedProxies: {network:?} is no network such as 10.0.0.0/8")));
    }
    faults
}

fn is_network(text: &str) -> bool {
    let (address, prefix) = text.split_once('/').unwrap_or((text, "0"));
    let Ok(address) = address.parse::<std::net::IpAddr>() else { return false };
    let most = if address.is_ipv4() { 32 } else { 128 };
    prefix.parse::<u8>().is_ok_and(|bits| bits <= most)
}

/// The schedules that can be followed, and what is wrong with the others.
fn schedules(spec: &ShopDeploymentSpec) -> (Vec<Schedule>, Vec<Fault>) {
    let (mut schedules, mut faults) = (Vec::new(), Vec::new());
    for wanted in &spec.worker.autoscaling.schedules {
        match Opening::new(&wanted.cron, &wanted.time_zone) {
            Ok(opening) => schedules.push(Schedule {
                name: wanted.name.clone(),
                opening,
                duration: SignedDuration::from_mins(wanted.duration_minutes.into()),
                min: wanted.min.map(unsigned),
                max: wanted.max.map(unsigned),
                target_wait: wanted.target_wait_seconds.map(f64::from),
            }),
            Err(error) => {
                faults.push(invalid(format!("spec.worker.autoscaling.schedules {}: {error}", wanted.name)));
            }
        }
    }
    (schedules, faults)
}

fn scaling(shop: &ShopDeployment, schedules: Vec<Schedule>) -> Scaling {
    let (worker, scaling) = (&shop.spec.worker, &shop.spec.worker.autoscaling);
    let annotated = |key: &str| shop.annotations().get(key).is_some_and(|value| value != "false");
    let pause = if shop.spec.paused || annotated(names::PAUSE_SCALING) {
        Pause::All
    } else if annotated(names::PAUSE_SCALE_DOWN) {
        Pause::Down
    } else {
        Pause::No
    };
    let fallback =
        (scaling.failure.policy == FailurePolicy::Static).then(|| unsigned(scaling.failure.replicas.unwrap_or(0)));
    Scaling {
        mode: scaling.mode,
        replicas: worker.replicas.map(unsigned),
        // A paused shop is only watched.
        suspended: shop.spec.suspended && !shop.spec.paused,
        pause,
        target_wait_seconds: unsigned(scaling.target_wait_seconds),
        expected_seconds_per_message: scaling.expected_seconds_per_message,
        min: unsigned(scaling.min),
        max: unsigned(scaling.max),
        activation: u64::from(unsigned(scaling.activation)),
        to_zero_cooldown_seconds: unsigned(scaling.to_zero_cooldown_seconds),
        window_seconds: unsigned(scaling.scale_down.window_seconds),
        max_percent: unsigned(scaling.scale_down.max_percent),
        failure_after_seconds: unsigned(scaling.failure.after_seconds),
        fallback,
        poll_seconds: unsigned(scaling.poll_seconds),
        schedules,
    }
}

fn unsigned(value: i32) -> u32 {
    u32::try_from(value).unwrap_or(0)
}

fn invalid(message: String) -> Fault {
    Fault { reason: Reason::InvalidSpec, message }
}

#[cfg(test)]
pub(crate) mod tests;
