//! MongoDB is away: cached reads go on, pods stay, writes are refused at once, and nothing accepted is lost.

use std::time::Duration;

use reqwest::Method;
use rstest::rstest;
use secrecy::ExposeSecret;
use serde_json::{Value, json};
use shop_domain::order::Status;
use shop_harness::{Link, Servers, Step};
use shop_store::{
    catalogue_cache::{CatalogueCache, Lookup},
    redis_link::RedisLink,
};
use tokio::time::{Instant, timeout};

use crate::{
    SLOW, Time, readiness, ready,
    shop::{Answer, Args, DOCUMENTED_ORDER, MOUSE, PASSWORD, Shop, bearer, eventually, send, with_shop_of},
    tour::everything_works,
};

/// Runs a test in a shop whose service reaches MongoDB through a link.
async fn with_link(test: impl AsyncFnOnce(&Shop, &Link)) {
    with_link_prepared(Link::mend, async |shop, link, _| test(shop, link).await).await;
}

/// The same, with a link that is prepared before the service starts, and the connection string that goes through it.
async fn with_link_prepared(prepare: fn(&Link), test: impl AsyncFnOnce(&Shop, &Link, &str)) {
    let servers = Servers::from_environment().unwrap();
    let (link, uri) = Link::to_mongodb(&servers.mongodb_uri).await.unwrap();
    prepare(&link);
    let through = |args: &mut Args| {
        args.set("--mongodb-uri", &uri);
    };
    with_shop_of(through, async |shop| {
        test(shop, &link, &uri).await;
        link.mend();
    })
    .await;
}

/// Waits until the service knows that MongoDB is away.
async fn noticed(shop: &Shop) {
    let refused = eventually("the outage is noticed", || async {
        let started = Instant::now();
        let answer = shop.login("nobody@example.com", PASSWORD).await;
        (answer.status == 503 && started.elapsed() < Duration::from_millis(100)).then_some(answer)
    });
    assert_away(&refused.await);
}

/// Waits until writes are accepted again.
async fn recovered(shop: &Shop, token: &str) {
    eventually("orders are accepted again", || async {
        (shop.order(token, None, DOCUMENTED_ORDER).await.status == 201).then_some(())
    })
    .await;
}

#[track_caller]
fn assert_away(answer: &Answer) {
    assert_eq!(answer.problem(), (503, "unavailable".into()));
    assert!(!answer.header("retry-after").is_empty(), "{answer:?}");
}

#[tokio::test]
async fn mongodb_down_at_start() {
    with_link_prepared(Link::cut, async |shop, link, _| {
        let noticing = Time::to_notice("mongodb_down_at_start");
        let unready = readiness(shop).await;
        assert_eq!(unready.status, 503);
        assert!(unready.text.contains("mongodb"), "{unready:?}");
        assert_eq!(shop.get("//health", "").await.status, 200);
        noticing.until(noticed(shop)).await;
        let answer = shop.login("ann@example.com", PASSWORD).await;
        assert_away(&answer);
        assert!(!answer.text.to_lowercase().contains("mongo"), "nothing of the inside: {answer:?}");
        assert_away(&shop.get("/products", "").await);
        link.mend();
        Time::to_recover("mongodb_down_at_start").until(ready(shop)).await;
        everything_works(shop).await;
    })
    .await;
}

#[tokio::test]
async fn mongodb_killed() {
    writes_are_refused_at_once_and_pods_stay("mongodb_killed", Link::cut).await;
}

#[tokio::test]
async fn mongodb_slow_by_two_seconds() {
    writes_are_refused_at_once_and_pods_stay("mongodb_slow_by_two_seconds", |link| link.slow(SLOW)).await;
}

#[tokio::test]
async fn a_mongodb_that_hangs_is_away_too() {
    writes_are_refused_at_once_and_pods_stay("a_mongodb_that_hangs_is_away_too", Link::stall).await;
}

#[tokio::test]
async fn mongodb_back_again() {
    with_link_prepared(Link::mend, async |shop, link, uri| {
        let token = shop.customer().await;
        let direct = shop.beside(|args| {
            args.set("--mongodb-uri", shop.ground.servers.mongodb_uri.expose_secret());
        });
        let direct = direct.await;
        // Its message may be anywhere on its way.
        let before = shop.placed(&token, DOCUMENTED_ORDER).await;
        link.cut();
        let noticing = Time::to_notice("mongodb_back_again");
        shop.worker(&["--mongodb-uri", uri]).await;
        noticing.until(noticed(shop)).await;
        let during = direct.placed(&token, DOCUMENTED_ORDER).await;
        link.mend();
        let all_is_done = async {
            recovered(shop, &token).await;
            for id in [&before, &during] {
                mailed(shop, id).await;
            }
        };
        Time::to_recover("mongodb_back_again").until(all_is_done).await;
        assert_eq!(shop.get("/orders", &token).await.json()["data"].as_array().unwrap().len(), 3);
        shop.quiet().await;
        assert_eq!(shop.faults().await, Vec::<String>::new());
    })
    .await;
}

/// Waits until an order is processed and its mail is out.
async fn mailed(shop: &Shop, id: &str) {
    eventually("the mail is out", || async {
        let order = shop.becomes(id, Status::Processed).await;
        (!order.mails.is_empty() && order.outbox.is_empty()).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_mail_whose_taking_was_not_answered_does_not_wait_for_the_claims_end() {
    with_link(async |shop, link| {
        let token = shop.customer().await;
        // The worker marks nothing of an outbox, and the relay nothing that it was offered.
        link.stall_at(Step::After("outbox.$.claim"));
        shop.worker(&[]).await;
        let id = shop.placed(&token, DOCUMENTED_ORDER).await;
        link.stalled().await.unwrap();
        let test = "a_mail_whose_taking_was_not_answered_does_not_wait_for_the_claims_end";
        Time::to_notice(test).until(noticed(shop)).await;
        link.cut();
        link.mend();
        // The claim is good for three minutes.
        Time::to_recover(test).until(mailed(shop, &id)).await;
    })
    .await;
}

/// Its machine is gone: nobody says that connections are over.
#[tokio::test]
async fn a_mongodb_that_falls_silent_holds_no_sender_up() {
    with_link_prepared(Link::mend, async |shop, link, _| {
        shop.worker(&[]).await;
        let token = shop.customer().await;
        let before = shop.placed(&token, DOCUMENTED_ORDER).await;
        shop.becomes(&before, Status::Processed).await;
        link.strand();
        let test = "a_mongodb_that_falls_silent_holds_no_sender_up";
        Time::to_notice(test).until(noticed(shop)).await;
        link.mend();
        let all_is_done = async {
            recovered(shop, &token).await;
            let after = shop.placed(&token, DOCUMENTED_ORDER).await;
            mailed(shop, &after).await;
        };
        Time::to_recover(test).until(all_is_done).await;
    })
    .await;
}

async fn writes_are_refused_at_once_and_pods_stay(test: &'static str, break_off: impl FnOnce(&Link)) {
    with_link(async |shop, link| {
        let (token, staff) = (shop.customer().await, shop.staff().await);
        ready(shop).await;
        let path = format!("/products/{MOUSE}");
        let known = shop.get(&path, "").await;
        break_off(link);
        Time::to_notice(test).until(noticed(shop)).await;
        let product = json!({ "name": "Mouse", "description": "", "price": 1 });
        let all_are_refused = async {
            for _ in 0..20 {
                assert_away(&shop.order(&token, Some("k"), DOCUMENTED_ORDER).await);
                assert_away(&shop.put(&format!("/products/{MOUSE}"), &staff, &product).await);
                assert_away(&send(bearer(shop.request(Method::POST, "/orders"), "nonsense")).await);
            }
        };
        // Sixty calls that each wait for a server take two minutes.
        timeout(Duration::from_mins(1), all_are_refused).await.expect("no write waits for a server");
        assert_eq!(readiness(shop).await.status, 200, "an outage that all pods share takes none out");
        let old = shop.get(&path, "").await;
        assert_eq!((old.status.as_u16(), &old.text), (200, &known.text), "what is cached is read on");
        link.mend();
        Time::to_recover(test).until(recovered(shop, &token)).await;
    })
    .await;
}

#[tokio::test]
async fn calls_that_wait_when_mongodb_hangs_are_released_and_may_be_repeated() {
    with_link(async |shop, link| {
        let token = shop.customer().await;
        eventually("a warm connection", || async { (shop.get("/orders", &token).await.status == 200).then_some(()) })
            .await;
        link.stall();
        let (order, list) =
            tokio::join!(shop.order(&token, Some("once"), DOCUMENTED_ORDER), shop.get("/orders", &token));
        assert_away(&order);
        assert_away(&list);
        link.mend();
        let accepted = eventually("the repetition is accepted", || async {
            Some(shop.order(&token, Some("once"), DOCUMENTED_ORDER).await).filter(|answer| answer.status == 201)
        });
        let test = "calls_that_wait_when_mongodb_hangs_are_released_and_may_be_repeated";
        let first = Time::to_recover(test).until(accepted).await;
        let again = shop.order(&token, Some("once"), DOCUMENTED_ORDER).await;
        assert_eq!(first.json()["orderId"], again.json()["orderId"]);
        let orders = shop.get("/orders", &token).await.json();
        assert_eq!(orders["data"].as_array().unwrap().len(), 1, "{orders}");
    })
    .await;
}

#[tokio::test]
async fn what_no_cache_knows_is_refused_soon() {
    with_link(async |shop, link| {
        let token = shop.customer().await;
        link.cut();
        Time::to_notice("what_no_cache_knows_is_refused_soon").until(noticed(shop)).await;
        let all_are_refused = async {
            for _ in 0..15 {
                assert_away(&shop.get("/products/0123456789abcdef01234567", "").await);
                assert_away(&shop.get("/orders", &token).await);
            }
        };
        // Thirty calls that each wait for a server take a minute.
        timeout(Duration::from_secs(30), all_are_refused).await.expect("no read waits for a server");
        assert_eq!(shop.get("//health", "").await.status, 200);
    })
    .await;
}

/// Seconds since an answer was read from MongoDB, if it is not fresh.
fn age(answer: &Answer) -> Option<u64> {
    answer.headers.get("age").map(|age| age.to_str().unwrap().parse().unwrap())
}

#[rstest]
#[case::lost(Link::cut)]
#[case::hanging(Link::stall)]
#[tokio::test]
async fn what_was_read_before_is_read_on_and_says_how_old_it_is(#[case] break_off: fn(&Link)) {
    with_link(async |shop, link| {
        let paths = [
            format!("/products/{MOUSE}"),
            "/products?q=desk&sort=price".to_owned(),
            "/products?location=bangalore".to_owned(),
        ];
        let mut known = Vec::new();
        for path in &paths {
            known.push(shop.get(path, "").await);
        }
        break_off(link);
        let test = "what_was_read_before_is_read_on_and_says_how_old_it_is";
        Time::to_notice(test).until(noticed(shop)).await;
        for (path, known) in paths.iter().zip(&known) {
            let old = eventually("it is no longer fresh", || async {
                Some(shop.get(path, "").await).filter(|answer| age(answer).is_some())
            })
            .await;
            assert_eq!((old.status.as_u16(), &old.text, old.header("etag")), (200, &known.text, known.header("etag")));
            let tag = send(shop.request(Method::GET, path).header("if-none-match", known.header("etag"))).await;
            assert_eq!((tag.status.as_u16(), age(&tag).is_some()), (304, true));
        }
        assert_away(&shop.get("/products?q=lamp", "").await);
        assert_away(&shop.get("/products/0123456789abcdef01234567", "").await);

        link.mend();
        let recovering = Time::to_recover(test);
        shop.stock(&[(MOUSE, "bangalore", -4)]).await;
        let fresh = eventually("MongoDB is asked again", || async {
            Some(shop.get(&paths[0], "").await).filter(|answer| answer.json()["availability"][0]["available"] == 6)
        });
        recovering.until(fresh).await;
    })
    .await;
}

#[tokio::test]
async fn a_replica_that_never_read_a_product_has_it_from_redis() {
    with_link(async |shop, link| {
        let path = format!("/products/{MOUSE}");
        let other = shop.replica(|_| {}).await;
        let there = async || send(shop.client.get(format!("http://{}/api/v1{path}", other.http_addr))).await;
        let config = shop.args.config().store;
        let redis = RedisLink::connect(config.redis_url().unwrap(), &config.mongodb_database).unwrap();
        let (redis, name) = (CatalogueCache::new(redis), format!("product:{MOUSE}"));
        let known = eventually("it is in Redis", || async {
            let answer = shop.get(&path, "").await;
            matches!(redis.get::<Value>(&name).await, Lookup::Hit(_)).then_some(answer)
        })
        .await;
        link.cut();
        Time::to_notice("a_replica_that_never_read_a_product_has_it_from_redis").until(noticed(shop)).await;
        let old = eventually("it is given, with its age", || async {
            Some(there().await).filter(|answer| answer.status == 200 && age(answer).is_some())
        })
        .await;
        assert_eq!(old.text, known.text);
    })
    .await;
}

#[tokio::test]
async fn an_orders_status_is_read_on_for_as_long_as_the_session_is_known() {
    with_link(async |shop, link| {
        let token = shop.customer().await;
        let id = shop.order(&token, None, DOCUMENTED_ORDER).await.json()["orderId"].as_str().unwrap().to_owned();
        let path = format!("/orders/{id}");
        assert_eq!(send(bearer(shop.request(Method::POST, &format!("{path}/cancel")), &token)).await.status, 200);
        assert_eq!(shop.get(&path, &token).await.json()["status"], "Cancelled");
        link.cut();
        let answer = shop.get(&path, &token).await;
        assert_eq!((answer.status.as_u16(), answer.json()["status"].clone()), (200, json!("Cancelled")));
        // Whether the session is still alive nobody can say after five seconds.
        let refused = eventually("the session is too old", || async {
            Some(shop.get(&path, &token).await).filter(|answer| answer.status == 503)
        });
        assert_away(&timeout(Duration::from_secs(25), refused).await.expect("in time"));
    })
    .await;
}
