//! What the operator counts: passes, writes, polls, decisions; and what it says of each shop, for alerts.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{
        counter::Counter,
        family::Family,
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets},
    },
};
use shop_runtime::metrics::Metrics as Registry;
use tokio::time::Instant;

use crate::conditions::Condition;

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Outcome {
    outcome: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Step {
    step: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct StepOutcome {
    step: &'static str,
    outcome: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Write {
    kind: &'static str,
    outcome: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Scaled {
    reason: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Shop {
    namespace: String,
    shop: String,
}

/// One condition of one shop, as its status has it.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Told {
    namespace: String,
    shop: String,
    condition: String,
    status: String,
    reason: String,
}

#[derive(Clone, Debug)]
pub struct Metrics {
    reconciles: Family<Outcome, Counter>,
    reconcile_seconds: Histogram,
    steps: Family<StepOutcome, Counter>,
    step_seconds: Family<Step, Histogram, fn() -> Histogram>,
    writes: Family<Write, Counter>,
    polls: Family<Outcome, Counter>,
    scalings: Family<Scaled, Counter>,
    desired: Family<Shop, Gauge>,
    visible: Family<Shop, Gauge>,
    busy_kills: Counter,
    conditions: Family<Told, Gauge>,
    told: Arc<Mutex<HashMap<Shop, Vec<Told>>>>,
    leader: Gauge,
}

impl Metrics {
    pub fn register(registry: &Registry) -> Self {
        let metrics = Self {
            reconciles: Family::default(),
            reconcile_seconds: durations(),
            steps: Family::default(),
            step_seconds: Family::new_with_constructor(durations),
            writes: Family::default(),
            polls: Family::default(),
            scalings: Family::default(),
            desired: Family::default(),
            visible: Family::default(),
            busy_kills: Counter::default(),
            conditions: Family::default(),
            told: Arc::default(),
            leader: Gauge::default(),
        };
        let all = metrics.clone();
        registry.register(move |r| {
            r.register("shop_operator_reconciles", "Passes over a shop", all.reconciles);
            r.register("shop_operator_reconcile_seconds", "Duration of a pass", all.reconcile_seconds);
            r.register("shop_operator_steps", "Steps of a pass", all.steps);
            r.register("shop_operator_step_seconds", "Duration of a step", all.step_seconds);
            r.register("shop_operator_writes", "Writes by kind of object", all.writes);
            r.register("shop_operator_condition", "1: the shop's condition has this status and reason", all.conditions);
            r.register("shop_operator_leader", "1 while this process is the leader", all.leader);
            r.register("shop_scaler_polls", "Reads of a queue's depth", all.polls);
            r.register("shop_scaler_scalings", "Changes of a number of workers", all.scalings);
            r.register("shop_scaler_desired_workers", "Workers wanted", all.desired);
            r.register("shop_scaler_visible_messages", "Messages that wait", all.visible);
            let help = "Workers taken away that had to leave work unfinished";
            r.register("shop_scaler_busy_kills", help, all.busy_kills);
        });
        metrics
    }

    pub fn reconciled(&self, seconds: f64, ok: bool) {
        self.reconciles.get_or_create(&outcome(ok)).inc();
        self.reconcile_seconds.observe(seconds);
    }

    /// For the steps of one pass.
    pub fn steps(&self) -> Steps<'_> {
        Steps { metrics: self, begun: Instant::now() }
    }

    pub fn write(&self, kind: &'static str, outcome: &'static str) {
        self.writes.get_or_create(&Write { kind, outcome }).inc();
    }

    pub fn status_write(&self, ok: bool) {
        self.write("ShopDeployment", if ok { "status" } else { "failed" });
    }

    pub fn polled(&self, ok: bool) {
        self.polls.get_or_create(&outcome(ok)).inc();
    }

    pub fn scaled(&self, reason: &'static str) {
        self.scalings.get_or_create(&Scaled { reason }).inc();
    }

    pub fn cut_off(&self, pods: u32) {
        self.busy_kills.inc_by(pods.into());
    }

    pub fn scaler(&self, namespace: &str, shop: &str, (desired, visible): (u32, Option<u64>)) {
        let labels = Shop { namespace: namespace.to_owned(), shop: shop.to_owned() };
        self.desired.get_or_create(&labels).set(i64::from(desired));
        if let Some(visible) = visible {
            self.visible.get_or_create(&labels).set(i64::try_from(visible).unwrap_or(i64::MAX));
        }
    }

    /// The shop's conditions as they are now; those of before are no longer true.
    pub fn conditions(&self, namespace: &str, shop: &str, conditions: &[Condition]) {
        let labels = Shop { namespace: namespace.to_owned(), shop: shop.to_owned() };
        let told = conditions.iter().map(|condition| Told {
            namespace: namespace.to_owned(),
            shop: shop.to_owned(),
            condition: format!("{:?}", condition.kind),
            status: format!("{:?}", condition.status),
            reason: format!("{:?}", condition.reason),
        });
        let told: Vec<_> = told.collect();
        let mut all = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        for old in all.insert(labels, told.clone()).unwrap_or_default().iter().filter(|old| !told.contains(old)) {
            self.conditions.remove(old);
        }
        for new in &told {
            self.conditions.get_or_create(new).set(1);
        }
    }

    pub fn forget(&self, namespace: &str, shop: &str) {
        self.conditions(namespace, shop, &[]);
        let labels = Shop { namespace: namespace.to_owned(), shop: shop.to_owned() };
        self.told.lock().unwrap_or_else(PoisonError::into_inner).remove(&labels);
        self.desired.remove(&labels);
        self.visible.remove(&labels);
    }

    pub fn lead_taken(&self) {
        self.leader.set(1);
    }

    /// Only the leader speaks of shops: what it last said must not stay beside what the next one says.
    pub fn lead_lost(&self) {
        self.leader.set(0);
        self.conditions.clear();
        self.told.lock().unwrap_or_else(PoisonError::into_inner).clear();
        self.desired.clear();
        self.visible.clear();
    }
}

/// Counts the steps of one pass, each from the end of the one before.
#[derive(Debug)]
pub struct Steps<'a> {
    metrics: &'a Metrics,
    begun: Instant,
}

impl Steps<'_> {
    /// A step has ended, with this result.
    pub fn ended<T, E>(&mut self, step: &'static str, result: Result<T, E>) -> Result<T, E> {
        self.count(step, result.is_ok());
        result
    }

    pub fn count(&mut self, step: &'static str, ok: bool) {
        self.metrics.steps.get_or_create(&StepOutcome { step, outcome: word(ok) }).inc();
        let seconds = self.begun.elapsed().as_secs_f64();
        self.metrics.step_seconds.get_or_create(&Step { step }).observe(seconds);
        self.begun = Instant::now();
    }
}

/// From a millisecond to eight seconds.
fn durations() -> Histogram {
    Histogram::new(exponential_buckets(0.001, 2.0, 14))
}

fn outcome(ok: bool) -> Outcome {
    Outcome { outcome: word(ok) }
}

fn word(ok: bool) -> &'static str {
    if ok { "ok" } else { "failed" }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::conditions::{Kind, Reason, Status};

    fn rendered(with: impl FnOnce(&Metrics)) -> String {
        let registry = Registry::default();
        with(&Metrics::register(&registry));
        registry.encode().unwrap()
    }

    /// Every metric of the operator, as it is scraped: families without a member are not.
    fn all() -> String {
        rendered(|metrics| {
            metrics.reconciled(0.1, true);
            metrics.steps().count("fetch", true);
            metrics.write("ConfigMap", "created");
            metrics.polled(true);
            metrics.scaled("Drain");
            metrics.cut_off(1);
            metrics.scaler("shops", "demo", (1, Some(2)));
            metrics.lead_taken();
            metrics.conditions("shops", "demo", &[Condition::new(Kind::Ready, Status::True, Reason::AllGood, "")]);
        })
    }

    #[test]
    fn alerts_and_panels_read_only_what_there_is() {
        let scraped = all();
        let scraped: BTreeSet<_> = scraped.lines().filter_map(|line| line.split(['{', ' ']).next()).collect();
        let read = [
            include_str!("../../charts/shop-operator/files/monitoring/alerts.yaml"),
            include_str!("../../charts/shop-operator/files/monitoring/dashboard.json"),
        ];
        let words = read.iter().flat_map(|text| text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_')));
        let ours = words.filter(|word| word.starts_with("shop_operator_") || word.starts_with("shop_scaler_"));
        let ours: BTreeSet<_> = ours.collect();
        assert!(ours.len() > 5, "{ours:?}");
        let unknown: Vec<_> = ours.difference(&scraped).collect();
        assert_eq!(unknown, Vec::<&&str>::new());
    }

    #[test]
    fn a_step_is_counted_by_its_outcome_and_timed_from_the_end_of_the_one_before() {
        let registry = Registry::default();
        let metrics = Metrics::register(&registry);
        let mut steps = metrics.steps();
        let begun = steps.begun;
        assert_eq!(steps.ended("fetch", Ok::<_, ()>(7)), Ok(7));
        assert!(steps.begun > begun);
        assert_eq!(steps.ended("apply", Err::<(), _>("no")), Err("no"));
        let text = registry.encode().unwrap();
        for line in [
            r#"shop_operator_steps_total{step="fetch",outcome="ok"} 1"#,
            r#"shop_operator_steps_total{step="apply",outcome="failed"} 1"#,
            r#"shop_operator_step_seconds_count{step="fetch"} 1"#,
            r#"shop_operator_step_seconds_count{step="apply"} 1"#,
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in {text}");
        }
    }

    #[test]
    fn a_shop_has_one_series_for_each_condition_while_it_is_led() {
        let condition = |status, reason| Condition::new(Kind::Ready, status, reason, "");
        let ready = |text: &str| text.lines().filter(|line| line.starts_with("shop_operator_condition{")).count();
        let after = |last: fn(&Metrics)| {
            rendered(|metrics| {
                metrics.conditions("shops", "demo", &[condition(Status::False, Reason::RolloutInProgress)]);
                metrics.conditions("shops", "demo", &[condition(Status::True, Reason::AllGood)]);
                last(metrics);
            })
        };
        let text = after(|_| {});
        assert!(text.contains(r#"condition="Ready",status="True",reason="AllGood"} 1"#), "{text}");
        assert_eq!(ready(&text), 1);
        assert_eq!(ready(&after(|metrics| metrics.forget("shops", "demo"))), 0);
        assert_eq!(ready(&after(Metrics::lead_lost)), 0);
    }
}
