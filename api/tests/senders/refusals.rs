//! Mails that the mail service does not take: whose fault it is decides whether they wait, are given up, or are not sent.

use jiff::{SignedDuration, Timestamp};
use shop_api::mailer::{self, MailerDeps};
use shop_domain::id::{OrderId, OutboxId, PasswordResetId, UserId};
use shop_harness::{Shop, bits, buyer, eventually, with_shop};
use shop_runtime::clock::Clock;
use shop_store::{
    mails::{MailKind, MailReason, MailRecord, MailState},
    outbox::{OutboxEntry, OutboxKind},
    password_resets::PasswordReset,
};

use crate::{
    counted,
    mailer::{confirmed, delivered, deps, mailed, sent},
    ses::{self, Ses},
};

fn manual_clock() -> Clock {
    Clock::manual(Timestamp::UNIX_EPOCH + SignedDuration::from_hours(500_000))
}

/// The one record of an order whose mail is done with.
async fn the_record(shop: &Shop, id: &OrderId) -> anyhow::Result<MailRecord> {
    eventually("the mail is done with", async || {
        let order = shop.order(id).await?;
        Ok(order.mails.last().filter(|_| order.outbox.is_empty()).cloned())
    })
    .await
}

/// Waits until mails have met the fault so often.
async fn held(mailer: &MailerDeps, times: u64) -> anyhow::Result<()> {
    let held = async || Ok((counted(&mailer.metrics, "shop_mailer_held_mails_total")? >= times).then_some(()));
    eventually(&format!("{times} held"), held).await
}

/// Owes the confirmation once more, as staff do.
async fn again(shop: &Shop, id: &OrderId, clock: &Clock) -> anyhow::Result<()> {
    shop.store.suppressed_addresses.clear(&buyer()).await?;
    let entry = OutboxEntry::due(OutboxId::from_bits(bits()?), MailKind::Confirmation.entry(), clock.now());
    assert!(shop.store.mails.owe_again(id, &entry).await?);
    Ok(())
}

#[tokio::test]
async fn a_fault_that_is_not_the_mails_is_not_charged_to_it_and_suppresses_nobody() -> anyhow::Result<()> {
    for fault in [ses::THROTTLED, ses::AWAY, ses::UNVERIFIED] {
        with_shop(async |shop| {
            let (clock, ses) = (manual_clock(), Ses::to(&shop.ses()).await?);
            ses.refuse(fault);
            let ids = [confirmed(&shop, clock.now()).await?, confirmed(&shop, clock.now()).await?];
            // One refusal of its own would already be too much for a mail.
            let mailer = MailerDeps { max_attempts: 1, ..deps(&shop, &clock, &ses.service).await? };
            mailer::spawn(mailer.clone())?;
            for hour in 1..=4 {
                held(&mailer, hour).await?;
                clock.advance(SignedDuration::from_hours(1));
            }
            ses.relent();
            // What waits for the shop waits half a minute more.
            clock.advance(SignedDuration::from_mins(1));
            for id in &ids {
                mailed(&shop, id).await?;
                assert_eq!(the_record(&shop, id).await?.attempts, 1, "{fault:?}");
                assert_eq!(delivered(&shop, id).await?.len(), 1, "{fault:?}");
            }
            assert!(!shop.store.suppressed_addresses.among([&buyer()]).await?.contains(&buyer()), "{fault:?}");
            let throttled = counted(&mailer.metrics, "shop_mailer_throttled_mails_total")?;
            assert_eq!(throttled > 0, fault.code == ses::THROTTLED.code);
            end(mailer).await;
            Ok(())
        })
        .await?;
    }
    Ok(())
}

async fn end(mailer: MailerDeps) {
    mailer.shutdown.drain();
    assert!(mailer.shutdown.wait(std::time::Duration::from_secs(30)).await);
}

#[tokio::test]
async fn a_rejected_address_gets_no_more_mail_until_staff_ask_for_it() -> anyhow::Result<()> {
    with_shop(async |shop| {
        let (clock, ses) = (Clock::system(), Ses::to(&shop.ses()).await?);
        ses.refuse(ses::BLACKLISTED);
        let first = confirmed(&shop, clock.now()).await?;
        let mailer = deps(&shop, &clock, &ses.service).await?;
        mailer::spawn(mailer.clone())?;
        let record = the_record(&shop, &first).await?;
        let rejected = Some(MailReason::AddressRejected);
        assert_eq!((record.state, record.reason, record.attempts), (MailState::GivenUp, rejected, 1));

        ses.relent();
        let (calls, second) = (ses.calls(), confirmed(&shop, clock.now()).await?);
        let record = the_record(&shop, &second).await?;
        assert_eq!((record.state, record.reason, record.attempts), (MailState::Suppressed, rejected, 0));
        assert_eq!(ses.calls(), calls, "the mail service was not asked");
        assert_eq!(counted(&mailer.metrics, "shop_mailer_suppressed_mails_total")?, 1);

        again(&shop, &second, &clock).await?;
        sent(&mailer.metrics, 1).await?;
        assert_eq!(the_record(&shop, &second).await?.kind, MailKind::Confirmation);
        assert_eq!(delivered(&shop, &second).await?.len(), 1);
        // The buyer's next mail goes out by itself.
        let third = confirmed(&shop, clock.now()).await?;
        assert_eq!(the_record(&shop, &third).await?.state, MailState::Sent);
        end(mailer).await;
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_mail_that_is_refused_too_often_is_given_up_where_everyone_sees_it() -> anyhow::Result<()> {
    with_shop(async |shop| {
        let (clock, ses) = (manual_clock(), Ses::to(&shop.ses()).await?);
        ses.refuse(ses::REJECTED);
        let id = confirmed(&shop, clock.now()).await?;
        let mailer = MailerDeps { max_attempts: 3, ..deps(&shop, &clock, &ses.service).await? };
        mailer::spawn(mailer.clone())?;
        for refusals in 1..=3 {
            let refused =
                async || Ok((counted(&mailer.metrics, "shop_mailer_failed_mails_total")? == refusals).then_some(()));
            eventually(&format!("refused {refusals} times"), refused).await?;
            clock.advance(SignedDuration::from_mins(1));
        }
        let record = the_record(&shop, &id).await?;
        let given_up = (MailState::GivenUp, Some(MailReason::Refused), 3);
        assert_eq!((record.state, record.reason, record.attempts), given_up);
        assert_eq!((ses.calls(), counted(&mailer.metrics, "shop_mailer_given_up_mails_total")?), (3, 1));
        assert!(!shop.store.suppressed_addresses.among([&buyer()]).await?.contains(&buyer()));

        ses.relent();
        again(&shop, &id, &clock).await?;
        sent(&mailer.metrics, 1).await?;
        the_record(&shop, &id).await?;
        let states: Vec<_> = shop.order(&id).await?.mails.iter().map(|mail| mail.state).collect();
        assert_eq!(states, [MailState::GivenUp, MailState::Sent]);
        let books = shop.store.audit.read().await?;
        assert_eq!((books.mails_owed, books.mails_sent, books.mails_unsent), (2, 1, 1));
        end(mailer).await;
        Ok(())
    })
    .await
}

#[tokio::test]
async fn the_mail_of_a_password_reset_that_is_over_is_dropped() -> anyhow::Result<()> {
    with_shop(async |shop| {
        let (clock, ses) = (manual_clock(), Ses::to(&shop.ses()).await?);
        // In the future of the database, which would forget it by itself else.
        clock.advance(SignedDuration::from_hours(500_000));
        let entry = OutboxEntry::due(OutboxId::from_bits(bits()?), OutboxKind::PasswordResetMail, clock.now());
        let reset = PasswordReset {
            id: PasswordResetId::from_bits(bits()?),
            user_id: UserId::from_bits(bits()?),
            password_mark: "mark".into(),
            email: Some(buyer()),
            created_at: clock.now(),
            expires_at: clock.now() + SignedDuration::from_hours(1),
            outbox: vec![entry],
        };
        shop.store.password_resets.create(&reset).await?;
        clock.advance(SignedDuration::from_hours(1));
        let mailer = deps(&shop, &clock, &ses.service).await?;
        mailer::spawn(mailer.clone())?;
        eventually("the mail is dropped", async || {
            let left = shop.store.password_resets.find(&reset.id).await?;
            Ok(left.filter(|left| left.outbox.is_empty()))
        })
        .await?;
        assert_eq!(ses.calls(), 0);
        end(mailer).await;
        Ok(())
    })
    .await
}
