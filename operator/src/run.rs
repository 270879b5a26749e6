//! The operator's life: wait for the CRD, become the leader, watch and work until told to stop or the lease is lost.

use std::{fmt::Debug, hash::Hash, sync::Arc, time::Duration};

use futures::{Stream, StreamExt, channel::mpsc, future, stream};
use k8s_openapi::{
    NamespaceResourceScope,
    api::core::v1::{Pod, Secret},
};
use kube::{
    Api, Client, Resource, ResourceExt,
    api::{ListParams, PartialObjectMeta},
    runtime::{
        Controller, WatchStreamExt,
        controller::Config as ControllerConfig,
        reflector::{self, ObjectRef, Store},
        watcher::{self, Event, watcher},
    },
};
use serde::de::DeserializeOwned;
use shop_runtime::{clock::Clock, health::Readiness, shutdown::Shutdown, telemetry::chain};
use tokio::time::error::Elapsed;
use tokio_util::sync::CancellationToken;

use crate::{
    config::Config,
    context::{Context, Parts, Stores},
    controller::{on_error, reconcile},
    crd::ShopDeployment,
    kept::{self, Kept},
    lease::Elector,
    metrics::Metrics,
    names::{CLASS_LABEL, MANAGED_BY, MANAGER},
    validate::needed_secrets,
};

const RETRY_CRD: Duration = Duration::from_secs(3);
const PATIENCE: Duration = Duration::from_secs(5);
const PASSES_AT_ONCE: u16 = 16;
/// Objects of one answer to a list: as they come they take many times the memory of what is kept of them.
const PAGE: u32 = 50;

/// What the operator is started with.
#[derive(Clone, Debug)]
pub struct Operator {
    pub config: Config,
    pub shutdown: Shutdown,
    pub readiness: Readiness,
    pub metrics: Metrics,
}

impl Operator {
    /// Runs until the drain has begun and the lease is handed over.
    pub async fn run(self, client: Client) {
        let stop = self.shutdown.draining();
        let leases = Api::namespaced(client.clone(), &self.config.pod_namespace);
        let names = (self.config.lease_name.clone(), self.config.pod_name.clone());
        let mut elector = Elector::new(leases, names, Clock::system());
        while self.crd_is_there(&client, &stop).await && elector.acquire(&stop).await {
            tracing::info!(holder = self.config.pod_name, "leading");
            self.metrics.lead_taken();
            tokio::select! {
                () = self.work(client.clone()) => {}
                // Dropping the work aborts every pass in flight.
                () = elector.hold(&stop) => {}
            }
            self.metrics.lead_lost();
            // Only a leader has caches; a standby is ready to become one.
            self.readiness.open("caches");
            elector.release().await;
            tracing::info!("no longer leading");
        }
    }

    /// Waits for the CRD and says so on `/readyz`, in place of exiting again and again.
    async fn crd_is_there(&self, client: &Client, stop: &CancellationToken) -> bool {
        let shops: Api<ShopDeployment> = scoped(client, &self.config);
        let one = ListParams::default().limit(1);
        let there = async {
            while let Err(why) = listed(tokio::time::timeout(PATIENCE, shops.list_metadata(&one)).await) {
                tracing::warn!(why, "cannot list ShopDeployments");
                self.readiness.close("crd", why);
                tokio::time::sleep(RETRY_CRD).await;
            }
        };
        let found = stop.run_until_cancelled(there).await.is_some();
        if found {
            self.readiness.open("crd");
        }
        found
    }

    /// Watches and passes, for ever.
    async fn work(&self, client: Client) {
        self.readiness.close("caches", "the watches have not delivered everything yet");
        let class = match self.config.operator_class.as_str() {
            "" => format!("!{CLASS_LABEL}"),
            class => format!("{CLASS_LABEL}={class}"),
        };
        let (trigger, triggers) = mpsc::unbounded();
        let (controller, stores, pods) = watches(&client, &self.config, &class);
        let ctx = Arc::new(Context::new(Parts {
            client,
            config: self.config.clone(),
            shutdown: self.shutdown.clone(),
            readiness: self.readiness.clone(),
            metrics: self.metrics.clone(),
            stores,
            trigger,
        }));
        let _loops_end_with_the_work = StopScalers(ctx.clone());
        let (filled, endings) = (ctx.clone(), ctx.clone());
        let pods = pods.for_each(|pod| {
            endings.endings.see(&pod);
            future::ready(())
        });
        let controller = controller.with_config(ControllerConfig::default().concurrency(PASSES_AT_ONCE));
        // A failed pass has been logged where it failed.
        let passes = controller.reconcile_on(triggers).run(reconcile, on_error, ctx).for_each(|_| future::ready(()));
        tokio::join!(passes, pods, filled.watch_filling());
    }
}

/// Why the shops could not be listed.
fn listed<T>(answer: Result<Result<T, kube::Error>, Elapsed>) -> Result<T, String> {
    answer.map_err(|_| "the API server does not answer".to_owned())?.map_err(|error| match &error {
        kube::Error::Api(status) if status.is_not_found() => {
            "the CRD shopdeployments.shop.xhipment.io is not installed: kubectl apply --server-side -f crds/".to_owned()
        }
        error => chain(error),
    })
}

struct StopScalers(Arc<Context>);

impl Drop for StopScalers {
    fn drop(&mut self) {
        self.0.scalers.stop_all();
    }
}

type Watched = (Controller<ShopDeployment>, Stores, stream::BoxStream<'static, Pod>);

/// Fills the caches, and has the controller pass over a shop when something of it changes. The pods are only cached, as long
/// as their stream is read.
fn watches(client: &Client, config: &Config, class: &str) -> Watched {
    let all = watcher::Config::default().page_size(PAGE);
    let ours = all.clone().labels(&format!("{MANAGED_BY}={MANAGER}"));
    let (shops, shop_events) = watched(whole(client, config, &all.clone().labels(class)), kept::shop);
    let (service_accounts, one) = watched(whole(client, config, &ours), Kept::of);
    let (config_maps, two) = watched(whole(client, config, &ours), Kept::of);
    let (network_policies, three) = watched(whole(client, config, &ours), Kept::of);
    let (deployments, four) = watched(whole(client, config, &ours), Kept::of);
    let (services, five) = watched(whole(client, config, &ours), Kept::of);
    let (ingresses, six) = watched(whole(client, config, &ours), Kept::of);
    let (budgets, seven) = watched(whole(client, config, &ours), Kept::of);
    let (pods, pod_events) = watched(whole(client, config, &ours), kept::pod);
    let (secrets, secret_events) = watched(whole(client, config, &all), kept::secret);
    let users = {
        let shops = shops.clone();
        move |secret: PartialObjectMeta<Secret>| users(&shops, &secret)
    };
    let controller = Controller::for_stream(shop_events, shops.clone())
        .owns_stream(one)
        .owns_stream(two)
        .owns_stream(three)
        .owns_stream(four)
        .owns_stream(five)
        .owns_stream(six)
        .owns_stream(seven)
        .watches_stream(secret_events, users);
    let stores = Stores {
        shops,
        service_accounts,
        config_maps,
        network_policies,
        deployments,
        services,
        ingresses,
        budgets,
        pods,
        secrets,
    };
    (controller, stores, pod_events.filter_map(|pod| future::ready(pod.ok())).boxed())
}

/// A cache of what `keep` leaves of each object, and the stream that fills it. The stream tells of no failure: the controller
/// would wait with all watches for each one that fails, and ever longer, while each has a pause of its own already.
fn watched<K, T>(
    watch: impl Fn() -> Watch<K> + Send + 'static,
    keep: fn(K) -> T,
) -> (Store<T>, impl Stream<Item = watcher::Result<T>> + Send + 'static)
where
    K: Send + 'static,
    T: Resource + Clone + Send + Sync + 'static,
    T::DynamicType: Default + Eq + Hash + Clone + Send + Sync,
{
    let (store, writer) = reflector::store();
    let kind = T::plural(&T::DynamicType::default()).into_owned();
    let kept = endless(watch).map(move |event| event.map(|event| only(event, keep)));
    let objects = kept.default_backoff().reflect(writer).touched_objects().filter_map(move |object| {
        if let Err(error) = &object {
            tracing::warn!(kind, error = %chain(error), "a watch failed");
        }
        future::ready(object.ok().map(Ok))
    });
    (store, objects)
}

type Watch<K> = stream::BoxStream<'static, watcher::Result<Event<K>>>;

/// How a watch of a kind is started, and started again.
fn whole<K>(client: &Client, config: &Config, which: &watcher::Config) -> impl Fn() -> Watch<K> + Send + use<K>
where
    K: Resource<Scope = NamespaceResourceScope> + Clone + Debug + DeserializeOwned + Send + 'static,
    K::DynamicType: Default,
{
    let (api, which) = (scoped::<K>(client, config), which.clone());
    move || watcher(api.clone(), which.clone()).boxed()
}

/// A watch that is told at its start that its version is too old would ask for that version again and again: another one
/// lists anew.
fn endless<K: Send + 'static>(
    watch: impl Fn() -> Watch<K> + Send,
) -> impl Stream<Item = watcher::Result<Event<K>>> + Send {
    let too_old = |event: &watcher::Result<Event<K>>| match event {
        Err(watcher::Error::WatchStartFailed(kube::Error::Api(status))) => status.code == 410,
        _ => false,
    };
    stream::unfold(None, move |running: Option<Watch<K>>| {
        let mut running = running.unwrap_or_else(&watch);
        async move {
            let event = running.next().await?;
            let goes_on = !too_old(&event);
            Some((event, goes_on.then_some(running)))
        }
    })
}

fn only<K, T>(event: Event<K>, keep: fn(K) -> T) -> Event<T> {
    match event {
        Event::Apply(object) => Event::Apply(keep(object)),
        Event::Delete(object) => Event::Delete(keep(object)),
        Event::InitApply(object) => Event::InitApply(keep(object)),
        Event::Init => Event::Init,
        Event::InitDone => Event::InitDone,
    }
}

/// The shops that name a Secret, or whose generated keys it is.
fn users(shops: &Store<ShopDeployment>, secret: &PartialObjectMeta<Secret>) -> Vec<ObjectRef<ShopDeployment>> {
    let (namespace, name) = (secret.namespace(), secret.name_any());
    let uses = |shop: &ShopDeployment| {
        shop.namespace() == namespace
            && (needed_secrets(&shop.spec).iter().any(|(_, needed, _)| *needed == name)
                || crate::names::keys_secret(&shop.name_any()) == name)
    };
    shops.state_filter(uses).iter().map(|shop| ObjectRef::from_obj(shop.as_ref())).collect()
}

fn scoped<K>(client: &Client, config: &Config) -> Api<K>
where
    K: Resource<Scope = NamespaceResourceScope>,
    K::DynamicType: Default,
{
    match config.namespace() {
        Some(namespace) => Api::namespaced(client.clone(), namespace),
        None => Api::all(client.clone()),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use shop_runtime::metrics;

    use super::*;
    use crate::lease::tests::unanswered;

    #[tokio::test]
    async fn a_server_that_does_not_answer_holds_up_no_stop() {
        let (config, _listener) = unanswered().await;
        let client = Client::try_from(config).unwrap();
        let shutdown = Shutdown::manual();
        let operator = Operator {
            config: Config::parse_from(["shop-operator", "--api-image=api", "--worker-image=worker"]),
            shutdown: shutdown.clone(),
            readiness: Readiness::default(),
            metrics: Metrics::register(&metrics::Metrics::default()),
        };
        let stopped = async {
            tokio::join!(operator.run(client), async {
                tokio::task::yield_now().await;
                shutdown.drain();
            })
        };
        tokio::time::timeout(PATIENCE, stopped).await.unwrap();
    }
}
