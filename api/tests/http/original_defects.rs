//! The defects of the original, by number (docs/defects.md): each is tried here as its clients met it. Those that a client
//! cannot see are named in the table with the tests that show them.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use reqwest::Method;
use serde_json::{Value, json};
use shop_domain::order::Status;
use shop_harness::{QueueKind, QueueRules};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

use crate::{
    process::Process,
    shop::{
        Answer, DOCUMENTED_ORDER, LAMP, MOUSE, PASSWORD, bearer, eventually, random_name, send, with_shop,
        with_shop_and_queue,
    },
};

const TABLE: &str = include_str!("../../../docs/defects.md");

fn order(items: &[(&str, u32)]) -> String {
    let items: Vec<_> = items.iter().map(|(id, quantity)| json!({ "productId": id, "quantity": quantity })).collect();
    json!({ "location": "bangalore", "items": items }).to_string()
}

fn by_cookie(request: reqwest::RequestBuilder, cookie: &str) -> reqwest::RequestBuilder {
    request.header("cookie", format!("refreshToken={cookie}"))
}

async fn registered(shop: &crate::shop::Shop) -> Answer {
    let email = format!("{}@example.com", random_name("c"));
    shop.post("/auth/register", "", &json!({ "email": email, "password": PASSWORD })).await
}

#[tokio::test]
async fn b01_an_order_is_processed_and_keeps_its_lines() {
    with_shop(async |shop| {
        let (token, staff) = (shop.customer().await, shop.staff().await);
        let id = shop.placed(&token, DOCUMENTED_ORDER).await;
        shop.worker(&[]).await;
        shop.becomes(&id, Status::Processed).await;
        let renamed = json!({ "name": "Another Mouse", "description": "", "price": 1 });
        assert_eq!(shop.put(&format!("/products/{MOUSE}"), &staff, &renamed).await.status, 200);
        let read = shop.get(&format!("/orders/{id}"), &token).await.json();
        assert_eq!(read["status"], "Processed");
        let mouse =
            json!({ "productId": MOUSE, "name": "Travel Mouse", "quantity": 1, "unitPrice": 1324, "total": 1324 });
        assert_eq!(read["items"][0], mouse);
    })
    .await;
}

#[tokio::test]
async fn b02_a_failed_order_says_so_without_any_cache() {
    with_shop(async |shop| {
        let token = shop.customer().await;
        let id = shop.placed(&token, &order(&[(MOUSE, 10)])).await;
        shop.stock(&[(MOUSE, "bangalore", -1)]).await;
        shop.worker(&[]).await;
        shop.becomes(&id, Status::Failed).await;
        let without_redis = shop
            .beside(|args| {
                args.unset("--redis-url");
            })
            .await;
        let read = without_redis.get(&format!("/orders/{id}"), &token).await.json();
        assert_eq!((&read["status"], &read["reason"]), (&json!("Failed"), &json!("out_of_stock")));
    })
    .await;
}

#[tokio::test]
async fn b03_no_more_is_sold_than_there_is() {
    with_shop(async |shop| {
        let token = shop.customer().await;
        let mut ids = Vec::new();
        for _ in 0..5 {
            ids.push(shop.placed(&token, &order(&[(MOUSE, 3)])).await);
        }
        shop.worker(&[]).await;
        let mut sold = 0;
        for id in &ids {
            let status = eventually("an end of the order", || async {
                let read = shop.get(&format!("/orders/{id}"), &token).await.json();
                read["status"].as_str().filter(|status| *status != "Pending").map(str::to_owned)
            })
            .await;
            sold += usize::from(status == "Processed");
        }
        assert_eq!((sold, shop.units(MOUSE).await), (3, 1), "10 are 3 orders of 3, and 1 is left");
        assert_eq!(shop.faults().await, Vec::<String>::new());
    })
    .await;
}

#[tokio::test]
async fn b04_two_lines_of_one_product_are_checked_together() {
    with_shop(async |shop| {
        let token = shop.customer().await;
        let answer = shop.order(&token, None, &order(&[(MOUSE, 6), (MOUSE, 5)])).await;
        assert_eq!(answer.problem(), (409, "out_of_stock".into()));
        assert_eq!(answer.json()["shortages"], json!([{ "productId": MOUSE, "wanted": 11, "available": 10 }]));
    })
    .await;
}

#[tokio::test]
async fn b05_a_strangers_get_does_not_end_the_process() {
    with_shop(async |shop| {
        let (owner, stranger) = (shop.customer().await, shop.customer().await);
        let path = format!("/api/v1/orders/{}", shop.placed(&owner, DOCUMENTED_ORDER).await);
        let process = Process::start(shop, |_| {}).await;
        let get = |token: &str| send(bearer(shop.client.get(format!("{}{path}", process.base)), token));
        for _ in 0..3 {
            assert_eq!(get(&stranger).await.problem(), (404, "not_found".into()));
        }
        assert_eq!(get(&owner).await.status, 200, "the same process goes on");
        process.kill().await;
    })
    .await;
}

#[tokio::test]
async fn b06_a_cached_order_is_its_owners_and_no_key_of_the_cache_can_be_read() {
    with_shop(async |shop| {
        let (owner, stranger) = (shop.customer().await, shop.customer().await);
        let id = shop.placed(&owner, DOCUMENTED_ORDER).await;
        shop.worker(&[]).await;
        shop.becomes(&id, Status::Processed).await;
        let path = format!("/orders/{id}");
        assert_eq!(shop.get(&path, &owner).await.json()["status"], "Processed", "in the cache from now on at least");
        assert_eq!(shop.get(&path, &stranger).await.problem(), (404, "not_found".into()));
        for name in ["order", "session", &format!("{}:order:{id}", shop.ground.name), "%2A"] {
            assert_eq!(shop.get(&format!("/orders/{name}"), &stranger).await.problem(), (404, "not_found".into()));
        }
    })
    .await;
}

#[tokio::test]
async fn b07_a_total_has_all_units_and_is_exact() {
    with_shop(async |shop| {
        let (token, staff) = (shop.customer().await, shop.staff().await);
        let body = json!({ "name": "Travel Mouse", "description": "", "price": 29.99 });
        assert_eq!(shop.put(&format!("/products/{MOUSE}"), &staff, &body).await.status, 200);
        let answer = shop.order(&token, None, &order(&[(MOUSE, 3), (LAMP, 2)])).await;
        assert!(answer.text.contains(r#""totalAmount":3089.97,"#), "{answer:?}");
        assert!(answer.text.contains(r#""quantity":3,"unitPrice":29.99,"total":89.97"#), "{answer:?}");
    })
    .await;
}

#[tokio::test]
async fn b08_a_total_that_differs_is_refused_and_none_is_needed() {
    with_shop(async |shop| {
        let token = shop.customer().await;
        let wrong = DOCUMENTED_ORDER.replace("4324", "2824");
        let answer = shop.order(&token, None, &wrong).await;
        assert_eq!(answer.problem(), (409, "total_changed".into()), "the original's own sum: a price for each product");
        assert_eq!(answer.json()["totalAmount"], 4324);
        assert_eq!(shop.order(&token, None, &order(&[(MOUSE, 1)])).await.status, 201);
    })
    .await;
}

#[tokio::test]
async fn b09_out_of_stock_is_no_success() {
    with_shop(async |shop| {
        let token = shop.customer().await;
        let answer = shop.order(&token, None, &order(&[(MOUSE, 11)])).await;
        assert_eq!(answer.problem(), (409, "out_of_stock".into()));
        assert_eq!(answer.json()["orderId"], Value::Null);
    })
    .await;
}

#[tokio::test]
async fn b11_an_accepted_order_is_in_the_database_before_it_is_in_the_queue() {
    let away = |args: &mut crate::shop::Args| {
        args.set("--sqs-endpoint", "http://127.0.0.1:9");
    };
    crate::shop::with_shop_of(away, async |shop| {
        let token = shop.customer().await;
        let id = shop.placed(&token, DOCUMENTED_ORDER).await;
        assert_eq!(shop.get(&format!("/orders/{id}"), &token).await.json()["status"], "Pending");
        assert_eq!(shop.ground.waiting_sends().await.unwrap(), 1, "what is to be sent is kept with the order");
    })
    .await;
}

#[tokio::test]
async fn b12_each_order_is_a_message_group_of_its_own() {
    use aws_sdk_sqs::types::MessageSystemAttributeName::MessageGroupId;
    let fifo = QueueRules { kind: QueueKind::Fifo, ..QueueRules::default() };
    with_shop_and_queue(fifo, async |shop| {
        let token = shop.customer().await;
        let ids = [shop.placed(&token, &order(&[(MOUSE, 1)])).await, shop.placed(&token, &order(&[(LAMP, 1)])).await];
        let (sqs, url) = (shop.queue.client(), shop.queue.url().await.unwrap());
        let (mut groups, mut expected) = (Vec::new(), Vec::from(ids));
        while groups.len() < expected.len() {
            let message = eventually("a message", || async {
                let request = sqs.receive_message().queue_url(url).wait_time_seconds(1);
                let received = request.message_system_attribute_names(MessageGroupId).send().await.unwrap();
                received.messages.unwrap_or_default().pop()
            });
            groups.push(message.await.attributes.unwrap().remove(&MessageGroupId).unwrap());
        }
        groups.sort();
        expected.sort();
        assert_eq!(groups, expected);
    })
    .await;
}

#[tokio::test]
async fn b13_a_repeated_request_makes_no_second_order() {
    with_shop(async |shop| {
        let token = shop.customer().await;
        let first = shop.order(&token, Some("try 1"), DOCUMENTED_ORDER).await;
        let again = shop.order(&token, Some("try 1"), DOCUMENTED_ORDER).await;
        assert_eq!((first.text, again.header("idempotency-replayed")), (again.text.clone(), "true"));
        assert_eq!(shop.get("/orders", &token).await.json()["data"].as_array().unwrap().len(), 1);
    })
    .await;
}

#[tokio::test]
async fn b14_the_refresh_cookie_is_no_key_to_orders() {
    with_shop(async |shop| {
        let account = registered(shop).await;
        let body = || shop.request(Method::POST, "/orders").header("content-type", "application/json");
        let body = || body().body(DOCUMENTED_ORDER);
        assert_eq!(send(by_cookie(body(), &account.cookie())).await.problem(), (401, "unauthenticated".into()));
        assert_eq!(send(bearer(body(), &account.cookie())).await.problem(), (401, "unauthenticated".into()));
        assert_eq!(send(bearer(body(), &account.token())).await.status, 201);
        assert_eq!(shop.refresh(&account.token()).await.problem(), (401, "unauthenticated".into()));
    })
    .await;
}

#[tokio::test]
async fn b15_a_session_can_be_refreshed_at_once_and_is_over_after_the_logout() {
    with_shop(async |shop| {
        let account = registered(shop).await;
        let refreshed = shop.refresh(&account.cookie()).await;
        assert_eq!(refreshed.status, 200, "right after registering");
        assert_ne!(refreshed.cookie(), account.cookie(), "also within one second");
        let logout = send(by_cookie(shop.request(Method::GET, "/auth/logout"), &refreshed.cookie())).await;
        assert_eq!(logout.status, 200);
        assert_eq!(shop.refresh(&refreshed.cookie()).await.problem(), (401, "unauthenticated".into()));
        assert_eq!(shop.get("/auth/me", &refreshed.token()).await.problem(), (401, "unauthenticated".into()));
    })
    .await;
}

#[tokio::test]
async fn b16_no_secret_is_told_and_a_long_password_counts_to_its_end() {
    with_shop(async |shop| {
        let (email, start) = ("ann@example.com", "x".repeat(72));
        let body = json!({ "email": email, "password": format!("{start}, and more") });
        let answer = shop.post("/auth/register", "", &body).await;
        let members: Vec<_> = answer.json()["user"].as_object().unwrap().keys().cloned().collect();
        assert_eq!(members, ["createdAt", "email", "id", "role"]);
        assert_eq!(shop.login(email, &start).await.problem(), (401, "unauthenticated".into()));
        assert_eq!(shop.login("ANN@Example.com", &format!("{start}, and more")).await.status, 200);
    })
    .await;
}

/// What a pod's identity is served by (EKS Pod Identity, ECS): credentials from an address in the environment.
async fn identity_agent() -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (url, asked) =
        (format!("http://{}/v1/credentials", listener.local_addr().unwrap()), Arc::new(AtomicUsize::new(0)));
    let count = asked.clone();
    tokio::spawn(async move {
        let credentials = json!({
            "AccessKeyId": "pod", "SecretAccessKey": "pod", "Token": "pod", "Expiration": "2099-01-01T00:00:00Z",
        });
        let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\ncontent-length: ";
        let credentials = credentials.to_string();
        while let Ok((mut stream, _)) = listener.accept().await {
            let answer = format!("{head}{}\r\n\r\n{credentials}", credentials.len());
            assert!(stream.read(&mut [0; 4_096]).await.unwrap() > 0);
            stream.write_all(answer.as_bytes()).await.unwrap();
            count.fetch_add(1, Ordering::Relaxed);
        }
    });
    (url, asked)
}

#[tokio::test]
async fn b18_without_static_keys_the_identity_of_the_pod_is_used() {
    let nobodys = |args: &mut crate::shop::Args| {
        args.set("--sqs-endpoint", "http://127.0.0.1:9");
    };
    crate::shop::with_shop_of(nobodys, async |shop| {
        let (agent, asked) = identity_agent().await;
        let sqs = shop.ground.servers.sqs_endpoint.clone();
        let change = |args: &mut crate::shop::Args| {
            args.set("--sqs-endpoint", sqs);
        };
        let environment = [
            ("AWS_ACCESS_KEY_ID", None),
            ("AWS_SECRET_ACCESS_KEY", None),
            ("AWS_CONTAINER_CREDENTIALS_FULL_URI", Some(agent.as_str())),
        ];
        let process = Process::start_in(shop, change, &environment).await;
        let token = shop.customer().await;
        let request = shop.client.post(format!("{}/api/v1/orders", process.base));
        let request = request.header("content-type", "application/json").body(DOCUMENTED_ORDER);
        assert_eq!(send(bearer(request, &token)).await.status, 201);
        eventually("the order's message", || async {
            let counts = shop.queue.counts().await.unwrap();
            (counts.visible + counts.in_flight == 1).then_some(())
        })
        .await;
        assert!(asked.load(Ordering::Relaxed) >= 1, "the message was signed with other credentials");
        process.kill().await;
    })
    .await;
}

#[tokio::test]
async fn b21_an_order_can_be_cancelled_and_tells_its_history() {
    with_shop(async |shop| {
        let token = shop.customer().await;
        let path = format!("/orders/{}", shop.placed(&token, DOCUMENTED_ORDER).await);
        assert_eq!(shop.post(&format!("{path}/cancel"), &token, &json!({})).await.status, 200);
        let read = shop.get(&path, &token).await.json();
        let steps = read["history"].as_array().unwrap();
        let statuses: Vec<_> = steps.iter().map(|step| step["status"].as_str().unwrap()).collect();
        assert_eq!((read["status"].as_str().unwrap(), statuses), ("Cancelled", vec!["Pending", "Cancelled"]));
        assert!(steps.iter().all(|step| step["at"].is_string()) && steps[1]["reason"] == "cancelled", "{steps:?}");
    })
    .await;
}

/// Every row of the table of defects names tests, and each of them is in the file that it is said to be in.
#[test]
fn every_defect_has_tests_that_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let rows: Vec<_> = TABLE.lines().filter(|line| line.starts_with("| B")).collect();
    let numbers: Vec<_> = rows.iter().map(|row| row.split(" | ").next().unwrap().trim_start_matches("| ")).collect();
    let expected: Vec<_> = (1..=21).map(|number| format!("B{number}")).collect();
    assert_eq!(numbers, expected);
    for row in rows {
        let tests: Vec<_> = row.split('`').filter_map(|word| word.split_once(".rs::")).collect();
        assert!(!tests.is_empty(), "no test in {row}");
        for (file, test) in tests {
            let source = std::fs::read_to_string(root.join(format!("{file}.rs"))).unwrap_or_default();
            assert!(source.contains(&format!("fn {test}(")), "{file}.rs has no test {test}");
        }
    }
}
