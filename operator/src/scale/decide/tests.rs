use proptest::prelude::*;
use rstest::rstest;

use super::{
    super::{
        history::Memory,
        policy::Depth,
        schedule::{Opening, Schedule},
    },
    *,
};

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
        schedules: Vec::new(),
    }
}

/// Open all the time, with this to say.
fn always(name: &str, (min, max, target_wait): (Option<u32>, Option<u32>, Option<f64>)) -> Schedule {
    let (opening, duration) = (Opening::new("* * * * *", "UTC").unwrap(), jiff::SignedDuration::from_mins(1));
    Schedule { name: name.to_owned(), opening, duration, min, max, target_wait }
}

fn scheduled(bounds: (Option<u32>, Option<u32>, Option<f64>)) -> Policy {
    Policy { schedules: vec![always("sale", bounds)], ..policy() }
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
#[case::a_raised_minimum_is_no_burst(Policy { min: 8, ..policy() }, 0, calm(0.0, 1, 0), 8, Reason::MinReached)]
#[case::a_little_above_a_lowered_maximum(Policy { max: 9, ..policy() }, 62, calm(0.0, 10, 500_000), 9, Reason::MaxReached)]
#[case::far_above_a_lowered_maximum(Policy { max: 5, ..policy() }, 62, calm(0.0, 10, 500_000), 8, Reason::MaxReached)]
#[case::raised_by_a_schedule(scheduled((Some(8), None, None)), 0, calm(0.0, 1, 0), 8, Reason::Schedule)]
#[case::kept_by_a_schedule(scheduled((Some(8), None, None)), 62, calm(0.0, 8, 0), 8, Reason::Schedule)]
#[case::capped_by_a_schedule(scheduled((None, Some(3), None)), 0, calm(0.0, 3, 100_000), 3, Reason::Schedule)]
#[case::lowered_by_a_schedule(scheduled((None, Some(3), None)), 62, calm(0.0, 10, 100_000), 8, Reason::Schedule)]
#[case::a_schedule_may_allow_more(scheduled((None, Some(30), None)), 0, calm(0.0, 20, 100_000), 30, Reason::Schedule)]
#[case::a_schedule_that_asks_for_less_decides_nothing(scheduled((Some(2), Some(15), None)), 0, calm(0.0, 4, 400), 6, Reason::Drain)]
#[case::a_shorter_target_is_no_bound(scheduled((None, None, Some(10.0))), 0, calm(0.0, 9, 400), 11, Reason::Drain)]
#[case::a_pause_goes_before_a_schedule(Policy { pause: Pause::All, ..scheduled((Some(8), None, None)) }, 0, calm(0.0, 1, 0), 1, Reason::Paused)]
#[case::only_up_even_by_schedule(Policy { pause: Pause::Down, ..scheduled((None, Some(3), None)) }, 62, calm(0.0, 10, 0), 10, Reason::Paused)]
#[case::up_by_schedule(Policy { pause: Pause::Down, ..scheduled((Some(8), None, None)) }, 0, calm(0.0, 1, 0), 8, Reason::Schedule)]
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

/// A queue at rest is looked at seldom: only what time alone does not end may be left to that.
#[rstest]
fn what_does_not_pass_stays(
    #[values(0, 1, 3)] min: u32,
    #[values(1, 2, 10)] current: u32,
    #[values(0.0, 300.0)] to_zero_cooldown: f64,
) {
    let policy = Policy { min, to_zero_cooldown, ..policy() };
    let (mut history, mut settled) = (History::default(), None);
    for tick in 0..600 {
        let at = f64::from(tick) * 2.0;
        let decision = decide(&policy, &mut history, &Sample { at, ..calm(0.0, current, 0) });
        let stays = decision.replicas == current && !decision.reason.passes();
        if stays {
            settled.get_or_insert(at);
        }
        assert!(stays || settled.is_none(), "{at} s: {}, settled at {settled:?} s", decision.explain());
    }
    assert_eq!(settled.is_some(), current == min, "settled at {settled:?} s");
}

/// `(min, max, target)` of the schedules that are open, over a policy of 1 to 20 pods and 20 s.
#[rstest]
#[case::none(&[], (1, 20, 20.0), (None, None))]
#[case::one(&[(Some(3), Some(9), Some(5.0))], (3, 9, 5.0), (Some("0"), Some("0")))]
#[case::more_than_usual(&[(None, Some(40), Some(60.0))], (1, 40, 60.0), (None, Some("0")))]
#[case::several(
    &[(Some(3), Some(9), Some(8.0)), (Some(4), Some(12), Some(5.0)), (None, Some(8), None)],
    (4, 8, 5.0),
    (Some("1"), Some("2")),
)]
#[case::the_first_of_equals(&[(Some(3), Some(9), None), (Some(3), Some(9), None)], (3, 9, 20.0), (Some("0"), Some("0")))]
#[case::the_least_max_goes_before_a_min(&[(Some(10), None, None), (None, Some(6), None)], (6, 6, 20.0), (Some("1"), Some("1")))]
#[case::the_standing_max_goes_before_a_min(&[(Some(30), None, None)], (20, 20, 20.0), (None, None))]
fn open_schedules_take_the_place_of_the_standing_bounds(
    #[case] open: &[(Option<u32>, Option<u32>, Option<f64>)],
    #[case] bounds: (u32, u32, f64),
    #[case] names: (Option<&str>, Option<&str>),
) {
    let schedules = open.iter().enumerate().map(|(at, bounds)| always(&at.to_string(), *bounds));
    for schedules in [schedules.clone().collect::<Vec<_>>(), schedules.rev().collect()] {
        let standing = Policy { schedules, ..policy() };
        let (policy, scheduled) = standing.at(1e9);
        assert_eq!((policy.min, policy.max, policy.target_wait), bounds);
        assert_eq!((scheduled.min.as_deref(), scheduled.max.as_deref()), names);
    }
}

#[rstest]
#[case::raised((Some(8), None, None), 1, 0, "0 = keep-up 0 + drain 0, raised to min 8 of schedule sale")]
#[case::capped((None, Some(3), None), 3, 100_000, "1666 = keep-up 0 + drain 1666, capped by max 3 of schedule sale")]
#[case::between((Some(2), Some(15), None), 4, 400, "6 = keep-up 0 + drain 6")]
fn a_schedule_is_named(
    #[case] bounds: (Option<u32>, Option<u32>, Option<f64>),
    #[case] current: u32,
    #[case] visible: u64,
    #[case] sentence: &str,
) {
    assert_eq!(after(&scheduled(bounds), 0, &calm(0.0, current, visible)).explain(), sentence);
}

#[test]
fn a_missed_poll_takes_back_no_limit() {
    let (policy, mut history) = (policy(), History::default());
    let limited = calm(0.0, 20, 1_000_000);
    assert_eq!(decide(&policy, &mut history, &limited).limit, Some(Limit::Max));
    assert_eq!(decide(&policy, &mut history, &Sample { at: 2.0, depth: None, ..limited }).limit, Some(Limit::Max));
}

#[test]
fn an_outage_does_not_look_like_a_time_without_work() {
    let (policy, mut history) = (Policy { window: 180.0, ..policy() }, History::default());
    let mut at = |second: u32, readable: bool| {
        let sample = calm(f64::from(second), 10, 0);
        decide(&policy, &mut history, &Sample { depth: sample.depth.filter(|_| readable), ..sample }).replicas
    };
    for second in (0..400).step_by(2) {
        at(second, !(50..300).contains(&second));
    }
    // The outage ended at 300: then a whole window without need has to pass.
    assert_eq!([at(478, true), at(482, true)], [10, 8]);
}

/// Polls may be minutes apart, as an unreadable queue is asked seldom.
#[rstest]
fn a_restart_in_an_outage_shrinks_no_sooner(#[values(1, 2, 3, 4)] missed: u32) {
    let policy = Policy { window: 100.0, ..policy() };
    let (mut there, mut at) = (History::default(), 0.0);
    let mut next = |seconds: f64, readable: bool| {
        at += seconds;
        let sample = calm(at, 5, 0);
        Sample { depth: sample.depth.filter(|_| readable), ..sample }
    };
    decide(&policy, &mut there, &next(0.0, true));
    for _ in 0..missed {
        decide(&policy, &mut there, &next(1.0, false));
    }
    let memory = Memory { window_max: 5, ..there.memory(&policy) };
    let mut here = History::restored(there.now, memory);
    for readable in [false, true].into_iter().chain([true; 12]) {
        let sample = next(if readable { 20.0 } else { 250.0 }, readable);
        let [there, here] = [&mut there, &mut here].map(|history| decide(&policy, history, &sample));
        assert!(here.replicas >= there.replicas, "{here:?} against {there:?}");
        if there.replicas < 5 {
            return;
        }
    }
    panic!("nothing shrank");
}

#[test]
fn blind_and_full_for_a_minute_grows_by_a_quarter() {
    let mut history = History::default();
    let full = |tick: u32| Sample { depth: None, busy: 20, ..calm(f64::from(tick) * 2.0, 10, 0) };
    let grown = (0..=30).map(|tick| decide(&policy(), &mut history, &full(tick)).replicas).find(|n| *n > 10);
    assert_eq!(grown, Some(12));
}

/// A quiet minute, then a burst of so many messages; gives the numbers from then on, every two seconds, of a cluster whose
/// pods start within one look and do 8 messages between two.
fn after_a_burst(messages: u64, looks: u32) -> Vec<u32> {
    let (policy, mut history, mut at) = (Policy { window: 120.0, ..policy() }, History::default(), 0.0);
    let mut look = |current: u32, visible: u64, completed: u64| {
        at += 2.0;
        let (pods, work) = (u64::from(current), u32::try_from(completed).unwrap());
        let sample = Sample { completed, service_seconds: f64::from(work) * 0.5, ..calm(at, current, visible) };
        (decide(&policy, &mut history, &sample), pods * 8)
    };
    for _ in 0..40 {
        look(1, 0, 0);
    }
    let (mut current, mut visible, mut completed, mut numbers) = (1, messages, 0, Vec::new());
    for _ in 0..looks {
        let (decision, capacity) = look(current, visible, completed);
        completed = capacity.min(visible);
        visible -= completed;
        current = decision.replicas;
        numbers.push(current);
    }
    numbers
}

#[test]
fn what_a_burst_brought_goes_soon_after_its_work() {
    let numbers = after_a_burst(600, 60);
    let high = numbers.iter().max().unwrap();
    assert!(*high >= 10, "{numbers:?}");
    let held = 2 * numbers.iter().filter(|pods| *pods == high).count();
    // 12 s of work, 15 s until the burst's rate is forgotten, and not the window of two minutes.
    assert!((15..=20).contains(&held), "{held} s: {numbers:?}");
    assert!(numbers[20..].iter().all(|pods| *pods == 1), "{numbers:?}");
    let rises = numbers.iter().rposition(|pods| pods == high).unwrap();
    assert!(numbers[rises..].is_sorted_by(|before, after| before >= after), "{numbers:?}");
}

#[test]
fn pods_that_somebody_took_away_do_not_come_back_for_a_burst_that_is_over() {
    let (policy, mut history) = (policy(), History::default());
    let mut look = |at, current, visible| decide(&policy, &mut history, &calm(at, current, visible)).replicas;
    assert_eq!(look(0.0, 1, 300), 5);
    assert_eq!([look(2.0, 5, 0), look(4.0, 1, 0)], [5, 1]);
    assert_eq!(look(6.0, 1, 300), 5, "another one");
}

#[test]
fn what_keeps_a_burst_busy_for_long_is_remembered_for_the_window() {
    let numbers = after_a_burst(16_000, 80);
    assert!(numbers.iter().skip(1).all(|pods| *pods == 20), "{numbers:?}");
}

#[test]
fn a_message_or_two_are_no_burst() {
    let numbers = after_a_burst(70, 60);
    let high = *numbers.iter().max().unwrap();
    assert!((2..5).contains(&high), "{numbers:?}");
    let falls = numbers.iter().skip_while(|pods| **pods < high).position(|pods| *pods < high);
    assert!(falls.is_none_or(|look| look >= 58), "before the window was over: {numbers:?}");
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
    /// A pod that was taken away had work in hand.
    cut_off: bool,
    /// Seconds that a pod took to start.
    startup: Option<f64>,
    /// The owner has other bounds from now on.
    changes: bool,
}

impl Event {
    /// One number for each event: a hundred thousand traces of structures would take longer to make than to check.
    /// 0, to which a failing one shrinks, is an event in which nothing happens.
    fn of(bits: u64) -> Self {
        let mut left = bits;
        // A number below `n`, each time of other bits.
        let mut draw = |n: u64| {
            let drawn = left % n;
            left /= n;
            drawn
        };
        #[expect(clippy::cast_precision_loss, reason = "small numbers")]
        let elapsed = match (draw(10), draw(64) as f64 / 64.0) {
            (9, part) => -30.0 * part,
            (8, part) => 60.0 + 240.0 * part,
            (_, part) => 1.0 + 11.0 * part,
        };
        let arrivals = match (draw(20), draw(500)) {
            (0..10, _) => 0,
            (19, some) => u64::MAX / 2 / (some + 1),
            (_, some) => some,
        };
        let mut rarely = |one_in: u64| draw(one_in) == one_in - 1;
        let (missed, silent, rolling, start) = (rarely(10), rarely(10), rarely(10), !rarely(5));
        let (slow, cut_off, changes, slow_start) = (rarely(20), rarely(40), rarely(40), rarely(20));
        let startup = slow_start.then_some(elapsed.abs() * 3.0);
        Self { elapsed, arrivals, missed, silent, rolling, start, slow, cut_off, startup, changes }
    }

    /// Pods start and work, and so many messages arrive.
    fn calm(elapsed: f64, arrivals: u64) -> Self {
        Self { elapsed, arrivals, ..Self::of(0) }
    }
}

/// Two policies that differ in their bounds: the owner may change them at any time, and so do schedules.
fn policies() -> impl Strategy<Value = [Policy; 2]> {
    let bounds = || (0..5_u32, 0..40_u32);
    let numbers = (bounds(), bounds(), 1..=100_u32, proptest::option::of(0..10_u32));
    let times = (1.0..120.0, prop_oneof![Just(0.0), 1e-4..30.0], 1.0..50.0, 0.0..300.0, 0.0..400.0);
    (numbers, times).prop_map(|((one, other, max_percent, fallback), times)| {
        [one, other].map(|(min, more)| {
            let (target_wait, expected_service, concurrency, window, to_zero_cooldown) = times;
            let max = (min + more).max(1);
            let fallback = fallback.map(|n| n.clamp(min, max));
            let times = Policy { target_wait, expected_service, to_zero_cooldown, window, ..policy() };
            Policy { concurrency, min, max, max_percent, fallback, ..times }
        })
    })
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
            startup_seconds: event.startup,
            cut_off: u32::from(event.cut_off),
        }
    }
}

/// The cluster under the scaler, and everything that must hold at every tick.
struct Trial {
    cluster: Cluster,
    history: History,
    /// When the number last grew without a burst, on the scaler's clock, and to how many.
    grown: (f64, u32),
    /// Another scaler that was started in between, as long as both have seen the same.
    restarted: Option<History>,
}

impl Trial {
    fn tick(&mut self, event: &Event, policy: &Policy) -> Result<(Sample, Decision), TestCaseError> {
        let sample = self.cluster.step(event, policy);
        let decision = decide(policy, &mut self.history, &sample);
        check(policy, &sample, &decision)?;
        let (current, n) = (sample.current, decision.replicas);
        if n > current && self.history.panic.is_none() {
            self.grown = (self.history.now, n);
        }
        // So that what grows and shrinks grows again no sooner than after a window. A burst is another matter, and so is a
        // maximum that was lowered.
        let (at, grown) = self.grown;
        let too_soon = n < current && n < grown && current <= policy.max && self.history.now - at < policy.window;
        prop_assert!(!too_soon, "shrank {} s after it grew to {grown}: {decision:?}", self.history.now - at);
        if let Some(mut other) = self.restarted.take() {
            let there = decide(policy, &mut other, &sample);
            check(policy, &sample, &there)?;
            prop_assert!(there.replicas >= n || n > current, "a restart shrank sooner: {there:?} against {decision:?}");
            // Up to the first change the two see the same.
            self.restarted = (there.replicas == current && n == current).then_some(other);
        }
        self.cluster.current = n;
        Ok((sample, decision))
    }

    /// As an operator would that is started now. What it had half learnt is lost.
    fn restart(&mut self, policy: &Policy) {
        let memory = self.history.memory(policy);
        let memory = Memory { window_max: memory.window_max.max(self.cluster.current), ..memory };
        self.restarted = Some(History::restored(self.history.now, memory));
    }
}

fn check(policy: &Policy, sample: &Sample, decision: &Decision) -> Result<(), TestCaseError> {
    let (current, n) = (sample.current, decision.replicas);
    prop_assert!(n <= policy.max.max(current), "above max: {decision:?}");
    prop_assert!(n >= policy.min, "below min: {decision:?}");
    let terms = &decision.terms;
    for number in [terms.arrivals, terms.service, terms.startup, terms.wait.unwrap_or(0.0), terms.blind_for] {
        prop_assert!(number.is_finite() && number >= 0.0, "{decision:?}");
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

/// The same again is decided the same, and no more work asks for fewer pods.
fn check_order(policy: &Policy, before: &History, sample: &Sample, decision: &Decision) -> Result<(), TestCaseError> {
    let again = |sample: &Sample| decide(policy, &mut before.clone(), sample);
    prop_assert_eq!(&again(sample), decision, "not deterministic");
    // Silent pods are judged by the queue alone, which another depth has them work at another speed in.
    let Some(depth) = sample.depth.filter(|_| sample.reporting > 0 || sample.ready == 0) else { return Ok(()) };
    let waiting = Depth { visible: depth.visible.saturating_add(100), ..depth };
    let arrived = Depth { in_flight: depth.in_flight + 100, ..depth };
    for depth in [waiting, arrived] {
        let mut history = before.clone();
        let more = decide(policy, &mut history, &Sample { depth: Some(depth), ..sample.clone() });
        prop_assert!(more.replicas >= decision.replicas, "fewer pods for more work: {more:?} against {decision:?}");
        // What makes a burst of a load takes it off the steady rate: then the number alone is to be compared.
        let is_burst = history.panic.is_some_and(|panic| panic.last_over >= history.now);
        let size = |decision: &Decision| [decision.terms.keep_up, decision.terms.drain, decision.terms.panic];
        let grown = size(&more).into_iter().zip(size(decision)).all(|(more, less)| more >= less);
        prop_assert!(grown || is_burst, "less for more work: {more:?} against {decision:?}");
    }
    Ok(())
}

proptest! {
    // PROPTEST_CASES asks for more.
    #![proptest_config(ProptestConfig {
        cases: ProptestConfig::default().cases.max(100_000),
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn invariants_hold_on_random_traces(
        policies in policies(), trace in proptest::collection::vec(any::<u64>(), 1..60), moment in 0..60_usize, load in 0..50_u64,
    ) {
        let cluster = Cluster { at: 1e9, visible: 0, current: policies[0].min, ready: 0 };
        let grown = (f64::NEG_INFINITY, 0);
        let mut trial = Trial { cluster, history: History::default(), grown, restarted: None };
        let events: Vec<_> = trace.into_iter().map(Event::of).collect();
        // What was half learnt is lost in a restart: compared where there is nothing to learn.
        let steady = !events.iter().any(|event| event.slow || event.startup.is_some());
        let mut which = 0;
        for (tick, event) in events.iter().enumerate() {
            which ^= usize::from(event.changes);
            let policy = &policies[which];
            if event.changes {
                // A panic is not remembered, and what it has asked for may lie above the bounds of that time.
                trial.restarted = None;
            }
            if tick == moment && steady {
                trial.restart(policy);
            }
            let before = (tick == moment).then(|| trial.history.clone());
            let (sample, decision) = trial.tick(event, policy)?;
            if let Some(before) = before {
                check_order(policy, &before, &sample, &decision)?;
            }
        }
        // A constant load, with what the trace has left behind.
        for _ in 0..20 {
            trial.tick(&Event::calm(3.0, load), &policies[which])?;
        }
        // With nothing left to do the minimum is reached, whatever happened before.
        trial.cluster.visible = 0;
        for _ in 0..200 {
            if trial.cluster.current == policies[which].min {
                break;
            }
            trial.tick(&Event::calm(40.0, 0), &policies[which])?;
        }
        prop_assert_eq!(trial.cluster.current, policies[which].min, "stuck on an idle queue");
    }
}
