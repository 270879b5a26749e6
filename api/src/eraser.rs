//! Brings erasures of accounts to their end, beside the requests. What an erasure is, `service::erasure` knows.

use std::time::Duration;

use shop_runtime::{shutdown::Shutdown, telemetry};
use shop_store::gate::Gate;

use crate::service::erasure::Erasure;

const BETWEEN_LOOKS: Duration = Duration::from_secs(10);

/// Starts looking for erasures that are to be finished.
pub fn spawn(erasure: Erasure, gate: Gate, shutdown: &Shutdown) {
    let draining = shutdown.draining();
    shutdown.spawn(async move {
        while tokio::time::timeout(BETWEEN_LOOKS, draining.cancelled()).await.is_err() {
            if let Some(Err(error)) = gate.while_open(erasure.finish_due()).await {
                tracing::warn!(error = telemetry::chain(&error), "erasures of accounts wait");
            }
        }
    });
}
