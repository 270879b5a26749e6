//! The operator as a process: its life, what it counts of itself, what Linux says of it.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

pub use crate::process::Usage;
use crate::{
    control::Binaries,
    ground::{free_address, ready},
    process::{Plan, Process},
};

/// Longest wait for anything the operator does by itself.
const PATIENCE: Duration = Duration::from_mins(5);
/// Without a write for this long, nothing is going on: the scaler counts a queue as at rest after a minute without work.
const QUIET: Duration = Duration::from_secs(75);
const WRITES: &str = "shop_operator_writes_total{";
const PASSES: &str = "shop_operator_reconciles_total{outcome=\"ok\"}";
const LEADS: &str = "shop_operator_leader";

pub struct Operator {
    process: Process,
    ops: String,
}

impl Operator {
    /// Starts one that looks after the namespace's shops alone; deployed ones leave them alone, by their class.
    pub async fn start(binaries: &Binaries, namespace: &str, name: &str) -> Result<Self> {
        let address = free_address()?;
        let env = vec![
            ("KUBECONFIG", path(&binaries.kubeconfig)),
            ("SHOP_API_IMAGE", "bench.invalid/api:1".to_owned()),
            ("SHOP_WORKER_IMAGE", "bench.invalid/worker:1".to_owned()),
            ("SHOP_WATCH_NAMESPACE", namespace.to_owned()),
            ("SHOP_OPERATOR_CLASS", namespace.to_owned()),
            ("SHOP_METRICS_ADDR", address.clone()),
            ("SHOP_LOG_LEVEL", "warn".to_owned()),
            ("SHOP_POD_NAME", name.to_owned()),
            ("SHOP_LEASE_NAME", format!("bench-{name}")),
            ("SHOP_POD_NAMESPACE", namespace.to_owned()),
        ];
        let log = binaries.logs.join("operator.log");
        let mut process =
            Process::start(&Plan { binary: binaries.operator.clone(), args: Vec::new(), env, log: log.clone() })?;
        let ops = format!("http://{address}");
        ready(&mut process, &ops).await.with_context(|| format!("the operator; its log is {}", log.display()))?;
        Ok(Self { process, ops })
    }

    pub async fn leads(&mut self) -> Result<()> {
        self.reaches(LEADS, 1.0).await
    }

    /// Waits until it has passed over so many shops.
    pub async fn passes(&mut self, count: usize) -> Result<()> {
        self.reaches(PASSES, f64::from(u32::try_from(count)?)).await
    }

    /// Waits until it has written nothing for a while.
    pub async fn settles(&self) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        let (mut writes, mut since) = (self.writes().await?, Instant::now());
        while since.elapsed() < QUIET {
            if Instant::now() > deadline {
                bail!("the operator writes on and on; its log tells what");
            }
            tokio::time::sleep(Duration::from_millis(500)).await;
            let now = self.writes().await?;
            if now > writes {
                (writes, since) = (now, Instant::now());
            }
        }
        Ok(())
    }

    /// Its writes so far, of objects and of status; those of the Lease are not counted.
    pub async fn writes(&self) -> Result<f64> {
        self.sum(WRITES).await
    }

    pub fn usage(&self) -> Result<Usage> {
        self.process.usage()
    }

    async fn reaches(&mut self, series: &str, value: f64) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        while self.sum(series).await? < value {
            self.process.ensure_runs().context("the operator")?;
            if Instant::now() > deadline {
                bail!("{series} is not {value} after {} s", PATIENCE.as_secs());
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Ok(())
    }

    /// The sum of the series whose lines begin like this; what was never counted is 0.
    async fn sum(&self, start: &str) -> Result<f64> {
        let text = reqwest::get(format!("{}/metrics", self.ops)).await?.text().await?;
        let lines = text.lines().filter(|line| line.starts_with(start));
        // Not `sum`, which is -0 of nothing.
        Ok(lines.filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok()).fold(0.0, |sum, one| sum + one))
    }
}

fn path(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}
