//! Watches and runs: each pass over a shop is fetch → validate → build → apply → report.

use std::{sync::Arc, time::Duration};

use kube::{ResourceExt, runtime::controller::Action};
use shop_runtime::telemetry::chain;

use crate::{
    apply::{self, ApplyError},
    assess::{Outcome, QueueHealth},
    build::{Live, Prepared, Resources, build},
    conditions::Reason,
    context::Context,
    crd::ShopDeployment,
    deletion::{self, DeletionError, Step},
    fetch::{self, FetchError},
    keys,
    names::Component,
    queue::{Managed, Place, QueueError},
    report::{self, ReportError},
    rollout,
    validate::{Fault, ValidatedShop, validate},
};

#[derive(Debug, thiserror::Error)]
pub enum ReconcileError {
    #[error(transparent)]
    Fetch(#[from] FetchError),
    #[error(transparent)]
    Deletion(#[from] DeletionError),
    #[error(transparent)]
    Report(#[from] ReportError),
}

pub async fn reconcile(shop: Arc<ShopDeployment>, ctx: Arc<Context>) -> Result<Action, ReconcileError> {
    ctx.caches_filled().await;
    let started = tokio::time::Instant::now();
    // Boxed: one future holds the requests of every kind of object.
    let result = if shop.metadata.deletion_timestamp.is_some() {
        Box::pin(end(&shop, &ctx)).await
    } else {
        Box::pin(pass(&shop, &ctx)).await
    };
    ctx.metrics.reconciled(started.elapsed().as_secs_f64(), result.is_ok());
    if result.is_ok() {
        ctx.remembered(&shop.uid().unwrap_or_default(), |memory| memory.failures = 0);
    }
    result
}

async fn pass(shop: &Arc<ShopDeployment>, ctx: &Arc<Context>) -> Result<Action, ReconcileError> {
    let found = fetch::fetch(ctx, shop).await?;
    let valid = validate(shop, &found.world);
    let built = valid.as_ref().map(|valid| build(valid, &found.live)).ok();
    let outcome = Box::pin(put(ctx, shop, (valid, built, &found.live))).await;
    Ok(report::report(ctx, shop, &outcome).await?)
}

/// Retries with growing pauses: a failed pass is logged here and nowhere else.
#[expect(clippy::needless_pass_by_value, reason = "the controller's signature")]
pub fn on_error(shop: Arc<ShopDeployment>, error: &ReconcileError, ctx: Arc<Context>) -> Action {
    if matches!(error, ReconcileError::Report(report) if report.is_conflict()) {
        return Action::requeue(Duration::from_millis(500));
    }
    let failures = ctx.remembered(&shop.uid().unwrap_or_default(), |memory| {
        memory.failures = memory.failures.saturating_add(1);
        memory.failures
    });
    tracing::warn!(shop = %shop.name_any(), namespace = ?shop.namespace(), failures, error = %chain(error), "pass failed");
    Action::requeue(Duration::from_secs(1 << failures.min(6)))
}

async fn end(shop: &Arc<ShopDeployment>, ctx: &Arc<Context>) -> Result<Action, ReconcileError> {
    let (namespace, name, uid) = (shop.namespace(), shop.name_any(), shop.uid());
    let forget = || ctx.forget((&namespace.unwrap_or_default(), &name), &uid.unwrap_or_default());
    if !deletion::has_finalizer(shop) {
        forget();
        return Ok(Action::await_change());
    }
    match deletion::step(ctx, shop).await? {
        Step::Gone => {
            forget();
            deletion::clear_finalizer(ctx, shop).await?;
            Ok(Action::await_change())
        }
        Step::Waiting(why, wait) => {
            report::report(ctx, shop, &deletion::outcome(ctx, shop, why)).await?;
            // The workers that drain the queue are scaled to the end, also by an operator that was started meanwhile.
            if let Ok(valid) = validate(shop, &fetch::fetch(ctx, shop).await?.world) {
                ctx.scalers.follow(ctx, &valid, shop.status.as_ref());
            }
            Ok(Action::requeue(wait))
        }
    }
}

type Plan<'a> = (Result<ValidatedShop, Vec<Fault>>, Option<Resources<Prepared>>, &'a Live);

/// Applies what was built and gathers what there is to report about it.
async fn put(ctx: &Arc<Context>, shop: &ShopDeployment, (valid, built, live): Plan<'_>) -> Outcome {
    let mut outcome = Outcome {
        api: live.api.as_deref().cloned(),
        worker: live.worker.as_deref().cloned(),
        paused: shop.spec.paused,
        suspended: shop.spec.suspended,
        ..Outcome::default()
    };
    let uid = shop.uid().unwrap_or_default();
    match (valid, built) {
        (Ok(valid), Some(built)) => {
            outcome.scaling = Some(valid.scaling.clone());
            if !shop.spec.paused {
                outcome.worker_waits = rollout::image(&built.worker) != Some(valid.worker_image.as_str());
                outcome.failure = Box::pin(write(ctx, shop, (&valid, built), &mut outcome)).await.err();
            }
            if another_ones(&outcome.queue).is_none() {
                ctx.scalers.follow(ctx, &valid, shop.status.as_ref());
            }
        }
        (Err(faults), _) => outcome.faults = faults,
        (Ok(_), None) => {}
    }
    (outcome.api_since, outcome.worker_since) = ctx.remembered(&uid, |memory| {
        let api = outcome.api.as_ref().and_then(|api| memory.api.since(api));
        (api, outcome.worker.as_ref().and_then(|worker| memory.worker.since(worker)))
    });
    outcome.view = ctx.views.get(&uid);
    if let (QueueHealth::NotReadYet, Some(view)) = (&outcome.queue, &outcome.view) {
        outcome.queue = view.queue.clone();
    }
    let (namespace, name) = (shop.namespace().unwrap_or_default(), shop.name_any());
    let trouble = |component| ctx.pods(&namespace, &name, component).iter().find_map(|pod| rollout::trouble(pod));
    outcome.api_trouble = trouble(Component::Api);
    outcome.worker_trouble = trouble(Component::Worker);
    outcome
}

/// The queue comes before the pods, which must never work on another one's.
async fn write(
    ctx: &Arc<Context>,
    shop: &ShopDeployment,
    (valid, built): (&ValidatedShop, Resources<Prepared>),
    outcome: &mut Outcome,
) -> Result<(), Fault> {
    let finalizer = if valid.deletes_queue() {
        deletion::set_finalizer(ctx, shop).await
    } else {
        deletion::clear_finalizer(ctx, shop).await
    };
    finalizer.map_err(|error| failed(&error))?;
    outcome.queue = manage(ctx, valid).await;
    if let Some(fault) = another_ones(&outcome.queue) {
        return Err(fault.clone());
    }
    keys::ensure(ctx, valid).await.map_err(|error| Fault { reason: error.reason(), ..failed(&error) })?;
    let applied = Box::pin(apply::apply(ctx, shop, built)).await.map_err(|error| not_applied(&error))?;
    (outcome.api, outcome.worker) = (Some(applied.api), Some(applied.worker));
    let monitored = Box::pin(apply::monitor(ctx, shop, applied.service_monitor)).await;
    outcome.monitoring = monitored.map_err(|error| not_applied(&error)).err();
    Ok(())
}

fn not_applied(error: &ApplyError) -> Fault {
    let reason = match error {
        ApplyError::NameTaken { .. } => Reason::NameTaken,
        ApplyError::NoServiceMonitors => Reason::CrdMissing,
        error if error.is_forbidden() => Reason::ApplyForbidden,
        _ => Reason::ApplyFailed,
    };
    Fault { reason, ..failed(error) }
}

/// Why a queue is not to be touched.
fn another_ones(queue: &QueueHealth) -> Option<&Fault> {
    let QueueHealth::Bad(fault) = queue else { return None };
    (fault.reason == Reason::QueueNotOwned).then_some(fault)
}

/// Creates or repairs a Managed queue, now and then. What an Existing one is like, the scaler sees.
async fn manage(ctx: &Context, valid: &ValidatedShop) -> QueueHealth {
    let (uid, queue, now) = (valid.owner.uid.as_str(), &valid.spec.queue, ctx.clock.now());
    let Some(name) = queue.name.as_deref().filter(|_| valid.is_managed()) else {
        return QueueHealth::NotReadYet;
    };
    if ctx.queues.is_fresh(uid, queue, now) {
        return QueueHealth::NotReadYet;
    }
    let result: Result<String, QueueError> = async {
        let client = ctx.queues.client(ctx, &place(valid)).await?;
        let owner = format!("{}/{}", valid.namespace, valid.name);
        Managed { client: &client, name, owner: &owner }.ensure(queue).await
    }
    .await;
    match result {
        Ok(_) => {
            ctx.queues.checked(uid, queue, now);
            QueueHealth::NotReadYet
        }
        Err(error) => QueueHealth::Bad(error.fault()),
    }
}

/// Where a shop's queue is.
pub fn place(shop: &ValidatedShop) -> Place<'_> {
    Place::new(&shop.owner.uid, &shop.namespace, &shop.spec)
}

fn failed(error: &dyn std::error::Error) -> Fault {
    Fault { reason: Reason::ApplyFailed, message: format!("{}; it is tried again by itself", chain(error)) }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{
        context::tests::context,
        validate::tests::{shop, world},
    };

    #[tokio::test]
    async fn no_queue_is_made_for_a_shop_that_cannot_hold_it() {
        let queue = json!({ "management": "Managed", "deletionPolicy": "Delete", "endpoint": "http://127.0.0.1:1" });
        let shop = shop(json!({ "spec": { "queue": queue } }));
        let (ctx, live) = (Arc::new(context()), Live::default());
        let valid = validate(&shop, &world(&[("mongodb", "uri")]));
        let built = valid.as_ref().map(|valid| build(valid, &live)).ok();
        // The API server is not there: the finalizer cannot be set.
        let outcome = Box::pin(put(&ctx, &shop, (valid, built, &live))).await;
        assert!(outcome.failure.unwrap().message.contains("cannot change the finalizer"));
        assert_eq!(outcome.queue, QueueHealth::NotReadYet, "nobody has asked SQS");
    }
}
