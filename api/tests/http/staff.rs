//! Who may not call what, and the staff account that the configuration names.

use jiff::SignedDuration;
use reqwest::Method;
use serde_json::{Value, json};
use shop_api::{
    config::StaffAccount,
    keys::Keys,
    passwords::Passwords,
    service::{
        accounts::Accounts,
        sessions::{Origin, Sessions},
    },
    tokens::Tokens,
};
use shop_runtime::metrics::Metrics;
use shop_store::session_cache::SessionCache;

use crate::shop::{MOUSE, STAFF, bearer, eventually, send, with_shop};

const UNKNOWN: &str = "0123456789abcdef01234567";

/// Every route for staff, with what staff get for a request that is well-formed.
fn staff_routes() -> Vec<(Method, String, Value, u16)> {
    let product = json!({ "name": "Chair", "description": "To sit", "price": 10 });
    let adjustment = json!({ "location": "pune", "reason": "delivery", "lines": [{ "productId": MOUSE, "delta": 1 }] });
    vec![
        (Method::POST, "/products".into(), product.clone(), 201),
        (Method::PUT, format!("/products/{UNKNOWN}"), product.clone(), 201),
        (Method::PATCH, format!("/products/{UNKNOWN}"), product, 428),
        (Method::DELETE, format!("/products/{UNKNOWN}"), Value::Null, 204),
        (Method::POST, "/inventory/adjustments".into(), adjustment, 202),
        (Method::GET, format!("/inventory/adjustments/{UNKNOWN}"), Value::Null, 404),
        (Method::GET, "/inventory/movements".into(), Value::Null, 200),
        (Method::GET, "/admin/users".into(), Value::Null, 200),
        (Method::PATCH, format!("/admin/users/{UNKNOWN}"), json!({ "role": "staff" }), 404),
        (Method::GET, "/admin/doctor".into(), Value::Null, 200),
        (Method::GET, "/admin/dead-letters".into(), Value::Null, 200),
        (Method::POST, "/admin/dead-letters/redrive".into(), json!({}), 202),
        (Method::POST, format!("/orders/{UNKNOWN}/mails"), Value::Null, 404),
    ]
}

/// Every route for anyone who is signed in.
fn signed_in_routes() -> Vec<(Method, String)> {
    vec![
        (Method::GET, "/auth/me".into()),
        (Method::DELETE, "/auth/me".into()),
        (Method::POST, "/auth/password".into()),
        (Method::GET, "/auth/sessions".into()),
        (Method::DELETE, format!("/auth/sessions/{UNKNOWN}")),
        (Method::POST, "/orders".into()),
        (Method::GET, "/orders".into()),
        (Method::GET, format!("/orders/{UNKNOWN}")),
        (Method::GET, format!("/orders/{UNKNOWN}/events")),
        (Method::POST, format!("/orders/{UNKNOWN}/cancel")),
    ]
}

#[tokio::test]
async fn staff_routes_are_for_staff() {
    with_shop(async |shop| {
        let (customer, staff) = (shop.customer().await, shop.staff().await);
        for (method, path, body, for_staff) in staff_routes() {
            let call = |token: &str| {
                let request = bearer(shop.request(method.clone(), &path), token);
                send(if body.is_null() { request } else { request.json(&body) })
            };
            assert_eq!(call("").await.problem(), (401, "unauthenticated".into()), "{method} {path}");
            assert_eq!(call("nonsense").await.problem(), (401, "unauthenticated".into()), "{method} {path}");
            assert_eq!(call(&customer).await.problem(), (403, "forbidden".into()), "{method} {path}");
            assert_eq!(call(&staff).await.status, for_staff, "{method} {path}");
        }
    })
    .await;
}

#[tokio::test]
async fn the_role_is_checked_before_the_body() {
    with_shop(async |shop| {
        let customer = shop.customer().await;
        let request = |token: &str| bearer(shop.request(Method::POST, "/products"), token).body("{");
        assert_eq!(send(request("")).await.problem(), (401, "unauthenticated".into()));
        assert_eq!(send(request(&customer)).await.problem(), (403, "forbidden".into()));
    })
    .await;
}

#[tokio::test]
async fn personal_routes_need_a_token() {
    with_shop(async |shop| {
        for (method, path) in signed_in_routes() {
            let answer = send(shop.request(method.clone(), &path)).await;
            assert_eq!(answer.problem(), (401, "unauthenticated".into()), "{method} {path}");
        }
    })
    .await;
}

/// Every operation of the document is in one of the tables, or open to anyone.
#[test]
fn the_tables_are_complete() {
    let open = [
        "post /auth/register",
        "post /auth/login",
        "post /auth/refresh-token",
        "post /auth/logout",
        "get /auth/logout",
        "post /auth/password-reset",
        "post /auth/password-reset/{token}",
        "get /products",
        "get /products/{id}",
        "get /health",
    ];
    let listed = staff_routes().into_iter().map(|(method, path, ..)| (method, path)).chain(signed_in_routes());
    let listed: Vec<_> = listed
        .map(|(method, path)| format!("{} {}", method.as_str().to_lowercase(), path.replace(UNKNOWN, "{}")))
        .collect();
    let document = serde_json::to_value(shop_api::router::document()).unwrap();
    for (path, item) in document["paths"].as_object().unwrap() {
        for method in ["get", "put", "post", "delete", "patch"].iter().filter(|method| item.get(method).is_some()) {
            let name = format!("{method} {}", path.trim_start_matches("/api/v1"));
            let generic = name.replace("{id}", "{}").replace("{orderId}", "{}");
            assert!(open.contains(&name.as_str()) || listed.contains(&generic), "{name} is in no table");
        }
    }
}

#[tokio::test]
async fn the_configured_password_wins_and_ends_sessions() {
    with_shop(async |shop| {
        let token = shop.staff().await;
        // The same password again: sessions go on.
        shop.replica(|_| {}).await;
        assert_eq!(shop.get("/inventory/movements", &token).await.status, 200);
        // Another password.
        shop.replica(|args| {
            args.set("--staff-password", "a new password");
        })
        .await;
        eventually("the new password", || async {
            Some(shop.login(STAFF.0, "a new password").await).filter(|answer| answer.status == 200)
        })
        .await;
        assert_eq!(shop.login(STAFF.0, STAFF.1).await.status, 401);
        eventually("the old session to end", || async {
            Some(shop.get("/inventory/movements", &token).await).filter(|answer| answer.status == 401)
        })
        .await;
    })
    .await;
}

#[tokio::test]
async fn a_customer_whom_the_configuration_names_becomes_staff() {
    with_shop(async |shop| {
        shop.register("boss@example.com").await;
        shop.replica(|args| {
            args.set("--staff-email", "Boss@example.com").set("--staff-password", "boss password");
        })
        .await;
        let login = eventually("the new role", || async {
            Some(shop.login("boss@example.com", "boss password").await).filter(|answer| answer.status == 200)
        })
        .await;
        let token = login.json()["accessToken"].as_str().unwrap().to_owned();
        assert_eq!(shop.get("/auth/me", &token).await.json()["role"], "staff");
    })
    .await;
}

#[tokio::test]
async fn replicas_that_start_together_leave_each_others_staff_signed_in() {
    with_shop(async |shop| {
        let config = shop.args.config();
        let keys = Keys::load(&config.auth.auth_keys_file).await.unwrap();
        let staff = StaffAccount { email: "boss@example.com".into(), password: "boss password".to_owned().into() };
        let replica = async || {
            let tokens = Tokens::new(keys.clone(), SignedDuration::from_mins(15));
            let sessions = Sessions::new(shop.store.clone(), tokens, SessionCache::disabled(), shop.clock.clone());
            let passwords = Passwords::new(&config.passwords, &Metrics::default());
            let accounts = Accounts::new(shop.store.clone(), sessions, passwords, shop.clock.clone());
            accounts.ensure_staff(&staff).await.unwrap();
            accounts.login(&staff.email, staff.password.clone(), &Origin::default()).await.unwrap().access
        };
        let (one, two, three) = tokio::join!(replica(), replica(), replica());
        for token in [one, two, three] {
            assert_eq!(shop.get("/auth/me", &token).await.status, 200);
        }
    })
    .await;
}
