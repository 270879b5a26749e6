//! What the scaler remembers between samples: rates, learnt times, windows. Decides nothing.

use std::collections::VecDeque;

use super::{
    decide::Limit,
    policy::{Depth, Policy, Sample},
};

/// Window of the steady arrival rate.
pub const STABLE: f64 = 60.0;
/// Window of the rate that notices bursts.
pub const BURST: f64 = 15.0;
const WEIGHT: f64 = 0.2;
const COMPLETIONS_TO_LEARN: f64 = 20.0;
const POLLS_TO_BLIND: u32 = 3;
const POLLS_TO_RECOVER: u32 = 2;
const SHORTEST_SERVICE: f64 = 1e-4;
const SEED_STARTUP: f64 = 5.0;
/// So long after a pod had to leave its work unfinished the scale-down window is [`CAUTION`] times as long.
const CAUTIOUS: f64 = 600.0;
const CAUTION: f64 = 2.0;

#[derive(Clone, Copy, Debug, PartialEq)]
struct Tick {
    at: f64,
    messages: f64,
    /// Completed so far.
    done: f64,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Panic {
    pub highest: u32,
    /// When the burst last asked for more than there is.
    pub last_over: f64,
}

/// What is worth remembering over a restart: times in seconds on the clock of the samples.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Memory {
    /// Seconds of work per message, and from a pod's creation to its being ready, as far as measured.
    pub service: Option<f64>,
    pub startup: Option<f64>,
    pub window_max: u32,
    pub backlog_since: Option<f64>,
    pub last_cut_off: Option<f64>,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct History {
    pub now: f64,
    /// Since when there is unbroken data.
    pub since: Option<f64>,
    pub panic: Option<Panic>,
    /// From the last look before the latest burst was noticed to its end.
    burst: Option<(f64, f64)>,
    pub backlog_since: Option<f64>,
    pub idle_since: Option<f64>,
    pub last_completion: Option<f64>,
    pub last_good: Option<f64>,
    pub missed: u32,
    pub blind: bool,
    /// Polls in a row with more messages than the activation threshold.
    pub waiting_polls: u32,
    /// Since when the pods report that more than 90 % of what they can hold is being worked on.
    pub saturated_since: Option<f64>,
    /// As it was when the queue could last be read.
    pub limit: Option<Limit>,
    last_cut_off: Option<f64>,
    /// There may have been an outage at the restart: the data count from the second good poll on, as after one.
    pub restarted: bool,
    good: u32,
    done: f64,
    ticks: VecDeque<Tick>,
    recommendations: VecDeque<(f64, u32)>,
    service: Option<f64>,
    startup: Option<f64>,
    /// Completions, and the seconds of work that they took.
    learning: (f64, f64),
}

impl History {
    /// Goes on from what an earlier process left: as if its highest recommendation, or what runs now, were made again until
    /// arrivals are known as far back as they were.
    pub fn restored(now: f64, memory: Memory) -> Self {
        let known = |seconds: Option<f64>| seconds.filter(|s| s.is_finite() && *s >= 0.0);
        let past = |at: Option<f64>| at.filter(|at| at.is_finite()).map(|at| at.min(now));
        let mut history = Self {
            now,
            service: known(memory.service),
            startup: known(memory.startup),
            backlog_since: past(memory.backlog_since),
            last_cut_off: past(memory.last_cut_off),
            restarted: true,
            ..Self::default()
        };
        history.recommendations.push_back((now + STABLE, memory.window_max));
        history
    }

    /// For [`History::restored`].
    pub fn memory(&mut self, policy: &Policy) -> Memory {
        Memory {
            service: self.service,
            startup: self.startup,
            window_max: self.window_max(policy),
            backlog_since: self.backlog_since,
            last_cut_off: self.last_cut_off,
        }
    }

    pub fn observe(&mut self, policy: &Policy, sample: &Sample) {
        let before = self.now;
        // A clock that jumps back stands still until it has caught up.
        self.now = if sample.at.is_finite() { before.max(sample.at) } else { before };
        let elapsed = if self.since.is_some() { self.now - before } else { 0.0 };
        self.since.get_or_insert(self.now);
        if sample.cut_off > 0 {
            self.last_cut_off = Some(self.now);
        }
        self.learn(policy, sample, elapsed);
        self.count(policy, sample, elapsed);
        let held = f64::from(sample.ready) * policy.concurrency;
        since(&mut self.saturated_since, sample.ready > 0 && float(sample.busy) > 0.9 * held, self.now);
        match sample.depth {
            None => self.miss(),
            Some(_) => self.hit(policy, sample),
        }
    }

    /// One failed read is a reason to hold, three in a row (until two good ones) to say so.
    pub fn stale(&self) -> bool {
        self.blind || self.missed > 0
    }

    /// Arrivals per second over the last `window` seconds: what was completed plus what the queue grew by.
    pub fn arrivals(&self, window: f64) -> f64 {
        let from = self.now - window;
        // What was there when the window began; a queue at rest is looked at less often than the shorter window is long.
        let before = self.ticks.iter().rfind(|tick| tick.at <= from);
        let (Some(first), Some(last)) = (before.or(self.ticks.front()), self.ticks.back()) else {
            return 0.0;
        };
        // By the time there has been data at all, not by that between two polls: a gap must not look like a burst.
        let elapsed = (self.now - self.since.unwrap_or(self.now)).min(window.max(self.now - first.at));
        // One burst just after the start is no rate: it counts as if it had taken the shorter window.
        ((last.done - first.done + last.messages - first.messages) / elapsed.max(BURST)).max(0.0)
    }

    /// Arrivals per second over the last minute without the latest burst, which is no rate: its backlog is seen in the queue.
    /// What came after it counts at once, so that one that goes on is a rate; never more than that of the whole minute.
    pub fn steady(&self) -> f64 {
        let Some((from, to)) = self.burst else { return self.arrivals(STABLE) };
        let beside = self.ticks.iter().zip(self.ticks.iter().skip(1)).filter(|(a, b)| b.at <= from || a.at >= to);
        let (seconds, arrived) = beside.fold((0.0, 0.0), |(seconds, arrived), (a, b)| {
            (seconds + b.at - a.at, arrived + b.done - a.done + b.messages - a.messages)
        });
        let since = if self.now < to { 0.0 } else { self.arrivals(BURST) };
        let rate = if seconds < BURST { f64::INFINITY } else { arrived / seconds };
        rate.max(since).min(self.arrivals(STABLE))
    }

    /// The burst has just been seen; a new one, if the one before is over. In the first minute there is nothing to tell a burst
    /// from.
    pub fn burst_goes_on(&mut self) {
        if self.since.is_none_or(|since| self.now - since < STABLE) {
            return;
        }
        let before = self.ticks.iter().rev().nth(1).map_or(self.now, |tick| tick.at);
        let from = self.burst.filter(|(_, to)| *to >= self.now).map_or(before, |(from, _)| from);
        self.burst = Some((from, self.now + BURST));
    }

    /// Seconds of work per message: measured, or else as expected.
    pub fn service(&self, policy: &Policy) -> f64 {
        self.service.unwrap_or(policy.expected_service).max(SHORTEST_SERVICE)
    }

    /// Seconds a pod takes from its creation to being ready.
    pub fn startup(&self) -> f64 {
        self.startup.unwrap_or(SEED_STARTUP)
    }

    /// Seconds for which a need counts.
    fn window(&self, policy: &Policy) -> f64 {
        let cautious = self.last_cut_off.is_some_and(|at| self.now - at < CAUTIOUS);
        policy.window * if cautious { CAUTION } else { 1.0 }
    }

    pub fn recommend(&mut self, pods: u32) {
        let mut until = self.now;
        while let Some((at, _)) = self.recommendations.pop_back_if(|(_, earlier)| *earlier <= pods) {
            // What was restored counts as made later.
            until = until.max(at);
        }
        self.recommendations.push_back((until, pods));
    }

    /// The highest recommendation of the scale-down window.
    pub fn window_max(&mut self, policy: &Policy) -> u32 {
        // As long as the window may become: what counts must not depend on when it was last asked for.
        let forgotten = self.now - policy.window * CAUTION;
        while self.recommendations.len() > 1 && self.recommendations.front().is_some_and(|(at, _)| *at < forgotten) {
            self.recommendations.pop_front();
        }
        let from = self.now - self.window(policy);
        let counts = self.recommendations.iter().find(|(at, _)| *at >= from);
        counts.or(self.recommendations.back()).map_or(0, |(_, pods)| *pods)
    }

    fn learn(&mut self, policy: &Policy, sample: &Sample, elapsed: f64) {
        if let Some(seconds) = sample.startup_seconds.filter(|s| s.is_finite() && *s >= 0.0) {
            // From the seed: one slow start, as of a first pull of the image, is not the rule yet.
            self.startup = Some(ewma(self.startup(), seconds));
        }
        let (completed, seconds) = if is_silent(sample) {
            self.drained(policy, sample, elapsed)
        } else {
            (float(sample.completed), sample.service_seconds)
        };
        self.learning.0 += completed;
        self.learning.1 += if seconds.is_finite() { seconds.max(0.0) } else { 0.0 };
        if self.learning.0 >= COMPLETIONS_TO_LEARN {
            let mean = (self.learning.1 / self.learning.0).max(SHORTEST_SERVICE);
            self.service = Some(self.service.map_or(mean, |before| ewma(before, mean)));
            self.learning = (0.0, 0.0);
        }
    }

    /// Completions since the last sample of pods that do not report, and the seconds of work in them, by Little's law:
    /// S = mean(F)/X. X shows only while the queue shrinks, and then what arrives meanwhile hides as much of it: the S that comes
    /// of it may be too long, which costs pods, and is never too short. F counts as far as there are pods that can work on it.
    fn drained(&self, policy: &Policy, sample: &Sample, elapsed: f64) -> (f64, f64) {
        let (Some(depth), Some(last)) = (sample.depth, self.ticks.back().filter(|_| self.missed == 0)) else {
            return (0.0, 0.0);
        };
        let gone = last.messages - depth.total();
        if gone <= 0.0 { (0.0, 0.0) } else { (gone, at_work(policy, sample, depth) * elapsed) }
    }

    fn count(&mut self, policy: &Policy, sample: &Sample, elapsed: f64) {
        if sample.completed > 0 {
            self.last_completion = Some(self.now);
        }
        self.done += match sample.depth {
            // What is in flight leaves after the time of service (Little's law).
            Some(depth) if is_silent(sample) => at_work(policy, sample, depth) / self.service(policy) * elapsed,
            _ => float(sample.completed),
        };
    }

    fn miss(&mut self) {
        self.missed = self.missed.saturating_add(1);
        self.good = 0;
        self.idle_since = None;
        self.blind |= self.missed >= POLLS_TO_BLIND;
    }

    fn hit(&mut self, policy: &Policy, sample: &Sample) {
        let depth = sample.depth.unwrap_or_default();
        self.missed = 0;
        self.good = self.good.saturating_add(1);
        self.last_good = Some(self.now);
        if (self.blind || self.restarted) && self.good >= POLLS_TO_RECOVER {
            self.since = Some(self.now);
            if self.blind {
                self.ticks.clear();
            }
            (self.blind, self.restarted) = (false, false);
        }
        since(&mut self.backlog_since, depth.visible > 0, self.now);
        since(&mut self.idle_since, depth.is_empty(), self.now);
        self.waiting_polls = if depth.visible > policy.activation { self.waiting_polls.saturating_add(1) } else { 0 };
        self.ticks.push_back(Tick { at: self.now, messages: depth.total(), done: self.done });
        let from = self.now - STABLE;
        while self.ticks.front().is_some_and(|tick| tick.at < from) {
            self.ticks.pop_front();
        }
    }
}

fn since(mark: &mut Option<f64>, holds: bool, now: f64) {
    *mark = holds.then(|| mark.unwrap_or(now));
}

fn ewma(before: f64, value: f64) -> f64 {
    before + WEIGHT * (value - before)
}

/// No pod says what it does.
fn is_silent(sample: &Sample) -> bool {
    sample.ready > 0 && sample.reporting == 0
}

/// Messages in flight, as far as the pods can be at work on them: others wait hidden for their next delivery.
fn at_work(policy: &Policy, sample: &Sample, depth: Depth) -> f64 {
    float(depth.in_flight).min(f64::from(sample.ready) * policy.concurrency)
}

#[expect(clippy::cast_precision_loss, reason = "rates need no more than 53 bits")]
fn float(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;
    use crate::scale::decide::tests::policy;

    fn sample(at: f64, visible: u64, completed: u64) -> Sample {
        let depth = Some(Depth { visible, ..Depth::default() });
        Sample { at, depth, completed, reporting: 1, ready: 1, current: 1, ..Sample::default() }
    }

    #[test]
    fn arrivals_are_completions_plus_growth() {
        let (policy, mut history) = (policy(), History::default());
        for tick in 0..10_u32 {
            history.observe(&policy, &sample(f64::from(tick) * 2.0, u64::from(tick) * 6, 8));
        }
        assert!((history.arrivals(STABLE) - 7.0).abs() < 1e-9, "{}", history.arrivals(STABLE));
    }

    /// A minute of one arrival a second, then `burst` at once, then `after` a second, all of it done at once; the rates 14 s and
    /// 16 s after the burst.
    fn rates(burst: u64, after: u64) -> [String; 2] {
        let (policy, mut history, mut rates) = (policy(), History::default(), Vec::new());
        for second in 0..=76_u64 {
            let arrived = if second < 60 { 1 } else { after };
            let extra = if second == 60 { burst } else { 0 };
            history.observe(&policy, &sample(float(second), 0, arrived + extra));
            if second == 60 && burst > 0 {
                history.burst_goes_on();
            }
            if second == 74 || second == 76 {
                rates.push(format!("{:.2}", history.steady()));
            }
        }
        [rates.remove(0), rates.remove(0)]
    }

    #[rstest]
    #[case::steady((0, 1), ["1.00", "1.00"])]
    #[case::a_burst_is_no_rate((120, 1), ["1.00", "1.00"])]
    // (43 of 1 a second, 125 with the burst, 80 of 5 a second) / 60 s
    #[case::one_that_goes_on_is_a_rate((120, 5), ["1.00", "4.13"])]
    fn the_steady_rate(#[case] (burst, after): (u64, u64), #[case] expected: [&str; 2]) {
        assert_eq!(rates(burst, after), expected);
    }

    #[test]
    fn service_time_is_learnt_from_twenty_completions() {
        let (policy, mut history) = (policy(), History::default());
        history.observe(&policy, &Sample { service_seconds: 5.0, ..sample(0.0, 0, 10) });
        assert!((history.service(&policy) - policy.expected_service).abs() < 1e-9);
        history.observe(&policy, &Sample { service_seconds: 5.0, ..sample(2.0, 0, 10) });
        assert!((history.service(&policy) - 0.5).abs() < 1e-9);
    }

    #[test]
    fn blind_after_three_and_back_after_two() {
        let (policy, mut history) = (policy(), History::default());
        history.observe(&policy, &sample(0.0, 1, 0));
        for tick in 1..=3 {
            assert!(!history.blind);
            history.observe(&policy, &Sample { depth: None, ..sample(f64::from(tick), 0, 0) });
            assert!(history.stale());
        }
        assert!(history.blind);
        history.observe(&policy, &sample(4.0, 1, 0));
        assert!(history.stale());
        history.observe(&policy, &sample(5.0, 1, 0));
        assert!(!history.stale());
        assert_eq!(history.since, Some(5.0));
    }

    #[test]
    fn a_start_is_learnt_from_the_seed_on() {
        let (policy, mut history) = (policy(), History::default());
        history.observe(&policy, &Sample { startup_seconds: Some(10.0), ..sample(0.0, 0, 0) });
        assert!((history.startup() - 6.0).abs() < 1e-9, "{}", history.startup());
        history.observe(&policy, &Sample { startup_seconds: Some(f64::NAN), ..sample(2.0, 0, 0) });
        assert!((history.startup() - 6.0).abs() < 1e-9);
    }

    /// One silent pod for two messages at once; 10 messages, of which 3 are in back-off, go in 20 s.
    #[test]
    fn service_time_without_reports_is_what_is_at_work_over_what_is_gone() {
        let (policy, mut history) = (policy(), History::default());
        for tick in 0..=10_u64 {
            let depth = Some(Depth { visible: 100 - 10 * tick, in_flight: 5, delayed: 0 });
            let at = float(tick) * 20.0;
            history.observe(&policy, &Sample { depth, reporting: 0, ..sample(at, 0, 0) });
        }
        // F = 2, X = 0.5/s.
        assert!((history.service(&policy) - 4.0).abs() < 1e-9, "{}", history.service(&policy));
        // Nothing arrives: what goes is what is done.
        assert!(history.arrivals(STABLE).abs() < 0.1, "{}", history.arrivals(STABLE));
    }

    #[test]
    fn a_growing_queue_says_nothing_of_silent_pods() {
        let (policy, mut history) = (policy(), History::default());
        for tick in 0..50_u64 {
            let depth = Some(Depth { visible: 10 * tick, in_flight: 2, delayed: 0 });
            history.observe(&policy, &Sample { depth, reporting: 0, ..sample(float(tick) * 2.0, 0, 0) });
        }
        assert_eq!(history.service, None);
    }

    #[test]
    fn the_window_keeps_its_highest() {
        let policy = Policy { window: 10.0, ..policy() };
        let mut history = History::restored(0.0, Memory { window_max: 4, ..Memory::default() });
        assert_eq!(history.window_max(&policy), 4);
        history.now = 5.0;
        history.recommend(2);
        assert_eq!(history.window_max(&policy), 4);
        history.now = STABLE + 11.0;
        history.recommend(1);
        assert_eq!(history.window_max(&policy), 1);
    }

    #[test]
    fn a_window_that_grows_reaches_back_however_often_it_was_asked_for() {
        let (policy, mut history) = (Policy { window: 100.0, ..policy() }, History::default());
        let mut highest = |at, pods, cut_off| {
            history.observe(&policy, &Sample { cut_off, ..sample(at, 0, 0) });
            history.recommend(pods);
            history.window_max(&policy)
        };
        let numbers = [highest(0.0, 4, 0), highest(10.0, 2, 0), highest(101.0, 1, 0), highest(150.0, 1, 1)];
        assert_eq!(numbers, [4, 4, 2, 4]);
        assert_eq!([highest(201.0, 1, 0), highest(211.0, 1, 0)], [2, 1]);
    }

    #[test]
    fn ten_minutes_after_a_pod_was_cut_off_the_window_is_twice_as_long() {
        let (policy, mut history) = (Policy { window: 100.0, ..policy() }, History::default());
        let mut window = |at, cut_off| {
            history.observe(&policy, &Sample { cut_off, ..sample(at, 0, 0) });
            history.window(&policy)
        };
        let windows = [window(0.0, 0), window(2.0, 1), window(601.0, 0), window(602.0, 0)];
        assert_eq!(windows.map(|seconds| format!("{seconds:.0}")), ["100", "200", "200", "100"]);
    }
}
