//! What the mailer counts.

use prometheus_client::metrics::counter::Counter;
use shop_runtime::metrics::Metrics;

#[derive(Debug, Clone, Default)]
pub struct MailerMetrics {
    pub sent: Counter,
    pub failed: Counter,
    pub held: Counter,
    pub throttled: Counter,
    pub given_up: Counter,
    pub suppressed: Counter,
}

impl MailerMetrics {
    pub fn register(metrics: &Metrics) -> Self {
        let new = Self::default();
        let counters = [
            ("shop_mailer_sent_mails", "Mails that the mail service took", &new.sent),
            ("shop_mailer_failed_mails", "Attempts that were refused; the mails are tried again", &new.failed),
            ("shop_mailer_held_mails", "Attempts that failed for no fault of the mail, which waits", &new.held),
            ("shop_mailer_throttled_mails", "Attempts that were too many for the mail service", &new.throttled),
            ("shop_mailer_given_up_mails", "Mails that were refused for good, or too often", &new.given_up),
            ("shop_mailer_suppressed_mails", "Mails not sent to suppressed addresses", &new.suppressed),
        ];
        metrics.register(|registry| {
            for (name, help, counter) in counters {
                registry.register(name, help, counter.clone());
            }
        });
        new
    }
}
