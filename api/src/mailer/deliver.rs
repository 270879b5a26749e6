//! What happens to one mail: sent and recorded, left for later, or given up with a record of why.

use std::time::Duration;

use backon::{ExponentialBuilder, Retryable};
use jiff::Timestamp;
use shop_runtime::{telemetry::chain, trace};
use shop_store::{
    StoreError,
    mails::{Conclusion, MailReason, MailState, PendingMail, Subject},
    suppressed_addresses::Suppressed,
};
use tracing::Instrument;

use super::{
    CLAIM_LIFE, Mailer, pace,
    refusal::Verdict,
    send::{self, SendError},
};

/// What became of a mail in a round.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    Sent,
    /// Recorded as not sent, or refused and due later.
    NotSent,
    /// Nothing is wrong with the mail: no other is worth trying now either.
    Held(Verdict),
}

impl Mailer {
    /// Works on one mail, in a span of the trace of its cause.
    pub(super) async fn deliver(&self, mail: PendingMail, suppressed: &Suppressed) -> Outcome {
        let span = send::span(&mail);
        let outcome = self.attempt(mail, suppressed).instrument(span.clone()).await;
        if outcome != Outcome::Sent {
            trace::failed(&span);
        }
        outcome
    }

    async fn attempt(&self, mail: PendingMail, suppressed: &Suppressed) -> Outcome {
        if is_over(&mail, self.deps.clock.now()) {
            self.drop(&mail).await;
            return Outcome::NotSent;
        }
        if suppressed.contains(&mail.to) {
            self.metrics.suppressed.inc();
            tracing::warn!(about = mail.about(), kind = mail.kind(), "mail not sent: its address is suppressed");
            let reason = Some(MailReason::AddressRejected);
            self.conclude(&mail, MailState::Suppressed, reason).await;
            return Outcome::NotSent;
        }
        let rendered = match self.templates.render(&mail, self.deps.sender.shop(), &self.deps.reset_links) {
            Ok(rendered) => rendered,
            Err(error) => return self.refused(&mail, MailReason::NotRendered, &chain(&error)).await,
        };
        match send::send(&self.deps, &mail.to, rendered).await {
            Ok(()) => {
                self.metrics.sent.inc();
                self.conclude(&mail, MailState::Sent, None).await;
                Outcome::Sent
            }
            Err(error) => self.not_taken(&mail, &error).await,
        }
    }

    async fn not_taken(&self, mail: &PendingMail, error: &SendError) -> Outcome {
        match error.verdict() {
            fault @ (Verdict::Throttled | Verdict::ServiceFault | Verdict::ShopFault) => {
                self.hold(mail, fault, error).await;
                Outcome::Held(fault)
            }
            Verdict::AddressRejected => {
                self.suppress(mail, error.code()).await;
                Outcome::NotSent
            }
            Verdict::Refused => self.refused(mail, MailReason::Refused, &chain(error)).await,
        }
    }

    /// Leaves the mail as it was: it is not charged an attempt, however long the fault lasts.
    async fn hold(&self, mail: &PendingMail, fault: Verdict, error: &SendError) {
        let (about, code, error) = (mail.about(), error.code(), chain(error));
        match fault {
            Verdict::Throttled => {
                self.metrics.throttled.inc();
                tracing::warn!(about, code, "the mail service asks for fewer mails: they are sent more slowly");
            }
            Verdict::ShopFault => tracing::error!(
                about,
                code,
                error,
                "the mail service refuses this shop's mails, and they wait: check in SES that the sender (SHOP_MAIL_FROM) \
                 is verified in this region, that the account may send and is out of the sandbox, and its credentials"
            ),
            _ => tracing::warn!(about, code, error, "the mail service is away: mails wait"),
        }
        self.metrics.held.inc();
        let due_at = pace::due_again_at(self.deps.clock.now(), fault);
        if let Err(error) = self.deps.gate.guard(self.deps.mails.put_back(mail, due_at)).await {
            tracing::debug!(about, error = chain(&error), "the mail keeps its claim");
        }
    }

    /// Sends nothing more to the address, and gives this mail up.
    async fn suppress(&self, mail: &PendingMail, code: &str) {
        let now = self.deps.clock.now();
        let suppress = self.deps.suppressed_addresses.suppress(&mail.to, code, now);
        if let Err(error) = self.deps.gate.guard(suppress).await {
            tracing::warn!(about = mail.about(), error = chain(&error), "a rejected address is not suppressed yet");
            return;
        }
        self.metrics.given_up.inc();
        tracing::warn!(about = mail.about(), kind = mail.kind(), code, "mail given up: its address was rejected");
        self.conclude(mail, MailState::GivenUp, Some(MailReason::AddressRejected)).await;
    }

    /// Leaves the mail for later, or gives it up after its last attempt.
    async fn refused(&self, mail: &PendingMail, reason: MailReason, error: &str) -> Outcome {
        let (about, kind, attempts) = (mail.about(), mail.kind(), mail.attempts);
        self.metrics.failed.inc();
        if attempts >= self.deps.max_attempts {
            self.metrics.given_up.inc();
            tracing::error!(about, kind, attempts, error, "mail given up; staff can have it sent again");
            self.conclude(mail, MailState::GivenUp, Some(reason)).await;
            return Outcome::NotSent;
        }
        let due_at = pace::retry_at(self.deps.clock.now(), attempts);
        tracing::warn!(about, kind, attempts, error, retry_at = %due_at, "mail not sent");
        if let Err(error) = self.deps.gate.guard(self.deps.mails.postpone(mail, due_at)).await {
            tracing::debug!(about, error = chain(&error), "the mail keeps its claim");
        }
        Outcome::NotSent
    }

    /// Nobody is to get the mail any more.
    async fn drop(&self, mail: &PendingMail) {
        let about = mail.about();
        match self.deps.gate.guard(self.deps.mails.drop(mail)).await {
            Ok(_) => tracing::debug!(about, "a mail that nobody is to get any more is dropped"),
            Err(error) => tracing::debug!(about, error = chain(&error), "the mail keeps its claim"),
        }
    }

    async fn conclude(&self, mail: &PendingMail, state: MailState, reason: Option<MailReason>) {
        // A suppressed mail was not offered this time.
        let attempts = mail.attempts.saturating_sub(u32::from(state == MailState::Suppressed));
        let end = Conclusion { state, reason, attempts, at: self.deps.clock.now() };
        let conclude = || self.deps.gate.guard(self.deps.mails.conclude(mail, &end));
        if let Err(error) = conclude.retry(while_claimed()).when(StoreError::is_transient).await {
            // A sent mail is sent a second time when the claim is over: better twice than never.
            let about = mail.about();
            tracing::warn!(about, error = chain(&error), "the entry of a mail that is done stays in the outbox");
        }
    }
}

/// Nobody is to get it any more: the token has expired, or the buyer has erased their account.
fn is_over(mail: &PendingMail, now: Timestamp) -> bool {
    mail.to.is_erased() || matches!(&mail.subject, Subject::PasswordReset(reset) if reset.expires_at <= now)
}

/// Recording is idempotent: it is tried again, from 100 ms up to 5 s apart, for as long as nobody else takes the mail.
fn while_claimed() -> ExponentialBuilder {
    ExponentialBuilder::default()
        .with_min_delay(Duration::from_millis(100))
        .with_max_delay(Duration::from_secs(5))
        .without_max_times()
        .with_total_delay(Some(CLAIM_LIFE.unsigned_abs()))
}
