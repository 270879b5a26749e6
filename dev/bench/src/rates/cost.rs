//! What the processes use while they work: processor time, memory, and calls of SQS by their own metrics.

use std::{collections::BTreeMap, path::Path};

use anyhow::{Context, Result};
use serde::Serialize;

use crate::{
    ground::{Ground, ready},
    process::{Process, Usage},
};

const RELAY_CALLS: &str = "shop_relay_sqs_calls_total";
const WORKER_CALLS: &str = "shop_worker_sqs_calls_total";
const RETRIES: &str = "shop_worker_retries_total";
const BATCHES: &str = "shop_worker_batch_messages_count";
const BATCHED: &str = "shop_worker_batch_messages_sum";

/// The workers, and where each tells its metrics.
pub struct Staff(Vec<(Process, String)>);

/// One look at all processes; their metrics by name and labels, summed over the workers.
#[derive(Debug, Clone)]
pub struct Look {
    api: Usage,
    workers: Vec<Usage>,
    metrics: Metrics,
}

type Metrics = BTreeMap<String, f64>;

/// What some orders have cost.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Cost {
    pub api_cpu_ms_per_order: f64,
    /// All workers together.
    pub worker_cpu_ms_per_order: f64,
    pub api_rss_mib: f64,
    /// The largest of the workers.
    pub worker_rss_mib: f64,
    /// By the relay and by the workers, as they count them themselves.
    pub relay_sqs_calls_per_order: f64,
    pub worker_sqs_calls_per_order: f64,
    /// Both, by metric and operation.
    pub sqs_calls: Metrics,
    /// Transactions that had to be tried again because others were on the same rows.
    pub retries_per_order: f64,
    /// Orders that were decided together, on average.
    pub orders_per_batch: f64,
}

impl Cost {
    pub fn sqs_calls_per_order(&self) -> f64 {
        self.relay_sqs_calls_per_order + self.worker_sqs_calls_per_order
    }
}

impl Staff {
    pub async fn start(ground: &Ground, binary: &Path, workers: usize) -> Result<Self> {
        let mut staff = Vec::new();
        for _ in 0..workers {
            let (plan, ops) = ground.worker(binary)?;
            let mut process = Process::start(&plan)?;
            ready(&mut process, &ops).await.with_context(|| format!("a worker; its log is {}", plan.log.display()))?;
            staff.push((process, ops));
        }
        Ok(Self(staff))
    }

    pub async fn look(&self, ground: &Ground) -> Result<Look> {
        let mut metrics = Metrics::new();
        for ops in self.0.iter().map(|(_, ops)| ops).chain([&ground.api_ops]) {
            let answer = reqwest::get(format!("{ops}/metrics")).await;
            let answer = answer.with_context(|| format!("reading the metrics at {ops}"))?;
            add(&mut metrics, &answer.text().await?);
        }
        let workers = self.0.iter().map(|(process, _)| process.usage()).collect::<Result<_>>()?;
        Ok(Look { api: ground.api.usage()?, workers, metrics })
    }
}

impl Look {
    /// What was used from `before` until now, shared among so many orders.
    #[expect(clippy::cast_precision_loss, reason = "figures to show")]
    pub fn since(&self, before: &Self, orders: usize) -> Cost {
        let each = |total: f64| if orders == 0 { 0.0 } else { total / orders as f64 };
        let cpu = |all: &[Usage]| all.iter().map(|usage| usage.cpu_seconds).sum::<f64>();
        let gained = self.gained(before);
        let sum = |name: &str| gained.iter().filter(|(key, _)| key.starts_with(name)).map(|(_, n)| n).sum::<f64>();
        let is_call = |key: &str| [RELAY_CALLS, WORKER_CALLS].iter().any(|name| key.starts_with(name));
        Cost {
            api_cpu_ms_per_order: each((self.api.cpu_seconds - before.api.cpu_seconds) * 1e3),
            worker_cpu_ms_per_order: each((cpu(&self.workers) - cpu(&before.workers)) * 1e3),
            api_rss_mib: self.api.rss_mib,
            worker_rss_mib: self.workers.iter().map(|usage| usage.rss_mib).fold(0.0, f64::max),
            relay_sqs_calls_per_order: each(sum(RELAY_CALLS)),
            worker_sqs_calls_per_order: each(sum(WORKER_CALLS)),
            retries_per_order: each(sum(RETRIES)),
            orders_per_batch: sum(BATCHED) / sum(BATCHES).max(1.0),
            sqs_calls: gained.iter().filter(|(key, _)| is_call(key)).map(|(key, n)| (key.clone(), *n)).collect(),
        }
    }

    fn gained(&self, before: &Self) -> Metrics {
        let gain = |(key, now): (&String, &f64)| (key.clone(), now - before.metrics.get(key).unwrap_or(&0.0));
        self.metrics.iter().map(gain).collect()
    }
}

/// Adds the samples of an `OpenMetrics` text.
fn add(metrics: &mut Metrics, text: &str) {
    let samples = text.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.rsplit_once(' '));
    for (key, value) in samples {
        if let Ok(value) = value.parse::<f64>() {
            *metrics.entry(key.to_owned()).or_default() += value;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BEFORE: &str = "# TYPE a counter\nshop_relay_sqs_calls_total{operation=\"SendMessageBatch\"} 10\n# EOF\n";
    const AFTER: &str = "shop_relay_sqs_calls_total{operation=\"SendMessageBatch\"} 30\n\
                         shop_worker_sqs_calls_total{operation=\"ReceiveMessage\"} 40\n\
                         shop_worker_sqs_calls_total{operation=\"DeleteMessageBatch\"} 20\n\
                         shop_worker_retries_total 50\n\
                         shop_worker_batch_messages_sum 200.0\nshop_worker_batch_messages_count 25\n";

    fn look(cpu_seconds: f64, text: &str) -> Look {
        let usage = Usage { cpu_seconds, rss_mib: 9.0, peak_rss_mib: 9.0 };
        let mut metrics = Metrics::new();
        add(&mut metrics, text);
        Look { api: usage, workers: vec![usage; 2], metrics }
    }

    #[test]
    fn costs_are_shared_among_the_orders() {
        let cost = look(2.0, AFTER).since(&look(1.0, BEFORE), 200);
        assert_eq!((cost.api_cpu_ms_per_order, cost.worker_cpu_ms_per_order), (5.0, 10.0));
        assert_eq!((cost.relay_sqs_calls_per_order, cost.worker_sqs_calls_per_order), (0.1, 0.3));
        assert_eq!((cost.retries_per_order, cost.orders_per_batch), (0.25, 8.0));
        assert_eq!(cost.sqs_calls.get(r#"shop_worker_sqs_calls_total{operation="ReceiveMessage"}"#), Some(&40.0));
        assert_eq!(cost.sqs_calls.len(), 3);
    }

    #[test]
    fn the_samples_of_several_workers_are_added() {
        let mut metrics = Metrics::new();
        add(&mut metrics, "a{b=\"x y\"} 2\n");
        add(&mut metrics, "a{b=\"x y\"} 3\n# EOF\n");
        assert_eq!(metrics.get("a{b=\"x y\"}"), Some(&5.0));
    }

    #[test]
    fn nothing_costs_nothing() {
        assert!(look(2.0, AFTER).since(&look(1.0, BEFORE), 0).sqs_calls_per_order().abs() < f64::EPSILON);
    }
}
