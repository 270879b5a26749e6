//! Watches and runs: each pass over a shop is fetch → validate → build → apply → report.

use std::{sync::Arc, time::Duration};

use k8s_openapi::api::apps::v1::Deployment;
use kube::{ResourceExt, runtime::controller::Action};

use crate::{
    apply::{self, ApplyError},
    assess::{Outcome, Paused, QueueHealth},
    build::{Live, Prepared, Resources, build},
    causes::chain,
    conditions::Reason,
    context::{Context, is_ending},
    crd::ShopDeployment,
    deletion::{self, DeletionError, Step},
    fetch::{self, FetchError, Found},
    keys,
    names::{BUILT, Component},
    queue::{Managed, Place, QueueError},
    report::{self, ReportError},
    rollout,
    validate::{Fault, ValidatedShop, validate},
    watches::GRANT,
};

#[derive(Debug, thiserror::Error)]
pub enum ReconcileError {
    #[error(transparent)]
    Fetch(#[from] FetchError),
    #[error(transparent)]
    Deletion(#[from] DeletionError),
    #[error(transparent)]
    Report(#[from] ReportError),
    #[error(transparent)]
    Behind(ApplyError),
}

impl ReconcileError {
    /// The cluster has moved on since the pass looked: the watch brings what is new, and another pass does better.
    fn is_behind(&self) -> bool {
        match self {
            Self::Report(report) => report.is_conflict(),
            Self::Behind(_) => true,
            Self::Fetch(_) | Self::Deletion(_) => false,
        }
    }
}

/// Why the writing stopped.
enum Halt {
    Fault(Fault),
    Behind(ApplyError),
}

impl From<Fault> for Halt {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

pub async fn reconcile(shop: Arc<ShopDeployment>, ctx: Arc<Context>) -> Result<Action, ReconcileError> {
    if let Err(barred) = ctx.caches_filled().await {
        return Ok(report::blind(&ctx, &shop, &barred).await?);
    }
    let uid = shop.uid().unwrap_or_default();
    if ctx.remembered(&uid, |memory| memory.is_outdated(shop.metadata.generation)) {
        // The watch is catching up, and what it brings makes another pass.
        return Ok(Action::await_change());
    }
    let started = tokio::time::Instant::now();
    // Boxed: one future holds the requests of every kind of object.
    let result = if shop.metadata.deletion_timestamp.is_some() {
        Box::pin(end(&shop, &ctx)).await
    } else {
        Box::pin(pass(&shop, &ctx)).await
    };
    let overtaken = result.as_ref().is_err_and(ReconcileError::is_behind);
    ctx.metrics.reconciled(started.elapsed().as_secs_f64(), result.is_ok() || overtaken);
    if result.is_ok() {
        ctx.remembered(&uid, |memory| memory.failures = 0);
    }
    result
}

async fn pass(shop: &Arc<ShopDeployment>, ctx: &Arc<Context>) -> Result<Action, ReconcileError> {
    let uid = shop.uid().unwrap_or_default();
    if ctx.remembered(&uid, |memory| memory.ending) {
        return Ok(Action::await_change());
    }
    let mut steps = ctx.metrics.steps();
    let found = steps.ended("fetch", fetch::fetch(ctx, shop).await)?;
    let valid = steps.ended("validate", validate(shop, &found.world));
    let built = valid.as_ref().map(|valid| build(valid, &found.live)).ok();
    let writes = built.is_some() && !shop.spec.paused;
    if built.is_some() {
        steps.count("build", true);
    }
    let outcome = Box::pin(put(ctx, shop, (valid, built, found))).await;
    if writes {
        let ok = outcome.as_ref().map_or_else(ReconcileError::is_behind, |outcome| outcome.failure.is_none());
        steps.count("apply", ok);
    }
    let outcome = outcome?;
    if outcome.failure.as_ref().is_some_and(|fault| fault.reason == Reason::Deleting) {
        tracing::info!(shop = %shop.name_any(), namespace = ?shop.namespace(), "the namespace is being deleted");
        ctx.remembered(&uid, |memory| memory.ending = true);
        return Ok(Action::await_change());
    }
    let reported = report::report(ctx, shop, &outcome).await;
    steps.count("report", reported.as_ref().err().is_none_or(ReportError::is_conflict));
    Ok(reported?)
}

/// Retries with growing pauses: a failed pass is logged here and nowhere else.
#[expect(clippy::needless_pass_by_value, reason = "the controller's signature")]
pub fn on_error(shop: Arc<ShopDeployment>, error: &ReconcileError, ctx: Arc<Context>) -> Action {
    if error.is_behind() {
        // What may not be watched stays behind.
        let barred = ctx.barred.fault().is_some();
        return Action::requeue(if barred { Duration::from_secs(30) } else { Duration::from_millis(500) });
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
    match ctx.metrics.steps().ended("delete", deletion::step(ctx, shop).await)? {
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

type Plan = (Result<ValidatedShop, Vec<Fault>>, Option<Resources<Prepared>>, Found);

/// Whether the pods are those that were built, as far as the Deployments are concerned.
fn is_applied(built: &Resources<Prepared>, live: &Live) -> bool {
    let is = |built: &Deployment, live: &Option<Arc<Deployment>>| {
        let fingerprint = |deployment: &Deployment| deployment.annotations().get(BUILT).cloned();
        live.as_ref().is_some_and(|live| fingerprint(live) == fingerprint(built))
    };
    is(&built.api, &live.api) && is(&built.worker, &live.worker)
}

/// Applies what was built and gathers what there is to report about it.
async fn put(
    ctx: &Arc<Context>,
    shop: &ShopDeployment,
    (valid, built, Found { live, lacking, .. }): Plan,
) -> Result<Outcome, ReconcileError> {
    let mut outcome = Outcome {
        api: live.api.as_deref().cloned(),
        worker: live.worker.as_deref().cloned(),
        paused: if shop.spec.paused { Paused::Yes } else { Paused::No },
        suspended: shop.spec.suspended,
        lacking: ctx.barred.fault().into_iter().chain(lacking).collect(),
        ..Outcome::default()
    };
    let uid = shop.uid().unwrap_or_default();
    match (valid, built) {
        (Ok(valid), Some(built)) => {
            outcome.scaling = Some(valid.scaling.clone());
            if shop.spec.paused {
                if !is_applied(&built, &live) {
                    outcome.paused = Paused::HoldingBack;
                }
            } else {
                outcome.worker_waits = rollout::image(&built.worker) != Some(valid.worker_image.as_str());
                outcome.failure = match Box::pin(write(ctx, shop, (&valid, built), &mut outcome)).await {
                    Ok(()) => None,
                    Err(Halt::Fault(fault)) => Some(fault),
                    Err(Halt::Behind(error)) => Some(ctx.barred.fault().ok_or(ReconcileError::Behind(error))?),
                };
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
    if outcome.queue == QueueHealth::NotReadYet && outcome.faults.is_empty() {
        let before = shop.status.iter().flat_map(|status| status.conditions.clone()).collect::<Vec<_>>();
        outcome.queue = QueueHealth::as_told(&before, shop.metadata.generation);
    }
    let (namespace, name) = (shop.namespace().unwrap_or_default(), shop.name_any());
    let complaint = |component, deployment: Option<&Deployment>| {
        rollout::complaint(&ctx.pods(&namespace, &name, component), deployment, ctx.clock.now())
    };
    outcome.api_trouble = complaint(Component::Api, outcome.api.as_ref());
    outcome.worker_trouble = complaint(Component::Worker, outcome.worker.as_ref());
    Ok(outcome)
}

/// The queue comes before the pods, which must never work on another one's.
async fn write(
    ctx: &Arc<Context>,
    shop: &ShopDeployment,
    (valid, built): (&ValidatedShop, Resources<Prepared>),
    outcome: &mut Outcome,
) -> Result<(), Halt> {
    let finalizer = if valid.deletes_queue() {
        deletion::set_finalizer(ctx, shop).await
    } else {
        deletion::clear_finalizer(ctx, shop).await
    };
    finalizer.map_err(|error| failed(&error))?;
    outcome.queue = manage(ctx, valid).await;
    if let Some(fault) = another_ones(&outcome.queue) {
        return Err(fault.clone().into());
    }
    keys::ensure(ctx, shop, valid).await.map_err(|error| failed_for(error.reason(), &error))?;
    let applied = Box::pin(apply::apply(ctx, shop, built)).await.map_err(halted)?;
    (outcome.api, outcome.worker) = (Some(applied.api), Some(applied.worker));
    match Box::pin(apply::monitor(ctx, shop, applied.service_monitor)).await.map_err(halted) {
        Ok(()) => {}
        Err(Halt::Fault(unwatched)) => outcome.lacking.push(unwatched),
        Err(behind) => return Err(behind),
    }
    outcome.rotation = keys::rotate(ctx, shop, valid).await;
    Ok(())
}

fn halted(error: ApplyError) -> Halt {
    match &error {
        ApplyError::Behind { .. } => Halt::Behind(error),
        ApplyError::NameTaken { .. } => failed_for(Reason::NameTaken, &error).into(),
        ApplyError::NoServiceMonitors => failed_for(Reason::CrdMissing, &error).into(),
        refused if refused.is_forbidden() => {
            let fault = failed_for(Reason::ApplyForbidden, &error);
            Fault { message: format!("{}; {GRANT}", fault.message), ..fault }.into()
        }
        _ => failed_for(Reason::ApplyFailed, &error).into(),
    }
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

fn failed(error: &(dyn std::error::Error + 'static)) -> Fault {
    let mut causes = std::iter::successors(Some(error), |error| error.source());
    if causes.any(|cause| cause.downcast_ref().is_some_and(is_ending)) {
        return Fault { reason: Reason::Deleting, message: "the namespace is being deleted".to_owned() };
    }
    Fault { reason: Reason::ApplyFailed, message: format!("{}; it is tried again by itself", chain(error)) }
}

/// The same with the reason that the error itself has.
fn failed_for(reason: Reason, error: &(dyn std::error::Error + 'static)) -> Fault {
    let fault = failed(error);
    Fault { reason: if fault.reason == Reason::Deleting { Reason::Deleting } else { reason }, ..fault }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{
        build::Live,
        context::tests::context,
        validate::tests::{shop, world},
    };

    #[tokio::test]
    async fn no_queue_is_made_for_a_shop_that_cannot_hold_it() {
        let queue = json!({ "management": "Managed", "deletionPolicy": "Delete", "endpoint": "http://127.0.0.1:1" });
        let shop = shop(json!({ "spec": { "queue": queue } }));
        let found = Found { world: world(&[("mongodb", "uri")]), live: Live::default(), lacking: Vec::new() };
        let (ctx, valid) = (Arc::new(context()), validate(&shop, &found.world));
        let built = valid.as_ref().map(|valid| build(valid, &found.live)).ok();
        // The API server is not there: the finalizer cannot be set.
        let outcome = Box::pin(put(&ctx, &shop, (valid, built, found))).await.unwrap();
        assert!(outcome.failure.unwrap().message.contains("cannot change the finalizer"));
        assert_eq!(outcome.queue, QueueHealth::NotReadYet, "nobody has asked SQS");
    }
}
