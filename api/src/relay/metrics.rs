//! What the relay counts.

use prometheus_client::metrics::counter::Counter;
use shop_runtime::metrics::Metrics;

use super::send::SendReport;

#[derive(Debug, Clone, Default)]
pub struct RelayMetrics {
    sent: Counter,
    failed: Counter,
}

impl RelayMetrics {
    pub fn register(metrics: &Metrics) -> Self {
        let new = Self::default();
        metrics.register(|registry| {
            registry.register("shop_relay_sent_messages", "Outbox entries that the queue took", new.sent.clone());
            registry.register("shop_relay_failed_messages", "Outbox entries that it did not take", new.failed.clone());
        });
        new
    }

    pub fn count(&self, report: &SendReport) {
        self.sent.inc_by(report.sent.len() as u64);
        self.failed.inc_by(report.unsent.len() as u64);
    }
}
