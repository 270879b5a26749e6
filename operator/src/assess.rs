//! From what was found and done to conditions: pure, the one place that says what "ready" means.

use crate::{
    conditions::{Condition, Kind, Reason, Status},
    crd::Mode,
    keys::Underway,
    rollout::{self, Rollout},
    scale::{Limit, Pause, view::View},
    validate::{Fault, Scaling},
};
use k8s_openapi::{api::apps::v1::Deployment, apimachinery::pkg::apis::meta::v1::Condition as ApiCondition};

/// What one pass over a shop came to.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// Why the shop cannot be built; empty when it can.
    pub faults: Vec<Fault>,
    /// The first object that could not be put in place, and why.
    pub failure: Option<Fault>,
    /// What is amiss without keeping the shop from being made: it sells all the same, or its pods say why not.
    pub lacking: Vec<Fault>,
    pub api: Option<Deployment>,
    pub worker: Option<Deployment>,
    /// Since which generations they are as they were built, see [`rollout::Built`].
    pub api_since: Option<i64>,
    pub worker_since: Option<i64>,
    /// The worker keeps its old image until the api has rolled out.
    pub worker_waits: bool,
    /// What the pods themselves complain about.
    pub api_trouble: Option<String>,
    pub worker_trouble: Option<String>,
    pub queue: QueueHealth,
    pub scaling: Option<Scaling>,
    pub view: Option<View>,
    /// Why a shop that is being deleted is still there.
    pub deleting: Option<Fault>,
    /// How far the change of the signing keys has come.
    pub rotation: Option<Underway>,
    pub paused: Paused,
    pub suspended: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Paused {
    #[default]
    No,
    Yes,
    /// What runs is not what the spec asks for.
    HoldingBack,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum QueueHealth {
    #[default]
    NotReadYet,
    Readable,
    Bad(Fault),
}

impl QueueHealth {
    /// As the status has it for this very spec: what a new operator goes by until it has read the queue itself. Without it, a
    /// restart would tell that all is well, and then once more what is wrong.
    pub fn as_told(before: &[ApiCondition], generation: Option<i64>) -> Self {
        let name = format!("{:?}", Kind::QueueReadable);
        let told = before.iter().find(|told| told.type_ == name && told.observed_generation == generation);
        let reasons =
            [Reason::QueueUnreachable, Reason::QueueAccessDenied, Reason::QueueMissing, Reason::QueueNotOwned];
        match told {
            Some(told) if told.status == "True" => Self::Readable,
            Some(told) => {
                let reason = reasons.into_iter().find(|reason| format!("{reason:?}") == told.reason);
                reason.map_or(Self::NotReadYet, |reason| Self::Bad(Fault { reason, message: told.message.clone() }))
            }
            None => Self::NotReadYet,
        }
    }
}

pub fn conditions(outcome: &Outcome) -> Vec<Condition> {
    let config = config_valid(outcome);
    let api = available(Kind::ApiAvailable, outcome, outcome.api.as_ref());
    let worker = available(Kind::WorkerAvailable, outcome, outcome.worker.as_ref());
    let queue = queue_readable(&outcome.queue);
    let progressing = progressing(outcome);
    let degraded = degraded(outcome, &[&config, &api, &worker, &queue]);
    let ready = ready(outcome, &[&config, &progressing, &api, &worker]);
    let paused = match outcome.paused {
        Paused::No => Condition::new(Kind::Paused, Status::False, Reason::NotPaused, ""),
        Paused::Yes | Paused::HoldingBack => Condition::new(
            Kind::Paused,
            Status::True,
            Reason::Paused,
            "spec.paused: changes are reported, none are made",
        ),
    };
    let active = scaling_active(outcome);
    let limited = scaling_limited(outcome);
    vec![ready, progressing, degraded, paused, config, api, worker, queue, active, limited]
}

fn config_valid(outcome: &Outcome) -> Condition {
    let Some(first) = outcome.faults.first() else {
        return Condition::new(Kind::ConfigValid, Status::True, Reason::Valid, "");
    };
    let messages: Vec<_> = outcome.faults.iter().map(|fault| fault.message.as_str()).collect();
    Condition::new(Kind::ConfigValid, Status::False, first.reason, messages.join("; "))
}

fn available(kind: Kind, outcome: &Outcome, deployment: Option<&Deployment>) -> Condition {
    let Some(deployment) = deployment else {
        return Condition::new(
            kind,
            Status::False,
            Reason::NotBuilt,
            "there is no Deployment yet: see ConfigValid and Degraded",
        );
    };
    let rollout = rollout::of(deployment);
    let trouble = if kind == Kind::ApiAvailable { &outcome.api_trouble } else { &outcome.worker_trouble };
    match rollout {
        Rollout { desired: 0, .. } if outcome.suspended => {
            let status = if kind == Kind::ApiAvailable { Status::False } else { Status::True };
            Condition::new(kind, status, Reason::Suspended, "spec.suspended: there are no pods until it is false")
        }
        Rollout { desired: 0, .. } => {
            Condition::new(kind, Status::True, Reason::ScaledToZero, "no pods are needed now")
        }
        _ if kind == Kind::WorkerAvailable && wakes(outcome) => {
            Condition::new(kind, Status::True, Reason::Available, "waking from zero")
        }
        // How many of how many is in the columns: a message that counts would be news at every pod.
        rollout if rollout.available > 0 => {
            Condition::new(kind, Status::True, Reason::Available, trouble.clone().unwrap_or_default())
        }
        rollout => {
            let reason = if rollout.deadline_exceeded { Reason::RolloutFailed } else { Reason::NotAvailable };
            let why = trouble
                .clone()
                .unwrap_or_else(|| "no pod is ready yet: `kubectl describe pod` and the pods' logs say why".to_owned());
            Condition::new(kind, Status::False, reason, why)
        }
    }
}

fn queue_readable(queue: &QueueHealth) -> Condition {
    let kind = Kind::QueueReadable;
    match queue {
        QueueHealth::NotReadYet => Condition::new(kind, Status::Unknown, Reason::NotReadYet, ""),
        QueueHealth::Readable => Condition::new(kind, Status::True, Reason::Readable, ""),
        QueueHealth::Bad(fault) => Condition::new(kind, Status::False, fault.reason, &fault.message),
    }
}

/// The worker comes from zero, where it was by choice: nothing is wrong while its first pod starts.
fn wakes(outcome: &Outcome) -> bool {
    let at_zero_by_choice = outcome.scaling.as_ref().is_some_and(|scaling| scaling.min == 0);
    let rollout = outcome.worker.as_ref().map(rollout::of).unwrap_or_default();
    let calm = outcome.worker_trouble.is_none() && !rollout.deadline_exceeded;
    at_zero_by_choice && calm && rollout.available == 0 && rollout.updated == rollout.total
}

/// A rollout is under way while pods of an older template exist, or none serves yet. More or fewer pods are no rollout.
fn is_rolling(deployment: &Deployment, since: Option<i64>, trouble: Option<&String>) -> bool {
    let rollout = rollout::of(deployment);
    let observed = rollout::has_observed(deployment, since.or(deployment.metadata.generation));
    let nothing_serves = rollout.desired > 0 && (rollout.available == 0 || rollout.updated == 0);
    // Pods that served and broke are no rollout; pods that merely start again (as after `suspended`) are taken for one.
    let nothing_serves = nothing_serves && !(rollout.done_before && trouble.is_some());
    !observed || rollout.updated < rollout.total || nothing_serves
}

fn progressing(outcome: &Outcome) -> Condition {
    let kind = Kind::Progressing;
    let parts = [
        ("api", outcome.api.as_ref(), outcome.api_since, &outcome.api_trouble),
        ("worker", outcome.worker.as_ref(), outcome.worker_since, &outcome.worker_trouble),
    ];
    for (name, deployment, since, trouble) in parts {
        let Some(deployment) = deployment else { continue };
        if !is_rolling(deployment, since, trouble.as_ref()) || (name == "worker" && wakes(outcome)) {
            continue;
        }
        let why = trouble.as_ref().map_or_else(String::new, |trouble| format!(": {trouble}"));
        return if rollout::of(deployment).deadline_exceeded {
            let advice = "pods that served before go on serving; correct the spec to try again";
            Condition::new(
                kind,
                Status::False,
                Reason::RolloutFailed,
                format!("the {name} did not become ready{why}; {advice}"),
            )
        } else {
            Condition::new(kind, Status::True, Reason::RolloutInProgress, format!("the {name} is rolling out{why}"))
        };
    }
    if outcome.worker_waits {
        let message = "the worker's new image waits for the api's rollout";
        return Condition::new(kind, Status::True, Reason::RolloutInProgress, message);
    }
    if outcome.api.is_none() || outcome.worker.is_none() {
        return Condition::new(
            kind,
            Status::False,
            Reason::NotBuilt,
            "nothing is built yet: see ConfigValid and Paused",
        );
    }
    Condition::new(kind, Status::False, Reason::RolloutComplete, "")
}

fn degraded(outcome: &Outcome, parts: &[&Condition]) -> Condition {
    let kind = Kind::Degraded;
    let fault = |fault: &Fault| Condition::new(kind, Status::True, fault.reason, &fault.message);
    if let Some(stuck) = outcome.deleting.as_ref().filter(|fault| fault.reason != Reason::Deleting) {
        return fault(stuck);
    }
    if let Some(failure) = &outcome.failure {
        return fault(failure);
    }
    if let Some(first) = outcome.lacking.first() {
        let all: Vec<_> = outcome.lacking.iter().map(|fault| fault.message.as_str()).collect();
        return Condition::new(kind, Status::True, first.reason, all.join("; "));
    }
    let failed = progressing(outcome);
    if failed.reason == Reason::RolloutFailed {
        return Condition::new(kind, Status::True, failed.reason, failed.message);
    }
    // A first start is no failure: that shows in Progressing, and after the deadline here.
    let starting = failed.reason == Reason::RolloutInProgress;
    let bad = parts.iter().find(|part| part.is_bad() && !(starting && part.reason == Reason::NotAvailable));
    match bad {
        Some(part) => Condition::new(kind, Status::True, part.reason, &part.message),
        None => Condition::new(kind, Status::False, Reason::AllGood, ""),
    }
}

fn ready(outcome: &Outcome, parts: &[&Condition]) -> Condition {
    let no = |reason, message: &str| Condition::new(Kind::Ready, Status::False, reason, message);
    if let Some(fault) = outcome.deleting.as_ref().or(outcome.failure.as_ref()) {
        return no(fault.reason, &fault.message);
    }
    if outcome.paused == Paused::HoldingBack {
        return no(Reason::Paused, "spec.paused: what the spec asks for waits until it is false");
    }
    for part in parts {
        let holds_up = if part.kind == Kind::Progressing {
            matches!(part.reason, Reason::RolloutInProgress | Reason::RolloutFailed)
        } else {
            part.status != Status::True
        };
        if holds_up {
            return no(part.reason, &part.message);
        }
    }
    Condition::new(Kind::Ready, Status::True, Reason::AllGood, "")
}

fn scaling_active(outcome: &Outcome) -> Condition {
    let kind = Kind::ScalingActive;
    let Some(scaling) = &outcome.scaling else {
        return Condition::new(kind, Status::Unknown, Reason::NotBuilt, "nothing is scaled before ConfigValid is True");
    };
    let no = |reason, message: &str| Condition::new(kind, Status::False, reason, message);
    if scaling.suspended {
        no(Reason::Suspended, "spec.suspended: there are no pods until it is false")
    } else if scaling.mode == Mode::Manual {
        no(Reason::ManualMode, "the number of workers is spec.worker.replicas")
    } else if scaling.mode == Mode::Recommend {
        no(Reason::RecommendMode, "status.autoscaling says what would be done")
    } else if scaling.pause == Pause::All {
        no(
            Reason::ScalingPaused,
            "paused by spec.paused or the annotation shop.xhipment.io/pause-scaling: remove it to go on",
        )
    } else {
        match &outcome.queue {
            QueueHealth::Bad(fault) => no(fault.reason, "the number of workers is held until the queue can be read"),
            QueueHealth::NotReadYet => Condition::new(kind, Status::Unknown, Reason::NotReadYet, ""),
            QueueHealth::Readable => Condition::new(kind, Status::True, Reason::Scaling, ""),
        }
    }
}

fn scaling_limited(outcome: &Outcome) -> Condition {
    let kind = Kind::ScalingLimited;
    let decision = outcome.view.as_ref().and_then(|view| view.decision.as_ref());
    match decision.and_then(|decision| decision.limit) {
        Some(Limit::Max) => {
            let schedule = decision.and_then(|decision| decision.terms.scheduled.max.as_deref());
            let which = schedule.map_or_else(|| "max".to_owned(), |name| format!("schedules {name} max"));
            let message = format!("more workers would shorten the wait: raise worker.autoscaling.{which}");
            Condition::new(kind, Status::True, Reason::MaxReached, message)
        }
        Some(Limit::TargetBelowStartup) => {
            let message = "a worker takes longer to start than targetWaitSeconds: keep spare workers with \
                           worker.autoscaling.min, or raise the target";
            Condition::new(kind, Status::True, Reason::TargetUnreachable, message)
        }
        None => Condition::new(kind, Status::False, Reason::WithinLimits, ""),
    }
}

#[cfg(test)]
mod tests;
