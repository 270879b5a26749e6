//! Sends the mails that orders and password resets owe: one sender at a time, never faster than allowed, until the mail
//! service took them or they are given up.
//! Knows nothing of HTTP and decides nothing about orders.

mod deliver;
mod metrics;
mod pace;
mod refusal;
mod render;
pub mod reset_link;
mod send;

use std::{collections::VecDeque, convert::Infallible, num::NonZeroU32, sync::Arc, time::Duration};

use futures::{StreamExt, stream::FuturesUnordered};
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use jiff::SignedDuration;
use shop_domain::id::ClaimId;
use shop_runtime::{
    clock::Clock,
    ids::{self, NoRandomness},
    metrics::Metrics,
    shutdown::Shutdown,
    telemetry::chain,
};
use shop_store::{
    StoreError,
    gate::Gate,
    leases::{LeaseRequest, Leases},
    mails::{Mails, PendingMail},
    outbox::Taking,
    suppressed_addresses::{Suppressed, SuppressedAddresses},
};
use tokio_util::sync::CancellationToken;

use self::{
    deliver::Outcome,
    metrics::MailerMetrics,
    pace::{Pace, pause_after},
    refusal::Verdict,
    render::Templates,
    reset_link::ResetLinks,
};
pub use self::{render::TemplateError, send::Sender};

const LEASE: &str = "mailer";
/// The lease's life; renewed every third of it.
const LEASE_LIFE: SignedDuration = SignedDuration::from_secs(15);
const RENEWAL: Duration = Duration::from_secs(5);
/// How long a taken mail is ours: far longer than a round of sending can take, also of a throttled mailer (64 s).
const CLAIM_LIFE: SignedDuration = SignedDuration::from_secs(180);
/// Mails of one round, and how many of them are under way at once.
const ROUND: u32 = 100;
const AT_ONCE: usize = 8;
/// Between two looks at empty outboxes.
const IDLE: Duration = Duration::from_millis(500);

/// What the mailer works with.
#[derive(Debug, Clone)]
pub struct MailerDeps {
    pub mails: Mails,
    pub gate: Gate,
    pub suppressed_addresses: SuppressedAddresses,
    pub leases: Leases,
    pub ses: aws_sdk_ses::Client,
    pub sender: Sender,
    /// Most mails in a second, as the mail service allows.
    pub per_second: NonZeroU32,
    /// Refusals after which a mail is given up; outages and throttling are none.
    pub max_attempts: u32,
    pub reset_links: ResetLinks,
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
    Done,
    /// No more could be sent; how many were before.
    Held {
        fault: Verdict,
        sent: usize,
    },
}

/// What was done in a round.
#[derive(Default)]
struct Tally {
    sent: usize,
    fault: Option<Verdict>,
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
        let (mut pace, mut failures) = (Pace::default(), 0);
        while !draining.is_cancelled() {
            let (pause, failed) = match self.round(&mut pace).await {
                Ok(Round::Done) => (Duration::ZERO, 0),
                Ok(Round::Empty) => (IDLE, 0),
                Ok(Round::NotOurs) => (RENEWAL, 0),
                Ok(Round::Held { fault, sent: 0 }) => (pause_after(failures, fault), failures + 1),
                Ok(Round::Held { fault, .. }) => (pause_after(0, fault), 0),
                Err(error) => {
                    tracing::warn!(error = chain(&error), "mails wait");
                    (pause_after(failures, Verdict::ServiceFault), failures + 1)
                }
            };
            failures = failed;
            draining.run_until_cancelled(tokio::time::sleep(pause)).await;
        }
        if let Err(error) = self.deps.gate.guard(self.deps.leases.release(LEASE, &self.holder)).await {
            tracing::debug!(error = chain(&error), "the mailer's lease runs out by itself");
        }
    }

    async fn round(&self, pace: &mut Pace) -> Result<Round, RoundError> {
        if !self.hold_lease().await? {
            return Ok(Round::NotOurs);
        }
        let mut mails = self.take().await?;
        if mails.is_empty() {
            return Ok(Round::Empty);
        }
        let suppressed = self.suppressed_among(&mails).await?;
        let stop = self.deps.shutdown.draining().child_token();
        let renewing = async {
            self.renew().await;
            stop.cancel();
            std::future::pending::<Infallible>().await
        };
        let tally = tokio::select! {
            tally = self.send((&mut mails, &suppressed), pace, &stop) => tally,
            never = renewing => match never {},
        };
        self.give_back(&mails).await;
        Ok(tally.fault.map_or(Round::Done, |fault| Round::Held { fault, sent: tally.sent }))
    }

    /// Sends mails in turn. After `stop`, or when one meets a fault that all would meet, no more are begun, but what is
    /// under way is finished: it would be sent twice else.
    async fn send(
        &self,
        (mails, suppressed): (&mut VecDeque<PendingMail>, &Suppressed),
        pace: &mut Pace,
        stop: &CancellationToken,
    ) -> Tally {
        let (mut under_way, mut tally, mut more) = (FuturesUnordered::new(), Tally::default(), true);
        loop {
            let turns = pace.turns();
            tokio::select! {
                next = stop.run_until_cancelled(self.next(mails, turns)), if more && under_way.len() < AT_ONCE => {
                    match next.flatten() {
                        Some(mail) => under_way.push(self.deliver(mail, suppressed)),
                        None => more = false,
                    }
                }
                Some(outcome) = under_way.next() => {
                    self.note(outcome, &mut tally, pace);
                    more &= tally.fault.is_none();
                }
                else => return tally,
            }
        }
    }

    fn note(&self, outcome: Outcome, tally: &mut Tally, pace: &mut Pace) {
        match outcome {
            Outcome::Sent => {
                tally.sent += 1;
                pace.sent(self.deps.per_second.get());
            }
            Outcome::NotSent => {}
            Outcome::Held(fault) => {
                // Those that are under way together are throttled together: that counts once.
                if fault == Verdict::Throttled && tally.fault != Some(fault) {
                    pace.throttled();
                }
                tally.fault = Some(fault);
            }
        }
    }

    /// The next mail, as soon as the limit lets it go.
    async fn next(&self, mails: &mut VecDeque<PendingMail>, turns: u32) -> Option<PendingMail> {
        for _ in 0..turns {
            if !mails.is_empty() {
                self.limiter.until_ready().await;
            }
        }
        mails.pop_front()
    }

    async fn suppressed_among(&self, mails: &VecDeque<PendingMail>) -> Result<Suppressed, RoundError> {
        let among = self.deps.suppressed_addresses.among(mails.iter().map(|mail| &mail.to));
        let suppressed = self.deps.gate.guard(among).await;
        if suppressed.is_err() {
            self.give_back(mails).await;
        }
        Ok(suppressed?)
    }

    /// Leaves mails that were taken and not begun to whoever sends next.
    async fn give_back(&self, mails: &VecDeque<PendingMail>) {
        let now = self.deps.clock.now();
        for mail in mails {
            if let Err(error) = self.deps.gate.guard(self.deps.mails.put_back(mail, now)).await {
                tracing::debug!(error = chain(&error), "mails that were not begun keep their claim");
                return;
            }
        }
    }

    async fn hold_lease(&self) -> Result<bool, RoundError> {
        let now = self.deps.clock.now();
        let until = now.checked_add(LEASE_LIFE)?;
        let wish = LeaseRequest { name: LEASE, holder: self.holder.clone(), now, until };
        Ok(self.deps.gate.guard(self.deps.leases.hold(&wish)).await?)
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
        let taken = self.deps.gate.guard(self.deps.mails.take(&taking)).await;
        if taken.is_err() {
            self.release(&taking).await;
        }
        Ok(taken?.into())
    }

    /// The mails may have been taken, and only the answer got lost: they are not to wait until the claim is over.
    async fn release(&self, taking: &Taking) {
        let draining = self.deps.shutdown.draining();
        while let Err(error) = self.deps.gate.guard(self.deps.mails.release(taking)).await {
            let pause = draining.run_until_cancelled(tokio::time::sleep(IDLE));
            if !error.is_transient() || pause.await.is_none() {
                tracing::warn!(error = chain(&error), "mails that were taken in vain keep their claim");
                return;
            }
        }
    }
}
