//! The status cache: newer wins, and Redis away is a quick miss.

use std::time::{Duration, Instant};

use jiff::Timestamp;
use shop_domain::order::Status;
use shop_harness::{Shop, with_shop};
use shop_store::{order_cache::OrderCache, orders::OrderView, redis_link::RedisLink};

async fn view(shop: &Shop, version: i64, status: Status) -> anyhow::Result<OrderView> {
    let product = shop.stocked(1).await?;
    let accepted = shop.store.orders.accept(&shop.new_order(&[(&product, 1)], Timestamp::UNIX_EPOCH)?).await?;
    Ok(OrderView { version, status, ..accepted.document.view() })
}

#[tokio::test]
async fn an_older_version_never_replaces_a_newer() -> anyhow::Result<()> {
    with_shop(async |shop| {
        let cache = OrderCache::new(RedisLink::connect(&shop.servers.redis_url, &shop.name)?);
        let newer = view(&shop, 2, Status::Processed).await?;
        let older = OrderView { version: 1, status: Status::Pending, ..newer.clone() };
        assert_eq!(cache.get(&newer.id).await, None);
        cache.put(&older).await;
        assert_eq!(cache.get(&newer.id).await, Some(older.clone()));
        cache.put(&newer).await;
        cache.put(&older).await;
        assert_eq!(cache.get(&newer.id).await, Some(newer.clone()));
        // Another shop on the same Redis has its own orders.
        let other = OrderCache::new(RedisLink::connect(&shop.servers.redis_url, "other")?);
        assert_eq!(other.get(&newer.id).await, None);
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_pending_order_is_forgotten_soon() -> anyhow::Result<()> {
    with_shop(async |shop| {
        let cache = OrderCache::new(RedisLink::connect(&shop.servers.redis_url, &shop.name)?);
        let pending = view(&shop, 1, Status::Pending).await?;
        let put = Instant::now();
        cache.put(&pending).await;
        shop_harness::eventually("the entry runs out", async || {
            Ok(cache.get(&pending.id).await.is_none().then_some(()))
        })
        .await?;
        assert!((Duration::from_secs(1)..Duration::from_secs(5)).contains(&put.elapsed()), "{:?}", put.elapsed());
        Ok(())
    })
    .await
}

#[tokio::test]
async fn redis_away_is_a_quick_miss() -> anyhow::Result<()> {
    with_shop(async |shop| {
        // Nothing listens on port 1; 192.0.2.1 is reserved for documentation and never answers.
        for url in ["redis://127.0.0.1:1", "redis://192.0.2.1:6379"] {
            let cache = OrderCache::new(RedisLink::connect(&url.to_owned().into(), &shop.name)?);
            let order = view(&shop, 1, Status::Pending).await?;
            let started = Instant::now();
            for _ in 0..20 {
                cache.put(&order).await;
                assert_eq!(cache.get(&order.id).await, None);
            }
            assert!(started.elapsed() < Duration::from_millis(500), "{url}: {:?}", started.elapsed());
        }
        assert_eq!(OrderCache::disabled().get(&"67c8830b7ef1b848ac52ebec".parse()?).await, None);
        Ok(())
    })
    .await
}
