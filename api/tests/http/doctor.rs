//! The shop's self-check finds what is amiss, and is not taken in by a moment's bustle.

use std::time::Duration;

use mongodb::{
    Client, Database,
    bson::{Document, doc},
};
use secrecy::ExposeSecret;
use serde_json::Value;

use crate::shop::{LAMP, MOUSE, Shop, with_shop, with_shop_of};

/// The findings by name; whether all is well.
async fn examine(shop: &Shop) -> (bool, Vec<(String, String, String)>) {
    let answer = shop.get("/admin/doctor", &shop.staff().await).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let body = answer.json();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let checks = body["checks"].as_array().unwrap();
    let checks = checks.iter().map(|c| (text(&c["name"]), text(&c["status"]), text(&c["detail"]))).collect();
    (body["status"] == "ok", checks)
}

/// The one failed check.
async fn failed(shop: &Shop) -> (String, String) {
    let (sound, checks) = examine(shop).await;
    let failed: Vec<_> = checks.into_iter().filter(|(_, status, _)| status == "failed").collect();
    assert!(!sound && failed.len() == 1, "{failed:?}");
    (failed[0].0.clone(), failed[0].2.clone())
}

async fn raw(shop: &Shop) -> Database {
    let config = shop.args.config().store;
    let client = Client::with_uri_str(config.mongodb_uri.expose_secret()).await.unwrap();
    client.database(&config.mongodb_database)
}

#[tokio::test]
async fn a_sound_shop_is_found_sound() {
    with_shop(async |shop| {
        let (sound, checks) = examine(shop).await;
        let mut names: Vec<_> = checks.iter().map(|(name, ..)| name.as_str()).collect();
        names.sort_unstable();
        assert!(sound, "{checks:?}");
        assert_eq!(names, ["clock", "indexes", "ledger", "mongodb", "redis", "ses", "sqs", "unfinished"]);
    })
    .await;
}

#[tokio::test]
async fn rows_that_differ_from_their_movements_are_named() {
    with_shop(async |shop| {
        let stock = raw(shop).await.collection::<Document>("stock");
        let row = doc! { "_id": format!("{MOUSE}@bangalore") };
        stock.update_one(row.clone(), doc! { "$inc": { "stock": -1_i64 } }).await.unwrap();
        let (name, detail) = failed(shop).await;
        assert_eq!(name, "ledger");
        assert!(detail.contains("1 rows differ") && detail.contains(&format!("{MOUSE}@bangalore: 9")), "{detail}");
        assert!(!detail.contains(LAMP), "{detail}");
        stock.delete_one(row).await.unwrap();
        assert!(failed(shop).await.1.contains("0 in stock, but 10"));
    })
    .await;
}

#[tokio::test]
async fn stock_that_moves_meanwhile_is_no_fault() {
    with_shop(async |shop| {
        let staff = shop.staff().await;
        let moving = async {
            for _ in 0..15 {
                shop.stock(&[(MOUSE, "bangalore", 1), (LAMP, "pune", 2)]).await;
            }
        };
        let looking = async {
            for _ in 0..5 {
                let answer = shop.get("/admin/doctor", &staff).await.json();
                assert_eq!(answer["status"], "ok", "{answer}");
            }
        };
        tokio::join!(moving, looking);
    })
    .await;
}

#[tokio::test]
async fn a_missing_index_is_named() {
    with_shop(async |shop| {
        let products = raw(shop).await.collection::<Document>("products");
        products.drop_index("terms_1").await.unwrap();
        let (name, detail) = failed(shop).await;
        assert_eq!(name, "indexes");
        assert!(detail.contains("products") && detail.contains("terms") && detail.contains("migrate"), "{detail}");
    })
    .await;
}

#[tokio::test]
async fn given_up_work_is_counted() {
    with_shop(async |shop| {
        let orders = raw(shop).await.collection::<Document>("orders");
        orders
            .insert_one(doc! { "_id": "0123456789abcdef01234567", "status": "Pending", "stuck": true })
            .await
            .unwrap();
        let (name, detail) = failed(shop).await;
        assert_eq!((name.as_str(), detail.starts_with("1 ")), ("unfinished", true), "{detail}");
    })
    .await;
}

#[tokio::test]
async fn servers_that_are_away_are_named_in_a_bounded_time() {
    with_shop_of(
        |args| {
            // Nobody listens on port 9; 192.0.2.1 is reserved for documentation and never answers.
            args.set("--redis-url", "redis://127.0.0.1:9")
                .set("--sqs-endpoint", "http://192.0.2.1:9324")
                .set("--ses-endpoint", "http://127.0.0.1:9");
        },
        async |shop| {
            let staff = shop.staff().await;
            let started = tokio::time::Instant::now();
            let answer = shop.get("/admin/doctor", &staff).await;
            // Two seconds for each, all at the same time; five times that for a machine that is busy.
            assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
            let body = answer.json();
            assert_eq!(body["status"], "degraded");
            let checks = body["checks"].as_array().unwrap();
            let failed = checks.iter().filter(|check| check["status"] == "failed");
            let mut failed: Vec<_> = failed.map(|check| check["name"].as_str().unwrap()).collect();
            failed.sort_unstable();
            assert_eq!(failed, ["redis", "ses", "sqs"]);
            assert!(!answer.text.contains("192.0.2.1"), "no address: {answer:?}");
        },
    )
    .await;
}
