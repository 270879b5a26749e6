//! HTTP itself: errors, headers, documents, probes, the drain.

use std::time::Duration;

use reqwest::Method;
use rstest::rstest;
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::shop::{bearer, eventually, send, with_shop, with_shop_of};

#[rstest]
#[case(Method::GET, "//", 404, "not_found")]
#[case(Method::GET, "//api/v1/nothing", 404, "not_found")]
#[case(Method::GET, "//api/v2/products", 404, "not_found")]
#[case(Method::DELETE, "/products", 405, "method_not_allowed")]
#[case(Method::GET, "/auth/login", 405, "method_not_allowed")]
#[case(Method::POST, "//health", 405, "method_not_allowed")]
#[case(Method::GET, "//docs/nothing.js", 404, "not_found")]
#[tokio::test]
async fn every_error_is_a_problem(#[case] method: Method, #[case] path: &str, #[case] status: u16, #[case] code: &str) {
    with_shop(async |shop| {
        let answer = send(shop.request(method, path)).await;
        assert_eq!(answer.problem(), (status, code.to_owned()));
        if status == 405 {
            assert!(!answer.header("allow").is_empty());
        }
    })
    .await;
}

#[tokio::test]
async fn size_and_type_are_checked_before_the_body() {
    with_shop(async |shop| {
        let token = shop.customer().await;
        let post = |kind: &str, body: String| {
            send(bearer(shop.request(Method::POST, "/orders"), &token).header("content-type", kind).body(body))
        };
        assert_eq!(post("text/plain", "{}".into()).await.problem(), (415, "unsupported_media_type".into()));
        assert_eq!(post("application/json", "x".repeat(102_401)).await.problem(), (413, "too_large".into()));
        assert_eq!(post("application/json", " ".repeat(102_400)).await.problem(), (400, "invalid_request".into()));
    })
    .await;
}

#[tokio::test]
async fn a_request_keeps_its_id_if_it_is_harmless() {
    with_shop(async |shop| {
        for (given, kept) in [("trace-1.2:3", true), ("two words", false), (&"x".repeat(200), false)] {
            let answer = send(shop.request(Method::GET, "//health").header("x-request-id", given)).await;
            assert_eq!(answer.header("x-request-id") == given, kept, "{given}");
            assert!(!answer.header("x-request-id").is_empty());
        }
    })
    .await;
}

#[tokio::test]
async fn helmets_headers_are_on_every_answer() {
    with_shop(async |shop| {
        for path in ["//health", "/products", "//nothing", "/orders", "//docs/"] {
            let answer = shop.get(path, "").await;
            for (name, value) in [
                ("x-content-type-options", "nosniff"),
                ("x-frame-options", "SAMEORIGIN"),
                ("referrer-policy", "no-referrer"),
                ("cross-origin-opener-policy", "same-origin"),
                ("strict-transport-security", "max-age=31536000; includeSubDomains"),
            ] {
                assert_eq!(answer.header(name), value, "{name} of {path}");
            }
            assert!(answer.header("content-security-policy").starts_with("default-src 'self'"));
            assert_eq!(answer.header("x-powered-by"), "");
            assert_eq!(answer.header("access-control-allow-origin"), "");
        }
    })
    .await;
}

#[tokio::test]
async fn a_plain_http_trial_has_a_cookie_that_works() {
    with_shop_of(
        |args| {
            args.set("--cookie-secure", "false");
        },
        async |shop| {
            let body = json!({ "email": "ann@example.com", "password": "correct horse" });
            let answer = shop.post("/auth/register", "", &body).await;
            assert!(!answer.header("set-cookie").contains("Secure"));
            assert_eq!(answer.header("strict-transport-security"), "");
        },
    )
    .await;
}

#[tokio::test]
async fn only_listed_origins_may_call_from_a_browser() {
    with_shop_of(
        |args| {
            args.set("--cors-origins", "https://shop.example.com");
        },
        async |shop| {
            for (origin, allowed) in [("https://shop.example.com", true), ("https://evil.example.com", false)] {
                let preflight = shop.request(Method::OPTIONS, "/orders").header("origin", origin);
                let preflight = preflight.header("access-control-request-method", "POST");
                let answer =
                    send(preflight.header("access-control-request-headers", "authorization,idempotency-key")).await;
                assert_eq!(answer.header("access-control-allow-origin") == origin, allowed, "{answer:?}");
                let plain = send(shop.request(Method::GET, "/products").header("origin", origin)).await;
                assert_eq!(plain.header("access-control-allow-origin") == origin, allowed);
            }
        },
    )
    .await;
}

#[tokio::test]
async fn health_and_documents_need_no_internet() {
    with_shop(async |shop| {
        assert_eq!(shop.get("//health", "").await.text, r#"{"status":"ok"}"#);
        let redirect = shop.get("//docs", "").await;
        assert_eq!((redirect.status.as_u16(), redirect.header("location")), (303, "/docs/"));
        let page = shop.get("//docs/", "").await;
        assert_eq!(page.status, 200);
        let is_asset = |part: &&str| matches!(part.rsplit_once('.'), Some((_, "js" | "css")));
        let sources = page.text.split(['"', '\'']).filter(is_asset);
        let sources: Vec<_> = sources.map(|part| part.trim_start_matches("./").to_owned()).collect();
        assert!(sources.len() >= 3, "{sources:?}");
        for source in sources {
            assert!(!source.contains("//"), "{source} is somewhere else");
            let asset = shop.get(&format!("//docs/{source}"), "").await;
            assert_eq!(asset.status, 200, "{source}");
        }
        assert!(!page.text.contains("<script>"), "the content security policy forbids scripts in the page");
        let document = shop.get("//openapi.json", "").await.json();
        assert!(document["openapi"].as_str().unwrap().starts_with("3.1"));
        assert_eq!(document, serde_json::to_value(shop_api::router::document()).unwrap());
        let initializer = shop.get("//docs/swagger-initializer.js", "").await;
        assert!(initializer.text.contains("\"/openapi.json\""), "{}", initializer.text);
    })
    .await;
}

#[test]
fn every_operation_has_a_name_of_its_own() {
    let document = serde_json::to_value(shop_api::router::document()).unwrap();
    let items = document["paths"].as_object().unwrap().values().flat_map(|item| item.as_object().unwrap().values());
    let mut names: Vec<_> = items.map(|operation| operation["operationId"].as_str().unwrap()).collect();
    let count = names.len();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), count);
}

#[test]
fn the_document_is_the_checked_in_one() {
    let mut document = shop_api::router::document();
    document.info.version = "0.0.0".into();
    insta::assert_snapshot!("openapi", document.to_pretty_json().unwrap());
}

#[tokio::test]
async fn probes_and_metrics_are_on_their_own_port() {
    with_shop(async |shop| {
        let get = |path: &str| send(shop.client.get(format!("{}{path}", shop.ops)));
        eventually("readiness", || async { Some(get("/readyz").await).filter(|answer| answer.status == 200) }).await;
        assert_eq!(get("/livez").await.status, 200);
        assert_eq!(shop.get("//metrics", "").await.status, 404, "not on the public port");
        shop.get("/products/0123456789abcdef01234567", "").await;
        shop.get("//some/path/that/nobody/knows", "").await;
        let metrics = get("/metrics").await.text;
        for line in [
            r#"shop_api_requests_total{method="GET",route="/api/v1/products/{id}",status="404"} 1"#,
            r#"shop_api_requests_total{method="GET",route="none",status="404"} 2"#,
            r#"shop_api_request_duration_seconds_count{method="GET",route="/api/v1/products/{id}"} 1"#,
            "shop_api_requests_in_flight 0",
        ] {
            assert!(metrics.contains(line), "{line} in\n{metrics}");
        }
        assert!(!metrics.contains("nobody"), "paths are no labels");
    })
    .await;
}

#[tokio::test]
async fn a_drain_says_so_and_goes_on_accepting() {
    with_shop_of(
        |args| {
            args.set("--drain-seconds", "2");
        },
        async |shop| {
            let ready = || send(shop.client.get(format!("{}/readyz", shop.ops)));
            eventually("readiness", || async { Some(ready().await).filter(|answer| answer.status == 200) }).await;
            assert_eq!(shop.get("//health", "").await.header("connection"), "");
            shop.shutdown.drain();
            eventually("not ready", || async { Some(ready().await).filter(|answer| answer.status == 503) }).await;
            for _ in 0..3 {
                let fresh = reqwest::Client::new().get(format!("{}/health", shop.base));
                let answer = send(fresh).await;
                assert_eq!((answer.status.as_u16(), answer.header("connection")), (200, "close"));
            }
            let url = format!("{}/health", shop.base);
            eventually("the closed port", || async {
                reqwest::Client::new().get(&url).timeout(Duration::from_secs(1)).send().await.is_err().then_some(())
            })
            .await;
        },
    )
    .await;
}

/// Proxies keep idle connections; a request on one that the server has just closed is lost.
#[tokio::test]
async fn a_connection_outlives_a_pause_between_requests() {
    with_shop(async |shop| {
        let mut stream = TcpStream::connect(shop.base.trim_start_matches("http://")).await.unwrap();
        for pause in [0, 11] {
            tokio::time::sleep(Duration::from_secs(pause)).await;
            stream.write_all(b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
            let mut answer = vec![0; 8_192];
            let length = stream.read(&mut answer).await.unwrap();
            assert!(answer[..length].starts_with(b"HTTP/1.1 200"), "after {pause} s: {length} bytes");
        }
    })
    .await;
}
