//! What the mailer counts.

use prometheus_client::metrics::counter::Counter;
use shop_runtime::metrics::Metrics;

#[derive(Debug, Clone, Default)]
pub struct MailerMetrics {
    pub sent: Counter,
    pub failed: Counter,
}

impl MailerMetrics {
    pub fn register(metrics: &Metrics) -> Self {
        let new = Self::default();
        metrics.register(|registry| {
            registry.register("shop_mailer_sent_mails", "Mails that the mail service took", new.sent.clone());
            registry.register("shop_mailer_failed_mails", "Attempts that failed; the mails wait", new.failed.clone());
        });
        new
    }
}
