//! A walk through every kind of call, for shops in which something is away: all must answer as usual, and soon.

use std::time::Duration;

use reqwest::Method;
use serde_json::json;
use tokio::time::timeout;

use crate::{
    events::Events,
    shop::{DOCUMENTED_ORDER, LAMP, MOUSE, PASSWORD, Shop, bearer, random_name, send},
};

/// Generous: what waits for a server that does not answer takes longer, also on a busy machine.
const SOON: Duration = Duration::from_secs(5);

/// Makes a customer and an order and cancels it, reads, follows, and changes a product, each several times where
/// caches matter.
pub async fn everything_works(shop: &Shop) {
    let token = accounts(shop).await;
    let id = ordering(shop, &token).await;
    soon("reads", async {
        for _ in 0..20 {
            assert_eq!(shop.get(&format!("/orders/{id}"), &token).await.json()["status"], "Pending");
            assert_eq!(shop.get(&format!("/products/{MOUSE}"), "").await.status, 200);
            assert_eq!(shop.get("/products", "").await.status, 200);
        }
        assert_eq!(shop.get("/orders", &token).await.json()["data"].as_array().unwrap().len(), 1);
    })
    .await;
    following(shop, (&id, &token)).await;
    changing(shop).await;
}

async fn soon<T>(what: &str, call: impl Future<Output = T>) -> T {
    timeout(SOON, call).await.unwrap_or_else(|_| panic!("took longer than {SOON:?}: {what}"))
}

async fn accounts(shop: &Shop) -> String {
    let email = format!("{}@example.com", random_name("t"));
    soon("register", shop.register(&email)).await;
    let login = soon("login", shop.login(&email, PASSWORD)).await;
    assert_eq!(login.status, 200, "{login:?}");
    let refreshed = soon("refresh", shop.refresh(&login.cookie())).await;
    assert_eq!(refreshed.status, 200, "{refreshed:?}");
    refreshed.token()
}

async fn ordering(shop: &Shop, token: &str) -> String {
    let first = soon("order", shop.order(token, Some("k"), DOCUMENTED_ORDER)).await;
    assert_eq!(first.status, 201, "{first:?}");
    let again = soon("the same order", shop.order(token, Some("k"), DOCUMENTED_ORDER)).await;
    let id = first.json()["orderId"].as_str().unwrap().to_owned();
    assert_eq!((again.json()["orderId"].as_str(), again.header("idempotency-replayed")), (Some(id.as_str()), "true"));
    id
}

async fn following(shop: &Shop, (id, token): (&str, &str)) {
    let mut events = soon("follow", Events::open(shop, &shop.base, (id, token))).await;
    assert_eq!(soon("the present status", events.status()).await.unwrap().0, "1");
    let cancel = bearer(shop.request(Method::POST, &format!("/orders/{id}/cancel")), token);
    assert_eq!(soon("cancel", send(cancel)).await.status, 200);
    // Promised are 2 s; a busy machine may take five times as long.
    let told = timeout(Duration::from_secs(10), events.status()).await.expect("the cancel is told");
    assert_eq!(told.unwrap().1["status"], "Cancelled");
}

async fn changing(shop: &Shop) {
    let staff = shop.staff().await;
    let body = json!({ "name": "Lamp", "description": random_name("d"), "price": 1500 });
    let path = format!("/products/{LAMP}");
    assert_eq!(soon("change", shop.put(&path, &staff, &body)).await.status, 200);
    let seen = soon("what was changed", shop.get(&path, "")).await;
    assert_eq!(seen.json()["description"], body["description"]);
}
