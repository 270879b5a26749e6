//! Writes the status, only when it says something new, and an event for every change of mind.

use std::{sync::Arc, time::Duration};

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::{
    api::apps::v1::Deployment,
    apimachinery::pkg::apis::meta::v1::{Condition as ApiCondition, Time},
};
use kube::{
    Api, Resource, ResourceExt,
    api::{Patch, PatchParams},
    runtime::{
        controller::Action,
        events::{Event, EventType, Recorder},
    },
};
use serde_json::json;

use crate::{
    assess::{Outcome, conditions},
    causes::chain,
    conditions::{Condition, Kind, Reason, Status},
    context::{Context, is_ending},
    crd::{
        AutoscalingStatus, MemoryStatus, PartStatus, QueueStatus, ShopDeployment, ShopDeploymentStatus, WorkerStatus,
    },
    names::{Component, MANAGER, dead_letter_queue, image_version},
    rollout,
    scale::{Memory, view::View},
    validate::Fault,
};

/// Numbers alone are written no more often than this.
const NUMBERS_EVERY: SignedDuration = SignedDuration::from_secs(10);
/// While pods come up or complain, they are looked at again and again: that changes without an event of the Deployment.
const WATCH_ROLLOUT: Duration = Duration::from_secs(5);
/// What only another shop's change can mend is tried again, as that change is not watched.
const RETRY_SHARED: Duration = Duration::from_secs(30);

#[derive(Debug, thiserror::Error)]
#[error("cannot write the status of {shop}")]
pub struct ReportError {
    shop: String,
    #[source]
    source: kube::Error,
}

impl ReportError {
    /// Someone changed the object meanwhile: the watch brings the newer one.
    pub fn is_conflict(&self) -> bool {
        matches!(&self.source, kube::Error::Api(status) if status.is_conflict() || status.is_not_found())
    }
}

pub async fn report(ctx: &Context, shop: &Arc<ShopDeployment>, outcome: &Outcome) -> Result<Action, ReportError> {
    let before = shop.status.clone().unwrap_or_default();
    let now = ctx.clock.now();
    let conditions = conditions(outcome);
    ctx.metrics.conditions(&shop.namespace().unwrap_or_default(), &shop.name_any(), &conditions);
    let status = status(shop, outcome, &conditions, now);
    let uid = shop.uid().unwrap_or_default();
    let age = ctx.last_report(&uid).map(|last| now.duration_since(last));
    let wait = match telling(&before, &status, age) {
        Telling::Nothing => None,
        Telling::Later => Some(NUMBERS_EVERY.unsigned_abs()),
        Telling::Now => {
            write(ctx, shop, &status).await?;
            ctx.reported(&uid, now);
            announce(ctx, shop, &before.conditions, &conditions).await;
            None
        }
    };
    let faults = ctx.remembered(&uid, |memory| {
        memory.faults = if outcome.failure.is_some() { memory.faults.saturating_add(1) } else { 0 };
        memory.faults
    });
    Ok(next(&conditions, outcome, wait.into_iter().chain(retry(faults)).min()))
}

/// Says why nothing can be seen or done. What was told before stays: nobody can tell it better now.
pub async fn blind(ctx: &Context, shop: &Arc<ShopDeployment>, why: &Fault) -> Result<Action, ReportError> {
    let degraded = Condition::new(Kind::Degraded, Status::True, why.reason, &why.message);
    let told = std::slice::from_ref(&degraded);
    ctx.metrics.conditions(&shop.namespace().unwrap_or_default(), &shop.name_any(), told);
    let before = shop.status.clone().unwrap_or_default();
    let earlier = before.conditions.iter().find(|earlier| earlier.type_ == format!("{:?}", Kind::Degraded));
    let now = degraded.to_api(shop.metadata.generation, earlier, Time(truncate(ctx.clock.now())));
    let mut status = before.clone();
    status.conditions.retain(|condition| condition.type_ != now.type_);
    status.conditions.push(now);
    if earlier != status.conditions.last() {
        write(ctx, shop, &status).await?;
        announce(ctx, shop, &before.conditions, told).await;
    }
    Ok(Action::await_change())
}

/// What could not be written is tried again soon, as most that is in the way is short, and then ever more rarely.
fn retry(faults: u32) -> Option<Duration> {
    let power = faults.checked_sub(1)?.min(5);
    Some(Duration::from_secs(1 << power).min(RETRY_SHARED))
}

fn next(conditions: &[Condition], outcome: &Outcome, wait: Option<Duration>) -> Action {
    let underway = outcome.api_trouble.is_some()
        || outcome.worker_trouble.is_some()
        || conditions.iter().any(|c| matches!(c.reason, Reason::RolloutInProgress | Reason::NotAvailable));
    let shared = outcome.faults.iter().any(|fault| fault.reason == Reason::QueueInUse);
    let failed = outcome.failure.is_some()
        || outcome.lacking.iter().any(|fault| fault.reason != Reason::SecretMissing)
        || outcome.faults.is_empty() && conditions.iter().any(|c| c.kind == Kind::QueueReadable && c.is_bad());
    let candidates = [
        wait,
        underway.then_some(WATCH_ROLLOUT),
        shared.then_some(RETRY_SHARED),
        failed.then_some(RETRY_SHARED),
        outcome.rotation.as_ref().and_then(|rotation| rotation.wait),
        // Drift of a queue has no watch.
        outcome.scaling.is_some().then_some(crate::queue::RECHECK),
    ];
    candidates.into_iter().flatten().min().map_or_else(Action::await_change, Action::requeue)
}

async fn write(ctx: &Context, shop: &ShopDeployment, status: &ShopDeploymentStatus) -> Result<(), ReportError> {
    let name = shop.name_any();
    let api: Api<ShopDeployment> = Api::namespaced(ctx.client.clone(), &shop.namespace().unwrap_or_default());
    let patch = json!({
        "apiVersion": ShopDeployment::api_version(&()),
        "kind": ShopDeployment::kind(&()),
        // With the version it was decided on: what a stale leader writes is refused.
        "metadata": { "name": name, "resourceVersion": shop.resource_version() },
        "status": status,
    });
    let params = PatchParams::apply(MANAGER).force();
    let result = api.patch_status(&name, &params, &Patch::Apply(&patch)).await;
    ctx.metrics.status_write(result.is_ok());
    result.map(|_| ()).map_err(|source| ReportError { shop: name, source })
}

/// Whether a status is to be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Telling {
    Nothing,
    Now,
    Later,
}

/// News at once; numbers and messages once the last status is old enough.
fn telling(before: &ShopDeploymentStatus, after: &ShopDeploymentStatus, age: Option<SignedDuration>) -> Telling {
    if before == after {
        Telling::Nothing
    } else if is_news(before, after) || age.is_none_or(|age| age >= NUMBERS_EVERY) {
        Telling::Now
    } else {
        Telling::Later
    }
}

/// Everything but numbers and messages.
fn is_news(before: &ShopDeploymentStatus, after: &ShopDeploymentStatus) -> bool {
    let gist = |status: &ShopDeploymentStatus| {
        let conditions: Vec<_> = status
            .conditions
            .iter()
            .map(|c| (c.type_.clone(), c.status.clone(), c.reason.clone(), c.observed_generation))
            .collect();
        let decision = status.autoscaling.as_ref().map(|a| (a.desired, a.reason.clone()));
        let url = status.queue.as_ref().map(|queue| queue.url.clone());
        let parts = (status.api.clone(), status.worker.clone());
        let rotation = status.key_rotation.as_ref().map(|rotation| rotation.step.clone());
        (status.observed_generation, conditions, decision, url, parts, status.version.clone(), rotation)
    };
    gist(before) != gist(after)
}

fn status(shop: &ShopDeployment, outcome: &Outcome, found: &[Condition], now: Timestamp) -> ShopDeploymentStatus {
    let before = shop.status.clone().unwrap_or_default();
    let generation = shop.metadata.generation;
    let conditions = found.iter().map(|condition| {
        let name = format!("{:?}", condition.kind);
        let earlier = before.conditions.iter().find(|earlier| earlier.type_ == name);
        condition.to_api(generation, earlier, Time(truncate(now)))
    });
    let part = |deployment: &Deployment| {
        let rollout = rollout::of(deployment);
        let summary = format!("{}/{}", rollout.ready, rollout.desired);
        let image = rollout::image(deployment).unwrap_or_default().to_owned();
        PartStatus { ready: rollout.ready, desired: rollout.desired, summary, image }
    };
    let api = outcome.api.as_ref().map(part);
    let worker = outcome.worker.as_ref().map(part).map(|part| WorkerStatus {
        ready: part.ready,
        desired: part.desired,
        summary: part.summary,
        image: part.image,
        selector: Component::Worker.selector_text(&shop.name_any()),
    });
    ShopDeploymentStatus {
        observed_generation: generation,
        conditions: conditions.collect(),
        version: api.as_ref().map(|api| image_version(&api.image)),
        api,
        worker,
        queue: queue(shop, outcome).or(before.queue),
        autoscaling: outcome.view.as_ref().and_then(autoscaling).or(before.autoscaling),
        key_rotation: outcome.rotation.as_ref().map(|rotation| rotation.status.clone()).or(before.key_rotation),
    }
}

fn queue(shop: &ShopDeployment, outcome: &Outcome) -> Option<QueueStatus> {
    let view = outcome.view.as_ref()?;
    let url = view.url.clone()?;
    let managed = shop.spec.queue.management == crate::crd::Management::Managed;
    let count = |value: fn(&crate::scale::Depth) -> u64| {
        view.depth.as_ref().map(|depth| i64::try_from(value(depth)).unwrap_or(i64::MAX))
    };
    Some(QueueStatus {
        dead_letter_url: managed.then(|| dead_letter_queue(&url)),
        url,
        visible: count(|depth| depth.visible),
        in_flight: count(|depth| depth.in_flight),
        delayed: count(|depth| depth.delayed),
    })
}

fn autoscaling(view: &View) -> Option<AutoscalingStatus> {
    let decision = view.decision.as_ref()?;
    Some(AutoscalingStatus {
        desired: signed(decision.replicas),
        reason: decision.reason.as_str().to_owned(),
        explain: decision.explain(),
        arrivals_per_second: two_digits(decision.terms.arrivals),
        seconds_per_message: two_digits(decision.terms.service),
        wait: decision.terms.wait.map_or_else(|| "–".to_owned(), |wait| format!("{}s", two_digits(wait))),
        last_scale_time: view.last_scale.map(|time| Time(truncate(time))),
        memory: Some(memory(view)),
    })
}

/// Rounded up: a scaler that goes on from it never wants fewer pods than before.
fn memory(view: &View) -> MemoryStatus {
    let Memory { service, startup, window_max, backlog_since, last_cut_off } = view.memory;
    let time = |seconds: Option<f64>| seconds.and_then(from_seconds).map(Time);
    MemoryStatus {
        seconds_per_message: service.map(|seconds| digits(seconds, f64::ceil)),
        startup_seconds: startup.map(|seconds| digits(seconds, f64::ceil)),
        window_max: signed(window_max),
        last_scale_time: view.last_scale.map(|time| Time(truncate(time))),
        waiting_since: time(backlog_since),
        last_busy_kill_time: time(last_cut_off.map(f64::ceil)),
    }
}

#[expect(clippy::cast_possible_truncation, reason = "what is out of range is no time")]
fn from_seconds(seconds: f64) -> Option<Timestamp> {
    Timestamp::from_second(seconds as i64).ok()
}

async fn announce(ctx: &Context, shop: &ShopDeployment, before: &[ApiCondition], after: &[Condition]) {
    for condition in after {
        let name = format!("{:?}", condition.kind);
        let status = format!("{:?}", condition.status);
        let earlier = before.iter().find(|earlier| earlier.type_ == name);
        let told = matches!(
            condition.kind,
            Kind::Ready
                | Kind::Degraded
                | Kind::ConfigValid
                | Kind::QueueReadable
                | Kind::Paused
                | Kind::ScalingLimited
        );
        let turned =
            earlier.map_or(condition.is_bad(), |earlier| earlier.status != status && earlier.status != "Unknown");
        let worse =
            condition.is_bad() && earlier.is_some_and(|earlier| earlier.reason != format!("{:?}", condition.reason));
        if told && condition.status != Status::Unknown && (turned || worse) {
            let type_ = if condition.is_bad() { EventType::Warning } else { EventType::Normal };
            let colon = if condition.message.is_empty() { "" } else { ": " };
            let note = format!("{name} is {status}{colon}{}", condition.message);
            ctx.event(shop, type_, &format!("{:?}", condition.reason), note).await;
        }
    }
}

impl Context {
    /// Publishes an event about a shop. Events are news, not state: one that cannot be written is only logged.
    pub async fn event(&self, shop: &ShopDeployment, type_: EventType, reason: &str, note: String) {
        let note: String = note.chars().take(1000).collect();
        let recorder = self.recorder(&shop.uid().unwrap_or_default(), reason, &note);
        let event = Event {
            type_,
            reason: reason.to_owned(),
            note: Some(note),
            action: "Reconcile".to_owned(),
            secondary: None,
        };
        match recorder.publish(&event, &shop.object_ref(&())).await {
            Ok(()) => {}
            // Nobody reads the events of a namespace that is being deleted.
            Err(error) if is_ending(&error) => {}
            Err(error) => {
                tracing::warn!(shop = %shop.name_any(), error = %chain(&error), reason, "event not written");
            }
        }
    }

    /// A recorder counts what comes again for the same reason and keeps the first note: another note takes another one.
    fn recorder(&self, uid: &str, reason: &str, note: &str) -> Recorder {
        self.remembered(uid, |memory| match memory.events.get(reason) {
            Some((told, recorder)) if told == note => recorder.clone(),
            _ => {
                let recorder = Recorder::new(self.client.clone(), self.reporter.clone());
                memory.events.insert(reason.to_owned(), (note.to_owned(), recorder.clone()));
                recorder
            }
        })
    }
}

fn truncate(time: Timestamp) -> Timestamp {
    Timestamp::from_second(time.as_second()).unwrap_or(time)
}

fn signed(value: u32) -> i32 {
    i32::try_from(value).unwrap_or(i32::MAX)
}

/// Two significant digits: enough to read, few enough not to change all the time.
fn two_digits(value: f64) -> f64 {
    digits(value, f64::round)
}

fn digits(value: f64, round: fn(f64) -> f64) -> f64 {
    if value == 0.0 || !value.is_finite() {
        return 0.0;
    }
    let scale = 10_f64.powf(1.0 - value.abs().log10().floor());
    // A hair below, so that 0.3 is not the 0.31 that its binary digits come to.
    let rounded = round(value * scale - 1e-9) / scale;
    // Through text, so that 0.30000000000000004 is 0.3.
    format!("{rounded:.6}").parse().unwrap_or(rounded)
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use serde_json::json;

    use super::*;
    use crate::validate::tests::{minimal, shop};

    /// A later generation than that is refused by the version that the status is written with.
    #[test]
    fn everything_told_is_about_the_generation_that_was_read() {
        let shop = shop(json!({ "metadata": { "generation": 3 } }));
        let outcome = Outcome::default();
        let status = status(&shop, &outcome, &conditions(&outcome), Timestamp::UNIX_EPOCH);
        assert_eq!(status.observed_generation, Some(3));
        assert_eq!(status.conditions.len(), 10);
        assert!(status.conditions.iter().all(|condition| condition.observed_generation == Some(3)));
    }

    const FAULT: fn(Reason) -> Fault = |reason| Fault { reason, message: "do this".to_owned() };

    #[rstest]
    #[case::the_same(json!({}), None, Telling::Nothing)]
    #[case::a_number(json!({ "queue": { "url": "u", "visible": 7 } }), Some(9), Telling::Later)]
    #[case::a_number_after_a_while(json!({ "queue": { "url": "u", "visible": 7 } }), Some(10), Telling::Now)]
    #[case::a_number_of_another_life(json!({ "queue": { "url": "u", "visible": 7 } }), None, Telling::Now)]
    #[case::another_queue(json!({ "queue": { "url": "other", "visible": 1 } }), Some(0), Telling::Now)]
    #[case::a_decision(json!({ "autoscaling": { "desired": 3, "reason": "Drain" } }), Some(0), Telling::Now)]
    #[case::another_generation(json!({ "observedGeneration": 2 }), Some(0), Telling::Now)]
    fn numbers_are_told_every_ten_seconds_and_news_at_once(
        #[case] change: serde_json::Value,
        #[case] age: Option<i64>,
        #[case] wanted: Telling,
    ) {
        let status = |patch: &serde_json::Value| -> ShopDeploymentStatus {
            let autoscaling = json!({ "desired": 1, "reason": "Drain", "explain": "", "arrivalsPerSecond": 0.0,
                                      "secondsPerMessage": 0.0, "wait": "" });
            let queue = json!({ "url": "u", "visible": 1 });
            let mut status =
                json!({ "observedGeneration": 1, "conditions": [], "queue": queue, "autoscaling": autoscaling });
            for (key, value) in patch.as_object().unwrap() {
                match (status[key].as_object_mut(), value.as_object()) {
                    (Some(part), Some(change)) => part.extend(change.clone()),
                    _ => status[key] = value.clone(),
                }
            }
            serde_json::from_value(status).unwrap()
        };
        assert_eq!(telling(&status(&json!({})), &status(&change), age.map(SignedDuration::from_secs)), wanted);
    }

    /// What no watch would tell of is looked at again; a bad spec waits for its change.
    #[rstest]
    #[case::bad_spec(Outcome { faults: vec![FAULT(Reason::InvalidSpec)], ..Outcome::default() }, None)]
    #[case::missing_secret(Outcome { faults: vec![FAULT(Reason::SecretMissing)], ..Outcome::default() }, None)]
    #[case::another_shops_queue(Outcome { faults: vec![FAULT(Reason::QueueInUse)], ..Outcome::default() }, Some(30))]
    #[case::a_missing_kind(Outcome { lacking: vec![FAULT(Reason::CrdMissing)], ..Outcome::default() }, Some(30))]
    #[case::a_secret_for_others(Outcome { lacking: vec![FAULT(Reason::SecretMissing)], ..Outcome::default() }, None)]
    #[case::refused(Outcome { failure: Some(FAULT(Reason::ApplyFailed)), ..Outcome::default() }, Some(30))]
    #[case::complaining_pods(Outcome { api_trouble: Some("x".to_owned()), ..Outcome::default() }, Some(5))]
    #[case::at_rest(Outcome { scaling: Some(minimal().scaling), ..Outcome::default() }, Some(300))]
    fn a_pass_is_followed_by_another_only_where_no_watch_tells(#[case] outcome: Outcome, #[case] seconds: Option<u64>) {
        let wanted = seconds.map_or_else(Action::await_change, |seconds| Action::requeue(Duration::from_secs(seconds)));
        assert_eq!(next(&conditions(&outcome), &outcome, None), wanted);
    }

    #[rstest]
    #[case(0.0, 0.0)]
    #[case(0.123, 0.12)]
    #[case(12.6, 13.0)]
    #[case(1984.0, 2000.0)]
    #[case(f64::NAN, 0.0)]
    #[case(0.3, 0.3)]
    fn numbers_keep_two_digits(#[case] value: f64, #[case] rounded: f64) {
        assert!((two_digits(value) - rounded).abs() < 1e-9, "{}", two_digits(value));
    }

    #[rstest]
    #[case(0.3, 0.3)]
    #[case(0.301, 0.31)]
    #[case(12.0, 12.0)]
    #[case(12.1, 13.0)]
    #[case(0.0, 0.0)]
    fn what_is_remembered_is_never_less(#[case] value: f64, #[case] rounded: f64) {
        assert!((digits(value, f64::ceil) - rounded).abs() < 1e-9, "{}", digits(value, f64::ceil));
    }

    #[rstest]
    #[case::nothing_failed(0, None)]
    #[case::once(1, Some(1))]
    #[case::again(3, Some(4))]
    #[case::for_long(40, Some(30))]
    fn what_failed_is_tried_again_ever_more_rarely(#[case] faults: u32, #[case] seconds: Option<u64>) {
        assert_eq!(retry(faults), seconds.map(Duration::from_secs));
    }
}
