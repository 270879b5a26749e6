use rstest::rstest;
use serde_json::json;

use super::*;
use crate::{
    scale::{self, Decision, decide::Terms},
    validate::tests::minimal,
};

/// A Deployment with so many pods: desired, updated, available, total.
fn deployment([desired, updated, available, total]: [i32; 4]) -> Deployment {
    serde_json::from_value(json!({
        "metadata": { "name": "x", "generation": 2 },
        "spec": { "replicas": desired, "selector": {}, "template": {} },
        "status": { "observedGeneration": 2, "replicas": total, "updatedReplicas": updated,
                    "availableReplicas": available, "readyReplicas": available },
    }))
    .unwrap()
}

/// Generation 3, which the deployment controller has not seen yet.
fn unobserved() -> Deployment {
    let mut deployment = deployment([2, 2, 2, 2]);
    deployment.metadata.generation = Some(3);
    deployment
}

fn healthy() -> Outcome {
    Outcome {
        api: Some(deployment([1, 1, 1, 1])),
        worker: Some(deployment([2, 2, 2, 2])),
        queue: QueueHealth::Readable,
        scaling: Some(minimal().scaling),
        ..Outcome::default()
    }
}

fn fault(reason: Reason) -> Fault {
    Fault { reason, message: "do this".to_owned() }
}

fn find(outcome: &Outcome, kind: Kind) -> Condition {
    conditions(outcome).into_iter().find(|condition| condition.kind == kind).unwrap()
}

#[rstest]
#[case::healthy(healthy(), Status::True, Reason::AllGood)]
#[case::nothing_built(Outcome::default(), Status::False, Reason::NotBuilt)]
#[case::starting(Outcome { api: Some(deployment([1, 1, 0, 1])), ..healthy() }, Status::False, Reason::RolloutInProgress)]
#[case::old_pods(Outcome { api: Some(deployment([2, 1, 2, 3])), ..healthy() }, Status::False, Reason::RolloutInProgress)]
#[case::scaling_up_is_no_rollout(Outcome { worker: Some(deployment([6, 4, 2, 4])), ..healthy() }, Status::True, Reason::AllGood)]
#[case::a_new_number_is_no_rollout(
    Outcome { worker: Some(unobserved()), worker_since: Some(2), ..healthy() },
    Status::True,
    Reason::AllGood
)]
#[case::not_yet_seen(
    Outcome { worker: Some(unobserved()), worker_since: Some(3), ..healthy() },
    Status::False,
    Reason::RolloutInProgress
)]
#[case::not_yet_seen_nor_known(Outcome { worker: Some(unobserved()), ..healthy() }, Status::False, Reason::RolloutInProgress)]
#[case::worker_waits(Outcome { worker_waits: true, ..healthy() }, Status::False, Reason::RolloutInProgress)]
#[case::zero_workers_by_choice(Outcome { worker: Some(deployment([0, 0, 0, 0])), ..healthy() }, Status::True, Reason::AllGood)]
#[case::queue_unreadable(Outcome { queue: QueueHealth::Bad(fault(Reason::QueueUnreachable)), ..healthy() }, Status::True, Reason::AllGood)]
#[case::lacking(Outcome { lacking: vec![fault(Reason::CrdMissing)], ..healthy() }, Status::True, Reason::AllGood)]
#[case::bad_spec(Outcome { faults: vec![fault(Reason::SecretMissing)], ..healthy() }, Status::False, Reason::SecretMissing)]
#[case::apply_failed(Outcome { failure: Some(fault(Reason::ApplyForbidden)), ..healthy() }, Status::False, Reason::ApplyForbidden)]
#[case::suspended(
    Outcome { api: Some(deployment([0; 4])), worker: Some(deployment([0; 4])), suspended: true, ..healthy() },
    Status::False,
    Reason::Suspended
)]
#[case::deleting(Outcome { deleting: Some(fault(Reason::QueueNotEmpty)), ..healthy() }, Status::False, Reason::QueueNotEmpty)]
fn ready_sums_up(#[case] outcome: Outcome, #[case] status: Status, #[case] reason: Reason) {
    let ready = find(&outcome, Kind::Ready);
    assert_eq!((ready.status, ready.reason), (status, reason), "{ready:?}");
}

#[rstest]
#[case::healthy(healthy(), Status::False)]
#[case::first_start(Outcome { api: Some(deployment([1, 1, 0, 1])), ..healthy() }, Status::False)]
#[case::queue(Outcome { queue: QueueHealth::Bad(fault(Reason::QueueUnreachable)), ..healthy() }, Status::True)]
#[case::spec(Outcome { faults: vec![fault(Reason::InvalidSpec)], ..healthy() }, Status::True)]
#[case::lacking(Outcome { lacking: vec![fault(Reason::SecretMissing)], ..healthy() }, Status::True)]
#[case::going(Outcome { deleting: Some(fault(Reason::Deleting)), ..healthy() }, Status::False)]
#[case::stuck(Outcome { deleting: Some(fault(Reason::QueueNotEmpty)), ..healthy() }, Status::True)]
fn degraded_is_for_a_person(#[case] outcome: Outcome, #[case] status: Status) {
    assert_eq!(find(&outcome, Kind::Degraded).status, status);
}

#[test]
fn a_failed_rollout_names_the_pods_own_reason() {
    let mut api = deployment([2, 1, 2, 3]);
    let stuck = json!([{ "type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded" }]);
    api.status.as_mut().unwrap().conditions = serde_json::from_value(stuck).unwrap();
    let outcome = Outcome { api: Some(api), api_trouble: Some("pod x: ImagePullBackOff".to_owned()), ..healthy() };
    let degraded = find(&outcome, Kind::Degraded);
    assert_eq!((degraded.status, degraded.reason), (Status::True, Reason::RolloutFailed));
    assert!(degraded.message.contains("ImagePullBackOff"), "{}", degraded.message);
    assert_eq!(find(&outcome, Kind::ApiAvailable).status, Status::True, "the old pods serve");
}

#[test]
fn waking_from_zero_is_no_trouble() {
    let mut scaling = minimal().scaling;
    scaling.min = 0;
    let outcome = Outcome { worker: Some(deployment([3, 3, 0, 3])), scaling: Some(scaling), ..healthy() };
    assert_eq!(find(&outcome, Kind::Ready).status, Status::True);
    assert_eq!(find(&outcome, Kind::WorkerAvailable).status, Status::True);
}

#[test]
fn every_condition_is_there_every_time() {
    let kinds = |outcome: &Outcome| conditions(outcome).iter().map(|condition| condition.kind).collect::<Vec<_>>();
    assert_eq!(kinds(&healthy()), kinds(&Outcome::default()));
    assert_eq!(kinds(&healthy()).len(), 10);
}

/// Two of these pods, of which none serves, and what the Deployment controller says of the rollout.
fn unavailable(progress: &str) -> Deployment {
    let mut deployment = deployment([2, 2, 0, 2]);
    let progressing = json!([{ "type": "Progressing", "status": "True", "reason": progress }]);
    deployment.status.as_mut().unwrap().conditions = serde_json::from_value(progressing).unwrap();
    deployment
}

fn scaled(change: impl FnOnce(&mut Scaling)) -> Outcome {
    let mut scaling = minimal().scaling;
    change(&mut scaling);
    Outcome { scaling: Some(scaling), ..healthy() }
}

fn limited(limit: Limit) -> Outcome {
    let (reason, terms) = (scale::Reason::Drain, Terms::default());
    let decision = Decision { replicas: 1, reason, terms, limit: Some(limit) };
    Outcome { view: Some(View { decision: Some(decision), ..View::default() }), ..healthy() }
}

fn suspended() -> Outcome {
    let scaling = scaled(|scaling| scaling.suspended = true).scaling;
    Outcome { api: Some(deployment([0; 4])), worker: Some(deployment([0; 4])), suspended: true, scaling, ..healthy() }
}

fn broken(progress: &str) -> Outcome {
    Outcome { api: Some(unavailable(progress)), api_trouble: Some("pod a: do this".to_owned()), ..healthy() }
}

fn bad_queue(reason: Reason) -> Outcome {
    Outcome { queue: QueueHealth::Bad(fault(reason)), ..healthy() }
}

#[rstest]
#[case(healthy(), "Ready True AllGood")]
#[case(Outcome { failure: Some(fault(Reason::NameTaken)), ..healthy() }, "Ready False NameTaken do this")]
#[case(broken("NewReplicaSetAvailable"), "Ready False NotAvailable pod a: do this")]
#[case(suspended(), "Ready False Suspended until it is false")]
#[case(healthy(), "Progressing False RolloutComplete")]
#[case(Outcome::default(), "Progressing False NotBuilt see ConfigValid")]
#[case(broken("ReplicaSetUpdated"), "Progressing True RolloutInProgress pod a: do this")]
#[case(broken("NewReplicaSetAvailable"), "Progressing False RolloutComplete")]
#[case(broken("ProgressDeadlineExceeded"), "Progressing False RolloutFailed correct the spec")]
#[case(Outcome { worker_waits: true, ..healthy() }, "Progressing True RolloutInProgress waits for the api")]
#[case(healthy(), "Degraded False AllGood")]
#[case(broken("ReplicaSetUpdated"), "Degraded False AllGood")]
#[case(broken("NewReplicaSetAvailable"), "Degraded True NotAvailable pod a: do this")]
#[case(broken("ProgressDeadlineExceeded"), "Degraded True RolloutFailed pod a: do this")]
#[case(suspended(), "Degraded False AllGood")]
#[case(bad_queue(Reason::QueueMissing), "Degraded True QueueMissing do this")]
#[case(healthy(), "Paused False NotPaused")]
#[case(Outcome { paused: Paused::Yes, ..healthy() }, "Paused True Paused spec.paused")]
#[case(Outcome { paused: Paused::Yes, ..healthy() }, "Ready True AllGood")]
#[case(Outcome { paused: Paused::HoldingBack, ..healthy() }, "Paused True Paused spec.paused")]
#[case(Outcome { paused: Paused::HoldingBack, ..healthy() }, "Ready False Paused spec.paused: what the spec asks for waits")]
#[case(healthy(), "ConfigValid True Valid")]
#[case(Outcome { faults: vec![fault(Reason::SecretMissing), fault(Reason::InvalidSpec)], ..healthy() }, "ConfigValid False SecretMissing do this; do this")]
#[case(healthy(), "ApiAvailable True Available")]
#[case(Outcome::default(), "ApiAvailable False NotBuilt no Deployment yet")]
#[case(broken("ReplicaSetUpdated"), "ApiAvailable False NotAvailable pod a: do this")]
#[case(broken("ProgressDeadlineExceeded"), "ApiAvailable False RolloutFailed pod a: do this")]
#[case(suspended(), "ApiAvailable False Suspended until it is false")]
#[case(healthy(), "WorkerAvailable True Available")]
#[case(suspended(), "WorkerAvailable True Suspended until it is false")]
#[case(Outcome { worker: Some(deployment([0; 4])), ..healthy() }, "WorkerAvailable True ScaledToZero no pods are needed")]
#[case(Outcome { worker: Some(deployment([1, 1, 0, 1])), ..healthy() }, "WorkerAvailable False NotAvailable no pod is ready")]
#[case(healthy(), "QueueReadable True Readable")]
#[case(Outcome { queue: QueueHealth::NotReadYet, ..healthy() }, "QueueReadable Unknown NotReadYet")]
#[case(bad_queue(Reason::QueueAccessDenied), "QueueReadable False QueueAccessDenied do this")]
#[case(healthy(), "ScalingActive True Scaling")]
#[case(Outcome::default(), "ScalingActive Unknown NotBuilt before ConfigValid is True")]
#[case(bad_queue(Reason::QueueUnreachable), "ScalingActive False QueueUnreachable is held until")]
#[case(suspended(), "ScalingActive False Suspended until it is false")]
#[case(scaled(|scaling| scaling.mode = Mode::Manual), "ScalingActive False ManualMode spec.worker.replicas")]
#[case(scaled(|scaling| scaling.mode = Mode::Recommend), "ScalingActive False RecommendMode status.autoscaling")]
#[case(scaled(|scaling| scaling.pause = Pause::All), "ScalingActive False ScalingPaused remove it to go on")]
#[case(healthy(), "ScalingLimited False WithinLimits")]
#[case(limited(Limit::Max), "ScalingLimited True MaxReached raise worker.autoscaling.max")]
#[case(limited(Limit::TargetBelowStartup), "ScalingLimited True TargetUnreachable raise the target")]
fn each_condition_says_what_is_and_what_to_do(#[case] outcome: Outcome, #[case] expected: &str) {
    let all = conditions(&outcome);
    let mut words = expected.splitn(4, ' ');
    let kind = words.next().unwrap();
    let found = all.iter().find(|condition| format!("{:?}", condition.kind) == kind).unwrap();
    let told = (format!("{:?}", found.status), format!("{:?}", found.reason));
    assert_eq!(told, (words.next().unwrap().to_owned(), words.next().unwrap().to_owned()), "{found:?}");
    assert!(found.message.contains(words.next().unwrap_or_default()), "{found:?}");
    // Whoever has to look is told something.
    assert!(all.iter().all(|condition| !condition.is_bad() || !condition.message.is_empty()), "{all:?}");
}

#[rstest]
#[case::bad("False", "QueueMissing", 3, Some(Reason::QueueMissing))]
#[case::of_an_older_spec("False", "QueueMissing", 2, None)]
#[case::no_longer_known("False", "Elsewhere", 3, None)]
#[case::not_read("Unknown", "NotReadYet", 3, None)]
fn a_new_operator_goes_by_what_was_told_of_the_queue(
    #[case] status: &str,
    #[case] reason: &str,
    #[case] generation: i64,
    #[case] expected: Option<Reason>,
) {
    let told = json!({ "type": "QueueReadable", "status": status, "reason": reason, "message": "why",
                                   "observedGeneration": generation, "lastTransitionTime": "2026-01-02T00:00:00Z" });
    let told = serde_json::from_value(told).unwrap();
    let health = QueueHealth::as_told(&[told], Some(3));
    let expected = expected.map(|reason| Fault { reason, message: "why".to_owned() });
    assert_eq!(health, expected.map_or(QueueHealth::NotReadYet, QueueHealth::Bad));
}
