//! Placing, reading and cancelling orders.

use rstest::rstest;
use serde_json::{Value, json};
use shop_store::orders::Viewer;

use crate::shop::{DOCUMENTED_ORDER, LAMP, MOUSE, eventually, send, with_shop};

fn order(items: &[(&str, i64)]) -> Value {
    let items: Vec<_> = items.iter().map(|(id, quantity)| json!({ "productId": id, "quantity": quantity })).collect();
    json!({ "location": "bangalore", "items": items })
}

#[tokio::test]
async fn the_documented_order_works_verbatim() {
    with_shop(async |shop| {
    let token = shop.customer().await;
    let answer = shop.order(&token, None, DOCUMENTED_ORDER).await;
    assert_eq!(answer.status, 201, "{answer:?}");
    let id = answer.json()["orderId"].as_str().unwrap().to_owned();
    assert_eq!(
        answer.text,
        format!(
            r#"{{"message":"Order created successfully","orderId":"{id}","status":"Pending","totalAmount":4324,"currency":"INR","items":[{{"productId":"{MOUSE}","name":"Travel Mouse","quantity":1,"unitPrice":1324,"total":1324}},{{"productId":"{LAMP}","name":"Desk Lamp","quantity":2,"unitPrice":1500,"total":3000}}]}}"#
        )
    );
    assert_eq!(answer.header("location"), format!("/api/v1/orders/{id}"));
    assert_eq!(answer.header("cache-control"), "no-store");
    assert!(id.len() == 24 && id.bytes().all(|b| b.is_ascii_hexdigit()));

    let read = shop.get(&format!("/orders/{id}"), &token).await.json();
    assert_eq!((&read["status"], &read["totalAmount"]), (&json!("Pending"), &json!(4324)));
    assert_eq!(read["history"].as_array().unwrap().len(), 1);
    let stored = shop.store.orders.find(&id.parse().unwrap(), &Viewer::Staff).await.unwrap().unwrap();
    assert_eq!((stored.total.minor(), stored.outbox.len() <= 1), (432_400, true));
    assert!(stored.email.expose().ends_with("@example.com"));
    })
    .await;
}

#[tokio::test]
async fn an_order_is_its_owners_and_staffs() {
    with_shop(async |shop| {
        let (owner, stranger, staff) = (shop.customer().await, shop.customer().await, shop.staff().await);
        let id = shop.order(&owner, None, DOCUMENTED_ORDER).await.json()["orderId"].as_str().unwrap().to_owned();
        let path = format!("/orders/{id}");
        // The stranger asks before and after the answer is in every cache.
        assert_eq!(shop.get(&path, &stranger).await.problem(), (404, "not_found".into()));
        assert_eq!(shop.get(&path, &owner).await.status, 200);
        assert_eq!(shop.get(&path, &staff).await.status, 200);
        assert_eq!(shop.get(&path, &stranger).await.problem(), (404, "not_found".into()));
        assert_eq!(shop.get(&path, "").await.problem(), (401, "unauthenticated".into()));
        let cancel = shop.post(&format!("{path}/cancel"), &stranger, &json!({})).await;
        assert_eq!(cancel.problem(), (404, "not_found".into()));
        assert_eq!(shop.get("/orders", &stranger).await.json()["data"], json!([]));
        assert_eq!(shop.get("/orders", &owner).await.json()["data"][0]["orderId"], id);
        assert_eq!(shop.get("/orders", &staff).await.json()["data"][0]["orderId"], id);
    })
    .await;
}

#[tokio::test]
async fn short_lines_are_told_with_what_there_is() {
    with_shop(async |shop| {
        let token = shop.customer().await;
        let answer = shop.post("/orders", &token, &order(&[(MOUSE, 6), (LAMP, 10), (MOUSE, 5)])).await;
        assert_eq!(answer.problem(), (409, "out_of_stock".into()));
        assert_eq!(answer.json()["shortages"], json!([{ "productId": MOUSE, "wanted": 11, "available": 10 }]));
        assert_eq!(shop.get("/orders", &token).await.json()["data"], json!([]), "nothing is stored");
    })
    .await;
}

#[tokio::test]
async fn a_changed_total_is_told_with_the_present_one() {
    with_shop(async |shop| {
        let token = shop.customer().await;
        let body = DOCUMENTED_ORDER.replace("4324", "4323.99");
        let answer = shop.order(&token, None, &body).await;
        assert_eq!(answer.problem(), (409, "total_changed".into()));
        assert!(answer.text.contains(r#""totalAmount":4324,"currency":"INR""#), "{answer:?}");
        assert_eq!(answer.json()["items"].as_array().unwrap().len(), 2);
        for same in ["4324.00", "4.324e3"] {
            assert_eq!(shop.order(&token, None, &DOCUMENTED_ORDER.replace("4324", same)).await.status, 201, "{same}");
        }
    })
    .await;
}

#[tokio::test]
async fn unknown_products_and_locations_are_told_apart() {
    with_shop(async |shop| {
        let token = shop.customer().await;
        let unknown = "0123456789abcdef01234567";
        let answer = shop.post("/orders", &token, &order(&[(MOUSE, 1), (unknown, 1)])).await;
        assert_eq!(answer.problem(), (422, "unknown_product".into()));
        assert_eq!(answer.json()["products"], json!([unknown]));
        let answer = shop.order(&token, None, &DOCUMENTED_ORDER.replace("bangalore", "atlantis")).await;
        assert_eq!(answer.problem(), (422, "unknown_location".into()));
        // Known, but not for these products: there is none in stock.
        shop.stock(&[(LAMP, "pune", 5)]).await;
        let answer = shop.order(&token, None, &DOCUMENTED_ORDER.replace("bangalore", "pune")).await;
        assert_eq!(answer.problem(), (409, "out_of_stock".into()));
    })
    .await;
}

#[rstest]
#[case(r"", &[""])]
#[case(r"{", &[""])]
#[case(r"[]", &[""])]
#[case(r"null", &[""])]
#[case(r"{}", &["/location", "/items"])]
#[case(r#"{"location":"bangalore","items":[]}"#, &["/items"])]
#[case(r#"{"location":7,"totalAmount":"4324","items":{}}"#, &["/location", "/totalAmount", "/items"])]
#[case(r#"{"location":"bangalore","totalAmount":-0.01,"items":[{"productId":"67c8830b7ef1b848ac52ebec","quantity":1}]}"#, &["/totalAmount"])]
#[case(r#"{"location":"bangalore","items":[{"productId":"x","quantity":0},{"quantity":1.5},{"productId":"67c8830b7ef1b848ac52ebec","quantity":"1"}]}"#,
    &["/items/1/productId", "/items/1/quantity", "/items/2/quantity", "/items/0/productId", "/items/0/quantity"])]
#[case(r#"{"location":"bangalore","items":[{"productId":"67c8830b7ef1b848ac52ebec","quantity":1,"price":1}],"coupon":"x"}"#, &["/items/0/price", "/coupon"])]
#[case(r#"{"location":"bangalore","items":[{"productId":"67c8830b7ef1b848ac52ebec","quantity":1e99}]}"#, &["/items/0/quantity"])]
#[tokio::test]
async fn malformed_orders_are_refused_with_all_their_faults(#[case] body: &str, #[case] expected: &[&str]) {
    with_shop(async |shop| {
        let token = shop.customer().await;
        let answer = shop.order(&token, None, body).await;
        assert_eq!(answer.problem(), (400, "invalid_request".into()));
        assert_eq!(answer.pointers(), expected);
    })
    .await;
}

#[tokio::test]
async fn a_repeated_key_gets_the_first_answer() {
    with_shop(async |shop| {
        let token = shop.customer().await;
        let first = shop.order(&token, Some("key 1"), DOCUMENTED_ORDER).await;
        assert_eq!((first.status.as_u16(), first.header("idempotency-replayed")), (201, ""));
        // The price changes and the stock is gone: the first answer stands.
        let staff = shop.staff().await;
        let body = json!({ "name": "Mouse", "description": "", "price": 1 });
        assert_eq!(shop.put(&format!("/products/{MOUSE}"), &staff, &body).await.status, 200);
        shop.stock(&[(LAMP, "bangalore", -10)]).await;
        let again = shop.order(&token, Some("key 1"), DOCUMENTED_ORDER).await;
        assert_eq!((again.status.as_u16(), again.header("idempotency-replayed")), (201, "true"));
        assert_eq!((&again.text, again.header("location")), (&first.text, first.header("location")));

        let reused = shop.post("/orders", &token, &order(&[(MOUSE, 1)])).await;
        assert_eq!(reused.status, 201, "without the key it is another order");
        let other = shop.order(&token, Some("key 1"), &order(&[(MOUSE, 1)]).to_string()).await;
        assert_eq!(other.problem(), (422, "idempotency_key_reused".into()));
        let stranger = shop.customer().await;
        let theirs = shop.order(&stranger, Some("key 1"), &order(&[(MOUSE, 1)]).to_string()).await;
        assert_eq!(theirs.status, 201, "keys are per user");
    })
    .await;
}

#[tokio::test]
async fn twins_make_one_order() {
    with_shop(async |shop| {
        let other = shop.replica(|_| {}).await;
        let token = shop.customer().await;
        let replicas = [shop.base.clone(), format!("http://{}", other.http_addr)];
        let sends = replicas.iter().cycle().take(8).map(|base| {
            let request = shop.client.post(format!("{base}/api/v1/orders")).bearer_auth(&token);
            let request = request.header("content-type", "application/json").header("idempotency-key", "twins");
            send(request.body(DOCUMENTED_ORDER))
        });
        let answers = futures::future::join_all(sends).await;
        assert!(answers.iter().all(|answer| answer.status == 201), "{answers:?}");
        assert!(answers.windows(2).all(|pair| pair[0].text == pair[1].text));
        let replayed = answers.iter().filter(|answer| answer.header("idempotency-replayed") == "true").count();
        assert_eq!(replayed, 7);
        assert_eq!(shop.get("/orders", &token).await.json()["data"].as_array().unwrap().len(), 1);
    })
    .await;
}

#[tokio::test]
async fn a_refusal_is_not_remembered() {
    with_shop(async |shop| {
        let token = shop.customer().await;
        let body = order(&[(MOUSE, 11)]).to_string();
        assert_eq!(shop.order(&token, Some("later"), &body).await.problem().0, 409);
        shop.stock(&[(MOUSE, "bangalore", 1)]).await;
        assert_eq!(shop.order(&token, Some("later"), &body).await.status, 201);
    })
    .await;
}

#[rstest]
#[case(&"x".repeat(256))]
#[case("")]
#[case("a\tb")]
#[case("é")]
#[tokio::test]
async fn a_bad_key_is_refused(#[case] key: &str) {
    with_shop(async |shop| {
        let token = shop.customer().await;
        assert_eq!(shop.order(&token, Some(key), DOCUMENTED_ORDER).await.problem(), (400, "invalid_request".into()));
    })
    .await;
}

#[tokio::test]
async fn a_pending_order_can_be_cancelled_once() {
    with_shop(async |shop| {
        let token = shop.customer().await;
        let id = shop.order(&token, None, DOCUMENTED_ORDER).await.json()["orderId"].as_str().unwrap().to_owned();
        let path = format!("/orders/{id}");
        assert_eq!(shop.get(&path, &token).await.json()["status"], "Pending");
        let cancelled = shop.post(&format!("{path}/cancel"), &token, &json!({})).await;
        assert_eq!((cancelled.status.as_u16(), cancelled.json()["status"].clone()), (200, json!("Cancelled")));
        assert_eq!(shop.get(&path, &token).await.json()["status"], "Cancelled", "at once for who did it");
        let again = shop.post(&format!("{path}/cancel"), &token, &json!({})).await;
        assert_eq!(again.problem(), (409, "not_cancellable".into()));
        assert_eq!(again.json()["orderStatus"], "Cancelled");
    })
    .await;
}

#[tokio::test]
async fn orders_are_listed_newest_first_by_status_and_page() {
    with_shop(async |shop| {
        let token = shop.customer().await;
        let mut ids = Vec::new();
        for _ in 0..5 {
            let placed = shop.post("/orders", &token, &order(&[(MOUSE, 1)])).await;
            ids.insert(0, placed.json()["orderId"].as_str().unwrap().to_owned());
        }
        let id_of = |order: &Value| order["orderId"].as_str().unwrap().to_owned();
        let mut seen = Vec::new();
        let mut path = "/orders?limit=2&status=Pending".to_owned();
        loop {
            let page = shop.get(&path, &token).await.json();
            seen.extend(page["data"].as_array().unwrap().iter().map(id_of));
            let Some(cursor) = page["nextCursor"].as_str() else { break };
            path = format!("/orders?limit=2&status=Pending&cursor={cursor}");
        }
        assert_eq!(seen, ids);
        assert_eq!(shop.get("/orders?status=Processed", &token).await.json()["data"], json!([]));
        let bad = shop.get("/orders?status=Eaten", &token).await;
        assert_eq!(bad.json()["errors"][0]["pointer"], "/status");
    })
    .await;
}

#[tokio::test]
async fn the_message_reaches_the_queue_and_leaves_the_outbox() {
    with_shop(async |shop| {
        let (sqs, url) = (shop.queue.client(), shop.queue.url().await.unwrap());
        let token = shop.customer().await;
        let id = shop.order(&token, None, DOCUMENTED_ORDER).await.json()["orderId"].as_str().unwrap().to_owned();
        let received = eventually("the message", || async {
            let received = sqs.receive_message().queue_url(url).wait_time_seconds(1).send().await.unwrap();
            received.messages.unwrap_or_default().pop()
        })
        .await;
        assert_eq!(received.body.unwrap(), format!(r#"{{"kind":"OrderPlaced","orderId":"{id}"}}"#));
        eventually("the empty outbox", || async {
            let order = shop.store.orders.find(&id.parse().unwrap(), &Viewer::Staff).await.unwrap().unwrap();
            order.outbox.is_empty().then_some(())
        })
        .await;
    })
    .await;
}

#[tokio::test]
async fn of_many_who_cancel_at_once_one_does_and_the_others_are_told_the_status() {
    with_shop(async |shop| {
        let token = shop.customer().await;
        let id = shop.order(&token, None, DOCUMENTED_ORDER).await.json()["orderId"].as_str().unwrap().to_owned();
        let (path, body) = (format!("/orders/{id}/cancel"), json!({}));
        // As many connections to the database as there will be cancels: none waits for one.
        futures::future::join_all((0..8).map(|_| shop.get("/orders", &token))).await;
        let answers = futures::future::join_all((0..8).map(|_| shop.post(&path, &token, &body))).await;
        let (done, late): (Vec<_>, Vec<_>) = answers.iter().partition(|answer| answer.status == 200);
        assert_eq!((done.len(), late.len()), (1, 7));
        for answer in late {
            assert_eq!(answer.problem(), (409, "not_cancellable".into()));
            assert_eq!(answer.json()["orderStatus"], "Cancelled");
        }
    })
    .await;
}

#[tokio::test]
async fn an_order_of_what_is_free_may_say_so() {
    with_shop(async |shop| {
        let (token, staff) = (shop.customer().await, shop.staff().await);
        let free = DOCUMENTED_ORDER.replace("4324", "0");
        assert_eq!(shop.order(&token, None, &free).await.problem(), (409, "total_changed".into()));
        for id in [MOUSE, LAMP] {
            let body = json!({ "name": "Sample", "description": "", "price": 0 });
            assert_eq!(shop.put(&format!("/products/{id}"), &staff, &body).await.status, 200);
        }
        let answer = shop.order(&token, None, &free).await;
        assert_eq!((answer.status.as_u16(), answer.json()["totalAmount"].clone()), (201, json!(0)));
    })
    .await;
}
