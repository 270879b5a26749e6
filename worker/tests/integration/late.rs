//! Workers that come too late: what they lost was done by others, and what they write then changes nothing.

use std::{
    net::TcpListener,
    process::{Child, Command},
    time::Duration,
};

use anyhow::ensure;
use jiff::Timestamp;
use secrecy::ExposeSecret;
use shop_domain::order::Status;
use shop_harness::{Link, QueueKind, QueueRules, Shop, eventually, with_shop_of};

use crate::support::Worker;

const SHORT: QueueRules =
    QueueRules { visibility: Duration::from_secs(2), max_receive_count: 10, kind: QueueKind::Standard };

/// A worker that is a process of its own, so that it can be paused; killed when dropped.
struct Paused {
    process: Child,
    ops: String,
}

impl Drop for Paused {
    fn drop(&mut self) {
        // It may have ended already.
        let _gone = self.process.kill().and_then(|()| self.process.wait());
    }
}

impl Paused {
    /// Starts a worker whose work on each message takes a second.
    fn start(shop: &Shop) -> anyhow::Result<Self> {
        let ops = TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string();
        let mut command = Command::new(env!("CARGO_BIN_EXE_shop-worker"));
        for (flag, value) in [
            ("--mongodb-uri", shop.servers.mongodb_uri.expose_secret()),
            ("--mongodb-database", &shop.name),
            ("--redis-url", shop.servers.redis_url.expose_secret()),
            ("--sqs-endpoint", &shop.servers.sqs_endpoint),
            ("--queue-name", &shop.name),
            ("--metrics-addr", &ops),
            ("--visibility-seconds", "2"),
            ("--simulated-work-ms", "1000"),
            ("--concurrency", "1"),
            ("--log-level", "off"),
        ] {
            command.args([flag, value]);
        }
        Ok(Self { process: command.spawn()?, ops })
    }

    fn signal(&self, signal: &str) -> anyhow::Result<()> {
        ensure!(Command::new("kill").args([signal, &self.process.id().to_string()]).status()?.success());
        Ok(())
    }

    async fn text(&self, path: &str) -> anyhow::Result<String> {
        Ok(reqwest::get(format!("http://{}{path}", self.ops)).await?.text().await?)
    }
}

#[tokio::test]
async fn a_worker_that_was_paused_past_its_visibility_changes_nothing() -> anyhow::Result<()> {
    with_shop_of(SHORT, async |shop| {
        let product = shop.stocked(5).await?;
        let late = Paused::start(&shop)?;
        let id = shop.place(&[(&product, 2)], Timestamp::UNIX_EPOCH).await?;
        eventually("it has the message", async || {
            Ok(late.text("/report").await.is_ok_and(|report| report.contains(r#""busy":1"#)).then_some(()))
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
            let (metrics, report) = (late.text("/metrics").await?, late.text("/report").await?);
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
