use proptest::prelude::*;
use rstest::rstest;

use super::{super::policy::Depth, *};

pub(crate) fn policy() -> Policy {
    Policy {
        target_wait: 20.0,
        expected_service: 0.5,
        concurrency: 2.0,
        min: 1,
        max: 20,
        activation: 0,
        to_zero_cooldown: 60.0,
        window: 30.0,
        max_percent: 25,
        failure_after: 300.0,
        fallback: None,
        pause: Pause::No,
    }
}

/// Settled pods with nothing in hand, and so many messages waiting.
fn calm(at: f64, current: u32, visible: u64) -> Sample {
    let depth = Some(Depth { visible, ..Depth::default() });
    Sample { at, depth, current, ready: current, reporting: current, ..Sample::default() }
}

/// Decides on the same sample again and again, every two seconds; gives the last decision.
fn after(policy: &Policy, seconds: u32, sample: &Sample) -> Decision {
    let mut history = History::default();
    let mut last = None;
    for tick in 0..=seconds / 2 {
        last = Some(decide(policy, &mut history, &Sample { at: f64::from(tick) * 2.0, ..sample.clone() }));
    }
    last.unwrap()
}

#[rstest]
#[case::idle_at_min(policy(), 0, calm(0.0, 1, 0), 1, Reason::MinReached)]
#[case::burst_at_once(policy(), 0, calm(0.0, 1, 300), 5, Reason::Panic)]
#[case::to_the_maximum(policy(), 0, calm(0.0, 15, 100_000), 20, Reason::MaxReached)]
#[case::two_more(policy(), 0, calm(0.0, 4, 400), 6, Reason::Drain)]
#[case::no_data_no_shrink(policy(), 40, calm(0.0, 10, 0), 10, Reason::ColdStart)]
#[case::a_quarter_at_a_time(policy(), 62, calm(0.0, 10, 0), 8, Reason::Stabilised)]
#[case::at_least_one(policy(), 62, calm(0.0, 2, 0), 1, Reason::MinReached)]
#[case::busy_pods_stay(policy(), 62, Sample { busy_pods: 10, ..calm(0.0, 10, 0) }, 10, Reason::BusyFloor)]
#[case::one_is_idle(policy(), 62, Sample { busy_pods: 9, ..calm(0.0, 10, 0) }, 9, Reason::BusyFloor)]
#[case::not_in_a_rollout(policy(), 62, Sample { rolling: true, ..calm(0.0, 10, 0) }, 10, Reason::Rollout)]
#[case::not_before_it_settled(policy(), 62, Sample { ready: 9, pending: 1, ..calm(0.0, 10, 0) }, 10, Reason::Stabilised)]
#[case::paused(Policy { pause: Pause::All, ..policy() }, 0, calm(0.0, 3, 100_000), 3, Reason::Paused)]
#[case::only_up(Policy { pause: Pause::Down, ..policy() }, 62, calm(0.0, 10, 0), 10, Reason::Paused)]
#[case::unreadable(policy(), 0, Sample { depth: None, ..calm(0.0, 3, 0) }, 3, Reason::Fallback)]
#[case::raised_minimum_even_blind(Policy { min: 4, ..policy() }, 0, Sample { depth: None, ..calm(0.0, 3, 0) }, 4, Reason::Fallback)]
#[case::static_fallback(Policy { fallback: Some(6), ..policy() }, 300, Sample { depth: None, ..calm(0.0, 0, 0) }, 6, Reason::Fallback)]
#[case::static_fallback_never_shrinks(Policy { fallback: Some(2), ..policy() }, 300, Sample { depth: None, ..calm(0.0, 5, 0) }, 5, Reason::Fallback)]
#[case::blind_but_full(policy(), 66, Sample { depth: None, busy: 20, ..calm(0.0, 10, 0) }, 10, Reason::Fallback)]
#[case::asleep(Policy { min: 0, ..policy() }, 0, calm(0.0, 0, 0), 0, Reason::ToZero)]
#[case::one_message_may_be_a_ghost(Policy { min: 0, ..policy() }, 0, calm(0.0, 0, 1), 0, Reason::ToZero)]
#[case::one_message_twice_is_real(Policy { min: 0, ..policy() }, 2, calm(0.0, 0, 1), 1, Reason::FromZero)]
#[case::straight_to_the_size(Policy { min: 0, ..policy() }, 0, calm(0.0, 0, 600), 10, Reason::FromZero)]
#[case::below_activation(Policy { min: 0, activation: 10, ..policy() }, 10, calm(0.0, 0, 10), 0, Reason::ToZero)]
#[case::to_zero(Policy { min: 0, ..policy() }, 62, calm(0.0, 1, 0), 0, Reason::ToZero)]
#[case::to_zero_after_the_cooldown(Policy { min: 0, to_zero_cooldown: 300.0, ..policy() }, 200, calm(0.0, 1, 0), 1, Reason::ToZero)]
fn rules(
    #[case] policy: Policy,
    #[case] seconds: u32,
    #[case] sample: Sample,
    #[case] replicas: u32,
    #[case] reason: Reason,
) {
    let decision = after(&policy, seconds, &sample);
    assert_eq!((decision.replicas, decision.reason), (replicas, reason), "{}", decision.explain());
}

#[test]
fn blind_and_full_for_a_minute_grows_by_a_quarter() {
    let mut history = History::default();
    let full = |tick: u32| Sample { depth: None, busy: 20, ..calm(f64::from(tick) * 2.0, 10, 0) };
    let grown = (0..=30).map(|tick| decide(&policy(), &mut history, &full(tick)).replicas).find(|n| *n > 10);
    assert_eq!(grown, Some(12));
}

#[test]
fn a_panic_holds_its_highest_for_a_minute() {
    let (policy, mut history) = (policy(), History::default());
    assert_eq!(decide(&policy, &mut history, &calm(0.0, 1, 600)).replicas, 10);
    for tick in 1..=29 {
        let decision = decide(&policy, &mut history, &calm(f64::from(tick) * 2.0, 10, 0));
        assert_eq!(decision.replicas, 10, "{}", decision.explain());
    }
    let later = (30..60).map(|tick| decide(&policy, &mut history, &calm(f64::from(tick) * 2.0, 10, 0)).replicas).min();
    assert_eq!(later, Some(8));
}

#[test]
fn explanations_add_up() {
    let decision = after(&policy(), 0, &calm(0.0, 15, 100_000));
    assert_eq!(decision.explain(), "1662 = keep-up 0 + drain 1662, capped by max 20");
    assert_eq!(decision.limit, Some(Limit::Max));
    let slow = after(&Policy { target_wait: 3.0, ..policy() }, 0, &calm(0.0, 1, 0));
    assert_eq!(slow.limit, Some(Limit::TargetBelowStartup));
}

/// What happens in one tick of a random trace.
#[expect(clippy::struct_excessive_bools, reason = "each stands for one thing that may go wrong")]
#[derive(Clone, Debug)]
struct Event {
    elapsed: f64,
    arrivals: u64,
    missed: bool,
    silent: bool,
    rolling: bool,
    start: bool,
    /// Messages take three times as long.
    slow: bool,
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let event = (
        prop_oneof![8 => 1.0..12.0, 1 => -30.0..0.0, 1 => 60.0..300.0],
        prop_oneof![5 => Just(0_u64), 4 => 0..500_u64, 1 => 0..u64::MAX / 4],
        proptest::bool::weighted(0.1),
        proptest::bool::weighted(0.1),
        proptest::bool::weighted(0.1),
        proptest::bool::weighted(0.8),
        proptest::bool::weighted(0.05),
    );
    let event = event.prop_map(|(elapsed, arrivals, missed, silent, rolling, start, slow)| Event {
        elapsed,
        arrivals,
        missed,
        silent,
        rolling,
        start,
        slow,
    });
    proptest::collection::vec(event, 1..60)
}

fn policies() -> impl Strategy<Value = Policy> {
    let bounds = (0..5_u32, 0..40_u32, 1..=100_u32, proptest::option::of(0..10_u32));
    let times = (1.0..120.0, prop_oneof![Just(0.0), 1e-4..30.0], 1.0..50.0, 0.0..300.0, 0.0..400.0);
    (bounds, times).prop_map(
        |((min, more, max_percent, fallback), (target, service, concurrency, window, cooldown))| {
            let max = (min + more).max(1);
            Policy {
                target_wait: target,
                expected_service: service,
                concurrency,
                min,
                max,
                window,
                max_percent,
                to_zero_cooldown: cooldown,
                fallback: fallback.map(|n| n.clamp(min, max)),
                ..policy()
            }
        },
    )
}

/// A cluster as simple as can be: pods start when told, work at their rate, and obey every decision.
struct Cluster {
    at: f64,
    visible: u64,
    current: u32,
    ready: u32,
}

impl Cluster {
    fn step(&mut self, event: &Event, policy: &Policy) -> Sample {
        self.at += event.elapsed;
        self.visible = self.visible.saturating_add(event.arrivals);
        if event.start {
            self.ready = self.current;
        }
        self.ready = self.ready.min(self.current);
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "small and positive")]
        let capacity = (policy.concurrency * f64::from(self.ready) * event.elapsed.clamp(0.0, 60.0) * 2.0) as u64;
        let completed = capacity.min(self.visible);
        self.visible -= completed;
        let busy_pods = if self.visible > 0 { self.ready } else { u32::from(event.silent).min(self.ready) };
        #[expect(clippy::cast_precision_loss, reason = "small numbers")]
        let service_seconds = completed as f64 * policy.expected_service * if event.slow { 3.0 } else { 1.0 };
        Sample {
            at: self.at,
            depth: (!event.missed).then_some(Depth { visible: self.visible, in_flight: 0, delayed: 0 }),
            current: self.current,
            ready: self.ready,
            pending: self.current - self.ready,
            rolling: event.rolling,
            busy_pods,
            busy: u64::from(busy_pods),
            reporting: if event.silent { 0 } else { self.ready },
            completed: if event.silent { 0 } else { completed },
            service_seconds: if event.silent { 0.0 } else { service_seconds },
            startup_seconds: None,
        }
    }
}

fn check_one(policy: &Policy, sample: &Sample, decision: &Decision) -> Result<(), TestCaseError> {
    let (current, n) = (sample.current, decision.replicas);
    prop_assert!(n <= policy.max, "above max: {decision:?}");
    prop_assert!(n >= policy.min, "below min: {decision:?}");
    let terms = &decision.terms;
    for number in [terms.arrivals, terms.service, terms.startup, terms.wait.unwrap_or(0.0), terms.blind_for] {
        prop_assert!(number.is_finite(), "{decision:?}");
    }
    if n < current {
        prop_assert!(sample.depth.is_some(), "shrank on stale input: {decision:?}");
        prop_assert!(n >= sample.busy_pods, "took a busy pod: {decision:?}");
        prop_assert!(!sample.rolling && sample.ready == current, "shrank while unsettled: {decision:?}");
        let step = (u64::from(current) * u64::from(policy.max_percent) / 100).max(1);
        prop_assert!(u64::from(current - n) <= step, "too many at once: {decision:?}");
    }
    Ok(())
}

proptest! {
    // PROPTEST_CASES asks for more.
    #![proptest_config(ProptestConfig {
        cases: ProptestConfig::default().cases.max(2000),
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn invariants_hold_on_random_traces(policy in policies(), trace in events(), restart in 0..60_usize) {
        let mut cluster = Cluster { at: 1e9, visible: 0, current: policy.min, ready: 0 };
        let (mut history, mut again) = (History::default(), History::default());
        let mut restarted: Option<History> = None;
        // What was half learnt is lost in a restart: compared where there is nothing to learn.
        let steady = !trace.iter().any(|event| event.slow);
        for (tick, event) in trace.iter().enumerate() {
            let sample = cluster.step(event, &policy);
            if tick == restart && steady {
                let highest = history.window_max(policy.window).max(sample.current);
                restarted = Some(History::restored(history.now, history.learnt(), highest));
            }
            let decision = decide(&policy, &mut history, &sample);
            prop_assert_eq!(&decide(&policy, &mut again, &sample), &decision, "not deterministic");
            check_one(&policy, &sample, &decision)?;
            if let Some(mut other) = restarted.take() {
                let there = decide(&policy, &mut other, &sample);
                check_one(&policy, &sample, &there)?;
                let sooner = there.replicas < sample.current && decision.replicas >= sample.current;
                prop_assert!(!sooner, "a restart shrank sooner: {there:?} against {decision:?}");
                // Up to the first change the two see the same.
                let same = there.replicas == sample.current && decision.replicas == sample.current;
                restarted = same.then_some(other);
            }
            cluster.current = decision.replicas;
        }
        // With nothing left to do the minimum is reached, whatever happened before.
        cluster.visible = 0;
        let quiet = Event { elapsed: 5.0, arrivals: 0, missed: false, silent: false, rolling: false, start: true, slow: false };
        let reached = (0..2000).any(|_| {
            let sample = cluster.step(&quiet, &policy);
            cluster.current = decide(&policy, &mut history, &sample).replicas;
            cluster.current == policy.min
        });
        prop_assert!(reached, "stuck at {} on an idle queue", cluster.current);
    }

    #[test]
    fn more_messages_never_ask_for_fewer_pods(
        policy in policies(), current in 0..40_u32, visible in 0..1_000_000_u64, more in 0..1_000_000_u64,
    ) {
        let size = |visible| {
            let decision = decide(&policy, &mut History::default(), &calm(0.0, current.min(policy.max), visible));
            decision.terms.keep_up.max(decision.terms.drain)
        };
        prop_assert!(size(visible) <= size(visible + more));
    }

    #[test]
    fn more_arrivals_never_ask_for_fewer_pods(
        policy in policies(), current in 1..40_u32, visible in 0..10_000_u64, rate in 0..1000_u64, more in 0..1000_u64,
    ) {
        let size = |rate: u64| {
            let mut history = History::default();
            let completed = |n: u32| if n == 0 { 0 } else { rate * 2 };
            #[expect(clippy::cast_precision_loss, reason = "small numbers")]
            let seconds = |n: u32| completed(n) as f64 * policy.expected_service;
            let tick = |n: u32| Sample {
                completed: completed(n),
                service_seconds: seconds(n),
                ..calm(f64::from(n) * 2.0, current, visible)
            };
            let decision = (0..3).map(|n| decide(&policy, &mut history, &tick(n))).last().unwrap();
            decision.terms.keep_up.max(decision.terms.drain)
        };
        prop_assert!(size(rate) <= size(rate + more));
    }

    #[test]
    fn constant_load_does_not_flap(policy in policies(), rate in 0..50_u64, visible in 0..200_u64, start in 0..40_u32) {
        let mut history = History::default();
        let mut current = start.clamp(policy.min, policy.max);
        let mut changes = Vec::new();
        for tick in 0..300_u32 {
            let at = f64::from(tick) * 2.0;
            #[expect(clippy::cast_precision_loss, reason = "small numbers")]
            let service_seconds = rate as f64 * 2.0 * policy.expected_service;
            let busy = Sample { completed: rate * 2, service_seconds, ..calm(at, current, visible) };
            let next = decide(&policy, &mut history, &busy).replicas;
            if next != current {
                changes.push((at, next > current));
            }
            current = next;
        }
        let turns: Vec<f64> = changes.windows(2).filter(|pair| pair[0].1 != pair[1].1).map(|pair| pair[1].0).collect();
        prop_assert!(turns.windows(2).all(|pair| pair[1] - pair[0] > 60.0), "flaps: {changes:?}");
    }
}
