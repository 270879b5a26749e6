//! Workers that are killed at random and started again at once.

use std::{path::Path, time::Duration};

use anyhow::{Context, Result};

use crate::{
    ground::Ground,
    process::{Plan, Process},
    random::SplitMix,
};

/// Between two kills.
const LEAST: Duration = Duration::from_millis(200);
const MOST: Duration = Duration::from_millis(500);

/// Messages that a worker holds at once: five batches, so that they meet on the one row also within a worker.
const CONCURRENCY: u32 = 50;

/// The workers.
pub struct Crew(Vec<(Plan, Process)>);

impl Crew {
    pub fn start(ground: &Ground, binary: &Path, workers: usize) -> Result<Self> {
        let start = |_| {
            let (mut plan, _) = ground.worker(binary)?;
            plan.env.push(("SHOP_WORKER_CONCURRENCY", CONCURRENCY.to_string()));
            let process = Process::start(&plan)?;
            Ok((plan, process))
        };
        (0..workers).map(start).collect::<Result<_>>().map(Self)
    }

    /// SIGKILLs one after the other until `enough` of the number of kills so far; returns that number.
    pub async fn harass(
        &mut self,
        random: &mut SplitMix,
        enough: impl AsyncFn(usize) -> Result<bool>,
    ) -> Result<usize> {
        let mut kills = 0;
        while !enough(kills).await? {
            tokio::time::sleep(random.between(LEAST, MOST)).await;
            let victim = random.below(self.0.len());
            self.replace(victim).await?;
            kills += 1;
        }
        Ok(kills)
    }

    /// Ends all.
    pub async fn dismiss(self) -> Result<()> {
        for (plan, mut process) in self.0 {
            process.ensure_runs().with_context(|| format!("a worker; its log is {}", plan.log.display()))?;
            process.kill().await?;
        }
        Ok(())
    }

    async fn replace(&mut self, victim: usize) -> Result<()> {
        let (plan, mut process) = self.0.swap_remove(victim);
        process.ensure_runs().with_context(|| format!("a worker; its log is {}", plan.log.display()))?;
        process.kill().await?;
        let process = Process::start(&plan)?;
        self.0.push((plan, process));
        Ok(())
    }
}
