//! The owner's own word on the number of workers, which goes before the rules. Pure.

use super::{
    decide::{Decision, Reason},
    policy::Pause,
};
use crate::{crd::Mode, validate::Scaling};

/// What is to be done: a suspended shop has no workers, and by hand there are as many as the owner says.
pub fn heed(scaling: &Scaling, decision: Decision) -> Decision {
    let (replicas, reason) = match scaling.mode {
        _ if scaling.suspended => (0, Reason::Suspended),
        Mode::Manual if scaling.pause != Pause::All => {
            (scaling.replicas.unwrap_or(decision.terms.current), Reason::Manual)
        }
        Mode::Manual | Mode::DrainTime | Mode::Recommend => return decision,
    };
    Decision { replicas, reason, limit: None, ..decision }
}

/// The number to write; `None` where nothing may be written.
pub fn to_write(scaling: &Scaling, decision: &Decision) -> Option<u32> {
    let acts = match scaling.mode {
        _ if scaling.suspended => true,
        _ if scaling.pause == Pause::All => false,
        Mode::DrainTime => true,
        Mode::Manual => scaling.replicas.is_some(),
        Mode::Recommend => false,
    };
    acts.then_some(decision.replicas)
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::json;

    use super::{
        super::{
            decide::{Limit, Terms},
            policy::Depth,
        },
        *,
    };
    use crate::{
        names,
        scale::{History, Policy, Sample, decide},
        validate::{
            tests::{minimal, shop, world},
            validate,
        },
    };

    fn scaling(mode: Mode, replicas: Option<u32>) -> Scaling {
        Scaling { mode, replicas, ..minimal().scaling }
    }

    /// Of two workers and a load that asks for five.
    fn ruled() -> Decision {
        let terms = Terms { current: 2, keep_up: 1, drain: 5, ..Terms::default() };
        Decision { replicas: 5, reason: Reason::Drain, terms, limit: Some(Limit::Max) }
    }

    #[rstest]
    #[case::by_the_rules(scaling(Mode::DrainTime, None), (5, Reason::Drain), Some(5))]
    #[case::told_only(scaling(Mode::Recommend, None), (5, Reason::Drain), None)]
    #[case::by_hand(scaling(Mode::Manual, Some(3)), (3, Reason::Manual), Some(3))]
    #[case::by_hand_but_not_said(scaling(Mode::Manual, None), (2, Reason::Manual), None)]
    #[case::suspended(Scaling { suspended: true, ..scaling(Mode::DrainTime, None) }, (0, Reason::Suspended), Some(0))]
    #[case::suspended_by_hand(Scaling { suspended: true, ..scaling(Mode::Manual, Some(3)) }, (0, Reason::Suspended), Some(0))]
    #[case::suspended_with_scaling_paused(
        Scaling { suspended: true, pause: Pause::All, ..scaling(Mode::DrainTime, None) },
        (0, Reason::Suspended),
        Some(0)
    )]
    #[case::paused(Scaling { pause: Pause::All, ..scaling(Mode::DrainTime, None) }, (5, Reason::Drain), None)]
    fn what_is_told_is_what_is_done(
        #[case] scaling: Scaling,
        #[case] told: (u32, Reason),
        #[case] written: Option<u32>,
    ) {
        let decision = heed(&scaling, ruled());
        assert_eq!((decision.replicas, decision.reason), told, "{}", decision.explain());
        assert_eq!(to_write(&scaling, &decision), written);
        let by_the_rules = told.1 == Reason::Drain;
        assert_eq!(decision.limit.is_some(), by_the_rules, "the rules' limits are no concern of other numbers");
    }

    /// One worker that is ready, nothing to do, and a schedule with a minimum of 8: what is told, and what is written.
    #[rstest]
    #[case::schedule(json!({}), (8, Reason::Schedule), Some(8))]
    #[case::pause(json!({ "metadata": { "annotations": { names::PAUSE_SCALING: "" } } }), (1, Reason::Paused), None)]
    #[case::no_pause(json!({ "metadata": { "annotations": { names::PAUSE_SCALING: "false" } } }), (8, Reason::Schedule), Some(8))]
    #[case::only_up(json!({ "metadata": { "annotations": { names::PAUSE_SCALE_DOWN: "true" } } }), (8, Reason::Schedule), Some(8))]
    #[case::all_of_the_shop_paused(json!({ "spec": { "paused": true } }), (1, Reason::Paused), None)]
    #[case::paused_goes_before_suspended(json!({ "spec": { "paused": true, "suspended": true } }), (1, Reason::Paused), None)]
    #[case::suspended(json!({ "spec": { "suspended": true } }), (0, Reason::Suspended), Some(0))]
    #[case::suspended_goes_before_the_annotation(
        json!({ "metadata": { "annotations": { names::PAUSE_SCALING: "" } }, "spec": { "suspended": true } }),
        (0, Reason::Suspended),
        Some(0)
    )]
    #[case::manual(json!({ "spec": { "worker": { "replicas": 3, "autoscaling": { "mode": "Manual" } } } }), (3, Reason::Manual), Some(3))]
    #[case::manual_paused(
        json!({
            "metadata": { "annotations": { names::PAUSE_SCALING: "" } },
            "spec": { "worker": { "replicas": 3, "autoscaling": { "mode": "Manual" } } },
        }),
        (1, Reason::Paused),
        None
    )]
    #[case::recommend(json!({ "spec": { "worker": { "autoscaling": { "mode": "Recommend" } } } }), (8, Reason::Schedule), None)]
    fn a_pause_goes_before_the_owners_number_that_before_schedules_and_these_before_the_load(
        #[case] patch: serde_json::Value,
        #[case] told: (u32, Reason),
        #[case] written: Option<u32>,
    ) {
        let schedule = json!({ "name": "sale", "cron": "* * * * *", "durationMinutes": 1, "min": 8 });
        let mut object = shop(patch);
        object.spec.worker.autoscaling.schedules = vec![serde_json::from_value(schedule).unwrap()];
        let shop = validate(&object, &world(&[("mongodb", "uri")])).unwrap();
        let sample = Sample { at: 1e9, depth: Some(Depth::default()), current: 1, ready: 1, ..Sample::default() };
        let decision = heed(&shop.scaling, decide(&Policy::of(&shop), &mut History::default(), &sample));
        assert_eq!((decision.replicas, decision.reason), told, "{}", decision.explain());
        assert_eq!(to_write(&shop.scaling, &decision), written);
    }

    #[test]
    fn the_owners_word_is_explained() {
        let by_hand = heed(&scaling(Mode::Manual, Some(3)), ruled());
        let sentence =
            "3: mode is Manual, spec.worker.replicas says how many; the load asks for 5 = keep-up 1 + drain 4";
        assert_eq!(by_hand.explain(), sentence);
    }
}
