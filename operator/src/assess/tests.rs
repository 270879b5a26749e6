use rstest::rstest;
use serde_json::json;

use super::*;
use crate::validate::tests::minimal;

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
