//! The rules that are compared: the shop's own, by the scaler's `decide`, and what others would do with the same workers.
//! Sources of the others' figures: docs/kubectl-shop.md.

use std::collections::VecDeque;

use shop_operator::scale::{
    History, Policy, Sample, decide,
    run::{RESTING, STAYS_ACTIVE},
};

use super::world::{Leaving, Look};

/// Messages per pod of KEDA's `queueLength`: its default is 5.
const KEDA_LENGTHS: [u32; 3] = [1, 5, 10];
const KEDA_POLL: f64 = 30.0;
const KEDA_COOLDOWN: f64 = 300.0;
const HPA_SYNC: f64 = 15.0;
const HPA_TOLERANCE: f64 = 0.1;
const HPA_DOWN_WINDOW: f64 = 300.0;
/// Pods that may be added within one sync, or as many as there are.
const HPA_STEP: u32 = 4;
/// The share of its hands that a pod has busy, as a stand-in for CPU: the default target of autoscaling/v2.
const HPA_UTILISATION: f64 = 0.8;
/// `CloudWatch` has a sample a minute.
const AWS_PERIOD: f64 = 60.0;

/// What is compared.
#[derive(Debug)]
pub struct Rule {
    pub name: String,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Shop(Box<Shop>),
    Keda(Keda),
    Utilisation(Utilisation),
    Aws(Aws),
}

impl Rule {
    /// The shop's rule first, which looks every `poll` seconds; then its rivals, all within the shop's bounds.
    pub fn all(policy: &Policy, poll: f64) -> Vec<Self> {
        let shop = Shop::new(policy.clone(), poll);
        let mut rules = vec![Self { name: "shop".to_owned(), kind: Kind::Shop(Box::new(shop)) }];
        rules.extend(KEDA_LENGTHS.map(|length| Self {
            name: format!("keda queueLength {length}"),
            kind: Kind::Keda(Keda::new(policy, length)),
        }));
        rules.push(Self {
            name: "hpa 80 % busy".to_owned(),
            kind: Kind::Utilisation(Utilisation { hpa: Hpa::new(policy), concurrency: policy.concurrency, next: 0.0 }),
        });
        rules.push(Self { name: "aws V·s/T".to_owned(), kind: Kind::Aws(Aws { policy: policy.clone(), next: 0.0 }) });
        rules
    }

    /// The second of its next look.
    pub fn next(&self) -> f64 {
        match &self.kind {
            Kind::Shop(shop) => shop.next,
            Kind::Keda(keda) => keda.next_poll.min(keda.next_sync),
            Kind::Utilisation(rule) => rule.next,
            Kind::Aws(aws) => aws.next,
        }
    }

    /// The number of pods there are to be.
    pub fn decide(&mut self, look: &Look, readable: bool) -> u32 {
        match &mut self.kind {
            Kind::Shop(shop) => shop.decide(look, readable),
            Kind::Keda(keda) => keda.decide(look, readable),
            Kind::Utilisation(rule) => rule.decide(look),
            Kind::Aws(aws) => aws.decide(look, readable),
        }
    }

    /// Who goes when it takes pods away: only the shop's scaler says so to the `ReplicaSet`.
    pub fn leaving(&self) -> Leaving {
        if matches!(self.kind, Kind::Shop(_)) { Leaving::LeastBusy } else { Leaving::Newest }
    }
}

/// The operator's own decision, looked for as often as the operator does.
#[derive(Debug)]
struct Shop {
    policy: Policy,
    poll: f64,
    history: History,
    next: f64,
    last_work: f64,
}

impl Shop {
    fn new(policy: Policy, poll: f64) -> Self {
        Self { policy, poll, history: History::default(), next: 0.0, last_work: f64::NEG_INFINITY }
    }

    fn decide(&mut self, look: &Look, readable: bool) -> u32 {
        let decision = decide(&self.policy, &mut self.history, &sample(look, readable));
        if look.completed > 0 || (readable && !look.depth.is_empty()) {
            self.last_work = look.seconds;
        }
        let active = look.replicas > 0 || look.seconds - self.last_work < STAYS_ACTIVE;
        self.next = look.seconds + if active { self.poll } else { self.poll.max(RESTING.as_secs_f64()) };
        decision.replicas
    }
}

/// One look as the operator would have made it: every ready pod reports.
fn sample(look: &Look, readable: bool) -> Sample {
    Sample {
        at: look.seconds,
        depth: readable.then_some(look.depth),
        current: look.replicas,
        ready: look.ready,
        pending: look.replicas - look.ready,
        rolling: false,
        busy_pods: look.busy_pods,
        busy: look.busy,
        reporting: look.ready,
        completed: look.completed,
        service_seconds: look.service_seconds,
        startup_seconds: look.startup_seconds,
        cut_off: 0,
    }
}

/// What a `HorizontalPodAutoscaler` does with a proposal, by its default behaviour.
#[derive(Debug)]
struct Hpa {
    min: u32,
    max: u32,
    proposals: VecDeque<(f64, u32)>,
}

impl Hpa {
    /// It cannot go to zero by itself.
    fn new(policy: &Policy) -> Self {
        Self { min: policy.min.max(1), max: policy.max.max(1), proposals: VecDeque::new() }
    }

    /// Down to the highest proposal of five minutes; up by four pods, or to twice as many, within a sync.
    fn settle(&mut self, now: f64, current: u32, proposal: u32) -> u32 {
        if self.proposals.is_empty() {
            self.proposals.push_back((now, current));
        }
        self.proposals.push_back((now, proposal));
        self.proposals.retain(|(at, _)| now - at <= HPA_DOWN_WINDOW);
        let highest = self.proposals.iter().map(|(_, pods)| *pods).max().unwrap_or(proposal);
        let stable = if proposal > current { proposal } else { highest.min(current) };
        let fastest = current.saturating_add(HPA_STEP).max(current.saturating_mul(2));
        stable.min(fastest).clamp(self.min, self.max)
    }
}

/// KEDA's trigger aws-sqs-queue: by itself from and to zero, through an HPA on an average value between.
#[derive(Debug)]
struct Keda {
    length: f64,
    activation: u64,
    least: u32,
    hpa: Hpa,
    last_active: f64,
    next_poll: f64,
    next_sync: f64,
}

impl Keda {
    fn new(policy: &Policy, length: u32) -> Self {
        Self {
            length: f64::from(length),
            activation: policy.activation,
            least: policy.min,
            hpa: Hpa::new(policy),
            last_active: 0.0,
            next_poll: 0.0,
            next_sync: 0.0,
        }
    }

    fn decide(&mut self, look: &Look, readable: bool) -> u32 {
        let (now, messages) = (look.seconds, look.depth.visible + look.depth.in_flight);
        let mut replicas = look.replicas;
        if now >= self.next_poll {
            self.next_poll = now + KEDA_POLL;
            if readable {
                replicas = self.activate(now, replicas, messages > self.activation);
            }
        }
        if now >= self.next_sync {
            self.next_sync = now + HPA_SYNC;
            if readable && replicas > 0 {
                let proposal = average_value(messages, self.length, replicas);
                replicas = self.hpa.settle(now, replicas, proposal);
            }
        }
        replicas
    }

    fn activate(&mut self, now: f64, replicas: u32, active: bool) -> u32 {
        if active {
            self.last_active = now;
            return if replicas == 0 { self.hpa.min } else { replicas };
        }
        if self.least == 0 && now - self.last_active > KEDA_COOLDOWN { 0 } else { replicas }
    }
}

/// ceil(messages / length), or what there is within a tenth of it.
fn average_value(messages: u64, length: f64, current: u32) -> u32 {
    #[expect(clippy::cast_precision_loss, reason = "counts of a simulation")]
    let messages = messages as f64;
    let ratio = messages / (length * f64::from(current));
    if (1.0 - ratio).abs() <= HPA_TOLERANCE { current } else { ceil(messages / length) }
}

/// An HPA on how busy the pods are.
#[derive(Debug)]
struct Utilisation {
    hpa: Hpa,
    concurrency: f64,
    next: f64,
}

impl Utilisation {
    fn decide(&mut self, look: &Look) -> u32 {
        self.next = look.seconds + HPA_SYNC;
        if look.ready == 0 {
            return look.replicas;
        }
        let used = look.mean_busy / self.concurrency;
        self.hpa.settle(look.seconds, look.replicas, proposal(used, look.ready, look.replicas))
    }
}

/// ceil(ready · utilisation / target); pods that are not ready count as idle when it grows, and as on target when it shrinks.
fn proposal(used: f64, ready: u32, replicas: u32) -> u32 {
    let starting = f64::from(replicas - ready);
    let ratio = used / (f64::from(ready) * HPA_UTILISATION);
    if (1.0 - ratio).abs() <= HPA_TOLERANCE {
        return replicas;
    }
    let filled = if ratio > 1.0 { used } else { used + starting * HPA_UTILISATION };
    let with_all = filled / (f64::from(replicas) * HPA_UTILISATION);
    let flips = (ratio > 1.0) != (with_all > 1.0);
    if flips || (1.0 - with_all).abs() <= HPA_TOLERANCE { replicas } else { ceil(f64::from(replicas) * with_all) }
}

/// AWS's guidance for queues: a backlog per instance that can be done within the wait. Without its alarms' delay.
#[derive(Debug)]
struct Aws {
    policy: Policy,
    next: f64,
}

impl Aws {
    #[expect(clippy::cast_precision_loss, reason = "counts of a simulation")]
    fn decide(&mut self, look: &Look, readable: bool) -> u32 {
        self.next = look.seconds + AWS_PERIOD;
        if !readable {
            return look.replicas;
        }
        let acceptable = self.policy.target_wait * self.policy.concurrency / self.policy.expected_service;
        ceil(look.depth.visible as f64 / acceptable).clamp(self.policy.min, self.policy.max)
    }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped first")]
fn ceil(pods: f64) -> u32 {
    // A hair below, so that 3.0000000001 pods by rounding are 3.
    (pods - 1e-9).ceil().clamp(0.0, 1e9) as u32
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use shop_operator::scale::{Depth, Pause};

    use super::*;

    pub fn policy() -> Policy {
        Policy {
            target_wait: 10.0,
            expected_service: 0.1,
            concurrency: 1.0,
            min: 0,
            max: 100,
            activation: 0,
            to_zero_cooldown: 300.0,
            window: 180.0,
            max_percent: 25,
            failure_after: 300.0,
            fallback: None,
            pause: Pause::No,
            schedules: Vec::new(),
        }
    }

    fn look(seconds: f64, replicas: u32, visible: u64, in_flight: u64) -> Look {
        let depth = Depth { visible, in_flight, delayed: 0 };
        Look { seconds, depth, replicas, ready: replicas, ..Look::default() }
    }

    #[rstest]
    // As the documentation of KEDA has it: 30 messages at a length of 10 are three pods.
    #[case::keda(30, 10.0, 1, 3)]
    // The tolerance: 19 to 21 messages of 20 pods change nothing.
    #[case::within_a_tenth_below(19, 1.0, 20, 20)]
    #[case::within_a_tenth_above(21, 1.0, 20, 20)]
    #[case::beyond_it(23, 1.0, 20, 23)]
    #[case::nothing(0, 5.0, 4, 0)]
    fn average_values(#[case] messages: u64, #[case] length: f64, #[case] current: u32, #[case] pods: u32) {
        assert_eq!(average_value(messages, length, current), pods);
    }

    #[test]
    fn keda_starts_with_one_and_grows_step_by_step() {
        // The steps of the default behaviour: 1, 5, 10, 20, 40, 80, one in 15 s.
        let mut keda = Keda::new(&policy(), 5);
        let (mut replicas, mut steps) = (0, Vec::new());
        for sync in 0..8_u32 {
            replicas = keda.decide(&look(f64::from(sync) * HPA_SYNC, replicas, 1000, 0), true);
            steps.push(replicas);
        }
        assert_eq!(steps, [5, 10, 20, 40, 80, 100, 100, 100], "the first sync comes with the poll that found work");
        assert_eq!(Keda::new(&policy(), 5).activate(0.0, 0, true), 1);
    }

    #[test]
    fn keda_shrinks_after_its_window_and_sleeps_after_its_cooldown() {
        let mut keda = Keda::new(&policy(), 5);
        keda.decide(&look(0.0, 10, 50, 0), true);
        let (mut replicas, mut history) = (10, Vec::new());
        for sync in 1..=24_u32 {
            replicas = keda.decide(&look(f64::from(sync) * HPA_SYNC, replicas, 0, 0), true);
            history.push(replicas);
        }
        assert_eq!(history.iter().filter(|pods| **pods == 10).count(), 20, "held for 300 s: {history:?}");
        assert_eq!(history.last(), Some(&0));
    }

    #[test]
    fn keda_holds_what_it_cannot_read() {
        let mut keda = Keda::new(&policy(), 5);
        for sync in 0..40_u32 {
            assert_eq!(keda.decide(&look(f64::from(sync) * HPA_SYNC, 3, 1000, 0), false), 3);
        }
    }

    #[rstest]
    #[case::on_target(8.0, 10, 10, 10)]
    #[case::full(10.0, 10, 10, 13)]
    #[case::half(4.0, 10, 10, 5)]
    #[case::those_that_start_are_idle(10.0, 10, 13, 13)]
    #[case::those_that_start_are_on_target(0.0, 5, 10, 5)]
    fn proposals_by_utilisation(#[case] used: f64, #[case] ready: u32, #[case] replicas: u32, #[case] pods: u32) {
        assert_eq!(proposal(used, ready, replicas), pods);
    }

    #[test]
    fn the_worked_example_of_aws() {
        // 10 s of 0.1 s each are an acceptable backlog of 100: 1500 messages are 15 instances, 5 more than 10.
        let mut aws = Aws { policy: policy(), next: 0.0 };
        assert_eq!(aws.decide(&look(0.0, 10, 1500, 7), true), 15);
        assert_eq!(aws.decide(&look(60.0, 15, 0, 7), true), 0, "what arrives is no part of it");
        assert_eq!(aws.decide(&look(120.0, 15, 0, 7), false), 15);
    }

    #[test]
    fn the_shops_rule_is_the_operators_decide() {
        let (mut shop, mut history) = (Shop::new(policy(), 2.0), History::default());
        for tick in 0..60_u32 {
            let (replicas, visible) = (tick / 10, u64::from(tick * 37 % 50) * 20);
            let look = look(f64::from(tick) * 2.0, replicas, visible, 3);
            let readable = tick % 7 != 0;
            let decided = decide(&policy(), &mut history, &sample(&look, readable)).replicas;
            assert_eq!(shop.decide(&look, readable), decided);
        }
    }
}
