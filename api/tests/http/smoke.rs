//! The smoke test of a running shop: it orders, cleans up, and says what is wrong where something is.

use std::process::Command;

use rstest::rstest;
use serde_json::Value;
use shop_api::{
    config::SmokeConfig,
    smoke::{self, SmokeError},
};
use shop_runtime::clock::Clock;

use crate::{
    shop::{STAFF, Shop, with_shop},
    users::emails,
};

async fn smoke(shop: &Shop, change: impl FnOnce(&mut SmokeConfig)) -> Result<String, SmokeError> {
    let mut config = SmokeConfig {
        url: shop.base.clone(),
        staff_email: STAFF.0.to_owned(),
        staff_password: STAFF.1.to_owned().into(),
        patience_seconds: 30,
    };
    change(&mut config);
    shop.staff().await;
    smoke::run(&config, &Clock::system()).await
}

/// Names in the catalogue; a smoke test leaves them as they were.
async fn products(shop: &Shop) -> Vec<Value> {
    let page = shop.get("/products", "").await.json();
    page["data"].as_array().unwrap().iter().map(|product| product["name"].clone()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_is_placed_processed_and_nothing_stays() {
    with_shop(async |shop| {
        let before = products(shop).await;
        shop.worker(&[]).await;
        let order = smoke(shop, |_| {}).await.unwrap();
        let staff = shop.staff().await;
        assert_eq!(shop.get(&format!("/orders/{order}"), &staff).await.json()["status"], "Processed");
        assert_eq!(products(shop).await, before);
        // One like the smoke test's own is listed: it would be too.
        let alike = "success+alike@simulator.amazonses.com";
        shop.register(alike).await;
        let users = shop.get("/admin/users?q=success", &staff).await;
        assert_eq!(users.status, 200, "{users:?}");
        assert_eq!(emails(&users.json()), [alike], "the customer is still there");
        assert_eq!(shop.faults().await, Vec::<String>::new());
    })
    .await;
}

#[rstest]
#[case::no_worker(|config: &mut SmokeConfig| config.patience_seconds = 1, "the stock has not arrived after 1 s: the worker")]
#[case::wrong_password(|config: &mut SmokeConfig| config.staff_password = "wrong".to_owned().into(), "POST /api/v1/auth/login was answered 401")]
#[case::nobody_there(|config: &mut SmokeConfig| config.url = "http://127.0.0.1:1".to_owned(), "http://127.0.0.1:1: no answer")]
#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_is_said(#[case] change: fn(&mut SmokeConfig), #[case] message: &str) {
    with_shop(async |shop| {
        let before = products(shop).await;
        let error = smoke(shop, change).await.unwrap_err().to_string();
        assert!(error.contains(message), "{error}");
        assert!(!error.contains(STAFF.1) && !error.contains("wrong"), "{error}");
        assert_eq!(products(shop).await, before);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_ends_as_its_test_went() {
    with_shop(async |shop| {
        shop.worker(&[]).await;
        shop.staff().await;
        let base = shop.base.clone();
        let run = async |password: &'static str| {
            let mut command = Command::new(env!("CARGO_BIN_EXE_shop-api"));
            command.arg("smoke").env("SHOP_SMOKE_URL", &base).env("SHOP_STAFF_EMAIL", STAFF.0);
            command.env("SHOP_STAFF_PASSWORD", password);
            tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
        };
        let good = run(STAFF.1).await;
        assert!(good.status.success(), "{good:?}");
        assert!(String::from_utf8_lossy(&good.stdout).contains("was accepted and processed"), "{good:?}");
        let bad = run("wrong").await;
        assert!(!bad.status.success());
        assert!(String::from_utf8_lossy(&bad.stderr).contains("was answered 401"), "{bad:?}");
    })
    .await;
}
