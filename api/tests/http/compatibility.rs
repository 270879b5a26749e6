//! The original's documented requests, byte for byte, as a client of the original sends them; and what it reads of the
//! answers (docs/compatibility.md).

use serde_json::{Value, json};
use shop_domain::order::Status;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::shop::{DOCUMENTED_ORDER, Shop, with_shop};

const CREDENTIALS: &str = r#"{"email":"ann@example.com","password":"secret"}"#;

/// The answer to a request that goes out exactly as it stands here.
struct Raw {
    head: String,
    body: Value,
}

impl Raw {
    fn status(&self) -> u16 {
        self.head.split(' ').nth(1).unwrap().parse().unwrap()
    }

    fn cookie(&self) -> &str {
        self.head.lines().find_map(|line| line.strip_prefix("set-cookie: ")).unwrap_or_default()
    }
}

async fn raw(shop: &Shop, line: &str, headers: &[&str], body: &str) -> Raw {
    let address = shop.base.trim_start_matches("http://");
    let typed = format!("Content-Type: application/json\r\nContent-Length: {}", body.len());
    let more = headers.iter().copied().chain((!body.is_empty()).then_some(typed.as_str()));
    let more: Vec<_> = more.flat_map(|header| [header, "\r\n"]).collect();
    let request = format!("{line} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n{}\r\n{body}", more.concat());
    let (mut stream, mut answer) = (TcpStream::connect(address).await.unwrap(), String::new());
    stream.write_all(request.as_bytes()).await.unwrap();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    Raw { head: head.to_owned(), body: serde_json::from_str(body).unwrap_or_else(|_| panic!("no JSON: {answer}")) }
}

fn members(value: &Value) -> Vec<&str> {
    value.as_object().unwrap().keys().map(String::as_str).collect()
}

async fn registered(shop: &Shop) -> Raw {
    raw(shop, "POST /api/v1/auth/register", &[], CREDENTIALS).await
}

#[tokio::test]
async fn health_is_as_documented() {
    with_shop(async |shop| {
        let answer = raw(shop, "GET /health", &[], "").await;
        assert_eq!((answer.status(), answer.body), (200, json!({ "status": "ok" })));
    })
    .await;
}

#[tokio::test]
async fn registering_is_as_documented() {
    with_shop(async |shop| {
        let answer = registered(shop).await;
        assert_eq!(answer.status(), 201);
        assert_eq!(members(&answer.body), ["accessToken", "message", "status", "user"]);
        assert_eq!(answer.body["status"], "success");
        assert_eq!(answer.body["message"], "User created successfully");
        assert!(answer.body["accessToken"].is_string());
        assert_eq!(answer.body["user"]["email"], "ann@example.com");
        assert!(answer.body["user"]["id"].as_str().is_some_and(|id| id.len() == 24));
        let cookie = answer.cookie();
        assert!(cookie.starts_with("refreshToken=") && cookie.contains("; Max-Age=604800; Path=/; "), "{cookie}");
        assert!(cookie.contains("HttpOnly") && cookie.contains("SameSite=Strict"), "{cookie}");
    })
    .await;
}

#[tokio::test]
async fn signing_in_is_as_documented() {
    with_shop(async |shop| {
        registered(shop).await;
        let answer = raw(shop, "POST /api/v1/auth/login", &[], CREDENTIALS).await;
        assert_eq!(answer.status(), 200);
        assert_eq!(members(&answer.body), ["accessToken", "message", "status"]);
        assert_eq!((&answer.body["status"], &answer.body["message"]), (&json!("success"), &json!("Login successful")));
        assert!(answer.body["accessToken"].is_string() && answer.cookie().starts_with("refreshToken="));
        let wrong = CREDENTIALS.replace("secret", "secrets");
        let answer = raw(shop, "POST /api/v1/auth/login", &[], &wrong).await;
        assert_eq!((answer.status(), &answer.body["message"]), (401, &json!("incorrect email or password")));
    })
    .await;
}

#[tokio::test]
async fn refreshing_by_cookie_is_as_documented() {
    with_shop(async |shop| {
        let registered = registered(shop).await;
        let cookie = registered.cookie().split(';').next().unwrap();
        let answer = raw(shop, "POST /api/v1/auth/refresh-token", &[&format!("Cookie: {cookie}")], "").await;
        assert_eq!(answer.status(), 200);
        assert_eq!(members(&answer.body), ["accessToken", "status"]);
        assert!(answer.body["status"] == "success" && answer.body["accessToken"].is_string());
        let next = answer.cookie().split(';').next().unwrap();
        assert!(next.starts_with("refreshToken=") && next != cookie, "rotated");
        assert_eq!(raw(shop, "POST /api/v1/auth/refresh-token", &[], "").await.status(), 401);
    })
    .await;
}

#[tokio::test]
async fn logging_out_by_get_is_as_documented() {
    with_shop(async |shop| {
        let registered = registered(shop).await;
        let cookie = format!("Cookie: {}", registered.cookie().split(';').next().unwrap());
        let answer = raw(shop, "GET /api/v1/auth/logout", &[&cookie], "").await;
        assert_eq!(answer.status(), 200);
        assert_eq!(answer.body, json!({ "status": "success", "message": "Successfully logged out" }));
        assert!(answer.cookie().starts_with("refreshToken=; "), "blanked: {}", answer.cookie());
    })
    .await;
}

/// One difference, and the only one that a client has to be changed for: the access token goes with the order.
#[tokio::test]
async fn ordering_and_reading_the_order_are_as_documented() {
    with_shop(async |shop| {
        let registered = registered(shop).await;
        let authorization = format!("Authorization: Bearer {}", registered.body["accessToken"].as_str().unwrap());
        let answer = raw(shop, "POST /api/v1/orders", &[&authorization], DOCUMENTED_ORDER).await;
        assert_eq!((answer.status(), &answer.body["message"]), (201, &json!("Order created successfully")));
        let id = answer.body["orderId"].as_str().unwrap();
        assert!(id.len() == 24 && id.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')), "{id}");
        let get = format!("GET /api/v1/orders/{id}");
        let pending = raw(shop, &get, &[&authorization], "").await;
        assert_eq!((pending.status(), &pending.body["status"]), (200, &json!("Pending")));
        shop.worker(&[]).await;
        shop.becomes(id, Status::Processed).await;
        shop_harness::eventually("the status that clients wait for", async || {
            Ok((raw(shop, &get, &[&authorization], "").await.body["status"] == "Processed").then_some(()))
        })
        .await
        .unwrap();
    })
    .await;
}

/// The original's other words that clients may look for: what is refused has a `message`, in JSON, always.
#[tokio::test]
async fn refusals_have_a_message() {
    with_shop(async |shop| {
        let weak = CREDENTIALS.replace("secret", "short");
        let nobody = "GET /api/v1/orders/67c8830b7ef1b848ac52ebec";
        for (line, body, status) in [
            ("POST /api/v1/auth/register", weak.as_str(), 400),
            ("POST /api/v1/auth/register", "{", 400),
            ("POST /api/v1/orders", DOCUMENTED_ORDER, 401),
            (nobody, "", 401),
            ("GET /api/v1/nothing", "", 404),
        ] {
            let answer = raw(shop, line, &[], body).await;
            assert_eq!(answer.status(), status, "{line}");
            assert!(answer.body["message"].as_str().is_some_and(|message| !message.is_empty()), "{line}");
        }
    })
    .await;
}
