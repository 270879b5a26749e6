//! Orders end to end.

use jiff::Timestamp;
use rstest::rstest;
use shop_domain::{message::Message, order::Status, stock::Shortage};
use shop_harness::{QueueKind, QueueRules, eventually, with_shop, with_shop_of};
use shop_store::{order_cache::OrderCache, orders::Reason, outbox::OutboxKind, redis_link::RedisLink};

use crate::support::Worker;

fn now() -> Timestamp {
    Timestamp::UNIX_EPOCH
}

/// The queue holds nothing, seen or unseen.
async fn emptied(queue: &shop_runtime::queue::Queue) -> anyhow::Result<()> {
    eventually("the queue is empty", async || {
        let counts = queue.counts().await?;
        Ok((counts.visible + counts.in_flight + counts.delayed == 0).then_some(()))
    })
    .await
}

#[tokio::test]
async fn an_order_is_processed() -> anyhow::Result<()> {
    with_shop(async |shop| {
        let product = shop.stocked(5).await?;
        let worker = Worker::start(&shop, &[]).await?;
        let id = shop.place(&[(&product, 2)], now()).await?;

        let order = shop.settled(&id).await?;
        assert_eq!((order.status, order.version, order.history.len()), (Status::Processed, 2, 2));
        assert_eq!(order.outbox.iter().map(|entry| entry.kind).collect::<Vec<_>>(), [OutboxKind::ConfirmationMail]);
        assert_eq!(shop.units(&product).await?, 3);
        emptied(&shop.queue).await?;
        assert_eq!(shop.store.audit.read().await?.faults(), Vec::<String>::new());

        let report = eventually("the report counts it", async || {
            let report = worker.report().await?;
            Ok((report["completedTotal"] == 1 && report["inFlight"] == 0).then_some(report))
        })
        .await?;
        assert_eq!(report["busy"], 0);
        assert!(report["serviceSecondsTotal"].as_f64().is_some_and(|seconds| seconds > 0.0), "{report}");
        let metrics = worker.text("/metrics").await?;
        assert!(metrics.contains(r#"shop_worker_messages_total{outcome="Processed"} 1"#), "{metrics}");
        assert_eq!(worker.text("/readyz").await?, "ok");
        assert!(worker.stop().await);
        Ok(())
    })
    .await
}

#[tokio::test]
async fn who_polls_finds_a_settled_order_in_the_cache() -> anyhow::Result<()> {
    with_shop(async |shop| {
        let product = shop.stocked(5).await?;
        let worker = Worker::start(&shop, &[]).await?;
        let id = shop.place(&[(&product, 2)], now()).await?;
        let order = shop.settled(&id).await?;
        let cache = OrderCache::new(RedisLink::connect(&shop.servers.redis_url, &shop.name)?);
        // A link that is not up yet is a miss, here and in the worker, which sets the cache on a repeat too.
        let cached = eventually("it is cached", async || {
            let cached = cache.get(&id).await;
            if cached.is_none() {
                shop.send(&Message::OrderPlaced { order_id: id.clone() }.to_body()).await?;
            }
            Ok(cached)
        })
        .await?;
        assert_eq!(cached, order.view());
        assert!(worker.stop().await);
        Ok(())
    })
    .await
}

#[tokio::test]
async fn short_stock_fails_the_order_and_says_what_is_short() -> anyhow::Result<()> {
    with_shop(async |shop| {
        let (plenty, scarce) = (shop.stocked(5).await?, shop.stocked(1).await?);
        let worker = Worker::start(&shop, &[]).await?;
        let id = shop.place(&[(&plenty, 1), (&scarce, 2)], now()).await?;

        let order = shop.settled(&id).await?;
        assert_eq!((order.status, order.reason), (Status::Failed, Some(Reason::OutOfStock)));
        assert_eq!(order.shortages, [Shortage { product_id: scarce.clone(), wanted: 2, available: 1 }]);
        assert_eq!(order.outbox[0].kind, OutboxKind::FailureMail);
        assert_eq!((shop.units(&plenty).await?, shop.units(&scarce).await?), (5, 1));
        assert!(worker.stop().await);
        Ok(())
    })
    .await
}

#[tokio::test]
async fn an_order_is_settled_once_however_often_its_message_comes() -> anyhow::Result<()> {
    with_shop(async |shop| {
        let product = shop.stocked(10).await?;
        // Twice in what is one batch, before any worker runs, and once more when it is settled.
        let id = shop.place(&[(&product, 2)], now()).await?;
        let body = Message::OrderPlaced { order_id: id.clone() }.to_body();
        shop.send(&body).await?;
        let worker = Worker::start(&shop, &[]).await?;
        shop.settled(&id).await?;
        emptied(&shop.queue).await?;
        shop.send(&body).await?;
        emptied(&shop.queue).await?;

        let order = shop.order(&id).await?;
        assert_eq!((order.version, order.outbox.len()), (2, 1));
        assert_eq!(shop.units(&product).await?, 8);
        let report = worker.report().await?;
        assert_eq!(report["completedTotal"], 3);
        assert!(worker.stop().await);
        Ok(())
    })
    .await
}

#[rstest]
#[tokio::test]
async fn both_kinds_of_queue_carry_orders_and_what_follows(
    #[values(QueueKind::Standard, QueueKind::Fifo)] kind: QueueKind,
) -> anyhow::Result<()> {
    with_shop_of(QueueRules { kind, ..QueueRules::default() }, async |shop| {
        let product = shop.stocked(20).await?;
        let mut placed = Vec::new();
        for _ in 0..25 {
            let id = shop.place(&[(&product, 1)], now()).await?;
            // The repeat may be in the same batch.
            shop.send(&Message::OrderPlaced { order_id: id.clone() }.to_body()).await?;
            placed.push(id);
        }
        let worker = Worker::start(&shop, &["--concurrency", "20"]).await?;
        let mut served = Vec::new();
        for id in &placed {
            if shop.settled(id).await?.status == Status::Processed {
                served.push(id);
            }
        }
        assert_eq!((served.len(), shop.units(&product).await?), (20, 0));

        assert!(shop.cancel_processed(served[0]).await?);
        let back = Message::OrderCancelled { order_id: served[0].clone() }.to_body();
        for body in [&back, &back] {
            shop.send(body).await?;
        }
        emptied(&shop.queue).await?;
        assert_eq!(shop.units(&product).await?, 1);
        assert_eq!(shop.dead_letters.counts().await?.visible, 0);
        assert!(worker.stop().await);
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_full_queue_costs_two_and_a_half_calls_for_ten_orders_at_most() -> anyhow::Result<()> {
    with_shop(async |shop| {
        let product = shop.stocked(200).await?;
        let mut placed = Vec::new();
        for _ in 0..100 {
            placed.push(shop.place(&[(&product, 1)], now()).await?);
        }
        let worker = Worker::start(&shop, &[]).await?;
        for id in &placed {
            shop.settled(id).await?;
        }
        emptied(&shop.queue).await?;
        let calls = worker.sqs_calls().await?;
        assert!(calls <= 25, "{calls} calls to receive and delete {} messages", placed.len());
        assert!(worker.stop().await);
        Ok(())
    })
    .await
}

#[rstest]
#[case::alone(1)]
#[case::a_few(3)]
#[case::as_many_as_sqs_gives(10)]
#[tokio::test]
async fn no_more_orders_are_decided_together_than_the_batch_size_allows(#[case] size: u32) -> anyhow::Result<()> {
    with_shop(async |shop| {
        let product = shop.stocked(20).await?;
        let mut placed = Vec::new();
        for _ in 0..20 {
            placed.push(shop.place(&[(&product, 1)], now()).await?);
        }
        let worker = Worker::start(&shop, &["--batch-size", &size.to_string()]).await?;
        for id in &placed {
            assert_eq!(shop.settled(id).await?.status, Status::Processed);
        }
        let batches = worker.batches().await?;
        assert_eq!(worker.batches_up_to(size).await?, batches, "none is larger");
        assert!(worker.batches_up_to(size - 1).await? < batches, "more were waiting, so that some are as large");
        assert!(worker.stop().await);
        Ok(())
    })
    .await
}

#[tokio::test]
async fn workers_that_race_for_one_row_never_oversell() -> anyhow::Result<()> {
    with_shop(async |shop| {
        let product = shop.stocked(25).await?;
        let mut placed = Vec::new();
        for _ in 0..40 {
            placed.push(shop.place(&[(&product, 1)], now()).await?);
        }
        let (one, other) = (
            Worker::start(&shop, &["--concurrency", "20"]).await?,
            Worker::start(&shop, &["--concurrency", "20"]).await?,
        );
        let mut served = 0;
        for id in &placed {
            served += u32::from(shop.settled(id).await?.status == Status::Processed);
        }
        assert_eq!(served, 25);
        assert_eq!(shop.units(&product).await?, 0);
        assert_eq!(shop.store.audit.read().await?.faults(), Vec::<String>::new());
        emptied(&shop.queue).await?;
        assert!(one.stop().await && other.stop().await);
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_row_that_others_hold_for_long_sends_no_message_back() -> anyhow::Result<()> {
    with_shop(async |shop| {
        let product = shop.stocked(10).await?;
        let row = shop.row(&product)?;
        let mut other = shop.store.begin().await?;
        shop.store.stock.move_in(&mut other, &[(row, 1)].into()).await?;

        let order = shop.place(&[(&product, 1)], now()).await?;
        let worker = Worker::start(&shop, &[]).await?;
        let conflicts = async || -> anyhow::Result<Option<u32>> {
            let metrics = worker.text("/metrics").await?;
            let line = metrics.lines().find_map(|line| line.strip_prefix("shop_worker_retries_total "));
            Ok(line.and_then(|count| count.parse::<u32>().ok()).filter(|&count| count > 20))
        };
        eventually("the worker meets the other transaction again and again", conflicts).await?;
        other.abort().await;

        assert_eq!(shop.settled(&order).await?.status, Status::Processed);
        assert_eq!(shop.store.audit.read().await?.redelivered, 0);
        assert!(worker.stop().await);
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_row_that_others_hold_too_long_costs_the_rest_of_the_batch_nothing() -> anyhow::Result<()> {
    with_shop(async |shop| {
        let (held, free) = (shop.stocked(10).await?, shop.stocked(10).await?);
        let mut other = shop.store.begin().await?;
        shop.store.stock.move_in(&mut other, &[(shop.row(&held)?, 1)].into()).await?;

        let (late, sound) = (shop.place(&[(&held, 1)], now()).await?, shop.place(&[(&free, 1)], now()).await?);
        let worker = Worker::start(&shop, &["--max-processing-seconds", "1"]).await?;
        eventually("one is given back", async || Ok((worker.outcomes("Failed").await? > 0).then_some(()))).await?;
        assert_eq!(shop.settled(&sound).await?.status, Status::Processed);
        other.abort().await;

        assert_eq!(shop.settled(&late).await?.status, Status::Processed);
        assert_eq!(shop.order(&sound).await?.deliveries, None);
        assert!(worker.stop().await);
        Ok(())
    })
    .await
}

#[tokio::test]
async fn the_last_unit_takes_the_product_off_the_shelf() -> anyhow::Result<()> {
    with_shop(async |shop| {
        let product = shop.stocked(2).await?;
        let worker = Worker::start(&shop, &[]).await?;
        assert!(shop.is_on_shelf(&product).await?);
        let first = shop.place(&[(&product, 1)], now()).await?;
        shop.settled(&first).await?;
        assert!(shop.is_on_shelf(&product).await?);
        let last = shop.place(&[(&product, 1)], now()).await?;
        shop.settled(&last).await?;
        assert!(!shop.is_on_shelf(&product).await?);
        assert!(worker.stop().await);
        Ok(())
    })
    .await
}
