//! Repeating an order under its Idempotency-Key: one order, and the first answer again, whatever happened in between.

use futures::future::join_all;
use serde_json::json;
use shop_domain::order::Status;
use shop_harness::{Link, eventually};
use shop_store::orders::{Listing, Viewer};

use crate::{
    process::Process,
    shop::{DOCUMENTED_ORDER, LAMP, MOUSE, Shop, send, with_shop, with_shop_of},
};

async fn stored(shop: &Shop) -> usize {
    let all = Listing { viewer: Viewer::Staff, status: None, after: None, limit: 100 };
    shop.store.orders.list(&all).await.unwrap().len()
}

fn request(shop: &Shop, base: &str, token: &str, key: &str) -> reqwest::RequestBuilder {
    let request = shop.client.post(format!("{base}/api/v1/orders")).bearer_auth(token);
    request.header("content-type", "application/json").header("idempotency-key", key).body(DOCUMENTED_ORDER)
}

/// The bytes with which an insert into `orders` begins (BSON: the command's name, the length of the collection's name).
const INSERT: &[u8] = b"insert\0\x07\0\0\0orders\0";

#[tokio::test]
async fn a_crash_between_commit_and_answer_costs_the_buyer_nothing() {
    with_shop(async |shop| {
        let token = shop.customer().await;
        let (link, uri) = Link::to_mongodb(&shop.ground.servers.mongodb_uri).await.unwrap();
        let doomed = Process::start(shop, |args| {
            args.set("--mongodb-uri", uri);
        })
        .await;
        // From here on the insert happens, but the process never hears that it did.
        link.mute_after(INSERT);
        let unanswered = tokio::spawn(send_or_fail(request(shop, &doomed.base, &token, "crash")));
        eventually("the order is stored", async || Ok((stored(shop).await == 1).then_some(()))).await.unwrap();
        assert!(!unanswered.is_finished(), "no answer before the crash");
        doomed.kill().await;
        assert!(unanswered.await.unwrap().is_err(), "the buyer has lost the connection");

        let successor = Process::start(shop, |_| {}).await;
        let again = send(request(shop, &successor.base, &token, "crash")).await;
        assert_eq!((again.status.as_u16(), again.header("idempotency-replayed")), (201, "true"));
        assert_eq!(stored(shop).await, 1);
        // What the dead process could not send is sent by the others.
        let id = again.json()["orderId"].as_str().unwrap().to_owned();
        shop.worker(&[]).await;
        shop.becomes(&id, Status::Processed).await;
        assert_eq!((shop.units(MOUSE).await, shop.units(LAMP).await), (9, 8));
        assert_eq!(shop.faults().await, Vec::<String>::new());
    })
    .await;
}

async fn send_or_fail(request: reqwest::RequestBuilder) -> reqwest::Result<reqwest::Response> {
    request.send().await
}

#[tokio::test]
async fn fifty_twins_on_two_replicas_make_one_order() {
    with_shop(async |shop| {
        let other = format!("http://{}", shop.replica(|_| {}).await.http_addr);
        let token = shop.customer().await;
        let bases = [shop.base.clone(), other];
        let sends = bases.iter().cycle().take(50).map(|base| send(request(shop, base, &token, "twins")));
        let answers = join_all(sends).await;
        assert!(answers.iter().all(|answer| answer.status == 201 && answer.text == answers[0].text), "{answers:?}");
        let first = answers.iter().filter(|answer| answer.header("idempotency-replayed").is_empty()).count();
        assert_eq!((first, stored(shop).await), (1, 1));
    })
    .await;
}

#[tokio::test]
async fn without_redis_keys_work_too() {
    let no_redis = |args: &mut crate::shop::Args| {
        args.set("--redis-url", "redis://127.0.0.1:9");
    };
    with_shop_of(no_redis, async |shop| {
        let token = shop.customer().await;
        let answers = join_all((0..10).map(|_| send(request(shop, &shop.base, &token, "k")))).await;
        assert!(answers.iter().all(|answer| answer.status == 201 && answer.text == answers[0].text), "{answers:?}");
        assert_eq!(stored(shop).await, 1);
    })
    .await;
}

#[tokio::test]
async fn a_key_may_have_255_printable_characters() {
    with_shop(async |shop| {
        let token = shop.customer().await;
        let longest: String = (' '..='~').cycle().skip(1).take(254).chain(['~']).collect();
        for replayed in ["", "true"] {
            let answer = shop.order(&token, Some(&longest), DOCUMENTED_ORDER).await;
            assert_eq!((answer.status.as_u16(), answer.header("idempotency-replayed")), (201, replayed));
        }
        assert_eq!(stored(shop).await, 1);
    })
    .await;
}

/// The key comes first: before the price, the stock, and whether the products are still sold.
#[tokio::test]
async fn a_replay_asks_nothing_of_the_catalogue() {
    with_shop(async |shop| {
        let (token, staff) = (shop.customer().await, shop.staff().await);
        let first = shop.order(&token, Some("k"), DOCUMENTED_ORDER).await;
        shop.worker(&[]).await;
        let id = first.json()["orderId"].as_str().unwrap().to_owned();
        shop.becomes(&id, Status::Processed).await;
        let dearer = json!({ "name": "Travel Mouse", "description": "", "price": 9999 });
        assert_eq!(shop.put(&format!("/products/{MOUSE}"), &staff, &dearer).await.status, 200);
        shop.stock(&[(MOUSE, "bangalore", -9), (LAMP, "bangalore", -8)]).await;
        let again = shop.order(&token, Some("k"), DOCUMENTED_ORDER).await;
        assert_eq!((again.status.as_u16(), &again.text), (201, &first.text), "as it was, also its status");
        let fresh = shop.order(&token, Some("other"), DOCUMENTED_ORDER).await;
        assert_eq!(fresh.status, 409, "a new key meets the present price and stock");
        assert_eq!(stored(shop).await, 1);
    })
    .await;
}
