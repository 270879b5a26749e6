//! Starting workers inside the test.

use std::{net::SocketAddr, time::Duration};

use clap::Parser;
use secrecy::ExposeSecret;
use serde_json::Value;
use shop_harness::Shop;
use shop_runtime::{clock::Clock, shutdown::Shutdown};
use shop_worker::Config;

/// A running worker.
pub struct Worker {
    shop: Shop,
    pub ops: SocketAddr,
    pub shutdown: Shutdown,
}

/// The configuration of a worker of `shop`, with more flags.
pub fn config(shop: &Shop, flags: &[&str]) -> anyhow::Result<Config> {
    let mut arguments: Vec<String> = ["shop-worker", "--metrics-addr", "127.0.0.1:0"].map(String::from).into();
    for (flag, value) in [
        ("--mongodb-uri", shop.servers.mongodb_uri.expose_secret()),
        ("--mongodb-database", &shop.name),
        ("--redis-url", shop.servers.redis_url.expose_secret()),
        ("--sqs-endpoint", &shop.servers.sqs_endpoint),
        ("--queue-name", &shop.name),
    ] {
        if !flags.contains(&flag) {
            arguments.extend([flag.to_owned(), value.to_owned()]);
        }
    }
    arguments.extend(flags.iter().map(ToString::to_string));
    Ok(Config::try_parse_from(arguments)?)
}

impl Worker {
    pub async fn start(shop: &Shop, flags: &[&str]) -> anyhow::Result<Self> {
        let shutdown = Shutdown::manual();
        let ops = shop_worker::start(&config(shop, flags)?, Clock::system(), &shutdown).await?;
        Ok(Self { shop: shop.clone(), ops, shutdown })
    }

    /// What the worker says of itself.
    pub async fn report(&self) -> anyhow::Result<Value> {
        Ok(reqwest::get(format!("http://{}/report", self.ops)).await?.json().await?)
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
