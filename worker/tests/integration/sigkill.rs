//! The real process, killed without warning: at each step of its work, and at random while there is much to do.

use std::{process::Stdio, time::Duration};

use jiff::Timestamp;
use rstest::rstest;
use shop_domain::{id::OrderId, message::Message, order::Status};
use shop_harness::{Link, QueueKind, QueueRules, Shop, Step, bits, eventually, with_shop_of};
use shop_store::orders::OrderDocument;

use crate::support::{Process, Worker};

/// Deliveries are not what is tested here.
const PATIENT: QueueRules =
    QueueRules { visibility: Duration::from_secs(2), max_receive_count: 1_000, kind: QueueKind::Standard };
const FLAGS: [&str; 6] = ["--visibility-seconds", "2", "--max-receive-count", "1000", "--max-processing-seconds", "60"];
const KILLS: usize = 20;
const ORDERS_EACH: usize = 10;

/// The order as soon as it is settled. What a transaction wrote whose process died before its commit stays locked until
/// MongoDB ends it, by default after a minute; the harness's patience is half of that.
async fn settled_at_last(shop: &Shop, id: &OrderId) -> anyhow::Result<OrderDocument> {
    for _ in 0..3 {
        if let Ok(order) = shop.settled(id).await {
            return Ok(order);
        }
    }
    shop.settled(id).await
}

/// Which server's link stalls.
#[derive(Debug, Clone, Copy)]
enum At {
    MongoDb,
    Redis,
    Sqs,
}

async fn finished(shop: &Shop) -> anyhow::Result<()> {
    eventually("the queue is empty", async || {
        let counts = shop.queue.counts().await?;
        Ok((counts.visible + counts.in_flight + counts.delayed == 0).then_some(()))
    })
    .await?;
    assert_eq!(shop.dead_letters.counts().await?.visible, 0);
    assert_eq!(shop.store.audit.read().await?.faults(), Vec::<String>::new());
    Ok(())
}

#[rstest]
#[case::received(At::MongoDb, Step::Before("startTransaction"), Status::Pending)]
#[case::transaction_begun(At::MongoDb, Step::After("startTransaction"), Status::Pending)]
#[case::stock_moved(At::MongoDb, Step::After("stock_movements"), Status::Pending)]
#[case::written(At::MongoDb, Step::Before("commitTransaction"), Status::Pending)]
#[case::committed(At::MongoDb, Step::After("commitTransaction"), Status::Processed)]
#[case::before_the_cache(At::Redis, Step::Before("EVAL"), Status::Processed)]
#[case::before_deleting(At::Sqs, Step::Before("DeleteMessageBatch"), Status::Processed)]
#[case::deleted(At::Sqs, Step::After("DeleteMessageBatch"), Status::Processed)]
#[tokio::test]
async fn a_kill_at_any_step_loses_and_doubles_nothing(
    #[case] at: At,
    #[case] step: Step,
    #[case] left: Status,
) -> anyhow::Result<()> {
    with_shop_of(PATIENT, async |shop| {
        let product = shop.stocked(5).await?;
        let (mongodb, uri) = Link::to_mongodb(&shop.servers.mongodb_uri).await?;
        let (redis, redis_url) = Link::to_redis(&shop.servers.redis_url).await?;
        let (sqs, endpoint) = Link::to_http(&shop.servers.sqs_endpoint).await?;
        let link = match at {
            At::MongoDb => &mongodb,
            At::Redis => &redis,
            At::Sqs => &sqs,
        };
        link.stall_at(step);
        let links = ["--mongodb-uri", &uri, "--redis-url", &redis_url, "--sqs-endpoint", &endpoint];
        let process = Process::start(&shop, &[&FLAGS[..], &links].concat(), Stdio::null())?;
        let id = shop.place(&[(&product, 1)], Timestamp::UNIX_EPOCH).await?;
        link.stalled().await?;
        drop(process);
        // The servers see the connections end.
        link.cut();
        eventually("it is as the kill left it", async || Ok((shop.order(&id).await?.status == left).then_some(())))
            .await?;

        let successor = Worker::start(&shop, &FLAGS).await?;
        assert_eq!(settled_at_last(&shop, &id).await?.status, Status::Processed);
        finished(&shop).await?;
        assert_eq!((shop.order(&id).await?.version, shop.units(&product).await?), (2, 4));
        assert!(successor.stop().await);
        Ok(())
    })
    .await
}

/// Places orders for one unit each, of which each message comes twice.
async fn place_twice(shop: &Shop, product: &shop_domain::id::ProductId) -> anyhow::Result<Vec<OrderId>> {
    let mut placed = Vec::new();
    for _ in 0..ORDERS_EACH {
        let id = shop.place(&[(product, 1)], Timestamp::UNIX_EPOCH).await?;
        shop.send(&Message::OrderPlaced { order_id: id.clone() }.to_body()).await?;
        placed.push(id);
    }
    Ok(placed)
}

#[tokio::test]
async fn kills_at_random_lose_and_double_nothing() -> anyhow::Result<()> {
    with_shop_of(PATIENT, async |shop| {
        let (plenty, scarce) = (shop.stocked(1_000).await?, shop.stocked(30).await?);
        let mut placed = Vec::new();
        for round in 0..KILLS {
            let process = Process::start(&shop, &FLAGS, Stdio::null())?;
            let product = if round % 2 == 0 { &plenty } else { &scarce };
            placed.extend(place_twice(&shop, product).await?);
            // Somewhere between its start and a second of work.
            let [random, ..] = bits()?;
            tokio::time::sleep(Duration::from_millis(4 * u64::from(random))).await;
            drop(process);
        }
        let (one, other) = (Worker::start(&shop, &FLAGS).await?, Worker::start(&shop, &FLAGS).await?);
        let mut sold = 0;
        for id in &placed {
            let order = settled_at_last(&shop, id).await?;
            assert_eq!(order.version, 2, "{id} was settled once");
            sold += i64::from(order.status == Status::Processed);
        }
        finished(&shop).await?;
        assert_eq!(placed.len(), KILLS * ORDERS_EACH);
        assert_eq!((sold, shop.units(&plenty).await?, shop.units(&scarce).await?), (130, 900, 0));
        assert!(one.stop().await && other.stop().await);
        Ok(())
    })
    .await
}
