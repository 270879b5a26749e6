//! Puts what was built into the cluster: server-side apply, in a fixed order, and only where something differs.
//! Decides nothing beyond the order.

use std::{collections::BTreeSet, fmt::Debug, marker::PhantomData, sync::Arc};

use k8s_openapi::NamespaceResourceScope;
use kube::{
    Api, Resource, ResourceExt,
    api::{DeleteParams, Patch, PatchParams, Preconditions},
    core::response::reason::NOT_FOUND,
    runtime::{events::EventType, reflector::Store},
};
use serde::de::DeserializeOwned;

use crate::{
    build::{Applied, Prepared, Resources, ServiceMonitor},
    context::{Context, cached, is_owned},
    crd::ShopDeployment,
    kept::{Gist, Kept},
    names,
};

#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    #[error("{kind} {name} exists and is not this shop's: delete or rename it, or give the shop another name")]
    NameTaken { kind: &'static str, name: String },
    #[error("{kind} {name} has changed since this pass looked at it")]
    Behind { kind: &'static str, name: String },
    #[error(
        "the CRD servicemonitors.monitoring.coreos.com is not installed: install the Prometheus operator's CRDs, \
         or set spec.monitoring.serviceMonitor to false"
    )]
    NoServiceMonitors,
    #[error("cannot apply {kind} {name}")]
    Refused {
        kind: &'static str,
        name: String,
        #[source]
        source: kube::Error,
    },
    #[error("cannot delete {kind} {name}, which is no longer wanted")]
    NotPruned {
        kind: &'static str,
        name: String,
        #[source]
        source: kube::Error,
    },
}

impl ApplyError {
    pub fn is_forbidden(&self) -> bool {
        match self {
            Self::NameTaken { .. } | Self::Behind { .. } | Self::NoServiceMonitors => false,
            Self::Refused { source, .. } | Self::NotPruned { source, .. } => {
                matches!(source, kube::Error::Api(status) if status.code == 403)
            }
        }
    }
}

/// A kind of object that shops consist of.
pub trait Part:
    Gist + Resource<Scope = NamespaceResourceScope> + Debug + DeserializeOwned + Send + Sync + 'static
{
    const KIND: &'static str;
}

macro_rules! parts {
    ($($kind:ty),*) => {
        $(impl Part for $kind {
            const KIND: &'static str = <$kind as k8s_openapi::Resource>::KIND;
        })*
    };
}
parts!(
    k8s_openapi::api::apps::v1::Deployment,
    k8s_openapi::api::core::v1::ConfigMap,
    k8s_openapi::api::core::v1::Service,
    k8s_openapi::api::core::v1::ServiceAccount,
    k8s_openapi::api::networking::v1::Ingress,
    k8s_openapi::api::networking::v1::NetworkPolicy,
    k8s_openapi::api::policy::v1::PodDisruptionBudget
);

impl Part for ServiceMonitor {
    const KIND: &'static str = "ServiceMonitor";
}

impl Gist for ServiceMonitor {
    /// No cache keeps it.
    fn gist(&self) -> Self {
        self.clone()
    }
}

/// The version of an object that must not be there yet: none is that old, so the API server creates it or says 409.
const NOT_THERE: &str = "1";

/// Configuration first, then the api, then the worker; then what is no longer wanted goes.
pub async fn apply(
    ctx: &Context,
    shop: &ShopDeployment,
    wanted: Resources<Prepared>,
) -> Result<Resources<Applied>, ApplyError> {
    // Without `..`: a new kind of object cannot be forgotten here.
    let Resources {
        service_accounts,
        config_maps,
        network_policies,
        api,
        service,
        ingress,
        worker,
        budgets,
        metrics_service,
        service_monitor,
        stage: _,
    } = wanted;
    let (applier, s) = (Applier { ctx, shop }, &ctx.stores);
    let service_accounts = applier.all(&s.service_accounts, service_accounts).await?;
    let config_maps = applier.all(&s.config_maps, config_maps).await?;
    let network_policies = applier.all(&s.network_policies, network_policies).await?;
    let api = applier.one(&s.deployments, api).await?;
    let service = applier.one(&s.services, service).await?;
    let ingress = applier.all(&s.ingresses, ingress.into_iter().collect()).await?.pop();
    let worker = applier.one(&s.deployments, worker).await?;
    let budgets = applier.all(&s.budgets, budgets).await?;
    let metrics_service = applier.all(&s.services, metrics_service.into_iter().collect()).await?.pop();

    applier.prune(&s.network_policies, &network_policies).await?;
    applier.prune(&s.ingresses, ingress.as_slice()).await?;
    applier.prune(&s.deployments, &[api.clone(), worker.clone()]).await?;
    let services: Vec<_> = std::iter::once(&service).chain(&metrics_service).cloned().collect();
    applier.prune(&s.services, &services).await?;
    applier.prune(&s.config_maps, &config_maps).await?;
    applier.prune(&s.service_accounts, &service_accounts).await?;
    applier.prune(&s.budgets, &budgets).await?;
    Ok(Resources {
        service_accounts,
        config_maps,
        network_policies,
        api,
        service,
        ingress,
        worker,
        budgets,
        metrics_service,
        service_monitor,
        stage: PhantomData,
    })
}

/// The one kind of object whose CRD may be missing, which must not hold up the rest: not watched, but read where it is
/// wanted, and once where it is not.
pub async fn monitor(ctx: &Context, shop: &ShopDeployment, wanted: Option<ServiceMonitor>) -> Result<(), ApplyError> {
    let (applier, uid) = (Applier { ctx, shop }, shop.uid().unwrap_or_default());
    if wanted.is_none() && ctx.remembered(&uid, |memory| memory.is_unmonitored) {
        return Ok(());
    }
    let api: Api<ServiceMonitor> = ctx.api(&applier.namespace());
    let name = names::metrics(&shop.name_any());
    let live = match api.get_opt(&name).await {
        // Neither the kind nor the right to see one is needed where none is wanted.
        Err(kube::Error::Api(status)) if wanted.is_none() && matches!(status.code, 403 | 404) => None,
        Err(source) => {
            return Err(no_service_monitors(ApplyError::Refused { kind: ServiceMonitor::KIND, name, source }));
        }
        Ok(live) => live.map(Kept::of),
    };
    let is_wanted = wanted.is_some();
    match (wanted, live) {
        (Some(wanted), live) => {
            applier.put(live.map(Arc::new), wanted).await.map_err(no_service_monitors)?;
        }
        (None, Some(live)) if applier.owns(&live) => applier.delete(&live).await?,
        (None, _) => {}
    }
    ctx.remembered(&uid, |memory| memory.is_unmonitored = !is_wanted);
    Ok(())
}

/// What is missing has a reason; of a missing kind not even the path is known.
fn no_service_monitors(error: ApplyError) -> ApplyError {
    match error {
        ApplyError::Refused { source: kube::Error::Api(status), .. }
            if status.code == 404 && status.reason != NOT_FOUND =>
        {
            ApplyError::NoServiceMonitors
        }
        other => other,
    }
}

struct Applier<'a> {
    ctx: &'a Context,
    shop: &'a ShopDeployment,
}

impl Applier<'_> {
    async fn all<K: Part>(&self, store: &Store<Kept<K>>, wanted: Vec<K>) -> Result<Vec<K>, ApplyError> {
        let mut applied = Vec::with_capacity(wanted.len());
        for object in wanted {
            applied.push(self.one(store, object).await?);
        }
        Ok(applied)
    }

    async fn one<K: Part>(&self, store: &Store<Kept<K>>, wanted: K) -> Result<K, ApplyError> {
        // Boxed: it holds a whole object several times over.
        Box::pin(self.put(cached(store, &self.namespace(), &wanted.name_any()), wanted)).await
    }

    /// Makes the live object as it is wanted.
    async fn put<K: Part>(&self, live: Option<Arc<Kept<K>>>, mut wanted: K) -> Result<K, ApplyError> {
        let name = wanted.name_any();
        if let Some(live) = live.as_deref() {
            if !self.owns(live) {
                return Err(ApplyError::NameTaken { kind: K::KIND, name });
            }
            // One that is going comes back by the event of its end.
            if live.meta().deletion_timestamp.is_some() || live.contains(&wanted) {
                return Ok(live.gist().as_ref().clone());
            }
        }
        let api: Api<K> = self.ctx.api(&self.namespace());
        let version = match &live {
            Some(live) => live.resource_version(),
            None => self.version_of_ours(&api, &name).await?,
        };
        // What a stale leader still sends is refused: the object is no longer as it was, or there by now.
        wanted.meta_mut().resource_version = version.or_else(|| Some(NOT_THERE.to_owned()));
        let mut applied = patch(&api, &wanted).await;
        if live.is_some() && matches!(&applied, Err(kube::Error::Api(status)) if status.is_invalid()) {
            applied = replace_lists(&api, &mut wanted).await;
        }
        if matches!(&applied, Err(kube::Error::Api(status)) if status.is_conflict()) {
            return Err(ApplyError::Behind { kind: K::KIND, name });
        }
        let outcome = match (&applied, &live) {
            (Err(_), _) => "failed",
            (Ok(_), None) => "created",
            (Ok(_), Some(_)) => "changed",
        };
        self.ctx.metrics.write(K::KIND, outcome);
        let applied = applied.map_err(|source| ApplyError::Refused { kind: K::KIND, name: name.clone(), source })?;
        tracing::info!(shop = %self.shop.name_any(), namespace = %self.namespace(), kind = K::KIND, name, outcome, "applied");
        if let Some(live) = live.as_deref() {
            self.tell_taken_back(&wanted, live).await;
        }
        Ok(applied)
    }

    /// The caches hold what carries our label; what a forced apply would take over need not.
    async fn version_of_ours<K: Part>(&self, api: &Api<K>, name: &str) -> Result<Option<String>, ApplyError> {
        let (kind, name) = (K::KIND, name.to_owned());
        match api.get_metadata_opt(&name).await {
            Ok(Some(other)) if !self.owns(&other) => Err(ApplyError::NameTaken { kind, name }),
            Ok(found) => Ok(found.and_then(|found| found.resource_version())),
            Err(source) => Err(ApplyError::Refused { kind, name, source }),
        }
    }

    /// Deletes what carries our label (the caches hold nothing else), is this shop's, and is not wanted any more.
    async fn prune<K: Part>(&self, store: &Store<Kept<K>>, kept: &[K]) -> Result<(), ApplyError> {
        let kept: BTreeSet<_> = kept.iter().map(ResourceExt::name_any).collect();
        let namespace = self.namespace();
        let stale = store.state_filter(|live| {
            live.namespace().as_deref() == Some(&namespace)
                && self.owns(live)
                && live.meta().deletion_timestamp.is_none()
                && !kept.contains(&live.name_any())
        });
        for live in stale {
            self.delete(live.as_ref()).await?;
        }
        Ok(())
    }

    async fn delete<K: Part>(&self, live: &Kept<K>) -> Result<(), ApplyError> {
        let (api, name): (Api<K>, _) = (self.ctx.api(&self.namespace()), live.name_any());
        let same = Preconditions { uid: live.uid(), resource_version: live.resource_version() };
        let params = DeleteParams { preconditions: Some(same), ..DeleteParams::background() };
        match api.delete(&name, &params).await {
            Err(kube::Error::Api(status)) if status.is_not_found() || status.is_conflict() => {}
            Err(source) => return Err(ApplyError::NotPruned { kind: K::KIND, name, source }),
            Ok(_) => self.ctx.metrics.write(K::KIND, "deleted"),
        }
        Ok(())
    }

    /// Names the manager whose change of one of our fields was undone.
    async fn tell_taken_back<K: Part>(&self, wanted: &K, live: &Kept<K>) {
        if wanted.annotations().get(names::BUILT) != live.annotation(names::BUILT).as_ref() {
            return;
        }
        let others = live.managed_fields().iter().filter(|entry| {
            let manager = entry.manager.as_deref();
            entry.subresource.is_none() && manager != Some(names::MANAGER) && manager != Some(names::SCALER)
        });
        let Some(last) = others.max_by_key(|entry| entry.time.as_ref().map(|time| time.0)) else { return };
        let who = last.manager.as_deref().unwrap_or("someone");
        let note = format!(
            "{} {}: what {who} changed is set back; change the ShopDeployment in its place, or set spec.paused",
            K::KIND,
            live.name_any()
        );
        self.ctx.event(self.shop, EventType::Warning, "FieldTakenBack", note).await;
    }

    fn owns(&self, live: &impl Resource) -> bool {
        is_owned(live, &self.shop.uid().unwrap_or_default())
    }

    fn namespace(&self) -> String {
        self.shop.namespace().unwrap_or_default()
    }
}

async fn patch<K: Part>(api: &Api<K>, wanted: &K) -> Result<K, kube::Error> {
    api.patch(&wanted.name_any(), &PatchParams::apply(names::MANAGER).force(), &Patch::Apply(wanted)).await
}

/// Server-side apply leaves other managers' list items alone, also those that make ours invalid (two ports of one name).
/// A merge patch replaces whole lists; then the apply goes through.
async fn replace_lists<K: Part>(api: &Api<K>, wanted: &mut K) -> Result<K, kube::Error> {
    let params = PatchParams { field_manager: Some(names::MANAGER.to_owned()), ..PatchParams::default() };
    let replaced = api.patch(&wanted.name_any(), &params, &Patch::Merge(&*wanted)).await?;
    wanted.meta_mut().resource_version = replaced.resource_version();
    patch(api, wanted).await
}
