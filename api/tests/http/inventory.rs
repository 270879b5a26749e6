//! Changes of stock that staff ask for, and the ledger.

use jiff::Timestamp;
use rstest::rstest;
use serde_json::{Value, json};

use crate::shop::{LAMP, MOUSE, eventually, with_shop};

#[tokio::test]
async fn an_adjustment_is_accepted_and_can_be_looked_up() {
    with_shop(async |shop| {
    let staff = shop.staff().await;
    let lines = json!([{ "productId": MOUSE, "delta": 5 }, { "productId": LAMP, "delta": -2 }, { "productId": MOUSE, "delta": 1 }]);
    let body = json!({ "location": "pune", "reason": "delivery 4711", "lines": lines });
    let answer = shop.post("/inventory/adjustments", &staff, &body).await;
    assert_eq!(answer.status, 202, "{answer:?}");
    let id = answer.json()["adjustmentId"].as_str().unwrap().to_owned();
    let adjustment = shop.get(&format!("/inventory/adjustments/{id}"), &staff).await.json();
    assert_eq!(adjustment["status"], "Pending");
    assert_eq!(adjustment["location"], "pune");
    assert_eq!(adjustment["lines"], json!([{ "productId": MOUSE, "delta": 6 }, { "productId": LAMP, "delta": -2 }]));
    assert_eq!((&adjustment["refused"], &adjustment["settledAt"]), (&json!([]), &Value::Null));
    })
    .await;
}

#[tokio::test]
async fn what_became_of_an_adjustment_is_told() {
    with_shop(async |shop| {
        let staff = shop.staff().await;
        shop.worker(&[]).await;
        let deltas = |mice: i64, lamps: i64| {
            json!([{ "productId": MOUSE, "delta": mice }, { "productId": LAMP, "delta": lamps }])
        };
        for (lines, status, refused) in [
            (deltas(5, -8), "Applied", json!([])),
            (deltas(1, -3), "Refused", json!([{ "productId": LAMP, "delta": -3, "available": 2 }])),
        ] {
            let body = json!({ "location": "bangalore", "reason": "delivery 4711", "lines": lines });
            let accepted = shop.post("/inventory/adjustments", &staff, &body).await.json();
            let path = format!("/inventory/adjustments/{}", accepted["adjustmentId"].as_str().unwrap());
            let told = eventually("it is settled", || async {
                Some(shop.get(&path, &staff).await.json()).filter(|adjustment| adjustment["status"] != "Pending")
            })
            .await;
            assert_eq!((&told["status"], &told["refused"], &told["lines"]), (&json!(status), &refused, &lines));
            let [created, settled] =
                ["createdAt", "settledAt"].map(|name| told[name].as_str().unwrap().parse::<Timestamp>().unwrap());
            assert!(created <= settled, "{told}");
        }
        assert_eq!((shop.units(MOUSE).await, shop.units(LAMP).await), (15, 2));
    })
    .await;
}

#[rstest]
#[case(json!({}), &["/location", "/reason", "/lines"])]
#[case(json!({ "location": "a@b", "reason": "x", "lines": [{ "productId": "x", "delta": 0 }] }), &["/location", "/lines/0/productId", "/lines/0/delta"])]
#[case(json!({ "location": "pune", "reason": "x", "lines": [{ "productId": MOUSE, "delta": 1.5 }, { "delta": 1, "note": "" }] }), &["/lines/0/delta", "/lines/1/productId", "/lines/1/note"])]
#[tokio::test]
async fn all_faults_are_told_at_once(#[case] body: Value, #[case] expected: &[&str]) {
    with_shop(async |shop| {
        let staff = shop.staff().await;
        let answer = shop.post("/inventory/adjustments", &staff, &body).await;
        assert_eq!(answer.problem(), (400, "invalid_request".into()));
        assert_eq!(answer.pointers(), expected);
    })
    .await;
}

#[tokio::test]
async fn unknown_products_are_named() {
    with_shop(async |shop| {
        let staff = shop.staff().await;
        let unknown = "0123456789abcdef01234567";
        let lines = json!([{ "productId": MOUSE, "delta": 5 }, { "productId": unknown, "delta": 1 }]);
        let body = json!({ "location": "pune", "reason": "delivery", "lines": lines });
        let answer = shop.post("/inventory/adjustments", &staff, &body).await;
        assert_eq!(answer.problem(), (422, "unknown_product".into()));
        assert_eq!(answer.json()["products"], json!([unknown]));
    })
    .await;
}

#[tokio::test]
async fn a_thousand_lines_fit_and_more_do_not() {
    with_shop(async |shop| {
        let staff = shop.staff().await;
        for (count, status) in [(1000, 202), (1001, 400)] {
            let lines = vec![json!({ "productId": MOUSE, "delta": 1 }); count];
            let body = json!({ "location": "pune", "reason": "delivery", "lines": lines });
            assert_eq!(shop.post("/inventory/adjustments", &staff, &body).await.status, status, "{count}");
        }
    })
    .await;
}

#[tokio::test]
async fn the_ledger_is_listed_newest_first_page_by_page() {
    with_shop(async |shop| {
        let staff = shop.staff().await;
        for delta in [1, 2, 3] {
            shop.stock(&[(MOUSE, "pune", delta), (LAMP, "pune", delta)]).await;
        }
        let path = format!("/inventory/movements?productId={MOUSE}&location=pune&limit=2");
        let first = shop.get(&path, &staff).await.json();
        let deltas =
            |page: &Value| page["data"].as_array().unwrap().iter().map(|l| l["delta"].clone()).collect::<Vec<_>>();
        assert_eq!(deltas(&first), [3, 2]);
        assert_eq!(first["data"][0]["cause"], "Adjustment");
        let next = shop.get(&format!("{path}&cursor={}", first["nextCursor"].as_str().unwrap()), &staff).await.json();
        assert_eq!((deltas(&next), next["hasMore"].clone()), (vec![json!(1)], json!(false)));
        assert_eq!(deltas(&shop.get("/inventory/movements", &staff).await.json()).len(), 8);
    })
    .await;
}
