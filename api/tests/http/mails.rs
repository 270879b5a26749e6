//! What became of an order's mails, and sending one again.

use serde_json::{Value, json};
use shop_domain::{
    id::{OrderId, OutboxId},
    order::Status,
};
use shop_runtime::ids;
use shop_store::{
    mails::MailKind,
    orders::{BuyerEmail, Settlement, Viewer},
    outbox::OutboxEntry,
};

use crate::shop::{DOCUMENTED_ORDER, Shop, eventually, random_name, with_shop};

/// An order of a customer, settled as the worker would; the customer's token, the order, and the customer's address.
async fn settled(shop: &Shop, (to, kind): (Status, MailKind)) -> (String, OrderId, BuyerEmail) {
    let email = format!("{}@example.com", random_name("m"));
    let token = shop.register(&email).await;
    let order = shop.order(&token, None, DOCUMENTED_ORDER).await.json();
    let id: OrderId = order["orderId"].as_str().unwrap().parse().unwrap();
    let entry = OutboxId::from_bits(ids::random_bytes().unwrap());
    let settlement = Settlement {
        id: id.clone(),
        from: Status::Pending,
        to,
        reason: None,
        shortages: Vec::new(),
        outbox: vec![OutboxEntry::due(entry, kind.entry(), shop.clock.now())],
        at: shop.clock.now(),
    };
    assert!(shop.store.orders.settle(&settlement).await.unwrap());
    (token, id, BuyerEmail::new(email))
}

/// The mails that the order shows, as soon as there are so many.
async fn mails(shop: &Shop, token: &str, (id, count): (&OrderId, usize)) -> Vec<Value> {
    eventually(&format!("{count} mails"), || async {
        let order = shop.get(&format!("/orders/{id}"), token).await.json();
        let mails = order["mails"].as_array().cloned().unwrap_or_default();
        (mails.len() == count).then_some(mails)
    })
    .await
}

#[tokio::test]
async fn an_order_shows_its_mails_to_its_owner_and_staff() {
    with_shop(async |shop| {
        let (owner, id, _) = settled(shop, (Status::Processed, MailKind::Confirmation)).await;
        let staff = shop.staff().await;
        for token in [&owner, &staff] {
            let mail = mails(shop, token, (&id, 1)).await.remove(0);
            assert_eq!((&mail["kind"], &mail["state"]), (&json!("Confirmation"), &json!("Sent")));
            assert_eq!((&mail["attempts"], &mail["reason"]), (&json!(1), &Value::Null));
            assert!(mail["at"].is_string());
        }
        let listed = shop.get("/orders", &owner).await.json();
        assert_eq!(listed["data"][0]["mails"][0]["state"], "Sent");
    })
    .await;
}

#[tokio::test]
async fn staff_have_a_mail_sent_again_also_to_a_suppressed_address() {
    with_shop(async |shop| {
        let (owner, id, email) = settled(shop, (Status::Failed, MailKind::Failure)).await;
        let staff = shop.staff().await;
        mails(shop, &owner, (&id, 1)).await;
        shop.store.suppressed_addresses.suppress(&email, "MessageRejected", shop.clock.now()).await.unwrap();
        let path = format!("/orders/{id}/mails");
        for (count, body) in [(2, json!({})), (3, json!({ "kind": "Failure" }))] {
            let answer = shop.post(&path, &staff, &body).await;
            assert_eq!((answer.status.as_u16(), answer.json()), (202, json!({ "orderId": id, "kind": "Failure" })));
            let all = mails(shop, &owner, (&id, count)).await;
            assert!(all.iter().all(|mail| mail["kind"] == "Failure" && mail["state"] == "Sent"), "{all:?}");
        }
        assert_eq!(shop.store.audit.read().await.unwrap().mails_asked_again, 2);
    })
    .await;
}

#[tokio::test]
async fn a_mail_that_would_not_be_true_is_not_sent() {
    with_shop(async |shop| {
        let staff = shop.staff().await;
        let customer = shop.customer().await;
        let order = shop.order(&customer, None, DOCUMENTED_ORDER).await.json();
        let path = format!("/orders/{}/mails", order["orderId"].as_str().unwrap());
        for body in [json!({}), json!({ "kind": "Confirmation" })] {
            let answer = shop.post(&path, &staff, &body).await;
            assert_eq!(answer.problem(), (409, "no_mail".into()));
            assert_eq!(answer.json()["orderStatus"], "Pending");
        }
        let answer = shop.post(&path, &staff, &json!({ "kind": "Greeting" })).await;
        assert_eq!((answer.problem(), answer.pointers()), ((400, "invalid_request".into()), vec!["/kind".to_owned()]));
    })
    .await;
}

#[tokio::test]
async fn a_buyer_who_erased_their_account_is_sent_no_mail_again() {
    with_shop(async |shop| {
        let (owner, id, _) = settled(shop, (Status::Processed, MailKind::Confirmation)).await;
        let staff = shop.staff().await;
        mails(shop, &owner, (&id, 1)).await;
        let user = shop.store.orders.find(&id, &Viewer::Staff).await.unwrap().unwrap().user_id;
        shop.store.orders.anonymise(&user).await.unwrap();
        for body in [json!({}), json!({ "kind": "Confirmation" })] {
            let answer = shop.post(&format!("/orders/{id}/mails"), &staff, &body).await;
            assert_eq!(answer.problem(), (409, "no_mail".into()));
        }
        assert_eq!(shop.store.audit.read().await.unwrap().mails_asked_again, 0);
    })
    .await;
}
