//! What the processes use while they work: processor time, memory, and calls of SQS by their own metrics.

use std::path::Path;

use anyhow::{Context, Result};
use futures::future::try_join_all;
use serde::Serialize;

use crate::{
    ground::{Ground, ready},
    process::{Process, Usage},
};

const RELAY_CALLS: &str = "shop_relay_sqs_calls";
const WORKER_CALLS: &str = "shop_worker_sqs_calls";

/// The workers, and where each tells its metrics.
pub struct Staff(Vec<(Process, String)>);

/// One look at all processes.
#[derive(Debug, Clone)]
pub struct Look {
    api: Usage,
    workers: Vec<Usage>,
    /// By the relay and by the workers; None where the metrics do not say.
    sqs_calls: Option<(u64, u64)>,
}

/// What some orders have cost.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Cost {
    pub api_cpu_ms_per_order: f64,
    /// All workers together.
    pub worker_cpu_ms_per_order: f64,
    pub api_rss_mib: f64,
    /// The largest of the workers.
    pub worker_rss_mib: f64,
    /// Left out where the processes do not count their calls.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub relay_sqs_calls_per_order: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub worker_sqs_calls_per_order: Option<f64>,
}

impl Cost {
    pub fn sqs_calls_per_order(&self) -> Option<f64> {
        Some(self.relay_sqs_calls_per_order? + self.worker_sqs_calls_per_order?)
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
        let relay = counted(&ground.api_ops, RELAY_CALLS).await?;
        let workers = try_join_all(self.0.iter().map(|(_, ops)| counted(ops, WORKER_CALLS))).await?;
        let workers = workers.into_iter().sum::<Option<u64>>();
        Ok(Look {
            api: ground.api.usage()?,
            workers: self.0.iter().map(|(process, _)| process.usage()).collect::<Result<_>>()?,
            sqs_calls: relay.zip(workers),
        })
    }

    pub async fn dismiss(self) -> Result<()> {
        for (process, _) in self.0 {
            process.kill().await?;
        }
        Ok(())
    }
}

impl Look {
    /// What was used from `before` until now, shared among so many orders.
    #[expect(clippy::cast_precision_loss, reason = "figures to show")]
    pub fn since(&self, before: &Self, orders: usize) -> Cost {
        let each = |total: f64| if orders == 0 { 0.0 } else { total / orders as f64 };
        let cpu = |all: &[Usage]| all.iter().map(|usage| usage.cpu_seconds).sum::<f64>();
        let calls = self.sqs_calls.zip(before.sqs_calls);
        let calls = |of: fn((u64, u64)) -> u64| calls.map(|(now, then)| each((of(now) - of(then)) as f64));
        Cost {
            api_cpu_ms_per_order: each((self.api.cpu_seconds - before.api.cpu_seconds) * 1e3),
            worker_cpu_ms_per_order: each((cpu(&self.workers) - cpu(&before.workers)) * 1e3),
            api_rss_mib: self.api.rss_mib,
            worker_rss_mib: self.workers.iter().map(|usage| usage.rss_mib).fold(0.0, f64::max),
            relay_sqs_calls_per_order: calls(|(relay, _)| relay),
            worker_sqs_calls_per_order: calls(|(_, workers)| workers),
        }
    }
}

async fn counted(ops: &str, name: &str) -> Result<Option<u64>> {
    let answer =
        reqwest::get(format!("{ops}/metrics")).await.with_context(|| format!("reading the metrics at {ops}"))?;
    Ok(counter(&answer.text().await?, name))
}

/// The sum of a counter over its labels; None where there is none of that name.
fn counter(metrics: &str, name: &str) -> Option<u64> {
    let value = |line: &str| {
        let rest = line.strip_prefix(name)?.strip_prefix("_total")?;
        let value = if rest.starts_with('{') { rest.rsplit_once("} ")?.1 } else { rest.strip_prefix(' ')? };
        value.parse::<u64>().ok()
    };
    let values: Vec<u64> = metrics.lines().filter_map(value).collect();
    (!values.is_empty()).then(|| values.iter().sum())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_counter_is_summed_over_its_labels() {
        let metrics =
            "# TYPE a counter\na_total{call=\"x y\"} 2\na_total{call=\"z\"} 3\na_total_more 9\nb_total 7\n# EOF\n";
        assert_eq!(counter(metrics, "a"), Some(5));
        assert_eq!(counter(metrics, "b"), Some(7));
        assert_eq!(counter(metrics, "c"), None);
    }

    fn look(cpu_seconds: f64, sqs_calls: Option<(u64, u64)>) -> Look {
        let usage = Usage { cpu_seconds, rss_mib: 9.0, peak_rss_mib: 9.0 };
        Look { api: usage, workers: vec![usage; 2], sqs_calls }
    }

    #[test]
    fn costs_are_shared_among_the_orders() {
        let cost = look(2.0, Some((30, 70))).since(&look(1.0, Some((10, 10))), 200);
        assert_eq!((cost.api_cpu_ms_per_order, cost.worker_cpu_ms_per_order), (5.0, 10.0));
        assert_eq!((cost.relay_sqs_calls_per_order, cost.worker_sqs_calls_per_order), (Some(0.1), Some(0.3)));
        assert_eq!(cost.sqs_calls_per_order(), Some(0.4));
    }

    #[test]
    fn what_is_not_counted_is_left_out() {
        let cost = look(2.0, None).since(&look(1.0, Some((10, 10))), 200);
        assert_eq!(cost.sqs_calls_per_order(), None);
        assert!(!serde_json::to_string(&cost).unwrap().contains("sqs"));
        assert!(look(2.0, None).since(&look(1.0, None), 0).api_cpu_ms_per_order.abs() < f64::EPSILON);
    }
}
