//! What every pass needs: the client, the caches of what lives in the cluster, and what is remembered between passes.

use std::{
    collections::HashMap,
    convert::Infallible,
    fmt::Debug,
    hash::Hash,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures::channel::mpsc;
use jiff::Timestamp;
use k8s_openapi::{
    ByteString, NamespaceResourceScope,
    api::{
        apps::v1::Deployment,
        core::v1::{ConfigMap, Pod, Secret, Service, ServiceAccount},
        networking::v1::{Ingress, NetworkPolicy},
        policy::v1::PodDisruptionBudget,
    },
};
use kube::{
    Api, Client, Resource, ResourceExt,
    api::PartialObjectMeta,
    runtime::{
        events::{Recorder, Reporter},
        reflector::{ObjectRef, Store},
    },
};
use shop_runtime::{clock::Clock, health::Readiness, shutdown::Shutdown};
use tokio_util::sync::CancellationToken;

use crate::{
    ask::Asker,
    config::Config,
    crd::ShopDeployment,
    kept::Kept,
    metrics::Metrics,
    names::{Component, MANAGER},
    queue::Queues,
    rollout::Built,
    scale::{endings::Endings, run::Scalers, view::Views},
    validate::{Digest, Fault, FoundSecret},
    watches::Barred,
};

const TOGETHER: Duration = Duration::from_secs(1);

/// Caches of the cluster, kept up to date by watches.
#[derive(Clone)]
pub struct Stores {
    pub shops: Store<ShopDeployment>,
    pub service_accounts: Store<Kept<ServiceAccount>>,
    pub config_maps: Store<Kept<ConfigMap>>,
    pub network_policies: Store<Kept<NetworkPolicy>>,
    pub deployments: Store<Kept<Deployment>>,
    pub services: Store<Kept<Service>>,
    pub ingresses: Store<Kept<Ingress>>,
    pub budgets: Store<Kept<PodDisruptionBudget>>,
    pub pods: Store<Pod>,
    /// Metadata only: contents never come by watch.
    pub secrets: Store<PartialObjectMeta<Secret>>,
}

pub struct Context {
    pub client: Client,
    pub config: Config,
    pub clock: Clock,
    pub shutdown: Shutdown,
    pub readiness: Readiness,
    pub metrics: Metrics,
    /// As whom events are published.
    pub reporter: Reporter,
    pub stores: Stores,
    /// What may not be watched.
    pub barred: Barred,
    pub queues: Queues,
    pub scalers: Scalers,
    pub views: Views,
    pub endings: Endings,
    pub asker: Asker,
    /// Asks for a pass over a shop.
    pub trigger: mpsc::UnboundedSender<ObjectRef<ShopDeployment>>,
    filled: CancellationToken,
    memory: Mutex<HashMap<String, Memory>>,
    secrets: Mutex<HashMap<(String, String), FoundSecret>>,
}

/// What is remembered of one shop between passes.
#[derive(Default)]
pub struct Memory {
    /// The newest of the shop's generations that was passed over.
    generation: Option<i64>,
    pub last_report: Option<Timestamp>,
    pub failures: u32,
    /// Its namespace is being deleted, for ever: nothing can be made there any more.
    pub ending: bool,
    /// Passes in a row in which something could not be written.
    pub faults: u32,
    /// Since when the queue of a shop that is being deleted has been empty.
    pub empty_since: Option<Timestamp>,
    /// That there is no `ServiceMonitor`: nobody else makes one.
    pub is_unmonitored: bool,
    pub api: Built,
    pub worker: Built,
    /// The last event's note for each reason, and who counts it.
    pub events: HashMap<String, (String, Recorder)>,
}

impl Memory {
    /// Whether a newer generation was seen already: a watch that resumes from a server that is behind brings old ones again,
    /// and what the shop wanted then must not be brought back.
    pub fn is_outdated(&mut self, generation: Option<i64>) -> bool {
        let outdated = generation < self.generation;
        self.generation = self.generation.max(generation);
        outdated
    }
}

/// The parts that a [`Context`] is put together from.
pub struct Parts {
    pub client: Client,
    pub config: Config,
    pub shutdown: Shutdown,
    pub readiness: Readiness,
    pub metrics: Metrics,
    pub stores: Stores,
    pub barred: Barred,
    pub trigger: mpsc::UnboundedSender<ObjectRef<ShopDeployment>>,
}

impl Context {
    pub fn new(parts: Parts) -> Self {
        Self {
            reporter: Reporter { controller: MANAGER.to_owned(), instance: Some(parts.config.pod_name.clone()) },
            client: parts.client,
            config: parts.config,
            clock: Clock::system(),
            shutdown: parts.shutdown,
            readiness: parts.readiness,
            metrics: parts.metrics,
            stores: parts.stores,
            barred: parts.barred,
            queues: Queues::default(),
            scalers: Scalers::default(),
            views: Views::default(),
            endings: Endings::default(),
            asker: Asker::default(),
            trigger: parts.trigger,
            filled: CancellationToken::new(),
            memory: Mutex::default(),
            secrets: Mutex::default(),
        }
    }

    /// Waits until every cache has been filled once: before that, "not there" may only mean "not seen yet". An error says
    /// what they cannot be filled with.
    pub async fn caches_filled(&self) -> Result<(), Fault> {
        tokio::select! {
            biased;
            () = self.filled.cancelled() => Ok(()),
            barred = self.barred.trouble() => Err(barred),
        }
    }

    /// Tells [`Context::caches_filled`]. To be awaited once: a store wakes only the last of those who wait for it, and the
    /// shops' store already has the controller waiting.
    pub async fn watch_filling(&self) {
        let s = &self.stores;
        // An error says that the watches have ended: then the work is being dropped too.
        let (..) = tokio::join!(
            s.service_accounts.wait_until_ready(),
            s.config_maps.wait_until_ready(),
            s.network_policies.wait_until_ready(),
            s.deployments.wait_until_ready(),
            s.services.wait_until_ready(),
            s.ingresses.wait_until_ready(),
            s.budgets.wait_until_ready(),
            s.pods.wait_until_ready(),
            s.secrets.wait_until_ready(),
        );
        self.filled.cancel();
        self.readiness.open("caches");
    }

    /// Has every shop passed over when a kind of object is barred or open again, and `/readyz` say it, for ever.
    pub async fn tell_what_is_barred(&self) -> Infallible {
        let (mut changes, mut told) = (self.barred.changes(), None);
        loop {
            changes.next().await;
            // Kinds are mostly barred together.
            tokio::time::sleep(TOGETHER).await;
            let fault = self.barred.fault();
            if fault == told {
                continue;
            }
            match &fault {
                Some(fault) => self.readiness.close("watches", &fault.message),
                None => self.readiness.open("watches"),
            }
            for shop in self.stores.shops.state() {
                self.trigger(&shop.namespace().unwrap_or_default(), &shop.name_any());
            }
            told = fault;
        }
    }

    pub fn api<K>(&self, namespace: &str) -> Api<K>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
    {
        Api::namespaced(self.client.clone(), namespace)
    }

    /// Asks for a pass over a shop.
    pub fn trigger(&self, namespace: &str, name: &str) {
        // The receiver lives as long as the controller; without one there is nothing to ask.
        let _stopping = self.trigger.unbounded_send(ObjectRef::new(name).within(namespace));
    }

    /// The Deployment of one of a shop's components, where it is this shop's: not a predecessor's, nor a stranger's.
    pub fn deployment(
        &self,
        (namespace, shop): (&str, &str),
        uid: &str,
        component: Component,
    ) -> Option<Arc<Deployment>> {
        let found = cached(&self.stores.deployments, namespace, &component.object_name(shop))?;
        is_owned(found.as_ref(), uid).then(|| found.gist().clone())
    }

    /// The pods of one of a shop's components.
    pub fn pods(&self, namespace: &str, shop: &str, component: Component) -> Vec<Arc<Pod>> {
        let (selector, prefix) = (component.selector(shop), component.object_name(shop));
        // The name goes before the labels: it tells most of a hundred shops' pods apart at a glance.
        let named = |pod: &Pod| pod.metadata.name.as_ref().is_some_and(|name| name.starts_with(&prefix));
        let labelled = |pod: &Pod| selector.iter().all(|(key, value)| pod.labels().get(key) == Some(value));
        let here = |pod: &Pod| pod.metadata.namespace.as_deref() == Some(namespace);
        self.stores.pods.state_filter(|pod| named(pod) && here(pod) && labelled(pod))
    }

    pub fn last_report(&self, uid: &str) -> Option<Timestamp> {
        self.remembered(uid, |memory| memory.last_report)
    }

    pub fn reported(&self, uid: &str, at: Timestamp) {
        self.remembered(uid, |memory| memory.last_report = Some(at));
    }

    pub fn remembered<T>(&self, uid: &str, with: impl FnOnce(&mut Memory) -> T) -> T {
        with(self.memory.lock().unwrap_or_else(PoisonError::into_inner).entry(uid.to_owned()).or_default())
    }

    /// What a Secret holds, as digests: asked for once per version, so that it is fetched only when it has changed.
    pub async fn secret_keys(&self, namespace: &str, name: &str) -> Result<Option<FoundSecret>, kube::Error> {
        let Some(meta) = cached(&self.stores.secrets, namespace, name) else { return Ok(None) };
        let version = meta.resource_version().unwrap_or_default();
        let place = (namespace.to_owned(), name.to_owned());
        let known = self.secrets.lock().unwrap_or_else(PoisonError::into_inner).get(&place).cloned();
        if let Some(known) = known.filter(|known| known.version == version) {
            return Ok(Some(known));
        }
        let Some(secret) = self.api::<Secret>(namespace).get_opt(name).await? else { return Ok(None) };
        let digest = |(key, value): (String, ByteString)| (key, Digest::of(&value.0));
        let keys = secret.data.unwrap_or_default().into_iter().map(digest).collect();
        let found = FoundSecret { keys, version: secret.metadata.resource_version.unwrap_or_default() };
        self.secrets.lock().unwrap_or_else(PoisonError::into_inner).insert(place, found.clone());
        Ok(Some(found))
    }

    /// Forgets a shop that is gone.
    pub fn forget(&self, (namespace, shop): (&str, &str), uid: &str) {
        self.scalers.stop(uid);
        self.views.remove(uid);
        self.endings.forget((namespace, shop));
        self.queues.forget(uid);
        self.memory.lock().unwrap_or_else(PoisonError::into_inner).remove(uid);
        self.metrics.forget(namespace, shop);
    }
}

/// Whether a call was refused because its namespace is being deleted.
pub fn is_ending(error: &kube::Error) -> bool {
    let kube::Error::Api(status) = error else { return false };
    status.details.iter().flat_map(|details| &details.causes).any(|cause| cause.reason == "NamespaceTerminating")
}

/// Whether an object belongs to the shop with this uid.
pub fn is_owned(object: &impl Resource, uid: &str) -> bool {
    object.owner_references().iter().any(|owner| owner.uid == uid)
}

/// A namespaced object from its cache.
pub fn cached<K>(store: &Store<K>, namespace: &str, name: &str) -> Option<Arc<K>>
where
    K: Resource + Clone + Debug + 'static,
    K::DynamicType: Default + Eq + Hash + Clone,
{
    store.get(&ObjectRef::new(name).within(namespace))
}

#[cfg(test)]
pub(crate) mod tests {
    use clap::Parser;
    use kube::runtime::{reflector, watcher};
    use serde_json::json;
    use shop_runtime::metrics;

    use super::*;

    /// A context with empty caches and a client that reaches nobody.
    pub(crate) fn context() -> Context {
        shop_runtime::install_tls_provider();
        let stores = Stores {
            shops: store([]),
            service_accounts: store([]),
            config_maps: store([]),
            network_policies: store([]),
            deployments: store([]),
            services: store([]),
            ingresses: store([]),
            budgets: store([]),
            pods: store([]),
            secrets: store([]),
        };
        Context::new(Parts {
            client: Client::try_from(kube::Config::new("http://127.0.0.1:1".parse().unwrap())).unwrap(),
            config: Config::parse_from(["shop-operator", "--api-image=api", "--worker-image=worker"]),
            shutdown: Shutdown::manual(),
            readiness: Readiness::default(),
            metrics: Metrics::register(&metrics::Metrics::default()),
            stores,
            barred: Barred::default(),
            trigger: mpsc::unbounded().0,
        })
    }

    /// A cache with these objects.
    pub(crate) fn store<K>(objects: impl IntoIterator<Item = K>) -> Store<K>
    where
        K: Resource + Clone + 'static,
        K::DynamicType: Default + Eq + Hash + Clone,
    {
        let (store, mut writer) = reflector::store();
        objects.into_iter().for_each(|object| writer.apply_watcher_event(&watcher::Event::Apply(object)));
        store
    }

    #[test]
    fn a_generation_is_outdated_once_a_newer_one_was_seen() {
        let mut memory = Memory::default();
        let mut outdated = |generation| memory.is_outdated(Some(generation));
        assert_eq!([outdated(3), outdated(3), outdated(2), outdated(4)], [false, false, true, false]);
    }

    #[tokio::test]
    async fn a_strangers_deployment_is_not_the_shops() {
        let mut ctx = context();
        let owner = json!({ "apiVersion": "x/v1", "kind": "ShopDeployment", "name": "demo", "uid": "ours" });
        let deployment = json!({
            "metadata": { "name": "demo-worker", "namespace": "shops", "ownerReferences": [owner] },
            "spec": { "selector": {}, "template": {} },
        });
        ctx.stores.deployments = store([Kept::of(serde_json::from_value(deployment).unwrap())]);
        let found = |uid| ctx.deployment(("shops", "demo"), uid, Component::Worker);
        assert!(found("ours").is_some());
        assert!(found("another's").is_none());
    }
}
