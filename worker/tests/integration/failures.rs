//! What cannot be done: unreadable and unknown messages, and servers that are away.

use std::time::{Duration, Instant};

use jiff::Timestamp;
use shop_domain::{
    id::OrderId,
    message::Message,
    order::{FailureClass, Status},
};
use shop_harness::{Link, QueueKind, QueueRules, bits, eventually, with_shop, with_shop_of};
use shop_store::{Store, orders::Reason};

use crate::support::Worker;

const FEW: QueueRules =
    QueueRules { visibility: Duration::from_secs(30), max_receive_count: 3, kind: QueueKind::Standard };
const FEW_FLAGS: [&str; 2] = ["--max-receive-count", "3"];

#[tokio::test]
async fn what_is_no_job_ends_among_the_dead_letters() -> anyhow::Result<()> {
    with_shop_of(FEW, async |shop| {
        let worker = Worker::start(&shop, &FEW_FLAGS).await?;
        shop.send("junk").await?;
        shop.send(&Message::OrderPlaced { order_id: OrderId::from_bits(bits()?) }.to_body()).await?;
        eventually("both are dead letters", async || {
            let (alive, dead) = (shop.queue.counts().await?, shop.dead_letters.counts().await?);
            Ok((dead.visible == 2 && alive.visible + alive.in_flight == 0).then_some(()))
        })
        .await?;
        let received = (worker.outcomes("Unparseable").await?, worker.outcomes("Unknown").await?);
        assert_eq!(received, (3, 3), "each as often as the queue allows");
        assert!(worker.stop().await);
        Ok(())
    })
    .await
}

#[tokio::test]
async fn an_order_that_cannot_be_handled_fails_with_its_last_delivery_and_harms_no_other() -> anyhow::Result<()> {
    with_shop_of(FEW, async |shop| {
        let product = shop.stocked(5).await?;
        let spoiled = shop.place(&[(&product, 1)], Timestamp::UNIX_EPOCH).await?;
        let sound = shop.place(&[(&product, 1)], Timestamp::UNIX_EPOCH).await?;
        shop.spoil(&spoiled).await?;
        let worker = Worker::start(&shop, &FEW_FLAGS).await?;

        assert_eq!(shop.settled(&sound).await?.status, Status::Processed);
        eventually("the failure is recorded", async || {
            Ok((shop.status_of(&spoiled).await? == (Status::Failed, Some(Reason::ProcessingFailed))).then_some(()))
        })
        .await?;
        eventually("its message is a dead letter", async || {
            Ok((shop.dead_letters.counts().await?.visible == 1).then_some(()))
        })
        .await?;
        assert_eq!(shop.units(&product).await?, 4);
        assert_eq!(worker.outcomes("Failed").await?, 3, "as often as the queue allows");
        assert_eq!((worker.outcomes("Processed").await?, shop.order(&sound).await?.deliveries), (1, None));
        assert!(worker.stop().await);
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_worker_waits_for_mongodb_without_using_up_deliveries() -> anyhow::Result<()> {
    with_shop(async |shop| {
        let product = shop.stocked(5).await?;
        let id = shop.place(&[(&product, 1)], Timestamp::UNIX_EPOCH).await?;
        let away = "mongodb://127.0.0.1:1/?serverSelectionTimeoutMS=200";
        let worker = Worker::start(&shop, &["--mongodb-uri", away]).await?;
        eventually("it says what is missing", async || {
            Ok(worker.text("/readyz").await?.contains("mongodb: MongoDB cannot be reached").then_some(()))
        })
        .await?;
        assert_eq!(worker.text("/livez").await?, "ok");
        assert_eq!(shop.queue.counts().await?.visible, 1);
        assert_eq!(shop.order(&id).await?.status, Status::Pending);
        assert!(worker.stop().await);
        Ok(())
    })
    .await
}

#[tokio::test]
async fn an_outage_of_many_visibility_periods_costs_no_delivery() -> anyhow::Result<()> {
    let short = QueueRules { visibility: Duration::from_secs(1), max_receive_count: 2, kind: QueueKind::Standard };
    with_shop_of(short, async |shop| {
        let product = shop.stocked(50).await?;
        let (link, uri) = Link::to_mongodb(&shop.servers.mongodb_uri).await?;
        link.cut();
        let flags = ["--mongodb-uri", &uri, "--visibility-seconds", "2", "--max-receive-count", "2"];
        let worker = Worker::start(&shop, &flags).await?;
        let mut placed = Vec::new();
        for _ in 0..15 {
            placed.push(shop.place(&[(&product, 1)], Timestamp::UNIX_EPOCH).await?);
        }
        let outage = Instant::now();
        while outage.elapsed() < short.visibility * 6 {
            assert_eq!(
                (shop.queue.counts().await?.visible, worker.report().await?["inFlight"].as_u64()),
                (15, Some(0))
            );
        }
        link.mend();
        for id in &placed {
            let order = shop.settled(id).await?;
            assert_eq!((order.status, order.deliveries), (Status::Processed, None), "{:?}", order.failure);
        }
        assert_eq!(shop.dead_letters.counts().await?.visible, 0);
        assert!(worker.stop().await);
        Ok(())
    })
    .await
}

#[tokio::test]
async fn an_outage_of_mongodb_costs_each_message_one_delivery_at_most() -> anyhow::Result<()> {
    with_shop(async |shop| {
        let product = shop.stocked(50).await?;
        let (link, uri) = Link::to_mongodb(&shop.servers.mongodb_uri).await?;
        let worker = Worker::start(&shop, &["--mongodb-uri", &uri]).await?;
        let before = shop.place(&[(&product, 1)], Timestamp::UNIX_EPOCH).await?;
        shop.settled(&before).await?;

        link.cut();
        let mut placed = Vec::new();
        for _ in 0..15 {
            placed.push(shop.place(&[(&product, 1)], Timestamp::UNIX_EPOCH).await?);
        }
        eventually("the worker notices", async || {
            Ok(worker.text("/metrics").await?.contains(r#"outcome="Failed""#).then_some(()))
        })
        .await?;
        // What comes back meanwhile stays in the queue: nothing is received.
        eventually("all wait in the queue", async || Ok((shop.queue.counts().await?.visible == 15).then_some(())))
            .await?;
        assert_eq!(worker.text("/readyz").await?, "ok", "an outage that all pods share takes none out");

        link.mend();
        for id in &placed {
            let order = shop.settled(id).await?;
            assert_eq!(order.status, Status::Processed);
        }
        let most = eventually("all deliveries are recorded", async || {
            let mut most = 0;
            for id in &placed {
                most = most.max(shop.order(id).await?.deliveries.unwrap_or(1));
            }
            Ok((most > 1).then_some(most))
        })
        .await?;
        assert_eq!(most, 2);
        assert_eq!(shop.store.audit.read().await?.faults(), Vec::<String>::new());
        assert!(worker.stop().await);
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_mongodb_that_hangs_costs_one_delivery_of_what_is_in_work() -> anyhow::Result<()> {
    with_shop(async |shop| {
        let product = shop.stocked(5).await?;
        let (link, uri) = Link::to_mongodb(&shop.servers.mongodb_uri).await?;
        let flags = ["--mongodb-uri", &uri, "--max-processing-seconds", "1", "--concurrency", "1"];
        let worker = Worker::start(&shop, &flags).await?;
        worker.ready().await?;
        link.stall();
        let one = shop.place(&[(&product, 1)], Timestamp::UNIX_EPOCH).await?;
        let other = shop.place(&[(&product, 1)], Timestamp::UNIX_EPOCH).await?;
        eventually("both wait", async || {
            let waiting = shop.queue.counts().await?.visible == 2;
            Ok((waiting && worker.outcomes("Failed").await? > 0).then_some(()))
        })
        .await?;
        assert_eq!(worker.outcomes("Failed").await?, 1);
        link.mend();
        for id in [&one, &other] {
            assert_eq!(shop.settled(id).await?.status, Status::Processed);
        }
        eventually("the repeat is recorded", async || {
            Ok((shop.store.audit.read().await?.redelivered == 1).then_some(()))
        })
        .await?;
        assert!(worker.stop().await);
        Ok(())
    })
    .await
}

#[tokio::test]
async fn an_order_that_takes_too_long_fails_with_its_last_delivery() -> anyhow::Result<()> {
    let once = QueueRules { max_receive_count: 1, ..FEW };
    with_shop_of(once, async |shop| {
        let product = shop.stocked(5).await?;
        let (link, uri) = Link::to_mongodb(&shop.servers.mongodb_uri).await?;
        let flags = ["--mongodb-uri", &uri, "--max-processing-seconds", "1", "--max-receive-count", "1"];
        let worker = Worker::start(&shop, &flags).await?;
        worker.ready().await?;
        link.stall();
        let id = shop.place(&[(&product, 1)], Timestamp::UNIX_EPOCH).await?;
        worker.overran().await?;
        link.mend();
        let order = shop.settled(&id).await?;
        assert_eq!((order.status, order.reason), (Status::Failed, Some(Reason::ProcessingFailed)));
        let why = order.failure.map(|failure| (failure.class, failure.deliveries));
        assert_eq!(why, Some((FailureClass::Timeout, 1)), "staff see why");
        // At once: the visibility is longer than the test's patience.
        eventually("its message is a dead letter", async || {
            Ok((shop.dead_letters.counts().await?.visible == 1).then_some(()))
        })
        .await?;
        assert!(worker.stop().await);
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_worker_is_ready_without_its_queue_and_finds_it_when_it_is_made() -> anyhow::Result<()> {
    with_shop(async |shop| {
        let (product, late) = (shop.stocked(5).await?, format!("{}-late", shop.name));
        let worker = Worker::start(&shop, &["--queue-name", &late]).await?;
        worker.ready().await?;
        let sqs = shop.queue.client();
        let url = sqs.create_queue().queue_name(&late).send().await?.queue_url;
        let accepted = shop.store.orders.accept(&shop.new_order(&[(&product, 1)], Timestamp::UNIX_EPOCH)?).await?;
        let body = accepted.send.message.to_body();
        sqs.send_message().set_queue_url(url.clone()).message_body(body).send().await?;
        assert_eq!(shop.settled(&accepted.document.id).await?.status, Status::Processed);
        assert!(worker.stop().await);
        sqs.delete_queue().set_queue_url(url).send().await?;
        Ok(())
    })
    .await
}

#[tokio::test]
async fn redis_away_costs_nothing() -> anyhow::Result<()> {
    with_shop(async |shop| {
        let product = shop.stocked(5).await?;
        let worker = Worker::start(&shop, &["--redis-url", "redis://127.0.0.1:1"]).await?;
        let id = shop.place(&[(&product, 1)], Timestamp::UNIX_EPOCH).await?;
        assert_eq!(shop.settled(&id).await?.status, Status::Processed);
        assert!(worker.stop().await);
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_store_that_is_away_says_so_within_its_timeout() -> anyhow::Result<()> {
    let uri = "mongodb://127.0.0.1:1/?serverSelectionTimeoutMS=200".to_owned().into();
    let error = Store::connect(&uri, "x").await?.ping().await.unwrap_err();
    assert!(matches!(error, shop_store::StoreError::Unavailable(_)), "{error:?}");
    Ok(())
}
