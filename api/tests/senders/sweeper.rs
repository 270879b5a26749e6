//! Forgotten work.

use jiff::{SignedDuration, Timestamp};
use shop_api::sweeper::{Sweeper, SweeperDeps};
use shop_domain::{
    id::{ClaimId, OutboxId},
    order::Status,
};
use shop_harness::{Shop, bits, with_shop};
use shop_runtime::{clock::Clock, metrics::Metrics, shutdown::Shutdown};
use shop_store::{
    orders::{Reason, Settlement},
    outbox::{OutboxEntry, OutboxKind, Taking},
};

use crate::counted;

fn sweeper(shop: &Shop, clock: &Clock) -> Sweeper {
    measured(shop, clock, Metrics::default())
}

fn measured(shop: &Shop, clock: &Clock, metrics: Metrics) -> Sweeper {
    Sweeper::new(SweeperDeps {
        unfinished: shop.store.unfinished.clone(),
        gate: shop.store.gate.clone(),
        queue: shop.queue.clone(),
        clock: clock.clone(),
        shutdown: Shutdown::manual(),
        metrics,
    })
}

/// Loses everything that is due in the outboxes and in the queue.
async fn lose(shop: &Shop, clock: &Clock) -> anyhow::Result<usize> {
    let (claim, now) = (ClaimId::from_bits(bits()?), clock.now());
    let taken = shop.store.outbox.take_sends(&Taking { claim, now, until: now, limit: 10 }).await?;
    shop.store.outbox.remove(&taken).await?;
    shop.queue.client().purge_queue().queue_url(shop.queue.url().await?).send().await?;
    Ok(taken.len())
}

#[tokio::test]
async fn forgotten_work_is_revived_three_times_then_stuck() -> anyhow::Result<()> {
    with_shop(async |shop| {
        let clock = Clock::manual(Timestamp::UNIX_EPOCH + SignedDuration::from_hours(500_000));
        let product = shop.stocked(1).await?;
        let id = shop.place(&[(&product, 1)], clock.now()).await?;
        let sweeper = sweeper(&shop, &clock);
        clock.advance(SignedDuration::from_mins(15));
        assert_eq!(sweeper.sweep().await?, 0, "its message is still in the queue");
        lose(&shop, &clock).await?;

        for patience in [15, 30, 60] {
            assert_eq!(sweeper.sweep().await?, 1);
            assert_eq!(sweeper.sweep().await?, 0, "it is in its outbox");
            assert_eq!(lose(&shop, &clock).await?, 1);
            clock.advance(SignedDuration::from_mins(patience - 1));
            assert_eq!(sweeper.sweep().await?, 0, "the last sweep may still take effect");
            clock.advance(SignedDuration::from_mins(1));
        }
        assert_eq!(sweeper.sweep().await?, 0);
        let order = shop.order(&id).await?;
        assert!(order.stuck && order.outbox.is_empty());
        assert_eq!(shop.store.unfinished.stuck().await?, 1);
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_restock_that_got_lost_is_sent_again_and_counted_when_stuck() -> anyhow::Result<()> {
    with_shop(async |shop| {
        let clock = Clock::manual(Timestamp::UNIX_EPOCH + SignedDuration::from_hours(500_000));
        let (product, metrics) = (shop.stocked(1).await?, Metrics::default());
        let id = shop.place(&[(&product, 1)], clock.now()).await?;
        let settle = async |from, to, reason, outbox| {
            let settlement =
                Settlement { id: id.clone(), from, to, reason, shortages: Vec::new(), outbox, at: clock.now() };
            anyhow::ensure!(shop.store.orders.settle(&settlement).await?);
            Ok(())
        };
        settle(Status::Pending, Status::Processed, None, Vec::new()).await?;
        // Long after it was placed: its age as cancelled counts.
        clock.advance(SignedDuration::from_hours(1));
        let entry = OutboxEntry::due(OutboxId::from_bits(bits()?), OutboxKind::OrderCancelled, clock.now());
        settle(Status::Processed, Status::Cancelled, Some(Reason::Cancelled), vec![entry]).await?;
        lose(&shop, &clock).await?;
        let sweeper = measured(&shop, &clock, metrics.clone());
        clock.advance(SignedDuration::from_mins(14));
        assert_eq!(sweeper.sweep().await?, 0, "too young");
        for minutes in [1, 15, 30] {
            clock.advance(SignedDuration::from_mins(minutes));
            assert_eq!(sweeper.sweep().await?, 1);
            let kinds: Vec<_> = shop.order(&id).await?.outbox.iter().map(|entry| entry.kind).collect();
            assert_eq!(kinds, [OutboxKind::OrderCancelled]);
            lose(&shop, &clock).await?;
        }
        clock.advance(SignedDuration::from_mins(60));
        assert_eq!(sweeper.sweep().await?, 0, "given up");
        sweeper.sweep().await?;
        assert_eq!(counted(&metrics, "shop_sweeper_stuck_documents")?, 1);
        assert_eq!(counted(&metrics, "shop_sweeper_revived_entries_total")?, 3);
        let letter = shop.store.dead_letters.of_order(id.as_str()).await?;
        assert!(letter.is_some(), "staff see it");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn delayed_messages_and_reopened_orders_are_left_to_the_queue() -> anyhow::Result<()> {
    with_shop(async |shop| {
        let clock = Clock::manual(Timestamp::UNIX_EPOCH + SignedDuration::from_hours(500_000));
        let product = shop.stocked(1).await?;
        let (id, sweeper) = (shop.place(&[(&product, 1)], clock.now()).await?, sweeper(&shop, &clock));
        lose(&shop, &clock).await?;
        clock.advance(SignedDuration::from_mins(20));
        let (sqs, url) = (shop.queue.client(), shop.queue.url().await?);
        sqs.send_message().queue_url(url).message_body("later").delay_seconds(900).send().await?;
        assert_eq!(sweeper.sweep().await?, 0, "something in the queue is only delayed");
        lose(&shop, &clock).await?;
        // The worker gives the order up, and staff have it taken up again: it is young again.
        let failed = Settlement {
            id: id.clone(),
            from: Status::Pending,
            to: Status::Failed,
            reason: Some(Reason::ProcessingFailed),
            shortages: Vec::new(),
            outbox: Vec::new(),
            at: clock.now(),
        };
        assert!(shop.store.orders.settle(&failed).await?);
        assert_eq!(sweeper.sweep().await?, 0, "a failed order is no forgotten one");
        let letter = shop.store.dead_letters.of_order(id.as_str()).await?;
        let entry = OutboxEntry::due(OutboxId::from_bits(bits()?), OutboxKind::OrderPlaced, clock.now());
        let work: Vec<_> = letter.into_iter().map(|letter| (letter, entry.clone())).collect();
        assert_eq!(shop.store.dead_letters.redrive(&work, clock.now()).await?, (1, 0));
        lose(&shop, &clock).await?;
        clock.advance(SignedDuration::from_mins(14));
        assert_eq!(sweeper.sweep().await?, 0);
        clock.advance(SignedDuration::from_mins(1));
        assert_eq!(sweeper.sweep().await?, 1);
        Ok(())
    })
    .await
}
