//! Outbox entries on their way to the queue.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use shop_api::relay::{self, RelayDeps};
use shop_domain::message::Message;
use shop_harness::{Shop, eventually, with_shop};
use shop_runtime::{
    aws::{self, Service},
    clock::Clock,
    metrics::Metrics,
    queue::{Queue, QueueAddress},
    shutdown::Shutdown,
};

use crate::counted;

fn deps(shop: &Shop, clock: &Clock) -> RelayDeps {
    RelayDeps {
        outbox: shop.store.outbox.clone(),
        gate: shop.store.gate.clone(),
        queue: shop.queue.clone(),
        clock: clock.clone(),
        shutdown: Shutdown::manual(),
        metrics: Metrics::default(),
    }
}

/// A relay that does not reach the queue.
async fn without_queue(shop: &Shop, clock: &Clock) -> RelayDeps {
    let away = Service { region: "ap-south-1".into(), endpoint: Some("http://127.0.0.1:1".into()) };
    let queue = Queue::new(aws::sqs(&away).await, QueueAddress::Name(shop.name.clone()));
    RelayDeps { queue, ..deps(shop, clock) }
}

fn clock() -> Clock {
    Clock::manual(Timestamp::UNIX_EPOCH + SignedDuration::from_hours(500_000))
}

#[tokio::test]
async fn an_offered_entry_is_sent_at_once_and_removed() -> anyhow::Result<()> {
    with_shop(async |shop| {
        let (product, clock) = (shop.stocked(1).await?, clock());
        let relay = relay::spawn(deps(&shop, &clock));
        let accepted = shop.store.orders.accept(&shop.new_order(&[(&product, 1)], clock.now())?).await?;
        let order_id = accepted.document.id;
        relay.offer(accepted.send);
        let received = shop.receive(Duration::from_secs(5)).await?;
        assert_eq!(received, [Message::OrderPlaced { order_id: order_id.clone() }.to_body()]);
        eventually("the entry is gone", async || Ok(shop.order(&order_id).await?.outbox.is_empty().then_some(()))).await
    })
    .await
}

#[tokio::test]
async fn many_offers_are_all_sent_once() -> anyhow::Result<()> {
    with_shop(async |shop| {
        // The clock stands still: no lease ends, so whatever is sent twice is sent by the direct way.
        let (product, clock) = (shop.stocked(1).await?, clock());
        let relay = relay::spawn(deps(&shop, &clock));
        for _ in 0..75 {
            relay.offer(shop.store.orders.accept(&shop.new_order(&[(&product, 1)], clock.now())?).await?.send);
        }
        eventually("all are in the queue", async || Ok((shop.queue.counts().await?.visible >= 75).then_some(())))
            .await?;
        eventually("no entry is left", async || {
            let orders = shop.store.audit.read().await?;
            assert_eq!(orders.orders["Pending"], 75);
            Ok(shop.waiting_sends().await?.eq(&0).then_some(()))
        })
        .await?;
        assert_eq!(shop.queue.counts().await?.visible, 75);
        Ok(())
    })
    .await
}

#[tokio::test]
async fn an_entry_of_a_crashed_acceptor_is_sent_when_its_lease_is_over() -> anyhow::Result<()> {
    with_shop(async |shop| {
        let (product, clock) = (shop.stocked(1).await?, clock());
        // Accepted, but the process ended before it could send.
        let order_id = shop.store.orders.accept(&shop.new_order(&[(&product, 1)], clock.now())?).await?.document.id;
        let adjustment = shop.adjust_unsent(&[(&product, 1)], clock.now()).await?;
        let _relay = relay::spawn(deps(&shop, &clock));
        assert_eq!(shop.receive(Duration::from_secs(2)).await?, Vec::<String>::new());

        clock.advance(SignedDuration::from_secs(6));
        let mut received = Vec::new();
        eventually("both arrive", async || {
            received.extend(shop.receive(Duration::from_secs(1)).await?);
            Ok((received.len() >= 2).then_some(()))
        })
        .await?;
        received.sort_unstable();
        assert_eq!(
            received,
            [Message::OrderPlaced { order_id: order_id.clone() }.to_body(), adjustment.message.to_body()]
        );
        eventually("the entry is gone", async || Ok(shop.order(&order_id).await?.outbox.is_empty().then_some(()))).await
    })
    .await
}

#[tokio::test]
async fn entries_wait_while_the_queue_is_away() -> anyhow::Result<()> {
    with_shop(async |shop| {
        let (product, clock) = (shop.stocked(1).await?, clock());
        let cut_off = without_queue(&shop, &clock).await;
        let shutdown = cut_off.shutdown.clone();
        let relay = relay::spawn(cut_off);
        let accepted = shop.store.orders.accept(&shop.new_order(&[(&product, 1)], clock.now())?).await?;
        relay.offer(accepted.send);
        let due_at = accepted.document.outbox[0].due_at;
        eventually("the entry is postponed", async || {
            let order = shop.order(&accepted.document.id).await?;
            Ok((order.outbox[0].due_at != due_at).then_some(()))
        })
        .await?;
        shutdown.drain();
        assert!(shutdown.wait(Duration::from_secs(20)).await);
        // Another process reaches the queue.
        let _relay = relay::spawn(deps(&shop, &clock));
        clock.advance(SignedDuration::from_mins(2));
        eventually("it is sent", async || Ok((!shop.receive(Duration::from_secs(1)).await?.is_empty()).then_some(())))
            .await
    })
    .await
}

#[tokio::test]
async fn a_drain_leaves_what_is_overdue_to_others() -> anyhow::Result<()> {
    with_shop(async |shop| {
        let (product, clock, metrics) = (shop.stocked(1).await?, clock(), Metrics::default());
        for _ in 0..100 {
            shop.store.orders.accept(&shop.new_order(&[(&product, 1)], clock.now())?).await?;
        }
        clock.advance(SignedDuration::from_secs(6));
        let cut_off = RelayDeps { metrics: metrics.clone(), ..without_queue(&shop, &clock).await };
        let shutdown = cut_off.shutdown.clone();
        let _relay = relay::spawn(cut_off);
        let failed = || counted(&metrics, "shop_relay_failed_messages_total");
        eventually("the first are tried", async || Ok((failed()? > 0).then_some(()))).await?;
        shutdown.drain();
        assert!(shutdown.wait(Duration::from_secs(20)).await);
        assert!(failed()? < 100, "all were tried");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_fifo_queue_drops_the_retry_of_an_entry() -> anyhow::Result<()> {
    with_shop(async |shop| {
        let name = format!("{}.fifo", shop.name);
        let attributes = [(aws_sdk_sqs::types::QueueAttributeName::FifoQueue, "true".to_owned())];
        let make = shop.queue.client().create_queue().queue_name(&name).set_attributes(Some(attributes.into()));
        let url = make.send().await?.queue_url;
        let (product, clock) = (shop.stocked(1).await?, clock());
        let queue = Queue::new(shop.queue.client().clone(), QueueAddress::Name(name));
        let metrics = Metrics::default();
        let deps = RelayDeps { queue: queue.clone(), metrics: metrics.clone(), ..deps(&shop, &clock) };
        let relay = relay::spawn(deps);
        let accepted = shop.store.orders.accept(&shop.new_order(&[(&product, 1)], clock.now())?).await?;
        for sent in 1..=2 {
            relay.offer(accepted.send.clone());
            eventually("the queue took it", async || {
                Ok((counted(&metrics, "shop_relay_sent_messages_total")? == sent).then_some(()))
            })
            .await?;
        }
        assert_eq!(queue.counts().await?.visible, 1);
        shop.queue.client().delete_queue().set_queue_url(url).send().await?;
        Ok(())
    })
    .await
}
