//! Lets every rule look after the same load with the same workers, and measures what came of it.

use serde::Serialize;
use shop_operator::scale::Policy;

use super::{
    rules::Rule,
    trace::{Message, Trace},
    world::{Plant, Tally, World},
};

/// After the load's end it goes on for so long, so that what shrinking costs is counted too.
pub const TAIL_SECONDS: u32 = 600;

/// What a simulation is made from.
#[derive(Clone, Debug)]
pub struct Setup {
    pub policy: Policy,
    /// Seconds between two looks at a queue that has work.
    pub poll: f64,
    pub plant: Plant,
}

/// What one rule made of the load.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Outcome {
    pub rule: String,
    /// Seconds from a message's arrival until a worker takes it, also of those that were never taken.
    pub wait_seconds: Percentiles,
    pub pod_hours: f64,
    /// How often it grew after it had shrunk, or shrank after it had grown.
    pub direction_changes: u32,
    /// Messages in hand of a pod that was told to stop.
    pub disturbed: u64,
    /// Of these: worked on anew, since the grace period was over.
    pub cut_off: u64,
    pub max_replicas: u32,
    pub completed: u64,
    pub unfinished: u64,
    #[serde(skip)]
    pub series: Vec<Point>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Percentiles {
    pub p50: f64,
    pub p95: f64,
    pub p99: f64,
}

/// One second of one rule.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Point {
    pub backlog: f64,
    pub replicas: f64,
    /// Seconds that the oldest waiting message has waited.
    pub wait: f64,
}

/// All rules on the same load, side by side; the shop's is the first.
pub fn compare(setup: &Setup, trace: &Trace) -> Vec<Outcome> {
    let messages = trace.messages();
    let one = |rule: Rule| run(setup, trace, (&messages, rule));
    std::thread::scope(|scope| {
        let running: Vec<_> =
            Rule::all(&setup.policy, setup.poll).into_iter().map(|rule| scope.spawn(move || one(rule))).collect();
        running.into_iter().filter_map(|thread| thread.join().ok()).collect()
    })
}

fn run(setup: &Setup, trace: &Trace, (messages, mut rule): (&[Message], Rule)) -> Outcome {
    let mut world = World::new(setup.plant, messages, setup.policy.min);
    let (mut series, mut turns) = (Vec::new(), Turns::default());
    for second in 0..trace.seconds + TAIL_SECONDS {
        while rule.next() < f64::from(second + 1) {
            world.advance(micros(rule.next()));
            let replicas = rule.decide(&world.look(), !trace.unreadable.contains(&second));
            turns.take(world.replicas(), replicas);
            world.resize(replicas, rule.leaving());
        }
        world.advance(micros(f64::from(second + 1)));
        series.push(point(&world));
    }
    let (tally, waits) = (world.tally(), percentiles(world.waits()));
    outcome(rule.name, (tally, waits), (series, turns.count))
}

fn outcome(
    rule: String,
    (tally, wait_seconds): (Tally, Percentiles),
    (series, direction_changes): (Vec<Point>, u32),
) -> Outcome {
    #[expect(clippy::cast_precision_loss, reason = "a week of microseconds fits into 53 bits")]
    let pod_hours = tally.pod_micros as f64 / 3.6e9;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "numbers of pods")]
    let max_replicas = series.iter().map(|point| point.replicas as u32).max().unwrap_or(0);
    Outcome {
        rule,
        wait_seconds,
        pod_hours,
        direction_changes,
        disturbed: tally.disturbed,
        cut_off: tally.cut_off,
        max_replicas,
        completed: tally.completed,
        unfinished: tally.arrived - tally.completed,
        series,
    }
}

#[expect(clippy::cast_precision_loss, reason = "counts of a simulation")]
fn point(world: &World<'_>) -> Point {
    Point { backlog: world.waiting() as f64, replicas: f64::from(world.replicas()), wait: world.oldest() }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "seconds of a simulation")]
fn micros(seconds: f64) -> u64 {
    (seconds * 1e6).round() as u64
}

/// Counts changes of direction.
#[derive(Debug, Default)]
struct Turns {
    grew: Option<bool>,
    count: u32,
}

impl Turns {
    fn take(&mut self, before: u32, after: u32) {
        if before == after {
            return;
        }
        let grows = after > before;
        self.count += u32::from(self.grew.is_some_and(|grew| grew != grows));
        self.grew = Some(grows);
    }
}

/// By nearest rank.
#[expect(clippy::cast_precision_loss, reason = "a week of microseconds fits into 53 bits")]
fn percentiles(mut waits: Vec<u64>) -> Percentiles {
    waits.sort_unstable();
    let at = |percent: usize| {
        let rank = (waits.len() * percent).div_ceil(100).max(1);
        waits.get(rank - 1).map_or(0.0, |wait| *wait as f64 / 1e6)
    };
    Percentiles { p50: at(50), p95: at(95), p99: at(99) }
}

/// The rival to look at: of those that take no more pod-hours than the shop's rule the one with the shortest waits, or else of all.
pub fn best_rival(outcomes: &[Outcome]) -> Option<&Outcome> {
    let (ours, rivals) = outcomes.split_first()?;
    let frugal: Vec<_> = rivals.iter().filter(|rival| rival.pod_hours <= ours.pod_hours).collect();
    let among = if frugal.is_empty() { rivals.iter().collect() } else { frugal };
    among.into_iter().min_by(|a, b| a.wait_seconds.p95.total_cmp(&b.wait_seconds.p95))
}

#[cfg(test)]
pub(super) mod tests {
    use clap::ValueEnum;
    use rstest::rstest;
    use shop_operator::scale::Pause;

    use super::{
        super::trace::{Shape, tests::SCALE},
        *,
    };

    pub(in super::super) fn setup() -> Setup {
        let policy = Policy {
            target_wait: 10.0,
            expected_service: 0.4,
            concurrency: 4.0,
            min: 1,
            max: 8,
            activation: 0,
            to_zero_cooldown: 300.0,
            window: 45.0,
            max_percent: 25,
            failure_after: 300.0,
            fallback: None,
            pause: Pause::No,
            schedules: Vec::new(),
        };
        Setup { policy, poll: 2.0, plant: Plant { concurrency: 4, startup: 5_000_000, grace: 50_000_000 } }
    }

    fn trace(shape: Shape) -> Trace {
        Trace::generate(shape, 7, SCALE).unwrap()
    }

    #[test]
    fn every_rule_is_run_within_the_bounds_and_loses_nothing() {
        for shape in Shape::value_variants() {
            let trace = trace(*shape);
            let sent: u64 = trace.arrivals().into_iter().map(u64::from).sum();
            let outcomes = compare(&setup(), &trace);
            assert_eq!(outcomes.len(), 6);
            for outcome in outcomes {
                assert_eq!(outcome.completed + outcome.unfinished, sent, "{shape:?} {}", outcome.rule);
                assert!(outcome.series.iter().all(|point| (1.0..=8.0).contains(&point.replicas)), "{}", outcome.rule);
            }
        }
    }

    #[test]
    fn the_same_trace_has_the_same_outcome() {
        let trace = trace(Shape::Burst);
        let told = || serde_json::to_string(&compare(&setup(), &trace)).unwrap();
        assert_eq!(told(), told());
    }

    #[test]
    fn a_step_is_met_within_the_target_by_the_shop_and_by_no_rule_that_reads_every_minute() {
        let outcomes = compare(&setup(), &trace(Shape::Step));
        let p95 = |name: &str| outcomes.iter().find(|outcome| outcome.rule.starts_with(name)).unwrap().wait_seconds.p95;
        assert!(p95("shop") <= 10.0, "{}", p95("shop"));
        assert!(p95("aws") > 10.0, "{}", p95("aws"));
    }

    #[test]
    fn an_outage_takes_no_pod_away() {
        let trace = trace(Shape::Outage);
        let shop = compare(&setup(), &trace).remove(0);
        let blind = trace.unreadable.start as usize..trace.unreadable.end as usize;
        assert!(shop.series[blind].is_sorted_by_key(|point| point.replicas));
    }

    #[rstest]
    #[case::none(&[], 0)]
    #[case::growing(&[1, 2, 4], 0)]
    #[case::up_and_down(&[1, 4, 3, 2], 1)]
    #[case::rests_count_for_nothing(&[1, 4, 4, 3, 3, 5], 2)]
    fn turns(#[case] replicas: &[u32], #[case] count: u32) {
        let mut turns = Turns::default();
        replicas.windows(2).for_each(|pair| turns.take(pair[0], pair[1]));
        assert_eq!(turns.count, count);
    }

    #[rstest]
    #[case::none(vec![], [0.0, 0.0, 0.0])]
    #[case::one(vec![3_000_000], [3.0, 3.0, 3.0])]
    #[case::hundred((1..=100).map(|n| n * 1_000_000).collect(), [50.0, 95.0, 99.0])]
    fn nearest_ranks(#[case] waits: Vec<u64>, #[case] wanted: [f64; 3]) {
        let [p50, p95, p99] = wanted;
        assert_eq!(percentiles(waits), Percentiles { p50, p95, p99 });
    }

    #[test]
    fn the_best_rival_costs_no_more_where_there_is_one() {
        let outcome = |rule: &str, pod_hours: f64, p95: f64| {
            let waits = Percentiles { p95, ..Percentiles::default() };
            Outcome { pod_hours, ..outcome(rule.to_owned(), (Tally::default(), waits), (Vec::new(), 0)) }
        };
        let ours = outcome("shop", 2.0, 1.0);
        let (dear, cheap, slow) = (outcome("dear", 3.0, 0.5), outcome("cheap", 1.9, 4.0), outcome("slow", 1.0, 9.0));
        let best = |all: &[Outcome]| best_rival(all).map(|rival| rival.rule.clone());
        assert_eq!(best(&[ours.clone(), dear.clone(), cheap, slow]).as_deref(), Some("cheap"));
        assert_eq!(best(&[ours.clone(), dear]).as_deref(), Some("dear"));
        assert_eq!(best(&[ours]), None);
    }
}
