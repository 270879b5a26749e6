//! Starting workers inside the test.

use std::{
    net::SocketAddr,
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context, ensure};
use clap::Parser;
use secrecy::ExposeSecret;
use serde_json::Value;
use shop_harness::{Shop, eventually};
use shop_runtime::{clock::Clock, shutdown::Shutdown};
use shop_worker::Config;
use tokio_util::sync::CancellationToken;

/// A running worker.
pub struct Worker {
    shop: Shop,
    pub ops: SocketAddr,
    pub shutdown: Shutdown,
    /// Cancelling it makes the worker hand back what it has not finished.
    pub deadline: CancellationToken,
}

/// The command line of a worker of `shop`, with more flags.
pub fn arguments(shop: &Shop, flags: &[&str]) -> Vec<String> {
    let mut arguments = vec!["shop-worker".to_owned()];
    for (flag, value) in [
        ("--metrics-addr", "127.0.0.1:0"),
        ("--mongodb-uri", shop.servers.mongodb_uri.expose_secret()),
        ("--mongodb-database", &shop.name),
        ("--redis-url", shop.servers.redis_url.expose_secret()),
        ("--sqs-endpoint", &shop.servers.sqs_endpoint),
        ("--queue-name", &shop.queue_name),
    ] {
        if !flags.contains(&flag) {
            arguments.extend([flag.to_owned(), value.to_owned()]);
        }
    }
    arguments.extend(flags.iter().map(ToString::to_string));
    arguments
}

/// A worker as a process of its own; it is killed when it is dropped.
pub struct Process(pub Child);

impl Process {
    pub fn start(shop: &Shop, flags: &[&str], stdout: Stdio) -> anyhow::Result<Self> {
        let mut command = Command::new(env!("CARGO_BIN_EXE_shop-worker"));
        command.args(&arguments(shop, flags)[1..]);
        Ok(Self(command.stdout(stdout).spawn().context("shop-worker")?))
    }

    pub fn signal(&self, signal: &str) -> anyhow::Result<()> {
        ensure!(Command::new("kill").args([signal, &self.0.id().to_string()]).status()?.success());
        Ok(())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // SIGKILL; a process that has ended by itself is no reason to fail here.
        let _ended = self.0.kill().and_then(|()| self.0.wait());
    }
}

impl Worker {
    pub async fn start(shop: &Shop, flags: &[&str]) -> anyhow::Result<Self> {
        let (config, shutdown) = (Config::try_parse_from(arguments(shop, flags))?, Shutdown::manual());
        let deadline = shop_worker::deadline(&shutdown, config.hand_back_after());
        let ops = shop_worker::start(&config, Clock::system(), &shutdown, deadline.clone()).await?;
        Ok(Self { shop: shop.clone(), ops, shutdown, deadline })
    }

    /// What the worker says of itself.
    pub async fn report(&self) -> anyhow::Result<Value> {
        Ok(reqwest::get(format!("http://{}/report", self.ops)).await?.json().await?)
    }

    /// Waits until so many messages are in work.
    pub async fn busy(&self, messages: u64) -> anyhow::Result<()> {
        let look = async || Ok((self.report().await?["busy"] == messages).then_some(()));
        eventually(&format!("{messages} in work"), look).await
    }

    /// Waits until MongoDB was reached.
    pub async fn ready(&self) -> anyhow::Result<()> {
        eventually("it is ready", async || Ok((self.text("/readyz").await? == "ok").then_some(()))).await
    }

    /// Waits until the work on one message was given up, and its end is not recorded yet.
    pub async fn overran(&self) -> anyhow::Result<()> {
        eventually("the work is given up", async || {
            let report = self.report().await?;
            Ok((report["busy"] == 0 && report["inFlight"] == 1).then_some(()))
        })
        .await
    }

    /// How many messages had this outcome.
    pub async fn outcomes(&self, outcome: &str) -> anyhow::Result<u64> {
        self.counted(&format!("shop_worker_messages_total{{outcome=\"{outcome}\"}}")).await
    }

    /// How many requests the worker has sent to SQS to receive and delete messages.
    pub async fn sqs_calls(&self) -> anyhow::Result<u64> {
        let mut calls = 0;
        for operation in ["ReceiveMessage", "DeleteMessageBatch"] {
            calls += self.counted(&format!("shop_worker_sqs_calls_total{{operation=\"{operation}\"}}")).await?;
        }
        Ok(calls)
    }

    /// How many messages the queue gave to others while they were in work here.
    pub async fn lost(&self) -> anyhow::Result<u64> {
        self.counted("shop_worker_lost_messages_total").await
    }

    /// How many times orders were decided together.
    pub async fn batches(&self) -> anyhow::Result<u64> {
        self.counted("shop_worker_batch_messages_count").await
    }

    /// How many times these were no more than `size`.
    pub async fn batches_up_to(&self, size: u32) -> anyhow::Result<u64> {
        self.counted(&format!("shop_worker_batch_messages_bucket{{le=\"{size}.0\"}}")).await
    }

    /// What a counter stands at.
    async fn counted(&self, name: &str) -> anyhow::Result<u64> {
        let metrics = self.text("/metrics").await?;
        let value = metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok());
        Ok(value.unwrap_or(0))
    }

    pub async fn text(&self, path: &str) -> anyhow::Result<String> {
        Ok(reqwest::get(format!("http://{}{path}", self.ops)).await?.text().await?)
    }

    /// Drains; true when all work was finished. A message of no meaning ends the open receive, which takes 20 s else.
    pub async fn stop(self) -> bool {
        self.shutdown.drain();
        self.shop.send("the test is over").await.is_ok() && self.left().await
    }

    /// Waits for a worker that drains; true when all work was finished.
    pub async fn left(self) -> bool {
        self.shutdown.wait(Duration::from_secs(40)).await
    }
}
