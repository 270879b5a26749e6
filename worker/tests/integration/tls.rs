//! MongoDB, Redis and SQS behind TLS with a private CA: trusted when the configuration names it, and only then.

use std::time::Duration;

use secrecy::ExposeSecret;
use shop_domain::order::Status;
use shop_harness::{TlsFront, eventually, with_shop};
use shop_runtime::{
    aws::{self, Service},
    clock::Clock,
    queue::{Queue, QueueAddress},
};
use shop_store::{Store, StoreError, order_cache::OrderCache, redis_link::RedisLink};

use crate::support::Worker;

#[tokio::test]
async fn a_worker_that_trusts_the_ca_uses_all_three() -> anyhow::Result<()> {
    with_shop(async |shop| {
        let front = TlsFront::new()?;
        let servers = front.of(&shop.servers).await?;
        let ca_file = front.ca_file().to_string_lossy();
        let worker = Worker::start(
            &shop,
            &[
                ("--mongodb-uri", servers.mongodb_uri.expose_secret()),
                ("--redis-url", servers.redis_url.expose_secret()),
                ("--sqs-endpoint", &servers.sqs_endpoint),
                ("--ca-file", &ca_file),
            ]
            .map(|(flag, value)| [flag, value])
            .concat(),
        )
        .await?;
        let product = shop.stocked(1).await?;
        let id = shop.place(&[(&product, 1)], Clock::system().now()).await?;
        assert_eq!(shop.settled(&id).await?.status, Status::Processed);
        let cache = OrderCache::new(RedisLink::connect(&shop.servers.redis_url, &shop.name)?);
        let cached = eventually("the status is in Redis", async || Ok(cache.get(&id).await)).await?;
        assert_eq!(cached.status, Status::Processed);
        assert!(worker.stop().await);
        Ok(())
    })
    .await
}

#[tokio::test]
async fn without_the_ca_none_is_trusted() -> anyhow::Result<()> {
    with_shop(async |shop| {
        let front = TlsFront::new()?;
        let servers = front.of(&shop.servers).await?;
        let ping = Store::connect(&servers.mongodb_uri, &shop.name).await?.ping().await;
        assert!(matches!(ping, Err(StoreError::Unavailable(_))), "{ping:?}");

        let ca = std::fs::read(front.ca_file())?;
        let trusting = RedisLink::connect_trusting(&servers.redis_url, &shop.name, Some(&ca))?;
        eventually("Redis answers who trusts its CA", async || Ok(trusting.ping().await.ok())).await?;
        let distrusting = RedisLink::connect(&servers.redis_url, &shop.name)?;
        eventually("its certificate is refused", async || {
            let refusal = distrusting.ping().await.expect_err("nobody vouches for this certificate");
            Ok(refusal.to_string().contains("invalid peer certificate").then_some(()))
        })
        .await?;

        let sqs = Service { region: "x".into(), endpoint: Some(servers.sqs_endpoint.clone()) };
        let queue = Queue::new(aws::sqs(&sqs).await, QueueAddress::Name(shop.name.clone()));
        let refused = tokio::time::timeout(Duration::from_secs(30), queue.counts()).await?;
        assert!(refused.is_err(), "{refused:?}");
        Ok(())
    })
    .await
}
