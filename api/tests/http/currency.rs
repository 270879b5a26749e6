//! Money end to end, in currencies with no, two and three decimals: exact, never through a float.

use rstest::rstest;
use serde_json::{Value, json};
use shop_domain::order::Status;

use crate::shop::{Answer, MOUSE, Shop, bearer, send, with_shop_of};

async fn with_currency(currency: &'static str, test: impl AsyncFnOnce(&Shop)) {
    let change = |args: &mut crate::shop::Args| {
        args.set("--currency", currency);
    };
    with_shop_of(change, test).await;
}

/// Sets the price with these very digits.
async fn price(shop: &Shop, staff: &str, digits: &str) -> Answer {
    let body = format!(r#"{{"name":"Travel Mouse","description":"","price":{digits}}}"#);
    let request = bearer(shop.request(reqwest::Method::PUT, &format!("/products/{MOUSE}")), staff);
    send(request.header("content-type", "application/json").body(body)).await
}

fn order(total: &str, quantity: u32) -> String {
    format!(
        r#"{{"location":"bangalore","totalAmount":{total},"items":[{{"productId":"{MOUSE}","quantity":{quantity}}}]}}"#
    )
}

#[rstest]
#[case("JPY", "1500", 3, "4500", "4500")]
#[case("JPY", "1500", 1, "1500.000", "1500")]
#[case("INR", "29.99", 3, "89.97", "89.97")]
#[case("INR", "0.1", 3, "0.30", "0.3")] // 0.1 + 0.1 + 0.1 is not 0.3 in floats
#[case("KWD", "1.005", 1, "1.005", "1.005")]
#[case("KWD", "0.335", 3, "1.005", "1.005")]
#[case("KWD", "9007199254740.993", 1, "9007199254740.993", "9007199254740.993")] // no float has these digits
#[tokio::test]
async fn totals_are_exact(
    #[case] currency: &'static str,
    #[case] unit: &str,
    #[case] quantity: u32,
    #[case] total: &str,
    #[case] shown: &str,
) {
    with_currency(currency, async |shop| {
        let (token, staff) = (shop.customer().await, shop.staff().await);
        assert_eq!(price(shop, &staff, unit).await.status, 200);
        let answer = shop.order(&token, None, &order(total, quantity)).await;
        assert_eq!(answer.status, 201, "{answer:?}");
        assert!(answer.text.contains(&format!(r#""totalAmount":{shown},"currency":"{currency}""#)), "{answer:?}");
        let id = answer.json()["orderId"].as_str().unwrap().to_owned();
        // Later prices do not touch it, in the worker neither.
        assert_eq!(price(shop, &staff, "1").await.status, 200);
        shop.worker(&[]).await;
        shop.becomes(&id, Status::Processed).await;
        let read = shop.get(&format!("/orders/{id}"), &token).await;
        assert!(read.text.contains(&format!(r#""totalAmount":{shown},"currency":"{currency}""#)), "{read:?}");
        assert!(read.text.contains(&format!(r#""unitPrice":{unit}"#)), "{read:?}");
        // One smallest unit more is another total.
        let off = shop.order(&token, None, &order("1.001", 1)).await;
        assert_eq!(off.problem(), (409, "total_changed".into()));
    })
    .await;
}

#[rstest]
#[case("JPY", "0.5")]
#[case("INR", "29.999")]
#[case("KWD", "1.0005")]
#[tokio::test]
async fn what_the_currency_cannot_hold_is_refused(#[case] currency: &'static str, #[case] digits: &str) {
    with_currency(currency, async |shop| {
        let (token, staff) = (shop.customer().await, shop.staff().await);
        let refused = price(shop, &staff, digits).await;
        assert_eq!(
            (refused.problem(), refused.pointers()),
            ((400, "invalid_request".into()), vec!["/price".to_owned()])
        );
        let order = shop.order(&token, None, &order(digits, 1)).await;
        assert_eq!(order.status, 409, "no price is such an amount: {order:?}");
    })
    .await;
}

#[tokio::test]
async fn a_total_that_cannot_be_counted_is_refused() {
    with_currency("KWD", async |shop| {
        let (token, staff) = (shop.customer().await, shop.staff().await);
        assert_eq!(price(shop, &staff, "9223372036854775.807").await.status, 200);
        let body: Value = json!({ "location": "bangalore", "items": [{ "productId": MOUSE, "quantity": 2 }] });
        let answer = shop.post("/orders", &token, &body).await;
        assert_eq!((answer.problem(), answer.pointers()), ((400, "invalid_request".into()), vec!["/items".to_owned()]));
        let body: Value = json!({ "location": "bangalore", "items": [{ "productId": MOUSE, "quantity": 1 }] });
        let answer = shop.post("/orders", &token, &body).await;
        assert!(answer.text.contains(r#""totalAmount":9223372036854775.807"#), "{answer:?}");
    })
    .await;
}
