//! What the scaler remembers between samples: rates, learnt times, windows. Decides nothing.

use std::collections::VecDeque;

use super::policy::{Policy, Sample};

/// Window of the steady arrival rate.
pub const STABLE: f64 = 60.0;
/// Window of the rate that notices bursts.
pub const BURST: f64 = 15.0;
const WEIGHT: f64 = 0.2;
const COMPLETIONS_TO_LEARN: u64 = 20;
const POLLS_TO_BLIND: u32 = 3;
const POLLS_TO_RECOVER: u32 = 2;
const SHORTEST_SERVICE: f64 = 1e-4;
const SEED_STARTUP: f64 = 5.0;

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
    pub last_over: f64,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct History {
    pub now: f64,
    /// Since when there is unbroken data.
    pub since: Option<f64>,
    pub panic: Option<Panic>,
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
    good: u32,
    done: f64,
    ticks: VecDeque<Tick>,
    recommendations: VecDeque<(f64, u32)>,
    service: Option<f64>,
    startup: Option<f64>,
    learning: (u64, f64),
}

impl History {
    /// Goes on from what an earlier process left: as if its highest recommendation, or what runs now, were made again until
    /// arrivals are known as far back as they were.
    pub fn restored(now: f64, service: Option<f64>, window_max: u32) -> Self {
        let mut history = Self { now, service: service.filter(|s| s.is_finite() && *s > 0.0), ..Self::default() };
        history.recommendations.push_back((now + STABLE, window_max));
        history
    }

    pub fn observe(&mut self, policy: &Policy, sample: &Sample) {
        let before = self.now;
        // A clock that jumps back stands still until it has caught up.
        self.now = if sample.at.is_finite() { before.max(sample.at) } else { before };
        self.since.get_or_insert(self.now);
        self.learn(sample);
        self.count(policy, sample, self.now - before);
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
        let (Some(first), Some(last)) = (self.ticks.iter().find(|tick| tick.at >= from), self.ticks.back()) else {
            return 0.0;
        };
        // By the time there has been data at all, not by that between two polls: a gap must not look like a burst.
        let elapsed = (self.now - self.since.unwrap_or(self.now)).min(window);
        // One burst just after the start is no rate: it counts as if it had taken the shorter window.
        ((last.done - first.done + last.messages - first.messages) / elapsed.max(BURST)).max(0.0)
    }

    /// Seconds of work per message: measured, or else as expected.
    pub fn service(&self, policy: &Policy) -> f64 {
        self.service.unwrap_or(policy.expected_service).max(SHORTEST_SERVICE)
    }

    /// What was measured of [`History::service`]: what is worth remembering over a restart.
    pub fn learnt(&self) -> Option<f64> {
        self.service
    }

    /// Seconds a pod takes from its creation to being ready.
    pub fn startup(&self) -> f64 {
        self.startup.unwrap_or(SEED_STARTUP)
    }

    pub fn recommend(&mut self, pods: u32) {
        while self.recommendations.back().is_some_and(|(_, earlier)| *earlier <= pods) {
            self.recommendations.pop_back();
        }
        self.recommendations.push_back((self.now, pods));
    }

    /// The highest recommendation of the last `window` seconds.
    pub fn window_max(&mut self, window: f64) -> u32 {
        let from = self.now - window;
        while self.recommendations.len() > 1 && self.recommendations.front().is_some_and(|(at, _)| *at < from) {
            self.recommendations.pop_front();
        }
        self.recommendations.front().map_or(0, |(_, pods)| *pods)
    }

    fn learn(&mut self, sample: &Sample) {
        if let Some(seconds) = sample.startup_seconds.filter(|s| s.is_finite() && *s >= 0.0) {
            self.startup = Some(ewma(self.startup, seconds));
        }
        let seconds = if sample.service_seconds.is_finite() { sample.service_seconds.max(0.0) } else { 0.0 };
        self.learning.0 = self.learning.0.saturating_add(sample.completed);
        self.learning.1 += seconds;
        if self.learning.0 >= COMPLETIONS_TO_LEARN {
            let mean = self.learning.1 / float(self.learning.0);
            self.service = Some(ewma(self.service, mean.max(SHORTEST_SERVICE)));
            self.learning = (0, 0.0);
        }
    }

    fn count(&mut self, policy: &Policy, sample: &Sample, elapsed: f64) {
        if sample.completed > 0 {
            self.last_completion = Some(self.now);
        }
        self.done += match sample.depth {
            // Pods that do not report: what is in flight leaves after the time of service (Little's law).
            Some(depth) if sample.ready > 0 && sample.reporting == 0 => {
                float(depth.in_flight) / self.service(policy) * elapsed
            }
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
        if self.blind && self.good >= POLLS_TO_RECOVER {
            self.blind = false;
            self.since = Some(self.now);
            self.ticks.clear();
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

fn ewma(before: Option<f64>, value: f64) -> f64 {
    before.map_or(value, |before| before + WEIGHT * (value - before))
}

#[expect(clippy::cast_precision_loss, reason = "rates need no more than 53 bits")]
fn float(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::super::policy::Depth;
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
    fn the_window_keeps_its_highest() {
        let mut history = History::restored(0.0, None, 4);
        assert_eq!(history.window_max(10.0), 4);
        history.now = 5.0;
        history.recommend(2);
        assert_eq!(history.window_max(10.0), 4);
        history.now = STABLE + 11.0;
        history.recommend(1);
        assert_eq!(history.window_max(10.0), 1);
    }
}
