//! A walk through every call, for shops in which something is away: all must answer as usual, and soon.

use std::time::Duration;

use mongodb::{Client, bson::doc};
use reqwest::Method;
use secrecy::ExposeSecret;
use serde_json::{Value, json};
use shop_api::{keys::Keys, reset_tokens::ResetTokens};
use shop_domain::message::Message;
use shop_store::{password_resets::PasswordReset, unfinished::Forgotten};
use tokio::time::timeout;

use crate::{
    events::Events,
    shop::{Answer, DOCUMENTED_ORDER, LAMP, MOUSE, PASSWORD, Shop, bearer, random_name, send},
};

/// Generous: what waits for a server that does not answer takes longer, also on a busy machine.
const SOON: Duration = Duration::from_secs(5);

/// Has every operation of the API's document succeed, those for which caches matter several times. No worker may run, and
/// nothing is left for one that would move stock.
pub async fn everything_works(shop: &Shop) {
    let (token, staff) = (accounts(shop).await, shop.staff().await);
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
    taking_up(shop, (&id, &staff)).await;
    following(shop, (&id, &token)).await;
    call(shop, (Method::POST, &format!("/orders/{id}/mails")), (&staff, json!({})), 202).await;
    changing(shop, &staff).await;
    counting(shop, &staff).await;
    leaving(shop, &staff).await;
    for path in ["/admin/doctor", "//health"] {
        call(shop, (Method::GET, path), (&staff, Value::Null), 200).await;
    }
    nothing_is_left_out(shop).await;
}

async fn soon<T>(what: &str, call: impl Future<Output = T>) -> T {
    timeout(SOON, call).await.unwrap_or_else(|_| panic!("took longer than {SOON:?}: {what}"))
}

/// A call that is answered soon, and with this status. A `Null` body is left out.
async fn call(shop: &Shop, (method, path): (Method, &str), (token, body): (&str, Value), status: u16) -> Answer {
    let what = format!("{method} {path}");
    let request = bearer(shop.request(method, path), token);
    let answer = soon(&what, send(if body.is_null() { request } else { request.json(&body) })).await;
    assert_eq!(answer.status, status, "{what}: {answer:?}");
    answer
}

async fn accounts(shop: &Shop) -> String {
    let email = format!("{}@example.com", random_name("t"));
    soon("register", shop.register(&email)).await;
    let login = soon("login", shop.login(&email, PASSWORD)).await;
    assert_eq!(login.status, 200, "{login:?}");
    let refreshed = soon("refresh", shop.refresh(&login.cookie())).await;
    assert_eq!(refreshed.status, 200, "{refreshed:?}");
    let token = refreshed.token();
    let profile = call(shop, (Method::GET, "/auth/me"), (&token, Value::Null), 200).await.json();
    assert_eq!(profile["email"], email);
    token
}

async fn ordering(shop: &Shop, token: &str) -> String {
    let first = soon("order", shop.order(token, Some("k"), DOCUMENTED_ORDER)).await;
    assert_eq!(first.status, 201, "{first:?}");
    let again = soon("the same order", shop.order(token, Some("k"), DOCUMENTED_ORDER)).await;
    let id = first.json()["orderId"].as_str().unwrap().to_owned();
    assert_eq!((again.json()["orderId"].as_str(), again.header("idempotency-replayed")), (Some(id.as_str()), "true"));
    id
}

/// The order's message got lost, as far as the sweeper knows.
async fn taking_up(shop: &Shop, (id, staff): (&str, &str)) {
    let message = Message::OrderPlaced { order_id: id.parse().unwrap() };
    assert!(shop.store.unfinished.give_up(&Forgotten { message, sweeps: 0 }).await.unwrap());
    let letters = call(shop, (Method::GET, "/admin/dead-letters"), (staff, Value::Null), 200).await.json();
    assert_eq!(letters["data"][0]["orderId"], id);
    let redrive = (Method::POST, "/admin/dead-letters/redrive");
    let started = call(shop, redrive, (staff, json!({ "orderId": id })), 202).await.json();
    assert_eq!(started["orders"], 1);
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

async fn changing(shop: &Shop, staff: &str) {
    let body = json!({ "name": "Lamp", "description": random_name("d"), "price": 1500 });
    let path = format!("/products/{LAMP}");
    call(shop, (Method::PUT, &path), (staff, body.clone()), 200).await;
    let seen = soon("what was changed", shop.get(&path, "")).await;
    assert_eq!(seen.json()["description"], body["description"]);

    let made = call(shop, (Method::POST, "/products"), (staff, body), 201).await.json();
    let path = format!("/products/{}", made["id"].as_str().unwrap());
    let change = bearer(shop.request(Method::PATCH, &path), staff).header("if-match", "*");
    let patched = soon("patch", send(change.json(&json!({ "description": "Patched" })))).await;
    assert_eq!(patched.status, 200, "{patched:?}");
    let seen = soon("what was patched", shop.get(&path, "")).await;
    assert_eq!(seen.json()["description"], "Patched");
    call(shop, (Method::DELETE, &path), (staff, Value::Null), 204).await;
    call(shop, (Method::GET, &path), ("", Value::Null), 404).await;
}

async fn counting(shop: &Shop, staff: &str) {
    // There is none to take: it will be refused, so that no test counts while stock moves.
    let lines = json!([{ "productId": MOUSE, "delta": -1 }]);
    let body = json!({ "location": "pune", "reason": "lost", "lines": lines });
    let accepted = call(shop, (Method::POST, "/inventory/adjustments"), (staff, body), 202).await.json();
    let path = format!("/inventory/adjustments/{}", accepted["adjustmentId"].as_str().unwrap());
    let adjustment = call(shop, (Method::GET, &path), (staff, Value::Null), 200).await.json();
    assert_eq!((&adjustment["status"], &adjustment["lines"]), (&json!("Pending"), &lines));
    let ledger = call(shop, (Method::GET, "/inventory/movements"), (staff, Value::Null), 200).await.json();
    assert_ne!(ledger["data"], json!([]));
}

/// An account of its own, which is erased in the end.
async fn leaving(shop: &Shop, staff: &str) {
    let name = random_name("l");
    let email = format!("{name}@example.com");
    let token = soon("register", shop.register(&email)).await;
    let found = format!("/admin/users?q={name}");
    let found = call(shop, (Method::GET, &found), (staff, Value::Null), 200).await.json();
    let path = format!("/admin/users/{}", found["data"][0]["id"].as_str().unwrap());
    call(shop, (Method::PATCH, &path), (staff, json!({ "role": "staff" })), 200).await;

    let elsewhere = soon("login", shop.login(&email, PASSWORD)).await.token();
    let sessions = call(shop, (Method::GET, "/auth/sessions"), (&token, Value::Null), 200).await.json();
    let other = sessions["data"].as_array().unwrap().iter().find(|session| session["current"] == false).unwrap();
    let path = format!("/auth/sessions/{}", other["id"].as_str().unwrap());
    call(shop, (Method::DELETE, &path), (&token, Value::Null), 204).await;
    call(shop, (Method::GET, "/auth/me"), (&elsewhere, Value::Null), 401).await;

    let change = json!({ "currentPassword": PASSWORD, "newPassword": "another horse" });
    call(shop, (Method::POST, "/auth/password"), (&token, change), 204).await;
    call(shop, (Method::POST, "/auth/password-reset"), ("", json!({ "email": email })), 202).await;
    let path = format!("/auth/password-reset/{}", reset_token(shop, &email).await);
    call(shop, (Method::POST, &path), ("", json!({ "password": PASSWORD })), 200).await;
    for method in [Method::GET, Method::POST] {
        let token = soon("login", shop.login(&email, PASSWORD)).await.token();
        call(shop, (method, "/auth/logout"), (&token, Value::Null), 200).await;
        call(shop, (Method::GET, "/auth/me"), (&token, Value::Null), 401).await;
    }
    let token = soon("login", shop.login(&email, PASSWORD)).await.token();
    call(shop, (Method::DELETE, "/auth/me"), (&token, json!({ "password": PASSWORD })), 204).await;
}

/// The token that the mail brings, also where no mail can be sent.
async fn reset_token(shop: &Shop, email: &str) -> String {
    let client = Client::with_uri_str(shop.ground.servers.mongodb_uri.expose_secret()).await.unwrap();
    let requests = client.database(&shop.ground.name).collection::<PasswordReset>("password_resets");
    let request = requests.find_one(doc! { "email": email }).await.unwrap().expect("it was asked for");
    let keys = Keys::load(&shop.args.config().auth.auth_keys_file).await.unwrap();
    ResetTokens::new(keys).issue(&request.id).unwrap().expose_secret().to_owned()
}

/// Every operation of the document has succeeded, by the service's own count.
async fn nothing_is_left_out(shop: &Shop) {
    let metrics = send(shop.client.get(format!("{}/metrics", shop.ops))).await.text;
    let document = serde_json::to_value(shop_api::router::document()).unwrap();
    for (path, item) in document["paths"].as_object().unwrap() {
        for method in item.as_object().unwrap().keys() {
            let method = method.to_uppercase();
            let succeeded = format!(r#"shop_api_requests_total{{method="{method}",route="{path}",status="2"#);
            assert!(metrics.contains(&succeeded), "{method} {path} has not succeeded");
        }
    }
}
