//! Dead letters and their redrive, with a real worker that gives up.

use std::time::Duration;

use reqwest::StatusCode;
use serde_json::{Value, json};
use shop_domain::{
    id::{AdjustmentId, OrderId},
    message::Message,
    order::{FailureClass, Status},
};
use shop_harness::{QueueKind, QueueRules, eventually};
use shop_store::{
    adjustments::AdjustmentStatus,
    orders::{Reason, Restock},
    unfinished::Forgotten,
};

use crate::shop::{DOCUMENTED_ORDER, LAMP, MOUSE, Shop, with_shop_and_queue};

/// The first failure is the last delivery.
const ONCE: QueueRules =
    QueueRules { visibility: Duration::from_secs(30), max_receive_count: 1, kind: QueueKind::Standard };
const FLAGS: [&str; 2] = ["--max-receive-count", "1"];

async fn with_hasty_shop(test: impl AsyncFnOnce(&Shop)) {
    with_shop_and_queue(ONCE, test).await;
}

async fn redrive(shop: &Shop, staff: &str, body: &Value) -> (StatusCode, Value) {
    let answer = shop.post("/admin/dead-letters/redrive", staff, body).await;
    (answer.status, answer.json())
}

async fn dead(shop: &Shop, staff: &str) -> Vec<Value> {
    shop.get("/admin/dead-letters", staff).await.json()["data"].as_array().unwrap().clone()
}

/// Orders that the worker has given up, because it could not read them; now it can.
async fn failed(shop: &Shop, orders: usize) -> Vec<String> {
    let token = shop.customer().await;
    let mut ids = Vec::new();
    for _ in 0..orders {
        let id = shop.placed(&token, DOCUMENTED_ORDER).await;
        shop.ground.spoil(&id.parse().unwrap()).await.unwrap();
        ids.push(id);
    }
    shop.worker(&FLAGS).await;
    for id in &ids {
        let id: OrderId = id.parse().unwrap();
        eventually("the failure is recorded", async || {
            let failed = (Status::Failed, Some(Reason::ProcessingFailed));
            Ok((shop.ground.status_of(&id).await? == failed).then_some(()))
        })
        .await
        .unwrap();
        shop.ground.mend(&id).await.unwrap();
    }
    ids
}

#[tokio::test]
async fn a_failed_order_is_shown_with_its_reason_and_dispatched_anew() {
    with_hasty_shop(async |shop| {
        let staff = shop.staff().await;
        let id = failed(shop, 1).await.remove(0);
        let letters = dead(shop, &staff).await;
        assert_eq!(letters.len(), 1, "{letters:?}");
        let letter = &letters[0];
        assert_eq!((&letter["orderId"], &letter["kind"]), (&json!(id), &json!("OrderPlaced")));
        assert_eq!((&letter["cause"], &letter["reason"]), (&json!("failed"), &json!("unreadable")));
        assert_eq!((&letter["deliveries"], letter["failedAt"].is_string()), (&json!(1), true));
        // Readers have the failure in their caches.
        let path = format!("/orders/{id}");
        assert_eq!(shop.get(&path, &staff).await.json()["reason"], "processing_failed");

        let (status, started) = redrive(shop, &staff, &json!({ "orderId": id })).await;
        assert_eq!((status.as_u16(), started), (202, json!({ "orders": 1, "adjustments": 0 })));
        let order = shop.becomes(&id, Status::Processed).await;
        let history: Vec<_> = order.history.iter().map(|step| (step.status, step.reason)).collect();
        assert_eq!(
            history,
            [
                (Status::Pending, None),
                (Status::Failed, Some(Reason::ProcessingFailed)),
                (Status::Pending, Some(Reason::Reopened)),
                (Status::Processed, None)
            ]
        );
        assert_eq!((order.version, order.reason, order.failure), (4, None, None));
        eventually("readers see it", async || {
            Ok((shop.get(&path, &staff).await.json()["status"] == "Processed").then_some(()))
        })
        .await
        .unwrap();
        assert_eq!(dead(shop, &staff).await, Vec::<Value>::new());
        assert_eq!((shop.units(MOUSE).await, shop.units(LAMP).await), (9, 8));
        assert_eq!(shop.faults().await, Vec::<String>::new());

        let (status, problem) = redrive(shop, &staff, &json!({ "orderId": id })).await;
        assert_eq!((status.as_u16(), &problem["code"]), (409, &json!("not_redrivable")));
    })
    .await;
}

#[tokio::test]
async fn what_is_not_dead_is_not_redriven() {
    with_hasty_shop(async |shop| {
        let (token, staff) = (shop.customer().await, shop.staff().await);
        let id = shop.placed(&token, DOCUMENTED_ORDER).await;
        let (unknown, both) = ("0123456789abcdef01234567", json!({ "orderId": id, "adjustmentId": id }));
        for (body, status, code) in [
            (json!({ "orderId": id }), 409, "not_redrivable"),
            (json!({ "orderId": unknown }), 404, "not_found"),
            (json!({ "adjustmentId": unknown }), 404, "not_found"),
            (json!({ "orderId": "x" }), 400, "invalid_request"),
            (both, 400, "invalid_request"),
        ] {
            let (answered, problem) = redrive(shop, &staff, &body).await;
            assert_eq!((answered.as_u16(), &problem["code"]), (status, &json!(code)), "{body}");
        }
        // Short of stock is an answer, not a dead letter.
        shop.stock(&[(MOUSE, "bangalore", -10)]).await;
        shop.worker(&FLAGS).await;
        shop.becomes(&id, Status::Failed).await;
        let (status, _) = redrive(shop, &staff, &json!({ "orderId": id })).await;
        assert_eq!(status, 409);
        assert_eq!(dead(shop, &staff).await, Vec::<Value>::new());
    })
    .await;
}

#[tokio::test]
async fn all_are_redriven_and_an_order_whose_message_comes_back_too_is_processed_once() {
    with_hasty_shop(async |shop| {
        let staff = shop.staff().await;
        let ids = failed(shop, 3).await;
        shop.ground.send("junk").await.unwrap();
        eventually("four dead letters", async || {
            Ok((shop.ground.dead_letters.counts().await?.visible == 4).then_some(()))
        })
        .await
        .unwrap();

        let (status, started) = redrive(shop, &staff, &json!({})).await;
        assert_eq!(status, 202);
        assert_eq!(started, json!({ "orders": 3, "adjustments": 0, "moveTask": "started" }));
        for id in &ids {
            shop.becomes(id, Status::Processed).await;
        }
        // The junk is dead again, and nothing else is.
        eventually("only the junk is left", async || {
            let (alive, dead) = (shop.queue.counts().await?, shop.ground.dead_letters.counts().await?);
            Ok((alive.visible + alive.in_flight == 0 && dead.visible == 1).then_some(()))
        })
        .await
        .unwrap();
        for id in &ids {
            assert_eq!(shop.becomes(id, Status::Processed).await.version, 4);
        }
        assert_eq!((shop.units(MOUSE).await, shop.units(LAMP).await), (7, 4));
        assert_eq!(shop.faults().await, Vec::<String>::new());
        let (status, again) = redrive(shop, &staff, &json!({})).await;
        assert_eq!((status.as_u16(), &again["orders"]), (202, &json!(0)));
    })
    .await;
}

#[tokio::test]
async fn stuck_work_is_shown_and_redriven() {
    with_hasty_shop(async |shop| {
        let (token, staff) = (shop.customer().await, shop.staff().await);
        let id = shop.placed(&token, DOCUMENTED_ORDER).await;
        // Its message got lost, and the sweeper gave it up.
        eventually("the message is sent", async || Ok((shop.queue.counts().await?.visible == 1).then_some(())))
            .await
            .unwrap();
        let url = shop.queue.url().await.unwrap();
        shop.queue.client().purge_queue().queue_url(url).send().await.unwrap();
        let work = Forgotten { message: Message::OrderPlaced { order_id: id.parse().unwrap() }, sweeps: 0 };
        assert!(shop.store.unfinished.give_up(&work).await.unwrap());
        let letters = dead(shop, &staff).await;
        assert_eq!((&letters[0]["orderId"], &letters[0]["cause"]), (&json!(id), &json!("stuck")));
        assert_eq!(letters[0]["reason"], Value::Null);

        shop.worker(&FLAGS).await;
        let (status, _) = redrive(shop, &staff, &json!({ "orderId": id })).await;
        assert_eq!(status, 202);
        let order = shop.becomes(&id, Status::Processed).await;
        assert_eq!((order.stuck, order.sweeps, order.version), (false, None, 2));
        assert_eq!(dead(shop, &staff).await, Vec::<Value>::new());
    })
    .await;
}

#[tokio::test]
async fn an_adjustment_that_failed_is_shown_and_applied_after_its_redrive() {
    with_hasty_shop(async |shop| {
        let staff = shop.staff().await;
        let body =
            json!({ "location": "bangalore", "reason": "delivery", "lines": [{ "productId": MOUSE, "delta": 5 }] });
        let accepted = shop.post("/inventory/adjustments", &staff, &body).await.json();
        let id: AdjustmentId = accepted["adjustmentId"].as_str().unwrap().parse().unwrap();
        shop.ground.spoil_adjustment(&id).await.unwrap();
        shop.worker(&FLAGS).await;
        let letter = eventually("the failure is recorded", async || Ok(dead(shop, &staff).await.pop())).await.unwrap();
        assert_eq!((&letter["adjustmentId"], &letter["kind"]), (&json!(id.as_str()), &json!("StockAdjusted")));
        assert_eq!((&letter["cause"], &letter["reason"]), (&json!("failed"), &json!("unreadable")));

        shop.ground.mend_adjustment(&id).await.unwrap();
        let (status, started) = redrive(shop, &staff, &json!({ "adjustmentId": id.as_str() })).await;
        assert_eq!((status.as_u16(), started), (202, json!({ "orders": 0, "adjustments": 1 })));
        eventually("it is applied", async || {
            let adjustment = shop.store.adjustments.find(&id).await?;
            Ok(adjustment.filter(|adjustment| adjustment.status == AdjustmentStatus::Applied))
        })
        .await
        .unwrap();
        assert_eq!(shop.units(MOUSE).await, 15);
        assert_eq!(dead(shop, &staff).await, Vec::<Value>::new());
        assert_eq!(shop.faults().await, Vec::<String>::new());
    })
    .await;
}

#[tokio::test]
async fn a_restock_that_failed_is_shown_and_made_after_its_redrive() {
    with_hasty_shop(async |shop| {
        let (token, staff) = (shop.customer().await, shop.staff().await);
        shop.worker(&FLAGS).await;
        let id = shop.placed(&token, DOCUMENTED_ORDER).await;
        let order = shop.becomes(&id, Status::Processed).await.id;
        // A fault between the cancel and the worker: the row holds more than can be counted.
        shop.stock(&[(MOUSE, "bangalore", i64::MAX - 9)]).await;
        assert_eq!(shop.post(&format!("/orders/{id}/cancel"), &token, &json!({})).await.status, 202);
        let letter = eventually("the failure is recorded", async || Ok(dead(shop, &staff).await.pop())).await.unwrap();
        assert_eq!((&letter["orderId"], &letter["kind"]), (&json!(id), &json!("OrderCancelled")));
        assert_eq!(letter["reason"], json!(FailureClass::StoreRefused.as_str()));

        shop.stock(&[(MOUSE, "bangalore", -(i64::MAX - 9))]).await;
        let (status, _) = redrive(shop, &staff, &json!({ "orderId": id })).await;
        assert_eq!(status, 202);
        eventually("the stock is back", async || {
            Ok((shop.ground.order(&order).await?.restock == Some(Restock::Done)).then_some(()))
        })
        .await
        .unwrap();
        assert_eq!((shop.units(MOUSE).await, shop.units(LAMP).await), (10, 10));
        assert_eq!(dead(shop, &staff).await, Vec::<Value>::new());
        assert_eq!(shop.faults().await, Vec::<String>::new());
    })
    .await;
}

#[tokio::test]
async fn dead_letters_come_in_pages_orders_first() {
    with_hasty_shop(async |shop| {
        let (token, staff) = (shop.customer().await, shop.staff().await);
        let mut expected = Vec::new();
        for _ in 0..3 {
            let id = shop.placed(&token, DOCUMENTED_ORDER).await;
            let message = Message::OrderPlaced { order_id: id.parse().unwrap() };
            assert!(shop.store.unfinished.give_up(&Forgotten { message, sweeps: 0 }).await.unwrap());
            expected.push(id);
        }
        expected.sort_unstable();
        let product = MOUSE.parse().unwrap();
        for _ in 0..2 {
            let send = shop.ground.adjust_unsent(&[(&product, 1)], shop.clock.now()).await.unwrap();
            let work = Forgotten { message: send.message, sweeps: 0 };
            assert!(shop.store.unfinished.give_up(&work).await.unwrap());
            expected.push(work.message.group().to_owned());
        }
        expected[3..].sort_unstable();

        let (mut seen, mut path) = (Vec::new(), "/admin/dead-letters?limit=2".to_owned());
        loop {
            let page = shop.get(&path, &staff).await.json();
            let letters = page["data"].as_array().unwrap();
            assert!(letters.len() <= 2);
            let id =
                |letter: &Value| letter["orderId"].as_str().or(letter["adjustmentId"].as_str()).unwrap().to_owned();
            seen.extend(letters.iter().map(id));
            assert_eq!(page["hasMore"], page["nextCursor"].is_string());
            let Some(cursor) = page["nextCursor"].as_str() else { break };
            path = format!("/admin/dead-letters?limit=2&cursor={cursor}");
        }
        assert_eq!(seen, expected);
    })
    .await;
}
