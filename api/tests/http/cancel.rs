//! Cancelling end to end: the api, the relay, the queue and a real worker. Stock and ledger must add up.

use futures::future::join_all;
use serde_json::{Value, json};
use shop_domain::{message::Message, order::Status};
use shop_harness::eventually;
use shop_store::{
    orders::{Reason, Restock},
    outbox::OutboxKind,
};

use crate::shop::{Answer, DOCUMENTED_ORDER, LAMP, MOUSE, Shop, with_shop, with_shop_of};

async fn cancel(shop: &Shop, token: &str, id: &str) -> Answer {
    shop.post(&format!("/orders/{id}/cancel"), token, &json!({})).await
}

/// An order that a worker has processed.
async fn processed(shop: &Shop, token: &str) -> String {
    let id = shop.placed(token, DOCUMENTED_ORDER).await;
    shop.becomes(&id, Status::Processed).await;
    id
}

async fn restocked(shop: &Shop, id: &str) {
    eventually("the stock is back", async || {
        let order = shop.becomes(id, Status::Cancelled).await;
        Ok((order.restock == Some(Restock::Done)).then_some(()))
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn a_processed_order_is_cancelled_within_the_window_and_its_stock_goes_back_once() {
    with_shop(async |shop| {
        shop.worker(&[]).await;
        let token = shop.customer().await;
        let id = processed(shop, &token).await;
        assert_eq!((shop.units(MOUSE).await, shop.units(LAMP).await), (9, 8));

        let answer = cancel(shop, &token, &id).await;
        assert_eq!((answer.status.as_u16(), answer.json()["status"].clone()), (202, json!("Cancelled")));
        let history: Vec<Value> = answer.json()["history"].as_array().unwrap().clone();
        assert_eq!(
            history.iter().map(|step| &step["status"]).collect::<Vec<_>>(),
            ["Pending", "Processed", "Cancelled"]
        );
        assert_eq!(shop.get(&format!("/orders/{id}"), &token).await.json()["status"], "Cancelled", "at once");
        restocked(shop, &id).await;
        assert_eq!((shop.units(MOUSE).await, shop.units(LAMP).await), (10, 10));

        // The message comes again, twice.
        let body = Message::OrderCancelled { order_id: id.parse().unwrap() }.to_body();
        for _ in 0..2 {
            shop.ground.send(&body).await.unwrap();
        }
        shop.quiet().await;
        assert_eq!((shop.units(MOUSE).await, shop.units(LAMP).await), (10, 10));
        assert_eq!(shop.faults().await, Vec::<String>::new());
    })
    .await;
}

#[tokio::test]
async fn of_many_who_cancel_a_processed_order_at_once_one_does() {
    with_shop(async |shop| {
        shop.worker(&[]).await;
        let token = shop.customer().await;
        let id = processed(shop, &token).await;
        // As many connections to the database as there will be cancels: none waits for one.
        join_all((0..8).map(|_| shop.get("/orders", &token))).await;
        let answers = join_all((0..8).map(|_| cancel(shop, &token, &id))).await;
        let (done, late): (Vec<_>, Vec<_>) = answers.iter().partition(|answer| answer.status == 202);
        assert_eq!((done.len(), late.len()), (1, 7));
        for answer in late {
            assert_eq!(answer.problem(), (409, "not_cancellable".into()));
            assert_eq!(answer.json()["reason"], "already_cancelled");
        }
        restocked(shop, &id).await;
        shop.quiet().await;
        assert_eq!((shop.units(MOUSE).await, shop.units(LAMP).await), (10, 10));
        assert_eq!(shop.faults().await, Vec::<String>::new());
    })
    .await;
}

#[tokio::test]
async fn after_the_window_only_staff_cancel() {
    let no_window = |args: &mut crate::shop::Args| {
        args.set("--cancel-window-minutes", "0");
    };
    with_shop_of(no_window, async |shop| {
        shop.worker(&[]).await;
        let (token, staff) = (shop.customer().await, shop.staff().await);
        let id = processed(shop, &token).await;
        let answer = cancel(shop, &token, &id).await;
        assert_eq!(answer.problem(), (409, "not_cancellable".into()));
        assert_eq!(
            (&answer.json()["orderStatus"], &answer.json()["reason"]),
            (&json!("Processed"), &json!("window_over"))
        );
        assert_eq!(shop.units(MOUSE).await, 9);
        assert_eq!(cancel(shop, &staff, &id).await.status, 202);
        restocked(shop, &id).await;
        assert_eq!(shop.faults().await, Vec::<String>::new());
    })
    .await;
}

#[tokio::test]
async fn an_order_cancelled_between_send_and_processing_moves_nothing() {
    with_shop(async |shop| {
        let token = shop.customer().await;
        let id = shop.placed(&token, DOCUMENTED_ORDER).await;
        eventually("its message is in the queue", async || Ok((shop.queue.counts().await?.visible == 1).then_some(())))
            .await
            .unwrap();
        assert_eq!(cancel(shop, &token, &id).await.status, 200);
        shop.worker(&[]).await;
        shop.quiet().await;
        let order = shop.becomes(&id, Status::Cancelled).await;
        assert_eq!((order.version, order.restock), (2, None));
        assert!(order.outbox.iter().all(|entry| entry.kind == OutboxKind::CancellationMail), "{:?}", order.outbox);
        assert_eq!((shop.units(MOUSE).await, shop.units(LAMP).await), (10, 10));
        assert_eq!(shop.faults().await, Vec::<String>::new());
    })
    .await;
}

#[tokio::test]
async fn cancels_that_race_the_worker_leave_the_books_right() {
    with_shop(async |shop| {
        shop.stock(&[(MOUSE, "bangalore", 100), (LAMP, "bangalore", 100)]).await;
        let token = shop.customer().await;
        let ids = join_all((0..24).map(|_| shop.placed(&token, DOCUMENTED_ORDER))).await;
        shop.worker(&["--concurrency", "10"]).await;
        let answers = join_all(ids.iter().map(|id| cancel(shop, &token, id))).await;
        for (answer, id) in answers.iter().zip(&ids) {
            let order = shop.becomes(id, Status::Cancelled).await;
            assert_eq!(order.reason, Some(Reason::Cancelled));
            // Whoever was first: what held stock gives it back, what held none does not.
            let owed = order.history.iter().any(|step| step.status == Status::Processed);
            assert_eq!(answer.status.as_u16(), if owed { 202 } else { 200 }, "{answer:?}");
            assert_eq!(order.restock.is_some(), owed);
            if owed {
                restocked(shop, id).await;
            }
        }
        shop.quiet().await;
        assert_eq!((shop.units(MOUSE).await, shop.units(LAMP).await), (110, 110));
        assert_eq!(shop.faults().await, Vec::<String>::new());
    })
    .await;
}

#[tokio::test]
async fn an_order_that_failed_is_not_cancelled() {
    with_shop(async |shop| {
        let token = shop.customer().await;
        let id = shop.placed(&token, DOCUMENTED_ORDER).await;
        shop.stock(&[(MOUSE, "bangalore", -10)]).await;
        shop.worker(&[]).await;
        shop.becomes(&id, Status::Failed).await;
        let answer = cancel(shop, &token, &id).await;
        assert_eq!(answer.problem(), (409, "not_cancellable".into()));
        assert_eq!((&answer.json()["orderStatus"], &answer.json()["reason"]), (&json!("Failed"), &json!("failed")));
    })
    .await;
}
