//! What the operator counts: passes, writes, polls, decisions.

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

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Outcome {
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

#[derive(Clone, Debug)]
pub struct Metrics {
    reconciles: Family<Outcome, Counter>,
    reconcile_seconds: Histogram,
    writes: Family<Write, Counter>,
    polls: Family<Outcome, Counter>,
    scalings: Family<Scaled, Counter>,
    desired: Family<Shop, Gauge>,
    visible: Family<Shop, Gauge>,
    leader: Gauge,
}

impl Metrics {
    pub fn register(registry: &Registry) -> Self {
        let metrics = Self {
            reconciles: Family::default(),
            reconcile_seconds: Histogram::new(exponential_buckets(0.001, 2.0, 14)),
            writes: Family::default(),
            polls: Family::default(),
            scalings: Family::default(),
            desired: Family::default(),
            visible: Family::default(),
            leader: Gauge::default(),
        };
        let all = metrics.clone();
        registry.register(move |r| {
            r.register("shop_operator_reconciles", "Passes over a shop", all.reconciles);
            r.register("shop_operator_reconcile_seconds", "Duration of a pass", all.reconcile_seconds);
            r.register("shop_operator_writes", "Writes by kind of object", all.writes);
            r.register("shop_operator_leader", "1 while this process is the leader", all.leader);
            r.register("shop_scaler_polls", "Reads of a queue's depth", all.polls);
            r.register("shop_scaler_scalings", "Changes of a number of workers", all.scalings);
            r.register("shop_scaler_desired_workers", "Workers wanted", all.desired);
            r.register("shop_scaler_visible_messages", "Messages that wait", all.visible);
        });
        metrics
    }

    pub fn reconciled(&self, seconds: f64, ok: bool) {
        self.reconciles.get_or_create(&outcome(ok)).inc();
        self.reconcile_seconds.observe(seconds);
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

    pub fn scaler(&self, namespace: &str, shop: &str, (desired, visible): (u32, Option<u64>)) {
        let labels = Shop { namespace: namespace.to_owned(), shop: shop.to_owned() };
        self.desired.get_or_create(&labels).set(i64::from(desired));
        if let Some(visible) = visible {
            self.visible.get_or_create(&labels).set(i64::try_from(visible).unwrap_or(i64::MAX));
        }
    }

    pub fn forget(&self, namespace: &str, shop: &str) {
        let labels = Shop { namespace: namespace.to_owned(), shop: shop.to_owned() };
        self.desired.remove(&labels);
        self.visible.remove(&labels);
    }

    pub fn leading(&self, leads: i64) {
        self.leader.set(leads);
    }
}

fn outcome(ok: bool) -> Outcome {
    Outcome { outcome: if ok { "ok" } else { "failed" } }
}
