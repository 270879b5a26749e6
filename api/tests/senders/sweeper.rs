//! Forgotten work.

use jiff::{SignedDuration, Timestamp};
use shop_api::sweeper::{Sweeper, SweeperDeps};
use shop_domain::id::ClaimId;
use shop_harness::{Shop, bits, with_shop};
use shop_runtime::{clock::Clock, metrics::Metrics, shutdown::Shutdown};
use shop_store::outbox::Taking;

fn sweeper(shop: &Shop, clock: &Clock) -> Sweeper {
    Sweeper::new(SweeperDeps {
        unfinished: shop.store.unfinished.clone(),
        queue: shop.queue.clone(),
        clock: clock.clone(),
        shutdown: Shutdown::manual(),
        metrics: Metrics::default(),
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
