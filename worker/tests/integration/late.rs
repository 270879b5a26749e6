//! Workers that come too late: what they lost was done by others, and what they write then changes nothing.

use std::{net::TcpListener, process::Stdio, time::Duration};

use jiff::Timestamp;
use shop_domain::order::Status;
use shop_harness::{Link, QueueKind, QueueRules, eventually, with_shop_of};

use crate::support::{Process, Worker};

const SHORT: QueueRules =
    QueueRules { visibility: Duration::from_secs(2), max_receive_count: 10, kind: QueueKind::Standard };

#[tokio::test]
async fn a_worker_that_was_paused_past_its_visibility_changes_nothing() -> anyhow::Result<()> {
    with_shop_of(SHORT, async |shop| {
        let product = shop.stocked(5).await?;
        // A process of its own, so that it can be paused.
        let ops = TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string();
        let flags = ["--visibility-seconds", "2", "--simulated-work-ms", "1000", "--concurrency", "1"];
        let late = Process::start(&shop, &[&flags[..], &["--metrics-addr", &ops]].concat(), Stdio::null())?;
        let told = async |path| reqwest::get(format!("http://{ops}{path}")).await?.text().await;
        let id = shop.place(&[(&product, 2)], Timestamp::UNIX_EPOCH).await?;
        eventually("it has the message", async || {
            Ok(told("/report").await.is_ok_and(|report| report.contains(r#""busy":1"#)).then_some(()))
        })
        .await?;
        late.signal("-STOP")?;

        let other = Worker::start(&shop, &["--visibility-seconds", "2"]).await?;
        assert_eq!(shop.settled(&id).await?.status, Status::Processed);
        let settled = eventually("the repeat is recorded", async || {
            Ok(Some(shop.order(&id).await?).filter(|order| order.deliveries.is_some()))
        })
        .await?;

        late.signal("-CONT")?;
        eventually("it comes too late", async || {
            let (metrics, report) = (told("/metrics").await?, told("/report").await?);
            // It learns from its heartbeat that the message is another's, or finds the order settled before that.
            let ends = ["shop_worker_lost_messages_total 1", r#"outcome="AlreadySettled"} 1"#];
            let has_ended = ends.into_iter().any(|end| metrics.contains(end));
            Ok((has_ended && report.contains(r#""inFlight":0"#)).then_some(()))
        })
        .await?;
        assert_eq!(shop.order(&id).await?, settled, "not even the time of the last change");
        assert_eq!(shop.units(&product).await?, 3);
        assert_eq!(shop.store.audit.read().await?.faults(), Vec::<String>::new());
        drop(late);
        assert!(other.stop().await);
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_commit_of_which_the_worker_never_hears_counts_once() -> anyhow::Result<()> {
    with_shop_of(SHORT, async |shop| {
        let product = shop.stocked(5).await?;
        let (link, uri) = Link::to_mongodb(&shop.servers.mongodb_uri).await?;
        let deaf = Worker::start(&shop, &["--mongodb-uri", &uri, "--max-processing-seconds", "1"]).await?;
        deaf.ready().await?;
        link.mute_after(b"commitTransaction");
        let id = shop.place(&[(&product, 2)], Timestamp::UNIX_EPOCH).await?;
        let order = shop.settled(&id).await?;
        assert_eq!((order.status, order.version), (Status::Processed, 2));
        eventually("it gives up on it", async || Ok((deaf.outcomes("Failed").await? > 0).then_some(()))).await?;

        link.mend();
        eventually("the repeat is found settled", async || {
            Ok((deaf.outcomes("AlreadySettled").await? > 0).then_some(()))
        })
        .await?;
        let order = shop.order(&id).await?;
        assert_eq!((order.status, order.version, order.history.len()), (Status::Processed, 2, 2));
        assert_eq!(shop.units(&product).await?, 3);
        assert_eq!(shop.store.audit.read().await?.faults(), Vec::<String>::new());
        assert!(deaf.stop().await);
        Ok(())
    })
    .await
}
