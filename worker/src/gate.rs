//! The gate before MongoDB: closed while it cannot be reached, so that an outage does not use up deliveries.

use std::time::Duration;

use shop_runtime::{health::Readiness, shutdown::Shutdown, telemetry::chain};
use shop_store::Store;
use tokio::sync::watch;

const PROBE: Duration = Duration::from_secs(1);
const NAME: &str = "mongodb";

/// Open while MongoDB answers. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Gate(watch::Sender<bool>);

impl Gate {
    /// A closed gate that opens at the first contact. The process is not ready until then; a later outage closes only
    /// the gate, so that pods do not leave together for something that they share.
    pub fn start(store: Store, readiness: Readiness, shutdown: &Shutdown) -> Self {
        let gate = Self(watch::Sender::new(false));
        readiness.close(NAME, "not reached yet");
        shutdown.spawn_detached(gate.clone().watch(store, readiness));
        gate
    }

    /// Says that MongoDB could not be reached, or seems to hang.
    pub fn close(&self) {
        if self.0.send_replace(false) {
            tracing::warn!("no messages are received until MongoDB answers");
        }
    }

    /// Waits until MongoDB answers.
    pub async fn opened(&self) {
        let mut state = self.0.subscribe();
        // The sender lives as long as this gate, so waiting cannot fail.
        let _open = state.wait_for(|open| *open).await;
    }

    async fn watch(self, store: Store, readiness: Readiness) {
        let mut state = self.0.subscribe();
        let (mut reached_before, mut failures) = (false, 0_u32);
        while state.wait_for(|open| !open).await.is_ok() {
            let Err(error) = store.ping().await else {
                tracing::info!(failures, "MongoDB answers");
                (reached_before, failures) = (true, 0);
                readiness.open(NAME);
                self.0.send_replace(true);
                continue;
            };
            let why = chain(&error);
            if failures == 0 {
                tracing::warn!(error = why, "MongoDB does not answer, trying again every second");
            }
            failures += 1;
            if !reached_before {
                readiness.close(NAME, why);
            }
            tokio::time::sleep(PROBE).await;
        }
    }
}
