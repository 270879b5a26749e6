//! Mails on their way to the mail service.

use std::{num::NonZeroU32, time::Duration};

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;
use shop_api::mailer::{self, MailerDeps, Sender};
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
    orders::Settlement,
    outbox::{MailKind, OutboxEntry, OutboxKind, Taking},
};

use crate::counted;

async fn deps(shop: &Shop, clock: &Clock, ses: &Service) -> MailerDeps {
    MailerDeps {
        outbox: shop.store.outbox.clone(),
        leases: shop.store.leases.clone(),
        ses: aws::ses(ses).await,
        sender: Sender::new("Xhipment", "shop@example.org"),
        per_second: NonZeroU32::MIN.saturating_add(99),
        clock: clock.clone(),
        shutdown: Shutdown::manual(),
        metrics: Metrics::default(),
    }
}

/// An order whose confirmation is owed.
async fn confirmed(shop: &Shop, now: Timestamp) -> anyhow::Result<OrderId> {
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
async fn delivered(shop: &Shop, id: &OrderId) -> anyhow::Result<Vec<Value>> {
    let store: Value = reqwest::get(format!("{}/store", shop.servers.ses_endpoint)).await?.json().await?;
    let all = store["emails"].as_array().cloned().unwrap_or_default();
    Ok(all.into_iter().filter(|mail| mail["subject"].as_str().is_some_and(|text| text.contains(id.as_str()))).collect())
}

/// Waits until the mail service took so many mails.
async fn sent(metrics: &Metrics, mails: u64) -> anyhow::Result<()> {
    let look = async || Ok((counted(metrics, "shop_mailer_sent_mails_total")? >= mails).then_some(()));
    eventually(&format!("{mails} sent"), look).await
}

async fn mailed(shop: &Shop, id: &OrderId) -> anyhow::Result<()> {
    eventually("the mail is recorded", async || {
        let order = shop.order(id).await?;
        let sent: Vec<_> = order.mails.iter().map(|sent| sent.kind).collect();
        Ok((sent == [MailKind::Confirmation] && order.outbox.is_empty()).then_some(()))
    })
    .await
}

#[tokio::test]
async fn a_mail_is_sent_once_to_the_buyer_in_the_shops_name() -> anyhow::Result<()> {
    with_shop(async |shop| {
        let clock = Clock::system();
        let id = confirmed(&shop, clock.now()).await?;
        // Two replicas: one of them sends.
        let (one, other) = (deps(&shop, &clock, &shop.ses()).await, deps(&shop, &clock, &shop.ses()).await);
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
        let first = deps(&shop, &clock, &away).await;
        let shutdown = first.shutdown.clone();
        mailer::spawn(first)?;
        eventually("an attempt has failed", async || {
            let order = shop.order(&id).await?;
            let entry = order.outbox.first();
            let retried = entry
                .is_some_and(|entry| entry.attempts >= 1 && entry.due_at <= clock.now() + SignedDuration::from_secs(1));
            Ok(retried.then_some(()))
        })
        .await?;
        shutdown.drain();
        assert!(shutdown.wait(Duration::from_secs(30)).await);
        assert!(delivered(&shop, &id).await?.is_empty());

        mailer::spawn(deps(&shop, &clock, &shop.ses()).await)?;
        clock.advance(SignedDuration::from_mins(1));
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
        let Store { outbox, leases, .. } = Store::connect(&uri, &shop.name).await?;
        // Both are taken at once, but the second one's turn comes half a second after the first one's.
        let per_second = NonZeroU32::MIN.saturating_add(1);
        let through = MailerDeps { outbox, leases, per_second, ..deps(&shop, &clock, &shop.ses()).await };
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
        let mailer = MailerDeps { per_second, ..deps(&shop, &clock, &shop.ses()).await };
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
        let due = shop.store.outbox.take_mails(&Taking { claim, now, until: now, limit: 10 }).await?;
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
        let deps = deps(&shop, &clock, &shop.ses()).await;
        mailer::spawn(deps.clone())?;
        eventually("the mail is dropped", async || Ok((shop.waiting_sends().await? == 0).then_some(()))).await?;
        deps.shutdown.drain();
        assert!(shop.order(&later).await?.mails.is_empty());
        for id in [&owed, &later] {
            assert!(delivered(&shop, id).await?.is_empty());
        }
        Ok(())
    })
    .await
}
