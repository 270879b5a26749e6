//! Slow work and leaving: messages stay hidden while in work, a drain finishes them, a crash loses none.

use std::{process::Stdio, time::Duration};

use jiff::Timestamp;
use rstest::rstest;
use shop_domain::{message::Message, order::Status};
use shop_harness::{Link, QueueKind, QueueRules, Step, eventually, with_shop, with_shop_of};

use crate::support::{Process, Worker};

const SHORT: QueueRules =
    QueueRules { visibility: Duration::from_secs(2), max_receive_count: 10, kind: QueueKind::Standard };

#[tokio::test]
async fn a_slow_message_stays_hidden_while_it_is_in_work() -> anyhow::Result<()> {
    with_shop_of(SHORT, async |shop| {
        let product = shop.stocked(5).await?;
        let id = shop.place(&[(&product, 1)], Timestamp::UNIX_EPOCH).await?;
        let worker = Worker::start(&shop, &["--visibility-seconds", "2", "--simulated-work-ms", "6000"]).await?;
        worker.busy(1).await?;
        // Longer than the visibility, shorter than the work.
        assert_eq!(shop.receive(Duration::from_secs(4)).await?, Vec::<String>::new());
        assert_eq!(shop.settled(&id).await?.deliveries, None);
        eventually("it is deleted", async || Ok((worker.report().await?["completedTotal"] == 1).then_some(()))).await?;
        assert!(worker.stop().await);
        Ok(())
    })
    .await
}

#[tokio::test]
async fn what_a_receive_brought_that_was_cut_off_comes_again_in_seconds() -> anyhow::Result<()> {
    with_shop(async |shop| {
        let product = shop.stocked(5).await?;
        let (link, endpoint) = Link::to_http(&shop.servers.sqs_endpoint).await?;
        link.mute_after(b"ReceiveMessage");
        let worker = Worker::start(&shop, &["--sqs-endpoint", &endpoint]).await?;
        let id = shop.place(&[(&product, 1)], Timestamp::UNIX_EPOCH).await?;
        eventually("it is taken in vain", async || Ok((shop.queue.counts().await?.in_flight == 1).then_some(())))
            .await?;
        link.cut();
        eventually("it tries again", async || Ok((worker.sqs_calls().await? > 1).then_some(()))).await?;
        link.mend();
        // Half a minute at most, where the visibility is a minute.
        assert_eq!(shop.settled(&id).await?.status, Status::Processed);
        assert!(worker.stop().await);
        Ok(())
    })
    .await
}

#[tokio::test]
async fn an_sqs_that_answers_late_keeps_messages_hidden_longer() -> anyhow::Result<()> {
    with_shop(async |shop| {
        let product = shop.stocked(5).await?;
        let (link, endpoint) = Link::to_http(&shop.servers.sqs_endpoint).await?;
        let flags = ["--sqs-endpoint", &endpoint, "--simulated-work-ms", "1000"];
        let worker = Worker::start(&shop, &flags).await?;
        // Longer than messages are hidden at first.
        link.slow(Duration::from_millis(3_500));
        let mut placed = Vec::new();
        for _ in 0..2 {
            placed.push(shop.place(&[(&product, 1)], Timestamp::UNIX_EPOCH).await?);
            eventually("it has ended", async || {
                let (counts, report) = (shop.queue.counts().await?, worker.report().await?);
                Ok((counts.visible + counts.in_flight == 0 && report["inFlight"] == 0).then_some(()))
            })
            .await?;
        }
        // What it found out with the first message holds for the second.
        assert_eq!(shop.order(&placed[1]).await?.deliveries, None);
        link.mend();
        assert!(worker.stop().await);
        Ok(())
    })
    .await
}

#[tokio::test]
async fn what_the_queue_gave_to_another_is_neither_extended_nor_deleted_nor_decided_twice() -> anyhow::Result<()> {
    with_shop_of(SHORT, async |shop| {
        let product = shop.stocked(5).await?;
        let (mongodb, uri) = Link::to_mongodb(&shop.servers.mongodb_uri).await?;
        let (sqs, endpoint) = Link::to_http(&shop.servers.sqs_endpoint).await?;
        let flags = ["--mongodb-uri", &uri, "--sqs-endpoint", &endpoint, "--visibility-seconds", "2"];
        let paused = Worker::start(&shop, &[&flags[..], &["--concurrency", "1"]].concat()).await?;
        paused.ready().await?;
        // In the transaction, with the stock moved; then the worker is as good as paused.
        mongodb.stall_at(Step::Before("commitTransaction"));
        let id = shop.place(&[(&product, 1)], Timestamp::UNIX_EPOCH).await?;
        mongodb.stalled().await?;
        sqs.stall();

        let other = Worker::start(&shop, &["--visibility-seconds", "2", "--concurrency", "1"]).await?;
        eventually("the other has it", async || Ok((other.report().await?["busy"] == 1).then_some(()))).await?;
        sqs.mend();
        eventually("the first learns that it lost it", async || Ok((paused.lost().await? == 1).then_some(()))).await?;
        mongodb.mend();

        let order = shop.settled(&id).await?;
        assert_eq!(order.status, Status::Processed);
        eventually("both have finished", async || {
            let idle = paused.report().await?["inFlight"] == 0 && other.report().await?["inFlight"] == 0;
            let counts = shop.queue.counts().await?;
            Ok((idle && counts.visible + counts.in_flight == 0).then_some(()))
        })
        .await?;
        assert_eq!((paused.report().await?["completedTotal"].as_u64(), paused.lost().await?), (Some(0), 1));
        let order = shop.order(&id).await?;
        assert_eq!((order.version, order.outbox.len(), shop.units(&product).await?), (2, 1, 4));
        assert_eq!(shop.store.audit.read().await?.faults(), Vec::<String>::new());
        assert!(other.stop().await && paused.stop().await);
        Ok(())
    })
    .await
}

#[tokio::test]
async fn prefetched_messages_wait_hidden_and_are_not_in_work() -> anyhow::Result<()> {
    with_shop_of(SHORT, async |shop| {
        let product = shop.stocked(50).await?;
        let mut placed = Vec::new();
        for _ in 0..6 {
            placed.push(shop.place(&[(&product, 1)], Timestamp::UNIX_EPOCH).await?);
        }
        let flags = ["--visibility-seconds", "2", "--simulated-work-ms", "4000", "--concurrency", "2"];
        let worker = Worker::start(&shop, &[&flags[..], &["--prefetch", "2"]].concat()).await?;
        eventually("two are in work and two are held", async || {
            let report = worker.report().await?;
            Ok((report["busy"] == 2 && report["inFlight"] == 4).then_some(()))
        })
        .await?;
        for id in &placed {
            assert_eq!(shop.settled(id).await?.deliveries, None);
        }
        assert!(worker.stop().await);
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_drain_finishes_what_is_in_work_and_takes_nothing_new() -> anyhow::Result<()> {
    with_shop(async |shop| {
        let product = shop.stocked(5).await?;
        let id = shop.place(&[(&product, 1)], Timestamp::UNIX_EPOCH).await?;
        let worker = Worker::start(&shop, &["--simulated-work-ms", "2000", "--concurrency", "1"]).await?;
        worker.busy(1).await?;
        worker.shutdown.drain();
        let late = shop.place(&[(&product, 1)], Timestamp::UNIX_EPOCH).await?;
        assert!(worker.left().await);
        assert_eq!(shop.order(&id).await?.status, Status::Processed);
        assert_eq!(shop.order(&late).await?.status, Status::Pending);
        let counts = shop.queue.counts().await?;
        assert_eq!((counts.visible, counts.in_flight), (1, 0));
        Ok(())
    })
    .await
}

#[tokio::test]
async fn work_that_is_not_finished_at_the_deadline_is_handed_back_at_once() -> anyhow::Result<()> {
    with_shop(async |shop| {
        let product = shop.stocked(5).await?;
        let id = shop.place(&[(&product, 1)], Timestamp::UNIX_EPOCH).await?;
        let worker = Worker::start(&shop, &["--simulated-work-ms", "20000", "--concurrency", "1"]).await?;
        worker.busy(1).await?;
        worker.shutdown.drain();
        worker.deadline.cancel();
        // Long before its visibility of 60 s is over.
        let received = shop.receive(Duration::from_secs(10)).await?;
        assert_eq!(received, [Message::OrderPlaced { order_id: id.clone() }.to_body()]);
        assert_eq!(worker.outcomes("HandedBack").await?, 1);
        assert_eq!(shop.order(&id).await?.status, Status::Pending);
        assert!(worker.left().await);
        Ok(())
    })
    .await
}

/// The code by which the operator knows that it took a worker away too early.
#[rstest]
#[case::all_is_finished(2, 0)]
#[case::more_than_it_can_finish(60, 1)]
#[tokio::test]
async fn a_process_ends_with_1_when_it_had_to_hand_work_back(
    #[case] orders: u64,
    #[case] code: i32,
) -> anyhow::Result<()> {
    with_shop(async |shop| {
        let product = shop.stocked(100).await?;
        for _ in 0..orders {
            shop.place(&[(&product, 1)], Timestamp::UNIX_EPOCH).await?;
        }
        // Its deadline is 26 s after the signal: a receive, the work, and 5 s more.
        let flags = ["--max-processing-seconds", "1", "--simulated-work-ms", "900", "--concurrency", "1"];
        let mut process = Process::start(&shop, &[&flags[..], &["--prefetch", "60"]].concat(), Stdio::null())?;
        eventually("it holds them", async || Ok((shop.queue.counts().await?.visible == 0).then_some(()))).await?;
        process.signal("-TERM")?;
        // No message of this test: it only ends the open receive.
        shop.send("the test is over").await?;
        let ended = tokio::task::spawn_blocking(move || process.0.wait()).await??;
        assert_eq!(ended.code(), Some(code));
        let counts = shop.queue.counts().await?;
        let left = orders - (100 - shop.units(&product).await?.unsigned_abs());
        assert_eq!((left > 0, counts.visible > 1), (code == 1, code == 1));
        assert_eq!(counts.visible + counts.in_flight, left + 1, "what it left is there to be taken");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_deadline_while_a_batch_is_concluded_hands_back_only_what_has_not_ended() -> anyhow::Result<()> {
    let once = QueueRules { max_receive_count: 1, ..QueueRules::default() };
    with_shop_of(once, async |shop| {
        let product = shop.stocked(5).await?;
        let (sound, spoiled) = (
            shop.place(&[(&product, 1)], Timestamp::UNIX_EPOCH).await?,
            shop.place(&[(&product, 1)], Timestamp::UNIX_EPOCH).await?,
        );
        shop.spoil(&spoiled).await?;
        let (link, uri) = Link::to_mongodb(&shop.servers.mongodb_uri).await?;
        link.stall_at(Step::Before("processing_failed"));
        let worker = Worker::start(&shop, &["--mongodb-uri", &uri, "--max-receive-count", "1"]).await?;
        link.stalled().await?;
        eventually("the sound one is deleted", async || Ok((worker.outcomes("Processed").await? == 1).then_some(())))
            .await?;
        worker.shutdown.drain();
        worker.deadline.cancel();
        eventually("the other is handed back", async || Ok((worker.outcomes("HandedBack").await? == 1).then_some(())))
            .await?;
        assert_eq!((worker.outcomes("Processed").await?, worker.outcomes("Failed").await?), (1, 0));
        assert_eq!(shop.order(&sound).await?.status, Status::Processed);
        assert!(worker.left().await);
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_mongodb_that_hangs_does_not_keep_a_worker_from_leaving() -> anyhow::Result<()> {
    with_shop(async |shop| {
        let product = shop.stocked(5).await?;
        let (link, uri) = Link::to_mongodb(&shop.servers.mongodb_uri).await?;
        let flags = ["--mongodb-uri", &uri, "--max-processing-seconds", "1"];
        let only_once = ["--max-receive-count", "1", "--concurrency", "1"];
        let worker = Worker::start(&shop, &[&flags[..], &only_once[..]].concat()).await?;
        worker.ready().await?;
        link.stall();
        let id = shop.place(&[(&product, 1)], Timestamp::UNIX_EPOCH).await?;
        worker.overran().await?;
        worker.shutdown.drain();
        worker.deadline.cancel();
        eventually("it is handed back", async || Ok((worker.outcomes("HandedBack").await? == 1).then_some(()))).await?;
        assert_eq!(shop.order(&id).await?.status, Status::Pending);
        assert!(worker.left().await);
        Ok(())
    })
    .await
}

#[tokio::test]
async fn an_open_receive_is_awaited_and_what_it_brings_is_finished() -> anyhow::Result<()> {
    with_shop(async |shop| {
        let product = shop.stocked(5).await?;
        let worker = Worker::start(&shop, &[]).await?;
        let first = shop.place(&[(&product, 1)], Timestamp::UNIX_EPOCH).await?;
        shop.settled(&first).await?;
        // It receives again; with nothing in the queue that takes 20 s.
        worker.shutdown.drain();
        let second = shop.place(&[(&product, 1)], Timestamp::UNIX_EPOCH).await?;
        assert!(worker.left().await);
        assert_eq!(shop.order(&second).await?.status, Status::Processed);
        let counts = shop.queue.counts().await?;
        assert_eq!((counts.visible, counts.in_flight), (0, 0));
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_crash_deletes_nothing_unfinished() -> anyhow::Result<()> {
    with_shop_of(SHORT, async |shop| {
        let product = shop.stocked(5).await?;
        let id = shop.place(&[(&product, 1)], Timestamp::UNIX_EPOCH).await?;
        crash_with_work(&shop).await?;
        assert_eq!(shop.order(&id).await?.status, Status::Pending);

        let successor = Worker::start(&shop, &[]).await?;
        assert_eq!(shop.settled(&id).await?.status, Status::Processed);
        // The crashed worker's open receive may have taken it once more.
        let deliveries = eventually("the repeat is recorded", async || Ok(shop.order(&id).await?.deliveries)).await?;
        assert!(deliveries >= 2, "{deliveries}");
        assert_eq!(shop.units(&product).await?, 4);
        assert!(successor.stop().await);
        Ok(())
    })
    .await
}

/// Runs a worker that has just begun to work when its process ends: all of its tasks are dropped where they are.
async fn crash_with_work(shop: &shop_harness::Shop) -> anyhow::Result<()> {
    let shop = shop.clone();
    tokio::task::spawn_blocking(move || {
        let process = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        process.block_on(async {
            let flags = ["--visibility-seconds", "2", "--simulated-work-ms", "20000"];
            let worker = Worker::start(&shop, &flags).await?;
            worker.busy(1).await
        })?;
        process.shutdown_background();
        Ok(())
    })
    .await?
}
