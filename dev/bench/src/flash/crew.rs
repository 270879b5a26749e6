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

/// A worker waits half of this for rows that others hold. A killed worker's transaction holds its rows until MongoDB ends
/// it, which looks every half minute for those older than a minute: longer than that, so that no message is given back.
const MAX_PROCESSING_SECONDS: u32 = 200;

/// The workers.
pub struct Crew(Vec<(Plan, Process)>);

impl Crew {
    pub fn start(ground: &Ground, binary: &Path, workers: usize) -> Result<Self> {
        let start = |_| {
            let (mut plan, _) = ground.worker(binary)?;
            plan.env.push(("SHOP_WORKER_CONCURRENCY", CONCURRENCY.to_string()));
            plan.env.push(("SHOP_WORKER_MAX_PROCESSING_SECONDS", MAX_PROCESSING_SECONDS.to_string()));
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
            self.replace(victim)?;
            kills += 1;
        }
        Ok(kills)
    }

    /// Ends all; an error when one has ended by itself.
    pub fn dismiss(mut self) -> Result<()> {
        self.0.iter_mut().try_for_each(|(plan, process)| runs(plan, process))
    }

    fn replace(&mut self, victim: usize) -> Result<()> {
        let (plan, mut process) = self.0.swap_remove(victim);
        runs(&plan, &mut process)?;
        drop(process);
        let process = Process::start(&plan)?;
        self.0.push((plan, process));
        Ok(())
    }
}

fn runs(plan: &Plan, process: &mut Process) -> Result<()> {
    process.ensure_runs().with_context(|| format!("a worker; its log is {}", plan.log.display()))
}
