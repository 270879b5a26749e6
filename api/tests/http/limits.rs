//! Rate limits as clients meet them.

use reqwest::Method;
use rstest::rstest;
use serde_json::json;

use crate::shop::{PASSWORD, send, with_shop_of};

#[tokio::test]
async fn sign_ins_are_limited_by_address_and_account() {
    with_shop_of(
        |args| {
            args.set("--limit-auth-per-15-minutes", "3")
                .set("--trusted-proxies", "127.0.0.0/8")
                .unset("--staff-email")
                .unset("--staff-password");
        },
        async |shop| {
            let login = |from: &str, email: &str| {
                let request = shop.request(Method::POST, "/auth/login").header("x-forwarded-for", from);
                send(request.json(&json!({ "email": email, "password": PASSWORD })))
            };
            for left in ["2", "1", "0"] {
                let answer = login("198.51.100.1", &format!("{left}@example.com")).await;
                assert_eq!(answer.status, 401);
                assert!(answer.header("ratelimit").contains(&format!(";r={left};")), "{answer:?}");
                assert_eq!(answer.header("ratelimit-policy").split(';').nth(1), Some("q=3"));
            }
            let refused = login("198.51.100.1", "another@example.com").await;
            assert_eq!(refused.problem(), (429, "rate_limited".into()));
            let wait: u64 = refused.header("retry-after").parse().unwrap();
            assert!((1..=301).contains(&wait), "{wait}");
            // One account from many addresses, however it is written.
            for (from, email) in [
                ("198.51.100.2", "ann@example.com"),
                ("198.51.100.3", "ANN@example.com"),
                ("198.51.100.4", " ann@example.com"),
            ] {
                assert_eq!(login(from, email).await.status, 401);
            }
            assert_eq!(login("198.51.100.5", "ann@example.com").await.problem(), (429, "rate_limited".into()));
            assert_eq!(login("198.51.100.5", "bob@example.com").await.status, 401);
        },
    )
    .await;
}

#[tokio::test]
async fn who_is_no_proxy_cannot_choose_an_address() {
    with_shop_of(
        |args| {
            args.set("--limit-auth-per-15-minutes", "2").unset("--staff-email").unset("--staff-password");
        },
        async |shop| {
            let mut statuses = Vec::new();
            for from in ["198.51.100.1", "198.51.100.2", "198.51.100.3"] {
                let request = shop.request(Method::POST, "/auth/login").header("x-forwarded-for", from);
                statuses.push(send(request.json(&json!({ "email": from, "password": "x" }))).await.status.as_u16());
            }
            assert_eq!(statuses, [401, 401, 429]);
        },
    )
    .await;
}

#[rstest]
#[case("--limit-reads-per-minute", "/orders", 429)]
#[case("--limit-address-per-minute", "/products", 429)]
#[tokio::test]
async fn reads_are_limited(#[case] flag: &'static str, #[case] path: &str, #[case] status: u16) {
    with_shop_of(
        |args| {
            args.set(flag, "4");
        },
        async |shop| {
            let token = shop.customer().await;
            let mut last = 0;
            for _ in 0..5 {
                last = shop.get(path, &token).await.status.as_u16();
            }
            assert_eq!(last, status);
            assert_eq!(shop.get("//health", "").await.status, 200, "health is never limited");
        },
    )
    .await;
}

#[tokio::test]
async fn writes_are_limited_per_user() {
    with_shop_of(
        |args| {
            args.set("--limit-writes-per-minute", "2");
        },
        async |shop| {
            let (one, other) = (shop.customer().await, shop.customer().await);
            for status in [400, 400, 429] {
                assert_eq!(shop.post("/orders", &one, &json!({})).await.status, status);
            }
            assert_eq!(shop.post("/orders", &other, &json!({})).await.status, 400);
            assert_eq!(shop.get("/orders", &one).await.status, 200, "reads go on");
        },
    )
    .await;
}
