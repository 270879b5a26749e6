//! When to act on a size: the scaler's rules. A pure function of policy, history and one sample.

use super::{
    explain::explain,
    history::{BURST, History, Panic, STABLE},
    policy::{Pause, Policy, Sample, Scheduled},
    sizing::{Load, Size},
};

const IDLE_TO_ZERO: f64 = 60.0;
const TRANSIENT: u64 = 2;
/// A burst asks for at least so many pods more: one message more or less is none, however few pods there are.
const BURST_PODS: u32 = 4;

/// Why the number is what it is; also the reason of the event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    KeepUp,
    Drain,
    Panic,
    BusyFloor,
    Stabilised,
    Rollout,
    /// A schedule's bound is the number.
    Schedule,
    MaxReached,
    MinReached,
    Fallback,
    Paused,
    ColdStart,
    ToZero,
    FromZero,
    /// The owner's own number.
    Manual,
    Suspended,
}

impl Reason {
    /// Whether workers are kept that time alone will take away.
    pub fn passes(self) -> bool {
        matches!(self, Self::ColdStart | Self::Panic | Self::Stabilised | Self::ToZero)
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Self::KeepUp => "KeepUp",
            Self::Drain => "Drain",
            Self::Panic => "Panic",
            Self::BusyFloor => "BusyFloor",
            Self::Stabilised => "Stabilised",
            Self::Rollout => "Rollout",
            Self::Schedule => "Schedule",
            Self::MaxReached => "MaxReached",
            Self::MinReached => "MinReached",
            Self::Fallback => "Fallback",
            Self::Paused => "Paused",
            Self::ColdStart => "ColdStart",
            Self::ToZero => "ToZero",
            Self::FromZero => "FromZero",
            Self::Manual => "Manual",
            Self::Suspended => "Suspended",
        }
    }
}

/// What keeps the scaler from the wait target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// More pods would help, and `max` forbids them.
    Max,
    /// A pod takes longer to start than a message may wait.
    TargetBelowStartup,
}

/// What went into a decision.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Terms {
    pub current: u32,
    pub keep_up: u32,
    pub drain: u32,
    /// The size with the burst's arrival rate.
    pub panic: u32,
    pub window_max: u32,
    pub busy: u32,
    pub min: u32,
    pub max: u32,
    /// Whose bounds these are, where not the owner's standing ones.
    pub scheduled: Scheduled,
    pub arrivals: f64,
    pub service: f64,
    pub startup: f64,
    pub wait: Option<f64>,
    /// Seconds without a readable queue.
    pub blind_for: f64,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Decision {
    pub replicas: u32,
    pub reason: Reason,
    pub terms: Terms,
    pub limit: Option<Limit>,
}

impl Decision {
    /// The decision in one sentence.
    pub fn explain(&self) -> String {
        explain(self)
    }
}

/// Takes in one sample and says how many workers there should be. A pause goes before the schedules, these before the rules.
pub fn decide(policy: &Policy, history: &mut History, sample: &Sample) -> Decision {
    let (policy, scheduled) = policy.at(sample.at);
    let policy = policy.as_ref();
    history.observe(policy, sample);
    if policy.pause != Pause::All && !history.stale() {
        watch_for_bursts(policy, history, sample);
    }
    let (size, mut terms) = measure(policy, history, sample);
    terms.scheduled = scheduled;
    if policy.pause == Pause::All {
        return Decision { replicas: sample.current, reason: Reason::Paused, terms, limit: None };
    }
    let (replicas, reason) = if history.stale() {
        without_queue(policy, history, sample)
    } else {
        history.limit = limit(policy, size, &terms);
        let (wanted, remembered) = want(policy, history, sample, &terms);
        // As in an outage, which the restart may have hidden: what is held counts as needed.
        history.recommend(if history.restarted { remembered.max(sample.current) } else { remembered });
        terms.window_max = history.window_max(policy);
        if asleep(policy, history, sample) {
            (0, Reason::ToZero)
        } else if wanted >= sample.current {
            grow(policy, history, sample, (wanted, &terms))
        } else {
            shrink(policy, history, sample, &terms)
        }
    };
    Decision { replicas, reason, limit: history.limit, terms }
}

/// Begins or ends a panic. One ends when the burst is over, as far back as its rate is measured, and twice as many pods are
/// there as are needed; at the latest a minute after it last asked for more.
fn watch_for_bursts(policy: &Policy, history: &mut History, sample: &Sample) {
    let arrivals = history.steady().max(history.arrivals(BURST));
    // Without the minimum: one that is raised is no burst.
    let burst = load(policy, history, sample, arrivals).size().pods().min(policy.max);
    let capacity = sample.ready.saturating_add(sample.pending).max(1);
    let was = history.panic.take();
    history.panic = if burst >= capacity.saturating_mul(2).max(capacity.saturating_add(BURST_PODS)) {
        history.burst_goes_on();
        Some(Panic { highest: was.map_or(burst, |panic| panic.highest.max(burst)), last_over: history.now })
    } else {
        let past = burst.saturating_mul(2) <= capacity;
        was.filter(|panic| history.now - panic.last_over < if past { BURST } else { STABLE })
    };
}

fn load(policy: &Policy, history: &History, sample: &Sample, arrivals: f64) -> Load {
    #[expect(clippy::cast_precision_loss, reason = "sizes need no more than 53 bits")]
    let visible = sample.depth.unwrap_or_default().visible as f64;
    Load {
        visible,
        arrivals,
        service: history.service(policy),
        concurrency: policy.concurrency.max(1.0),
        ready: f64::from(sample.ready),
        current: f64::from(sample.current),
        target: policy.target_wait,
        startup: history.startup(),
        waited: history.backlog_since.map_or(0.0, |since| history.now - since),
    }
}

/// Sizes the load by the steady rate and by the burst's.
fn measure(policy: &Policy, history: &mut History, sample: &Sample) -> (Size, Terms) {
    let steady = history.steady();
    let load = load(policy, history, sample, steady);
    let size = load.size();
    let burst = Load { arrivals: steady.max(history.arrivals(BURST)), ..load }.size();
    let terms = Terms {
        current: sample.current,
        keep_up: size.keep_up,
        drain: size.drain,
        panic: burst.pods(),
        window_max: history.window_max(policy),
        busy: sample.busy_pods,
        min: policy.min,
        max: policy.max,
        scheduled: Scheduled::default(),
        arrivals: steady,
        service: load.service,
        startup: load.startup,
        wait: sample.depth.and(load.wait()),
        blind_for: history.now - history.last_good.or(history.since).unwrap_or(history.now),
    };
    (size, terms)
}

/// The size within the owner's bounds, while a burst lasts the highest one seen; and what of it the scale-down window
/// remembers.
fn want(policy: &Policy, history: &History, sample: &Sample, terms: &Terms) -> (u32, u32) {
    let within = |pods: u32| pods.clamp(policy.min, policy.max);
    let size = within(terms.keep_up.max(terms.drain));
    match history.panic {
        // A backlog that came in one burst and is gone says nothing of what is to come; the rate of arrivals does.
        Some(panic) => {
            // Whoever took pods away after the burst had asked for them has no more of them for a burst that is over.
            let highest = if panic.last_over < history.now { panic.highest.min(sample.current) } else { panic.highest };
            (size.max(highest.min(policy.max)), within(terms.keep_up))
        }
        None => (size, size),
    }
}

/// At zero by choice, and nothing there yet that is worth a pod. Counts of one or two may be false: look twice.
fn asleep(policy: &Policy, history: &History, sample: &Sample) -> bool {
    let visible = sample.depth.unwrap_or_default().visible;
    let polls = if visible <= TRANSIENT { 2 } else { 1 };
    sample.current == 0 && policy.min == 0 && history.waiting_polls < polls
}

fn grow(policy: &Policy, history: &History, sample: &Sample, (wanted, terms): (u32, &Terms)) -> (u32, Reason) {
    let current = sample.current;
    let visible = sample.depth.unwrap_or_default().visible;
    let why = if terms.drain > terms.keep_up { Reason::Drain } else { Reason::KeepUp };
    let barely = u64::from(wanted) * 10 <= u64::from(current) * 11;
    if current > 0 && visible == 0 && barely && current >= policy.min {
        return (current, if current == policy.min { at_min(terms) } else { why });
    }
    let reason = if current == 0 && policy.min == 0 {
        Reason::FromZero
    } else if history.panic.is_some_and(|panic| panic.highest > policy.min) && wanted > current {
        Reason::Panic
    } else if terms.keep_up.max(terms.drain) > policy.max {
        at_max(terms)
    } else if terms.keep_up.max(terms.drain) <= policy.min {
        at_min(terms)
    } else {
        why
    };
    (wanted.max(u32::from(current == 0)), reason)
}

fn at_min(terms: &Terms) -> Reason {
    if terms.scheduled.min.is_some() { Reason::Schedule } else { Reason::MinReached }
}

fn at_max(terms: &Terms) -> Reason {
    if terms.scheduled.max.is_some() { Reason::Schedule } else { Reason::MaxReached }
}

fn shrink(policy: &Policy, history: &History, sample: &Sample, terms: &Terms) -> (u32, Reason) {
    let current = sample.current;
    if let Some(reason) = must_not_shrink(policy, history, sample) {
        return (current, reason);
    }
    let zero = policy.min == 0 && may_be_zero(policy, history);
    let lowest = if zero { 0 } else { policy.min.max(1) };
    let target = terms.window_max.min(policy.max).max(lowest);
    if target >= current {
        let idle = policy.min == 0 && !zero && current == lowest;
        return (current, if idle { Reason::ToZero } else { Reason::Stabilised });
    }
    let small = u64::from(target) * 100 > u64::from(current) * 85 && current - target < 3;
    // Above a maximum that was lowered even a little is too much.
    if small && target != policy.min && target != 0 && current <= policy.max {
        return (current, Reason::Stabilised);
    }
    let share = u64::from(current) * u64::from(policy.max_percent) / 100;
    let step = u32::try_from(share).unwrap_or(u32::MAX).max(1);
    let stepped = target.max(current.saturating_sub(step));
    let floored = stepped.max(sample.busy_pods.min(current));
    let reason = match floored {
        _ if floored > stepped => Reason::BusyFloor,
        0 => Reason::ToZero,
        n if n == policy.min => at_min(terms),
        _ if current > policy.max => at_max(terms),
        _ => Reason::Stabilised,
    };
    (floored, reason)
}

fn must_not_shrink(policy: &Policy, history: &History, sample: &Sample) -> Option<Reason> {
    let known_for = history.now - history.since.unwrap_or(history.now);
    if policy.pause == Pause::Down {
        Some(Reason::Paused)
    } else if known_for < STABLE || history.restarted {
        Some(Reason::ColdStart)
    } else if history.panic.is_some() {
        Some(Reason::Panic)
    } else if sample.rolling {
        Some(Reason::Rollout)
    } else if sample.ready != sample.current || sample.pending > 0 {
        Some(Reason::Stabilised)
    } else {
        None
    }
}

fn may_be_zero(policy: &Policy, history: &History) -> bool {
    let idle = history.idle_since.is_some_and(|since| history.now - since >= IDLE_TO_ZERO);
    let last = history.last_completion.or(history.since).unwrap_or(history.now);
    idle && history.now - last >= policy.to_zero_cooldown
}

/// The queue cannot be read: never fewer pods; more where the pods themselves say that they are full, or by policy.
fn without_queue(policy: &Policy, history: &mut History, sample: &Sample) -> (u32, Reason) {
    let current = sample.current;
    let ceiling = policy.max.max(current);
    let mut replicas = current.max(policy.min);
    let blind_for = history.now - history.last_good.or(history.since).unwrap_or(history.now);
    if let Some(least) = policy.fallback.filter(|_| blind_for >= policy.failure_after) {
        replicas = replicas.max(least);
    }
    let full = history.saturated_since.is_some_and(|since| history.now - since >= STABLE);
    if history.blind && full {
        history.saturated_since = Some(history.now);
        replicas = replicas.max(current.saturating_add((current / 4).max(1)));
    }
    let replicas = replicas.min(ceiling);
    if history.blind || history.restarted || replicas > current {
        // What is held counts as needed: a window without data must not look like one without work.
        history.recommend(replicas);
    }
    (replicas, Reason::Fallback)
}

fn limit(policy: &Policy, size: Size, terms: &Terms) -> Option<Limit> {
    if size.pods() > policy.max {
        Some(Limit::Max)
    } else if policy.target_wait < terms.startup {
        Some(Limit::TargetBelowStartup)
    } else {
        None
    }
}

#[cfg(test)]
pub(crate) mod tests;
