//! The status cache: newer wins, and Redis away is a quick miss.

use std::time::{Duration, Instant};

use jiff::Timestamp;
use shop_domain::order::Status;
use shop_harness::{Link, Shop, eventually, with_shop};
use shop_store::{
    order_cache::OrderCache,
    order_events::{OrderChanged, OrderEvents},
    orders::OrderView,
    redis_link::RedisLink,
};

async fn view(shop: &Shop, version: i64, status: Status) -> anyhow::Result<OrderView> {
    let product = shop.stocked(1).await?;
    let accepted = shop.store.orders.accept(&shop.new_order(&[(&product, 1)], Timestamp::UNIX_EPOCH)?).await?;
    Ok(OrderView { version, status, ..accepted.document.view() })
}

/// Offers an order to the cache until there is one: a link that is not up yet, or slow for once, is a miss.
async fn offered(cache: &OrderCache, order: &OrderView) -> anyhow::Result<OrderView> {
    eventually("the cache answers", async || {
        cache.put(order).await;
        Ok(cache.get(&order.id).await)
    })
    .await
}

#[tokio::test]
async fn an_older_version_never_replaces_a_newer() -> anyhow::Result<()> {
    with_shop(async |shop| {
        let cache = OrderCache::new(RedisLink::connect(&shop.servers.redis_url, &shop.name)?);
        let newer = view(&shop, 2, Status::Processed).await?;
        let older = OrderView { version: 1, status: Status::Pending, ..newer.clone() };
        assert_eq!(cache.get(&newer.id).await, None);
        assert_eq!(offered(&cache, &older).await?, older);
        eventually("the newer one", async || Ok((offered(&cache, &newer).await? == newer).then_some(()))).await?;
        assert_eq!(offered(&cache, &older).await?, newer);
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
        let (pending, settled) = (view(&shop, 1, Status::Pending).await?, view(&shop, 2, Status::Processed).await?);
        offered(&cache, &settled).await?;
        offered(&cache, &pending).await?;
        eventually("only the settled order is left", async || {
            let forgotten = cache.get(&pending.id).await.is_none();
            Ok((forgotten && cache.get(&settled.id).await.is_some()).then_some(()))
        })
        .await?;
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
            // Forty requests that each wait for an answer take four seconds.
            assert!(started.elapsed() < Duration::from_secs(2), "{url}: {:?}", started.elapsed());
        }
        assert_eq!(OrderCache::disabled().get(&"67c8830b7ef1b848ac52ebec".parse()?).await, None);
        Ok(())
    })
    .await
}

#[tokio::test]
async fn who_listens_hears_of_each_newer_version_once() -> anyhow::Result<()> {
    with_shop(async |shop| {
        let url = &shop.servers.redis_url;
        let link = RedisLink::connect(url, &shop.name)?;
        let cache = OrderCache::new(link.clone());
        let mut news = OrderEvents::new(&link).subscribe().await?;
        let mut strangers = OrderEvents::new(&RedisLink::connect(url, "other")?).subscribe().await?;
        let first = view(&shop, 1, Status::Pending).await?;
        let [second, third] = [2, 3].map(|version| OrderView { version, status: Status::Processed, ..first.clone() });
        // The first version is no news, a version that is there already neither, nor is an older one.
        for order in [&first, &second, &second, &first, &third] {
            eventually("it is cached", async || {
                cache.put(order).await;
                Ok(cache.get(&order.id).await.filter(|cached| cached.version >= order.version))
            })
            .await?;
        }
        for version in [2, 3] {
            let heard = tokio::time::timeout(Duration::from_secs(30), news.next()).await??;
            assert_eq!(heard, OrderChanged { id: first.id.clone(), version });
        }
        assert!(tokio::time::timeout(Duration::from_millis(100), strangers.next()).await.is_err(), "of another shop");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_subscription_ends_when_nothing_can_be_heard_any_more() -> anyhow::Result<()> {
    with_shop(async |shop| {
        let (link, url) = Link::to_redis(&shop.servers.redis_url).await?;
        let events = OrderEvents::new(&RedisLink::connect(&url.into(), &shop.name)?);
        for disturb in [Link::cut, Link::stall] {
            let mut news = events.subscribe().await?;
            disturb(&link);
            let ended = tokio::time::timeout(Duration::from_secs(30), news.next()).await?;
            assert!(ended.is_err(), "{ended:?}");
            assert!(events.subscribe().await.is_err());
            link.mend();
        }
        Ok(())
    })
    .await
}
