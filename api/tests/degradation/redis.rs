//! Redis is away: every call works, a little slower.

use serde_json::{Value, json};
use shop_domain::order::Status;
use shop_harness::{Link, Servers};
use shop_store::{
    catalogue_cache::{CatalogueCache, Lookup},
    redis_link::RedisLink,
};

use crate::{
    SLOW, Time, diagnosis, ready,
    shop::{Args, DOCUMENTED_ORDER, MOUSE, Shop, eventually, with_shop_of},
    sound,
    tour::everything_works,
};

/// Runs a test in a shop whose api and worker reach Redis through a link, which is prepared before they start.
async fn with_link(prepare: fn(&Link), test: impl AsyncFnOnce(&Shop, (&Link, &str))) {
    let (link, url) = Link::to_redis(&Servers::from_environment().unwrap().redis_url).await.unwrap();
    prepare(&link);
    let through = |args: &mut Args| {
        args.set("--redis-url", &url);
    };
    with_shop_of(through, async |shop| {
        ready(shop).await;
        test(shop, (&link, &url)).await;
    })
    .await;
}

/// A call for which Redis is asked is answered.
async fn answered(shop: &Shop) {
    assert_eq!(shop.get("/products?q=desk", "").await.status, 200);
}

/// Every call works, and orders are processed by a worker that has no Redis either.
async fn nothing_is_missed(shop: &Shop, url: &str) {
    everything_works(shop).await;
    shop.worker(&["--redis-url", url]).await;
    let token = shop.customer().await;
    let id = shop.placed(&token, DOCUMENTED_ORDER).await;
    shop.becomes(&id, Status::Processed).await;
    eventually("the buyer sees it", || async {
        (shop.get(&format!("/orders/{id}"), &token).await.json()["status"] == "Processed").then_some(())
    })
    .await;
    assert_eq!(shop.faults().await, Vec::<String>::new());
}

#[tokio::test]
async fn redis_down_at_start() {
    with_link(Link::cut, async |shop, (_link, url)| {
        Time::to_notice("redis_down_at_start").until(answered(shop)).await;
        nothing_is_missed(shop, url).await;
        assert_eq!(diagnosis(shop, "redis").await, "failed");
    })
    .await;
}

#[tokio::test]
async fn redis_killed() {
    with_link(Link::mend, async |shop, (link, url)| {
        everything_works(shop).await;
        link.cut();
        Time::to_notice("redis_killed").until(answered(shop)).await;
        nothing_is_missed(shop, url).await;
        assert_eq!(diagnosis(shop, "redis").await, "failed");
    })
    .await;
}

#[tokio::test]
async fn redis_slow_by_two_seconds() {
    with_link(Link::mend, async |shop, (link, url)| {
        everything_works(shop).await;
        link.slow(SLOW);
        Time::to_notice("redis_slow_by_two_seconds").until(answered(shop)).await;
        nothing_is_missed(shop, url).await;
    })
    .await;
}

#[tokio::test]
async fn redis_back_again() {
    with_link(Link::mend, async |shop, (link, _url)| {
        let config = shop.args.config().store;
        let direct = &shop.ground.servers.redis_url;
        let redis = CatalogueCache::new(RedisLink::connect(direct, &config.mongodb_database).unwrap());
        let (staff, path, name) = (shop.staff().await, format!("/products/{MOUSE}"), format!("product:{MOUSE}"));
        let cached = async |description: &str| {
            shop.get(&path, "").await;
            matches!(redis.get::<Value>(&name).await, Lookup::Hit(hit) if hit.to_string().contains(description))
                .then_some(())
        };
        eventually("Redis has the product", || cached("For the desk")).await;
        link.cut();
        // What is in Redis becomes old, and is not to be believed when Redis is back.
        let body = json!({ "name": "Mouse", "description": "Changed meanwhile", "price": 1324 });
        assert_eq!(shop.put(&path, &staff, &body).await.status, 200);
        link.mend();
        let recovered = async {
            eventually("Redis has the product as it is now", || cached("Changed meanwhile")).await;
            sound(shop, "redis").await;
        };
        Time::to_recover("redis_back_again").until(recovered).await;
        assert_eq!(shop.get(&path, "").await.json()["description"], "Changed meanwhile");
        everything_works(shop).await;
    })
    .await;
}
