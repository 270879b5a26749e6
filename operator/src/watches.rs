//! Fills the caches by watches, and has the controller pass over a shop when something of it changes. Knows which kinds of
//! object may not be watched: without them nobody can tell what a shop consists of.

use std::{collections::BTreeMap, fmt::Debug, hash::Hash, time::Duration};

use futures::{Stream, StreamExt, future, stream};
use k8s_openapi::{
    NamespaceResourceScope,
    api::core::v1::{Pod, Secret},
};
use kube::{
    Api, Client, Resource, ResourceExt,
    api::PartialObjectMeta,
    core::{DeserializeGuard, ObjectMeta, Status, error_boundary::InvalidObject},
    runtime::{
        Controller, WatchStreamExt,
        reflector::{self, ObjectRef, Store},
        watcher::{self, Event, watcher},
    },
};
use serde::de::DeserializeOwned;
use serde_json::json;
use tokio::{sync::watch, time::Instant};

use crate::{
    causes::chain,
    conditions::Reason,
    config::Config,
    context::Stores,
    crd::ShopDeployment,
    kept::{self, Kept},
    names::{CLASS_LABEL, MANAGED_BY, MANAGER, keys_secret},
    validate::{Fault, needed_secrets, optional_secrets},
};

/// Objects of one answer to a list: as they come they take many times the memory of what is kept of them.
const PAGE: u32 = 50;
pub const GRANT: &str = "where a right is missing, upgrade the operator's release: its chart grants it";

/// A watch that is refused is tried again within half a minute: one that was not refused for so long has begun.
const REFUSED_FOR: Duration = Duration::from_secs(90);

/// The kinds of object that the operator may not watch, and what the API server says of each.
#[derive(Clone, Debug, Default)]
pub struct Barred(watch::Sender<Kinds>);

type Kinds = BTreeMap<String, Kind>;

/// What is known of the watch of one kind.
#[derive(Clone, Debug, Default)]
struct Kind {
    /// All of its objects have been seen once.
    listed: bool,
    refusal: Option<(String, Instant)>,
}

impl Kind {
    fn refusal(&self, now: Instant) -> Option<&str> {
        self.refusal.as_ref().filter(|(_, at)| now - *at < REFUSED_FOR).map(|(why, _)| why.as_str())
    }
}

impl Barred {
    /// What to tell of it; nothing when every kind may be watched.
    pub fn fault(&self) -> Option<Fault> {
        self.told(|_| true)
    }

    /// Waits until there are objects that cannot even be listed.
    pub async fn trouble(&self) -> Fault {
        let mut changes = self.changes();
        loop {
            if let Some(fault) = self.told(|kind| !kind.listed) {
                return fault;
            }
            changes.next().await;
        }
    }

    /// Each change of what may be watched.
    pub fn changes(&self) -> Changes {
        Changes(self.0.subscribe())
    }

    fn told(&self, of: impl Fn(&Kind) -> bool) -> Option<Fault> {
        let (kinds, now) = (self.0.borrow(), Instant::now());
        let refused = kinds.iter().filter_map(|(name, kind)| Some((name, kind.refusal(now).filter(|_| of(kind))?)));
        let told: Vec<_> = refused.map(|(name, why)| format!("cannot watch {name}: {why}")).collect();
        let message = format!("{}; {GRANT}", told.join("; "));
        (!told.is_empty()).then_some(Fault { reason: Reason::ApplyForbidden, message })
    }

    fn note<K>(&self, name: &str, event: &watcher::Result<Event<K>>) {
        let refusal = event.as_ref().err().map(refusal);
        self.0.send_if_modified(|kinds| {
            let kind = kinds.entry(name.to_owned()).or_default();
            let before = kind.refusal.is_some();
            kind.listed |= matches!(event, Ok(Event::InitDone));
            match (event, refusal) {
                (_, Some(Some(why))) => kind.refusal = Some((why, Instant::now())),
                // That a list begins says nothing yet, and another failure says nothing of rights.
                (Ok(Event::Init) | Err(_), _) => {}
                (Ok(_), _) => kind.refusal = None,
            }
            before != kind.refusal.is_some()
        });
    }
}

/// See [`Barred::changes`].
#[derive(Debug)]
pub struct Changes(watch::Receiver<Kinds>);

impl Changes {
    /// Waits for the next one. Refusals that are no longer repeated are one as well, sooner or later.
    pub async fn next(&mut self) {
        let _timed_out = tokio::time::timeout(REFUSED_FOR / 2, self.0.changed()).await;
    }
}

/// What the API server said, where it refused a list or a watch.
fn refusal(error: &watcher::Error) -> Option<String> {
    use watcher::Error::{InitialListFailed, NoResourceVersion, WatchError, WatchFailed, WatchStartFailed};
    let status: &Status = match error {
        InitialListFailed(kube::Error::Api(status))
        | WatchStartFailed(kube::Error::Api(status))
        | WatchFailed(kube::Error::Api(status))
        | WatchError(status) => status,
        InitialListFailed(_) | WatchStartFailed(_) | WatchFailed(_) | NoResourceVersion => return None,
    };
    (status.code == 403).then(|| status.message.clone())
}

pub type Watched = (Controller<ShopDeployment>, Stores, stream::BoxStream<'static, Pod>);

/// The controller, the caches that it goes by, and the pods' stream: they are only cached, as long as it is read.
pub fn watches(client: &Client, config: &Config, barred: &Barred) -> Watched {
    let class = match config.operator_class.as_str() {
        "" => format!("!{CLASS_LABEL}"),
        class => format!("{CLASS_LABEL}={class}"),
    };
    let all = watcher::Config::default().page_size(PAGE);
    let ours = all.clone().labels(&format!("{MANAGED_BY}={MANAGER}"));
    let every_shop = readable(whole(client, config, &all.clone().labels(&class)));
    let (shops, shop_events) = watched(every_shop, kept::shop, barred);
    let (service_accounts, one) = watched(whole(client, config, &ours), Kept::of, barred);
    let (config_maps, two) = watched(whole(client, config, &ours), Kept::of, barred);
    let (network_policies, three) = watched(whole(client, config, &ours), Kept::of, barred);
    let (deployments, four) = watched(whole(client, config, &ours), Kept::of, barred);
    let (services, five) = watched(whole(client, config, &ours), Kept::of, barred);
    let (ingresses, six) = watched(whole(client, config, &ours), Kept::of, barred);
    let (budgets, seven) = watched(whole(client, config, &ours), Kept::of, barred);
    let (pods, pod_events) = watched(whole(client, config, &ours), kept::pod, barred);
    let (secrets, secret_events) = watched(whole(client, config, &all), kept::secret, barred);
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
fn watched<K, T, W>(
    watch: W,
    keep: fn(K) -> T,
    barred: &Barred,
) -> (Store<T>, impl Stream<Item = watcher::Result<T>> + Send + use<K, T, W>)
where
    W: Fn() -> Watch<K> + Send + 'static,
    K: Send + 'static,
    T: Resource + Clone + Send + Sync + 'static,
    T::DynamicType: Default + Eq + Hash + Clone + Send + Sync,
{
    let (store, writer) = reflector::store();
    let kind = T::plural(&T::DynamicType::default()).into_owned();
    let kept = endless(watch).map(move |event| event.map(|event| only(event, keep)));
    let noted = {
        let (barred, kind) = (barred.clone(), kind.clone());
        kept.default_backoff().inspect(move |event| barred.note(&kind, event))
    };
    let objects = noted.reflect(writer).touched_objects().filter_map(move |object| {
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

/// A watch of the shops that can be read: one that an older or foreign schema let in must not hide the others.
fn readable(watch: impl Fn() -> Watch<Guarded> + Send) -> impl Fn() -> Watch<ShopDeployment> + Send {
    move || watch().filter_map(|event| future::ready(event.map(read).transpose())).boxed()
}

type Guarded = DeserializeGuard<ShopDeployment>;

/// The event without the guard. What can no longer be read counts as gone: what runs of it is left alone.
fn read(event: Event<Guarded>) -> Option<Event<ShopDeployment>> {
    match event {
        Event::Apply(DeserializeGuard(Ok(shop))) => Some(Event::Apply(shop)),
        Event::Delete(DeserializeGuard(Ok(shop))) => Some(Event::Delete(shop)),
        Event::InitApply(DeserializeGuard(Ok(shop))) => Some(Event::InitApply(shop)),
        Event::Init => Some(Event::Init),
        Event::InitDone => Some(Event::InitDone),
        Event::InitApply(DeserializeGuard(Err(unreadable))) => {
            tell(&unreadable);
            None
        }
        Event::Apply(DeserializeGuard(Err(unreadable))) => {
            tell(&unreadable);
            gone(unreadable.metadata).map(Event::Delete)
        }
        Event::Delete(DeserializeGuard(Err(unreadable))) => gone(unreadable.metadata).map(Event::Delete),
    }
}

fn tell(unreadable: &InvalidObject) {
    let InvalidObject { error, metadata } = unreadable;
    tracing::error!(
        namespace = metadata.namespace,
        shop = metadata.name,
        error,
        "a ShopDeployment cannot be read and is left as it is: correct it, or install the CRD of this operator's version"
    );
}

/// A shop of which only the name matters.
fn gone(metadata: ObjectMeta) -> Option<ShopDeployment> {
    let spec = json!({ "mongodb": { "uriSecretRef": { "name": "" } }, "queue": {}, "mail": { "from": "" } });
    let spec = serde_json::from_value(spec).ok()?;
    Some(ShopDeployment { metadata, spec, status: None })
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
                || optional_secrets(&shop.spec).iter().any(|secret| secret.name == name)
                || keys_secret(&shop.name_any()) == name)
    };
    shops.state_filter(uses).iter().map(|shop| ObjectRef::from_obj(shop.as_ref())).collect()
}

/// The operator's namespace, or all of them.
pub fn scoped<K>(client: &Client, config: &Config) -> Api<K>
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
    use super::*;

    fn answered(code: u16, reason: &str, message: &str) -> watcher::Error {
        let status = Status::failure(message, reason).with_code(code);
        watcher::Error::InitialListFailed(kube::Error::Api(status.boxed()))
    }

    #[tokio::test]
    async fn a_kind_is_barred_from_its_refusal_to_its_next_object() {
        let barred = Barred::default();
        let told = || barred.fault().map(|fault| fault.message);
        barred.note::<()>("pods", &Err(answered(500, "InternalError", "not now")));
        assert_eq!(told(), None, "a server that fails says nothing of rights");
        barred.note::<()>("pods", &Err(answered(403, "Forbidden", "no pods for you")));
        barred.note::<()>("ingresses", &Err(answered(403, "", "no ingresses for you")));
        let both = format!("cannot watch ingresses: no ingresses for you; cannot watch pods: no pods for you; {GRANT}");
        assert_eq!(barred.trouble().await, Fault { reason: Reason::ApplyForbidden, message: both.clone() });
        barred.note::<()>("ingresses", &Ok(Event::Init));
        barred.note::<()>("pods", &Err(answered(503, "ServiceUnavailable", "later")));
        assert_eq!(told(), Some(both));
        barred.note::<()>("ingresses", &Ok(Event::InitDone));
        barred.note::<()>("pods", &Ok(Event::Apply(())));
        assert_eq!(told(), None);
    }

    /// Its objects are known as they were: that is told, and keeps nobody from working with them.
    #[tokio::test]
    async fn a_kind_that_was_listed_is_told_of_until_its_watch_is_refused_no_more() {
        let barred = Barred::default();
        barred.note::<()>("pods", &Ok(Event::InitDone));
        barred.note::<()>("pods", &Err(answered(403, "Forbidden", "no")));
        assert!(barred.fault().is_some());
        let soon = Duration::from_millis(50);
        assert!(tokio::time::timeout(soon, barred.trouble()).await.is_err(), "nobody waits for what is there");
        let at = Instant::now();
        let kind = Kind { listed: true, refusal: Some(("no".to_owned(), at)) };
        let told = |seconds| kind.refusal(at + Duration::from_secs(seconds));
        assert_eq!((told(0), told(89), told(90)), (Some("no"), Some("no"), None));
    }

    fn shop(name: &str, spec: &serde_json::Value) -> Guarded {
        let object = json!({ "apiVersion": "shop.xhipment.io/v1alpha1", "kind": "ShopDeployment",
                             "metadata": { "name": name, "namespace": "shops" }, "spec": spec });
        serde_json::from_value(object).unwrap()
    }

    /// What `read` leaves of an event, in a word.
    fn left(event: Event<Guarded>) -> String {
        match read(event) {
            Some(Event::Apply(shop)) => format!("apply {}", shop.name_any()),
            Some(Event::InitApply(shop)) => format!("list {}", shop.name_any()),
            Some(Event::Delete(shop)) => format!("delete {}", ObjectRef::from_obj(&shop)),
            Some(Event::Init) => "init".to_owned(),
            Some(Event::InitDone) => "done".to_owned(),
            None => "nothing".to_owned(),
        }
    }

    #[test]
    fn a_shop_that_cannot_be_read_is_gone_and_hides_no_other() {
        let sound = json!({ "mongodb": { "uriSecretRef": { "name": "m" } }, "queue": { "name": "q" },
                            "mail": { "from": "shop@example.com" } });
        let (sound, unreadable) = (|| shop("sound", &sound), || shop("odd", &json!({ "mongodb": 7 })));
        let delete_odd = "delete ShopDeployment.v1alpha1.shop.xhipment.io/odd.shops";
        let cases = vec![
            (Event::Init, "init"),
            (Event::InitApply(sound()), "list sound"),
            (Event::InitApply(unreadable()), "nothing"),
            (Event::InitDone, "done"),
            (Event::Apply(sound()), "apply sound"),
            (Event::Apply(unreadable()), delete_odd),
            (Event::Delete(unreadable()), delete_odd),
        ];
        for (event, expected) in cases {
            assert_eq!(left(event), expected);
        }
    }
}
