//! The one harness of the integration tests: real servers, a shop of its own for each test, and polling with a deadline.
//! Never a stand-in written here, and never a test that is skipped: a server that is missing is a failure.

mod fixtures;
mod link;
mod servers;
mod shop;
mod tls;

use std::time::Duration;

pub use fixtures::{bits, buyer, customer};
pub use link::{Link, Step};
pub use servers::Servers;
pub use shop::{QueueKind, QueueRules, Shop, with_shop, with_shop_of};
pub use tls::TlsFront;

const PATIENCE: Duration = Duration::from_secs(30);
const BETWEEN_LOOKS: Duration = Duration::from_millis(50);

/// Looks until there is something, for at most half a minute.
pub async fn eventually<T>(what: &str, mut look: impl AsyncFnMut() -> anyhow::Result<Option<T>>) -> anyhow::Result<T> {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look().await? {
            return Ok(found);
        }
        if tokio::time::Instant::now() >= deadline {
            anyhow::bail!("not within {} s: {what}", PATIENCE.as_secs());
        }
        tokio::time::sleep(BETWEEN_LOOKS).await;
    }
}
