//! Mails on their way to the mail service.

use std::{num::NonZeroU32, time::Duration};

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;
use shop_api::{
    keys::{KeyRing, Keys},
    mailer::{self, MailerDeps, Sender, reset_link::ResetLinks},
    reset_tokens::ResetTokens,
};
use shop_domain::{
    id::{ClaimId, OrderId, OutboxId},
    order::Status,
};
use shop_harness::{Link, Shop, bits, eventually, with_shop};
use shop_runtime::{
    aws::{self, Service},
    clock::Clock,
    metrics::Metrics,
    shutdown::Shutdown,
};
use shop_store::{
    Store,
    leases::LeaseRequest,
    mails::{MailKind, MailState},
    orders::Settlement,
    outbox::{OutboxEntry, OutboxKind, Taking},
};

use crate::{counted, ses::Ses};

pub async fn deps(shop: &Shop, clock: &Clock, ses: &Service) -> anyhow::Result<MailerDeps> {
    Ok(MailerDeps {
        mails: shop.store.mails.clone(),
        gate: shop.store.gate.clone(),
        suppressed_addresses: shop.store.suppressed_addresses.clone(),
        leases: shop.store.leases.clone(),
        ses: aws::ses(ses).await,
        sender: Sender::new("Xhipment", "shop@example.org"),
        per_second: NonZeroU32::MIN.saturating_add(99),
        max_attempts: 12,
        reset_links: ResetLinks::new(ResetTokens::new(keys()?), None),
        clock: clock.clone(),
        shutdown: Shutdown::manual(),
        metrics: Metrics::default(),
    })
}

fn keys() -> anyhow::Result<Keys> {
    let key = "dFPk0Zb3WbGkzXzqW8yqZ1cN0oVJ9mYd2rUeRhTnSgI=";
    let json = serde_json::json!({ "signing": "k1", "keys": { "k1": key } });
    Ok(Keys::new(KeyRing::parse(&json.to_string())?))
}

/// An order whose confirmation is owed.
pub async fn confirmed(shop: &Shop, now: Timestamp) -> anyhow::Result<OrderId> {
    let product = shop.stocked(1).await?;
    let id = shop.place(&[(&product, 1)], now).await?;
    let entry = OutboxEntry::due(OutboxId::from_bits(bits()?), OutboxKind::ConfirmationMail, now);
    let settlement = Settlement {
        id: id.clone(),
        from: Status::Pending,
        to: Status::Processed,
        reason: None,
        shortages: Vec::new(),
        outbox: vec![entry],
        at: now,
    };
    assert!(shop.store.orders.settle(&settlement).await?);
    Ok(id)
}

/// The mails that the mail service has about an order.
pub async fn delivered(shop: &Shop, id: &OrderId) -> anyhow::Result<Vec<Value>> {
    let store: Value = reqwest::get(format!("{}/store", shop.servers.ses_endpoint)).await?.json().await?;
    let all = store["emails"].as_array().cloned().unwrap_or_default();
    Ok(all.into_iter().filter(|mail| mail["subject"].as_str().is_some_and(|text| text.contains(id.as_str()))).collect())
}

/// Waits until the mail service took so many mails.
pub async fn sent(metrics: &Metrics, mails: u64) -> anyhow::Result<()> {
    let look = async || Ok((counted(metrics, "shop_mailer_sent_mails_total")? >= mails).then_some(()));
    eventually(&format!("{mails} sent"), look).await
}

pub async fn mailed(shop: &Shop, id: &OrderId) -> anyhow::Result<()> {
    eventually("the mail is recorded", async || {
        let order = shop.order(id).await?;
        let sent: Vec<_> = order.mails.iter().map(|mail| (mail.kind, mail.state)).collect();
        Ok((sent == [(MailKind::Confirmation, MailState::Sent)] && order.outbox.is_empty()).then_some(()))
    })
    .await
}

#[tokio::test]
async fn a_mail_is_sent_once_to_the_buyer_in_the_shops_name() -> anyhow::Result<()> {
    with_shop(async |shop| {
        let clock = Clock::system();
        let id = confirmed(&shop, clock.now()).await?;
        // Two replicas: one of them sends.
        let (one, other) = (deps(&shop, &clock, &shop.ses()).await?, deps(&shop, &clock, &shop.ses()).await?);
        let shutdowns = [one.shutdown.clone(), other.shutdown.clone()];
        mailer::spawn(one)?;
        mailer::spawn(other)?;
        mailed(&shop, &id).await?;

        let mails = delivered(&shop, &id).await?;
        assert_eq!(mails.len(), 1, "{mails:?}");
        assert_eq!(mails[0]["destination"]["to"][0], "buyer@example.org");
        assert_eq!(mails[0]["from"], "\"Xhipment\" <shop@example.org>");
        assert!(mails[0]["body"]["text"].as_str().is_some_and(|text| text.contains("INR 1324.00")), "{mails:?}");
        assert!(mails[0]["body"]["html"].as_str().is_some_and(|html| html.contains("<strong>")), "{mails:?}");
        for shutdown in shutdowns {
            shutdown.drain();
            assert!(shutdown.wait(Duration::from_secs(10)).await);
        }
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_mail_waits_while_the_mail_service_is_away_and_goes_out_later() -> anyhow::Result<()> {
    with_shop(async |shop| {
        let clock = Clock::manual(Timestamp::UNIX_EPOCH + SignedDuration::from_hours(500_000));
        let id = confirmed(&shop, clock.now()).await?;
        let away = Service { region: "ap-south-1".into(), endpoint: Some("http://127.0.0.1:1".into()) };
        let first = deps(&shop, &clock, &away).await?;
        let (metrics, shutdown) = (first.metrics.clone(), first.shutdown.clone());
        mailer::spawn(first)?;
        let failed = async || Ok((counted(&metrics, "shop_mailer_held_mails_total")? >= 2).then_some(()));
        eventually("attempts have failed", failed).await?;
        shutdown.drain();
        assert!(shutdown.wait(Duration::from_secs(30)).await);
        assert_eq!(shop.order(&id).await?.outbox[0].attempts, 0, "an outage is no attempt");
        assert!(delivered(&shop, &id).await?.is_empty());

        mailer::spawn(deps(&shop, &clock, &shop.ses()).await?)?;
        mailed(&shop, &id).await?;
        assert_eq!(delivered(&shop, &id).await?.len(), 1);
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_sent_mail_is_recorded_when_mongodb_is_back_and_not_sent_again() -> anyhow::Result<()> {
    with_shop(async |shop| {
        let clock = Clock::system();
        let ids = [confirmed(&shop, clock.now()).await?, confirmed(&shop, clock.now()).await?];
        let (link, uri) = Link::to_mongodb(&shop.servers.mongodb_uri).await?;
        let uri = format!("{uri}&serverSelectionTimeoutMS=300").into();
        let Store { mails, leases, suppressed_addresses, .. } = Store::connect(&uri, &shop.name).await?;
        // Both are taken at once, but the second one's turn comes half a second after the first one's.
        let per_second = NonZeroU32::MIN.saturating_add(1);
        let through =
            MailerDeps { mails, leases, suppressed_addresses, per_second, ..deps(&shop, &clock, &shop.ses()).await? };
        let metrics = through.metrics.clone();
        mailer::spawn(through)?;
        sent(&metrics, 1).await?;
        link.cut();
        sent(&metrics, 2).await?;
        // Longer than one attempt to record it.
        tokio::time::sleep(Duration::from_secs(2)).await;
        link.mend();
        for id in &ids {
            mailed(&shop, id).await?;
            assert_eq!(delivered(&shop, id).await?.len(), 1);
        }
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_drain_begins_no_more_mails_and_leaves_them_to_others_at_once() -> anyhow::Result<()> {
    with_shop(async |shop| {
        let (clock, mut ids) = (Clock::system(), Vec::new());
        for _ in 0..4 {
            ids.push(confirmed(&shop, clock.now()).await?);
        }
        let per_second = NonZeroU32::MIN.saturating_add(3);
        let mailer = MailerDeps { per_second, ..deps(&shop, &clock, &shop.ses()).await? };
        let (metrics, shutdown) = (mailer.metrics.clone(), mailer.shutdown.clone());
        mailer::spawn(mailer)?;
        sent(&metrics, 1).await?;
        shutdown.drain();
        assert!(shutdown.wait(Duration::from_secs(10)).await);

        let mut sent = 0;
        for id in &ids {
            sent += delivered(&shop, id).await?.len();
        }
        assert!(sent < ids.len(), "all were sent");
        assert_eq!(shop.store.audit.read().await?.mails_sent, sent as u64);
        let (claim, now) = (ClaimId::from_bits(bits()?), clock.now());
        let due = shop.store.mails.take(&Taking { claim, now, until: now, limit: 10 }).await?;
        assert_eq!(due.len(), ids.len() - sent);
        Ok(())
    })
    .await
}

/// The worker does not know that a buyer has gone, and puts mails on the order as for anyone.
#[tokio::test]
async fn a_buyer_who_erased_their_account_gets_no_mail() -> anyhow::Result<()> {
    with_shop(async |shop| {
        let clock = Clock::system();
        let (owed, later) = (confirmed(&shop, clock.now()).await?, shop.stocked(1).await?);
        let later = shop.place(&[(&later, 1)], clock.now()).await?;
        for id in [&owed, &later] {
            shop.store.orders.anonymise(&shop.order(id).await?.user_id).await?;
        }
        assert!(shop.order(&owed).await?.outbox.is_empty(), "what was owed is gone with the address");
        let entry = OutboxEntry::due(OutboxId::from_bits(bits()?), OutboxKind::CancellationMail, clock.now());
        let settlement = Settlement {
            id: later.clone(),
            from: Status::Pending,
            to: Status::Cancelled,
            reason: None,
            shortages: Vec::new(),
            outbox: vec![entry],
            at: clock.now(),
        };
        assert!(shop.store.orders.settle(&settlement).await?);
        let deps = deps(&shop, &clock, &shop.ses()).await?;
        mailer::spawn(deps.clone())?;
        eventually("the mail is dropped", async || Ok((shop.waiting_sends().await? == 0).then_some(()))).await?;
        deps.shutdown.drain();
        assert!(shop.order(&later).await?.mails.is_empty());
        let books = shop.store.audit.read().await?;
        assert_eq!((books.mails_owed, books.mails_sent, books.mails_waiting), (0, 0, 0), "nobody is owed anything");
        for id in [&owed, &later] {
            assert!(delivered(&shop, id).await?.is_empty());
        }
        Ok(())
    })
    .await
}

#[tokio::test]
async fn each_of_many_orders_gets_one_mail_from_two_mailers_and_never_too_fast() -> anyhow::Result<()> {
    with_shop(async |shop| {
        let (clock, mut ids) = (Clock::system(), Vec::new());
        for _ in 0..26 {
            ids.push(confirmed(&shop, clock.now()).await?);
        }
        let per_second = NonZeroU32::MIN.saturating_add(4);
        let started = tokio::time::Instant::now();
        for _ in 0..2 {
            mailer::spawn(MailerDeps { per_second, ..deps(&shop, &clock, &shop.ses()).await? })?;
        }
        for id in &ids {
            mailed(&shop, id).await?;
        }
        // 26 mails at 5 in a second; a slow machine only takes longer.
        assert!(started.elapsed() >= Duration::from_secs(5), "{:?}", started.elapsed());
        for id in &ids {
            assert_eq!(delivered(&shop, id).await?.len(), 1);
        }
        let books = shop.store.audit.read().await?;
        assert_eq!((books.mails_owed, books.mails_sent, books.mails_waiting), (26, 26, 0));
        Ok(())
    })
    .await
}

#[tokio::test]
async fn an_order_that_is_cancelled_later_gets_a_mail_of_each_state() -> anyhow::Result<()> {
    with_shop(async |shop| {
        let clock = Clock::system();
        let id = confirmed(&shop, clock.now()).await?;
        mailer::spawn(deps(&shop, &clock, &shop.ses()).await?)?;
        mailed(&shop, &id).await?;
        let mail = OutboxEntry::due(OutboxId::from_bits(bits()?), OutboxKind::CancellationMail, clock.now());
        let cancellation = Settlement {
            id: id.clone(),
            from: Status::Processed,
            to: Status::Cancelled,
            reason: None,
            shortages: Vec::new(),
            outbox: vec![mail],
            at: clock.now(),
        };
        assert!(shop.store.orders.settle(&cancellation).await?);
        let kinds = eventually("the second mail is recorded", async || {
            let order = shop.order(&id).await?;
            let kinds: Vec<_> = order.mails.iter().map(|mail| mail.kind).collect();
            Ok((kinds.len() == 2).then_some(kinds))
        });
        assert_eq!(kinds.await?, [MailKind::Confirmation, MailKind::Cancellation]);
        let subjects: Vec<_> = delivered(&shop, &id).await?.iter().map(|mail| mail["subject"].clone()).collect();
        assert_eq!(
            subjects,
            [format!("Xhipment: your order {id} is confirmed"), format!("Xhipment: your order {id} is cancelled")]
        );
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_mailer_that_dies_between_sending_and_recording_costs_one_mail_twice_at_most() -> anyhow::Result<()> {
    with_shop(async |shop| {
        let clock = Clock::manual(Timestamp::UNIX_EPOCH + SignedDuration::from_hours(500_000));
        let id = confirmed(&shop, clock.now()).await?;
        let (link, uri) = Link::to_mongodb(&shop.servers.mongodb_uri).await?;
        let uri = format!("{uri}&serverSelectionTimeoutMS=300").into();
        let ses = Ses::to(&shop.ses()).await?;
        ses.hold_up();
        // A runtime of its own is as mortal as a process.
        let process = tokio::runtime::Runtime::new()?;
        let name = shop.name.clone();
        let connecting = async move { Store::connect(&uri, &name).await };
        let Store { mails, leases, suppressed_addresses, .. } = process.spawn(connecting).await??;
        let mortal = MailerDeps { mails, leases, suppressed_addresses, ..deps(&shop, &clock, &ses.service).await? };
        let metrics = mortal.metrics.clone();
        process.spawn(async move { mailer::spawn(mortal) }).await??;
        eventually("the mail is offered", async || Ok((ses.calls() == 1).then_some(()))).await?;
        link.cut();
        ses.let_through();
        sent(&metrics, 1).await?;
        process.shutdown_background();
        assert_eq!(delivered(&shop, &id).await?.len(), 1);
        assert_eq!(shop.order(&id).await?.outbox.len(), 1, "it could not be recorded");

        clock.advance(SignedDuration::from_mins(4));
        mailer::spawn(deps(&shop, &clock, &shop.ses()).await?)?;
        mailed(&shop, &id).await?;
        assert_eq!(delivered(&shop, &id).await?.len(), 2);
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_drain_hands_the_work_over_at_once() -> anyhow::Result<()> {
    with_shop(async |shop| {
        let clock = Clock::system();
        let first = deps(&shop, &clock, &shop.ses()).await?;
        let shutdown = first.shutdown.clone();
        mailer::spawn(first)?;
        let id = confirmed(&shop, clock.now()).await?;
        mailed(&shop, &id).await?;
        let now = clock.now();
        let wish =
            LeaseRequest { name: "mailer", holder: "another".into(), now, until: now + SignedDuration::from_secs(1) };
        assert!(!shop.store.leases.hold(&wish).await?, "one is at work");
        shutdown.drain();
        assert!(shutdown.wait(Duration::from_secs(10)).await);
        assert!(shop.store.leases.hold(&wish).await?, "nobody waits for the end of its lease");
        Ok(())
    })
    .await
}
