//! Says what is done, how long it took and what comes next, one line each; decides nothing.

use std::time::Instant;

use anyhow::{Context as _, Result};

/// A fixed plan of steps, announced one after the other.
#[derive(Debug)]
pub struct Progress {
    plan: Vec<String>,
    done: usize,
    started: Instant,
}

impl Progress {
    pub fn new<S: Into<String>>(plan: impl IntoIterator<Item = S>) -> Self {
        Self { plan: plan.into_iter().map(Into::into).collect(), done: 0, started: Instant::now() }
    }

    /// Runs the next step of the plan.
    pub fn step<T>(&mut self, work: impl FnOnce() -> Result<T>) -> Result<T> {
        let title = self.plan.get(self.done).cloned().unwrap_or_default();
        println!("▶ [{}/{}] {title}", self.done + 1, self.plan.len());
        let started = Instant::now();
        let result = work().with_context(|| format!("{title}: failed after {}", seconds(started)))?;
        self.done += 1;
        match self.plan.get(self.done) {
            Some(next) => println!("  done in {}; next: {next}", seconds(started)),
            None => {
                println!("  done in {}; all {} steps in {}", seconds(started), self.plan.len(), seconds(self.started));
            }
        }
        Ok(result)
    }
}

/// One line about what was decided or found, below the step it belongs to.
pub fn note(text: impl AsRef<str>) {
    println!("  {}", text.as_ref());
}

fn seconds(since: Instant) -> String {
    let elapsed = since.elapsed();
    match elapsed.as_secs() {
        0..60 => format!("{:.1} s", elapsed.as_secs_f32()),
        seconds => format!("{} min {} s", seconds / 60, seconds % 60),
    }
}
