//! Sends the mails that the orders owe: one sender at a time, never faster than allowed, until the mail service took them.
//! Knows nothing of HTTP and decides nothing about orders.

mod metrics;
mod render;
mod send;

use std::{collections::VecDeque, convert::Infallible, num::NonZeroU32, sync::Arc, time::Duration};

use backon::{ExponentialBuilder, Retryable};
use futures::{StreamExt, stream::FuturesUnordered};
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use jiff::{SignedDuration, Timestamp};
use shop_domain::id::ClaimId;
use shop_runtime::{
    clock::Clock,
    ids::{self, NoRandomness},
    metrics::Metrics,
    shutdown::Shutdown,
    telemetry::chain,
    trace,
};
use shop_store::{
    StoreError,
    leases::{LeaseRequest, Leases},
    outbox::{Outbox, PendingMail, Taking},
};
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use self::{metrics::MailerMetrics, render::Templates};
pub use self::{render::TemplateError, send::Sender};

const LEASE: &str = "mailer";
/// The lease's life; renewed every third of it.
const LEASE_LIFE: SignedDuration = SignedDuration::from_secs(15);
const RENEWAL: Duration = Duration::from_secs(5);
/// How long a taken mail is ours: far longer than a round of sending can take.
const CLAIM_LIFE: SignedDuration = SignedDuration::from_secs(180);
/// Mails of one round, and how many of them are under way at once.
const ROUND: u32 = 100;
const AT_ONCE: usize = 8;
/// Between two looks at empty outboxes.
const IDLE: Duration = Duration::from_millis(500);

/// What the mailer works with.
#[derive(Debug, Clone)]
pub struct MailerDeps {
    pub outbox: Outbox,
    pub leases: Leases,
    pub ses: aws_sdk_ses::Client,
    pub sender: Sender,
    /// Most mails in a second, as the mail service allows.
    pub per_second: NonZeroU32,
    pub clock: Clock,
    pub shutdown: Shutdown,
    pub metrics: Metrics,
}

/// Why the mailer cannot start.
#[derive(Debug, thiserror::Error)]
pub enum MailerError {
    #[error(transparent)]
    Templates(#[from] TemplateError),
    #[error(transparent)]
    Random(#[from] NoRandomness),
}

/// Starts the mailer; it sends whenever this process holds the lease.
pub fn spawn(deps: MailerDeps) -> Result<(), MailerError> {
    let quota = Quota::per_second(deps.per_second).allow_burst(NonZeroU32::MIN);
    let mailer = Mailer {
        templates: Templates::new()?,
        limiter: RateLimiter::direct(quota),
        metrics: MailerMetrics::register(&deps.metrics),
        holder: ids::random_hex::<12>()?,
        deps,
    };
    let shutdown = mailer.deps.shutdown.clone();
    shutdown.spawn(Arc::new(mailer).run());
    Ok(())
}

struct Mailer {
    deps: MailerDeps,
    templates: Templates,
    limiter: DefaultDirectRateLimiter,
    metrics: MailerMetrics,
    holder: String,
}

/// What a round came to.
enum Round {
    /// Another process sends.
    NotOurs,
    Empty,
    Sent,
    /// Nothing could be sent.
    Failed,
}

#[derive(Debug, thiserror::Error)]
enum RoundError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Random(#[from] NoRandomness),
    #[error("the clock is out of range")]
    Clock(#[from] jiff::Error),
}

impl Mailer {
    async fn run(self: Arc<Self>) {
        let draining = self.deps.shutdown.draining();
        let mut failures = 0;
        while !draining.is_cancelled() {
            let pause = match self.round().await {
                Ok(Round::Sent) => Duration::ZERO,
                Ok(Round::Empty) => IDLE,
                Ok(Round::NotOurs) => RENEWAL,
                Ok(Round::Failed) => pause_after(failures),
                Err(error) => {
                    tracing::warn!(error = chain(&error), "mails wait");
                    pause_after(failures)
                }
            };
            failures = if pause > IDLE && pause != RENEWAL { failures + 1 } else { 0 };
            draining.run_until_cancelled(tokio::time::sleep(pause)).await;
        }
        if let Err(error) = self.deps.leases.release(LEASE, &self.holder).await {
            tracing::debug!(error = chain(&error), "the mailer's lease runs out by itself");
        }
    }

    async fn round(&self) -> Result<Round, RoundError> {
        if !self.hold_lease().await? {
            return Ok(Round::NotOurs);
        }
        let mut mails = self.take().await?;
        if mails.is_empty() {
            return Ok(Round::Empty);
        }
        let stop = self.deps.shutdown.draining().child_token();
        let renewing = async {
            self.renew().await;
            stop.cancel();
            std::future::pending::<Infallible>().await
        };
        let sent = tokio::select! {
            sent = self.send(&mut mails, &stop) => sent,
            never = renewing => match never {},
        };
        self.give_back(&mails).await;
        Ok(if sent == 0 { Round::Failed } else { Round::Sent })
    }

    /// Sends mails in turn; says how many were sent. After `stop` no more are begun, but what is under way is finished:
    /// it would be sent twice else.
    async fn send(&self, mails: &mut VecDeque<PendingMail>, stop: &CancellationToken) -> usize {
        let (mut under_way, mut sent, mut more) = (FuturesUnordered::new(), 0, true);
        loop {
            tokio::select! {
                next = stop.run_until_cancelled(self.next(mails)), if more && under_way.len() < AT_ONCE => {
                    match next.flatten() {
                        Some(mail) => under_way.push(self.deliver(mail)),
                        None => more = false,
                    }
                }
                Some(done) = under_way.next() => sent += usize::from(done),
                else => return sent,
            }
        }
    }

    /// The next mail, as soon as the limit lets it go.
    async fn next(&self, mails: &mut VecDeque<PendingMail>) -> Option<PendingMail> {
        if !mails.is_empty() {
            self.limiter.until_ready().await;
        }
        mails.pop_front()
    }

    /// Leaves mails that were taken and not begun to whoever sends next.
    async fn give_back(&self, mails: &VecDeque<PendingMail>) {
        let now = self.deps.clock.now();
        for mail in mails {
            if let Err(error) = self.deps.outbox.postpone_mail(mail, now).await {
                tracing::debug!(error = chain(&error), "mails that were not begun keep their claim");
                return;
            }
        }
    }

    async fn hold_lease(&self) -> Result<bool, RoundError> {
        let now = self.deps.clock.now();
        let until = now.checked_add(LEASE_LIFE)?;
        let wish = LeaseRequest { name: LEASE, holder: self.holder.clone(), now, until };
        Ok(self.deps.leases.hold(&wish).await?)
    }

    /// Keeps the lease while a round lasts; returns only when another process has it.
    async fn renew(&self) {
        loop {
            tokio::time::sleep(RENEWAL).await;
            if matches!(self.hold_lease().await, Ok(false)) {
                return;
            }
        }
    }

    async fn take(&self) -> Result<VecDeque<PendingMail>, RoundError> {
        let now = self.deps.clock.now();
        let claim = ClaimId::from_bits(ids::random_bytes()?);
        let limit = i64::from(self.deps.per_second.get().min(ROUND));
        let taking = Taking { claim, now, until: now.checked_add(CLAIM_LIFE)?, limit };
        Ok(self.deps.outbox.take_mails(&taking).await?.into())
    }

    /// Sends one mail and records it, or leaves it for later. True when it was sent. A span in the trace of its cause.
    async fn deliver(&self, mail: PendingMail) -> bool {
        let span = send::span(&mail);
        let sent = self.attempt(mail).instrument(span.clone()).await;
        if !sent {
            trace::failed(&span);
        }
        sent
    }

    async fn attempt(&self, mail: PendingMail) -> bool {
        let failure = match self.templates.render(&mail, self.deps.sender.shop()) {
            Ok(rendered) => match send::send(&self.deps, &mail.order.email, rendered).await {
                Ok(()) => return self.record(&mail).await,
                Err(error) => chain(&error),
            },
            Err(error) => chain(&error),
        };
        let due_at = retry_at(self.deps.clock.now(), mail.attempts);
        self.metrics.failed.inc();
        tracing::warn!(order_id = %mail.order.id, kind = ?mail.kind, attempts = mail.attempts, error = failure,
            retry_at = %due_at, "mail not sent");
        if let Err(error) = self.deps.outbox.postpone_mail(&mail, due_at).await {
            tracing::debug!(order_id = %mail.order.id, error = chain(&error), "the mail keeps its claim");
        }
        false
    }

    async fn record(&self, mail: &PendingMail) -> bool {
        self.metrics.sent.inc();
        let sent_at = self.deps.clock.now();
        let record = || self.deps.outbox.record_mailed(mail, sent_at);
        if let Err(error) = record.retry(while_claimed()).when(StoreError::is_transient).await {
            // It is sent a second time when the claim is over: better twice than never.
            tracing::warn!(order_id = %mail.order.id, error = chain(&error), "a sent mail stays in the outbox");
        }
        true
    }
}

/// Recording is idempotent: it is tried again, from 100 ms up to 5 s apart, for as long as nobody else takes the mail.
fn while_claimed() -> ExponentialBuilder {
    ExponentialBuilder::default()
        .with_min_delay(Duration::from_millis(100))
        .with_max_delay(Duration::from_secs(5))
        .without_max_times()
        .with_total_delay(Some(CLAIM_LIFE.unsigned_abs()))
}

/// How long the mailer rests after so many rounds in which nothing could be sent: 1 s, doubled up to 30 s.
fn pause_after(failures: u32) -> Duration {
    Duration::from_secs((1_u64 << failures.min(5)).min(30))
}

/// When a mail that failed `attempts` times is tried again: 1 s, doubled up to an hour. It is never given up.
fn retry_at(now: Timestamp, attempts: u32) -> Timestamp {
    let seconds = (1_i64 << attempts.clamp(1, 13).saturating_sub(1)).min(3_600);
    now.saturating_add(SignedDuration::from_secs(seconds)).unwrap_or(now)
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case(0, 1)]
    #[case(1, 1)]
    #[case(2, 2)]
    #[case(5, 16)]
    #[case(12, 2_048)]
    #[case(13, 3_600)]
    #[case(u32::MAX, 3_600)]
    fn a_mail_is_tried_again_for_ever(#[case] attempts: u32, #[case] seconds: i64) {
        assert_eq!(retry_at(Timestamp::UNIX_EPOCH, attempts).as_second(), seconds);
    }

    #[rstest]
    #[case(0, 1)]
    #[case(4, 16)]
    #[case(5, 30)]
    #[case(u32::MAX, 30)]
    fn the_mailer_rests_while_nothing_can_be_sent(#[case] failures: u32, #[case] seconds: u64) {
        assert_eq!(pause_after(failures), Duration::from_secs(seconds));
    }
}
