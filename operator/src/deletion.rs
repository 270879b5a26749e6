//! The end of a shop whose queue goes with it: stop the api, let the workers drain, delete the queue when it is empty.
//! A queue with messages is never deleted: the shop stays, and says what to do.

use std::{sync::Arc, time::Duration};

use jiff::SignedDuration;
use k8s_openapi::api::apps::v1::Deployment;
use kube::{
    Resource, ResourceExt,
    api::{DeleteParams, Patch, PatchParams, Preconditions},
};
use serde_json::{Value, json};

use crate::{
    assess::Outcome,
    conditions::Reason,
    context::Context,
    crd::{DeletionPolicy, Management, ShopDeployment},
    names::{Component, FINALIZER, MANAGER},
    queue::{Managed, Place, QueueError},
    validate::Fault,
};

/// How soon to look again while something is under way, and while someone has to do something.
pub const SOON: Duration = Duration::from_secs(2);
pub const LATER: Duration = Duration::from_secs(15);
/// A queue counts as empty after so long without a message. The counts of AWS lag by up to a minute; a stand-in's are exact.
const EMPTY_ON_AWS: SignedDuration = SignedDuration::from_secs(60);
const EMPTY_ELSEWHERE: SignedDuration = SignedDuration::from_secs(3);

#[derive(Debug, thiserror::Error)]
pub enum DeletionError {
    #[error("cannot delete Deployment {name}")]
    Stop {
        name: String,
        #[source]
        source: kube::Error,
    },
    #[error("cannot change the finalizer of {name}")]
    Finalizer {
        name: String,
        #[source]
        source: kube::Error,
    },
}

/// How far the end has come.
#[derive(Debug)]
pub enum Step {
    /// Nothing of ours is left to do.
    Gone,
    /// Not yet: why, and when to look again.
    Waiting(Fault, Duration),
}

pub fn has_finalizer(shop: &ShopDeployment) -> bool {
    shop.finalizers().iter().any(|finalizer| finalizer == FINALIZER)
}

/// Sets the finalizer. An error also where the shop is gone or going: no queue may be made for it any more.
pub async fn set_finalizer(ctx: &Context, shop: &ShopDeployment) -> Result<(), DeletionError> {
    if has_finalizer(shop) {
        return Ok(());
    }
    let name = shop.name_any();
    let patch = json!({
        "apiVersion": ShopDeployment::api_version(&()),
        "kind": ShopDeployment::kind(&()),
        // With its uid: a shop that is gone must not come back as an empty one. With its version: it may want none by now.
        "metadata": {
            "name": name,
            "uid": shop.uid(),
            "resourceVersion": shop.resource_version(),
            "finalizers": [FINALIZER],
        },
    });
    let api = ctx.api::<ShopDeployment>(&shop.namespace().unwrap_or_default());
    let set = api.patch(&name, &PatchParams::apply(MANAGER).force(), &Patch::Apply(&patch)).await;
    set.map(|_| ()).map_err(|source| DeletionError::Finalizer { name, source })
}

/// Clears the finalizer, whoever else has set it too.
pub async fn clear_finalizer(ctx: &Context, shop: &ShopDeployment) -> Result<(), DeletionError> {
    if !has_finalizer(shop) {
        return Ok(());
    }
    let name = shop.name_any();
    let params = PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() };
    let api = ctx.api::<ShopDeployment>(&shop.namespace().unwrap_or_default());
    match api.patch(&name, &params, &Patch::Merge(without_finalizer(shop))).await {
        // The watch brings the newer one.
        Err(kube::Error::Api(status)) if status.is_not_found() || status.is_conflict() => Ok(()),
        Err(source) => Err(DeletionError::Finalizer { name, source }),
        Ok(_) => Ok(()),
    }
}

/// Server-side apply would leave an item that another manager has set as well. With the version that the rest was read in.
fn without_finalizer(shop: &ShopDeployment) -> Value {
    let rest: Vec<_> = shop.finalizers().iter().filter(|finalizer| *finalizer != FINALIZER).collect();
    json!({ "metadata": { "uid": shop.uid(), "resourceVersion": shop.resource_version(), "finalizers": rest } })
}

/// One step towards the end of a shop with our finalizer.
pub async fn step(ctx: &Context, shop: &ShopDeployment) -> Result<Step, DeletionError> {
    let queue = &shop.spec.queue;
    let wanted = queue.management == Management::Managed && queue.deletion_policy == DeletionPolicy::Delete;
    let (Some(name), true) = (&queue.name, wanted) else { return Ok(Step::Gone) };
    if !stopped(ctx, shop, Component::Api).await? {
        return Ok(waiting(Reason::Deleting, "the api is being stopped".to_owned(), SOON));
    }
    let (namespace, uid) = (shop.namespace().unwrap_or_default(), shop.uid().unwrap_or_default());
    let place = Place::new(&uid, &namespace, &shop.spec);
    let owner = format!("{namespace}/{}", shop.name_any());
    match drain(ctx, shop, (&place, name, &owner)).await {
        Ok(None) => {
            stop(ctx, shop, Component::Worker).await?;
            Ok(Step::Gone)
        }
        Ok(Some((fault, wait))) => Ok(Step::Waiting(fault, wait)),
        Err(error) => {
            let Fault { reason, message } = error.fault();
            Ok(waiting(
                reason,
                format!("{message}; or set spec.queue.deletionPolicy to Retain to leave the queue behind"),
                LATER,
            ))
        }
    }
}

/// Waits for the queue to be empty for a while, then deletes it.
async fn drain(
    ctx: &Context,
    shop: &ShopDeployment,
    (place, name, owner): (&Place<'_>, &str, &str),
) -> Result<Option<(Fault, Duration)>, QueueError> {
    let client = ctx.queues.client(ctx, place).await?;
    let managed = Managed { client: &client, name, owner };
    let Some(left) = managed.left().await? else { return Ok(None) };
    if let Some(first) = left.first() {
        ctx.remembered(place.uid, |memory| memory.empty_since = None);
        return Ok(Some(hold(ctx, shop, first)));
    }
    let now = ctx.clock.now();
    let since = ctx.remembered(place.uid, |memory| *memory.empty_since.get_or_insert(now));
    let enough = if place.queue.endpoint.is_some() { EMPTY_ELSEWHERE } else { EMPTY_ON_AWS };
    if now.duration_since(since) < enough {
        return Ok(Some((
            Fault { reason: Reason::Deleting, message: "the queue is empty: looking twice".to_owned() },
            SOON,
        )));
    }
    managed.delete().await?;
    Ok(None)
}

fn hold(ctx: &Context, shop: &ShopDeployment, left: &crate::queue::Left) -> (Fault, Duration) {
    let advice = "or set spec.queue.deletionPolicy to Retain to leave the queues behind";
    if left.is_dead_letter {
        let message = format!(
            "dead-letter queue {} holds {} messages and is not deleted: redrive or purge them, {advice}",
            left.queue, left.messages
        );
        return (Fault { reason: Reason::QueueNotEmpty, message }, LATER);
    }
    let namespace = shop.namespace().unwrap_or_default();
    let workers = ctx.pods(&namespace, &shop.name_any(), Component::Worker);
    let draining = workers.iter().any(|pod| crate::rollout::is_ready(pod)) && !shop.spec.paused;
    if draining {
        let message = format!("the workers are draining queue {}: {} messages are left", left.queue, left.messages);
        (Fault { reason: Reason::Deleting, message }, SOON)
    } else {
        let message = format!(
            "queue {} holds {} messages and no worker is there to drain it: purge it, {advice}",
            left.queue, left.messages
        );
        (Fault { reason: Reason::QueueNotEmpty, message }, LATER)
    }
}

/// Deletes a component's Deployment; true once its pods are gone as well.
async fn stopped(ctx: &Context, shop: &ShopDeployment, component: Component) -> Result<bool, DeletionError> {
    stop(ctx, shop, component).await?;
    let namespace = shop.namespace().unwrap_or_default();
    let pods = ctx.pods(&namespace, &shop.name_any(), component);
    Ok(deployment(ctx, shop, component).is_none() && pods.is_empty())
}

async fn stop(ctx: &Context, shop: &ShopDeployment, component: Component) -> Result<(), DeletionError> {
    let Some(deployment) = deployment(ctx, shop, component) else { return Ok(()) };
    if deployment.metadata.deletion_timestamp.is_some() {
        return Ok(());
    }
    let name = deployment.name_any();
    let same = Preconditions { uid: deployment.uid(), resource_version: None };
    let params = DeleteParams { preconditions: Some(same), ..DeleteParams::background() };
    match ctx.api::<Deployment>(&shop.namespace().unwrap_or_default()).delete(&name, &params).await {
        Err(kube::Error::Api(status)) if status.is_not_found() || status.is_conflict() => Ok(()),
        Err(source) => Err(DeletionError::Stop { name, source }),
        Ok(_) => Ok(()),
    }
}

fn deployment(ctx: &Context, shop: &ShopDeployment, component: Component) -> Option<Arc<Deployment>> {
    let (namespace, name, uid) = (shop.namespace(), shop.name_any(), shop.uid());
    ctx.deployment((&namespace.unwrap_or_default(), &name), &uid.unwrap_or_default(), component)
}

/// What to report of a shop that is going.
pub fn outcome(ctx: &Context, shop: &ShopDeployment, why: Fault) -> Outcome {
    let live = |component| deployment(ctx, shop, component).map(|live| (*live).clone());
    Outcome {
        deleting: Some(why),
        api: live(Component::Api),
        worker: live(Component::Worker),
        view: ctx.views.get(&shop.uid().unwrap_or_default()),
        ..Outcome::default()
    }
}

fn waiting(reason: Reason, message: String, wait: Duration) -> Step {
    Step::Waiting(Fault { reason, message }, wait)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::validate::tests::shop;

    #[test]
    fn only_our_own_finalizer_is_cleared_and_only_from_what_was_read() {
        let finalizers = json!(["another/one", FINALIZER]);
        let shop = shop(json!({ "metadata": { "resourceVersion": "7", "finalizers": finalizers } }));
        let metadata = json!({ "uid": shop.uid(), "resourceVersion": "7", "finalizers": ["another/one"] });
        assert_eq!(without_finalizer(&shop), json!({ "metadata": metadata }));
    }
}
