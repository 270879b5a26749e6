//! Relay, mailer and sweeper against real servers: nothing that is owed gets lost, and nothing newer gets erased.

mod mailer;
mod refusals;
mod relay;
mod ses;
mod sweeper;

use shop_runtime::metrics::Metrics;

/// What a counter without labels stands at.
fn counted(metrics: &Metrics, name: &str) -> anyhow::Result<u64> {
    let text = metrics.encode()?;
    Ok(text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok()).unwrap_or(0))
}
