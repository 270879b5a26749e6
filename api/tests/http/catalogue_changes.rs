//! What staff change of a product, without undoing each other's changes unseen, and what becomes of an archived one.

use std::collections::BTreeSet;

use reqwest::Method;
use rstest::rstest;
use serde_json::{Value, json};
use shop_domain::id::ProductId;
use shop_runtime::ids;
use shop_store::products::{ProductFacts, Seen};

use crate::shop::{Answer, DOCUMENTED_ORDER, LAMP, MOUSE, Shop, bearer, eventually, send, with_shop};

async fn change(shop: &Shop, method: Method, if_match: &str, body: &Value) -> Answer {
    let staff = shop.staff().await;
    let request = bearer(shop.request(method, &format!("/products/{MOUSE}")), &staff).json(body);
    send(if if_match.is_empty() { request } else { request.header("if-match", if_match) }).await
}

#[rstest]
#[case(json!({ "name": "Mouse" }), ("Mouse", "For the desk", json!(1324)))]
#[case(json!({ "description": "" }), ("Travel Mouse", "", json!(1324)))]
#[case(json!({ "price": 0.5, "name": " Mat " }), ("Mat", "For the desk", json!(0.5)))]
#[tokio::test]
async fn a_patch_changes_what_it_names(#[case] body: Value, #[case] after: (&str, &str, Value)) {
    with_shop(async |shop| {
        let answer = change(shop, Method::PATCH, "\"1\"", &body).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        let seen = shop.get(&format!("/products/{MOUSE}"), "").await;
        assert_eq!(seen.text, answer.text, "at once, where it was written");
        assert_eq!(seen.header("etag"), answer.header("etag"));
        let product = seen.json();
        assert_eq!(
            (&product["name"], &product["description"], &product["price"]),
            (&json!(after.0), &json!(after.1), &after.2)
        );
        assert_eq!(product["version"], 2);
        let found = shop.get(&format!("/products?q={}", after.0.split(' ').next().unwrap()), "").await.json();
        assert_eq!(found["data"][0]["id"], MOUSE, "it is found under its present name");
    })
    .await;
}

#[rstest]
#[case(json!({}), "\"1\"", 400, &[""])]
#[case(json!({ "name": " ", "price": "1", "id": MOUSE }), "\"1\"", 400, &["/name", "/price", "/id"])]
#[case(json!({ "name": "x" }), "", 428, &[])]
#[case(json!({ "name": "x" }), "1", 400, &[""])]
#[tokio::test]
async fn a_patch_without_sense_or_precondition_is_refused(
    #[case] body: Value,
    #[case] if_match: &str,
    #[case] status: u16,
    #[case] pointers: &[&str],
) {
    with_shop(async |shop| {
        let answer = change(shop, Method::PATCH, if_match, &body).await;
        assert_eq!(answer.problem().0, status);
        assert_eq!(answer.pointers(), pointers);
        assert_eq!(shop.get(&format!("/products/{MOUSE}"), "").await.json()["version"], 1);
    })
    .await;
}

#[tokio::test]
async fn who_changes_what_another_has_changed_is_told() {
    with_shop(async |shop| {
        let path = format!("/products/{MOUSE}");
        let tag = shop.get(&path, "").await.header("etag").to_owned();
        let body = json!({ "name": "Mouse", "description": "Wired", "price": 10 });
        assert_eq!(change(shop, Method::PUT, &tag, &body).await.status, 200);
        for method in [Method::PUT, Method::PATCH, Method::DELETE] {
            let stale = change(shop, method.clone(), &tag, &body).await;
            assert_eq!(stale.problem(), (412, "precondition_failed".into()), "{method}");
        }
        assert_eq!(shop.get(&path, "").await.json()["version"], 2);
        // A sale changes the representation, and so its tag, but is no conflicting change.
        let tag = shop.get(&path, "").await.header("etag").to_owned();
        shop.stock(&[(MOUSE, "bangalore", -1)]).await;
        let other = eventually("the tag after the sale", || async {
            Some(shop.get(&path, "").await.header("etag").to_owned()).filter(|other| *other != tag)
        });
        assert!(other.await.starts_with("\"2-"));
        assert_eq!(change(shop, Method::PATCH, &tag, &json!({ "price": 11 })).await.json()["version"], 3);
        assert_eq!(change(shop, Method::PATCH, "*", &json!({ "price": 12 })).await.json()["version"], 4);
        let unknown = bearer(shop.request(Method::PUT, "/products/0123456789abcdef01234567"), &shop.staff().await);
        let made = send(unknown.header("if-match", "*").json(&body)).await;
        assert_eq!(made.problem(), (412, "precondition_failed".into()), "with If-Match nothing is made");
    })
    .await;
}

#[tokio::test]
async fn of_simultaneous_changes_of_one_version_one_is_made() {
    with_shop(async |shop| {
        let staff = shop.staff().await;
        let patches = (0..8).map(|price| {
            let request = bearer(shop.request(Method::PATCH, &format!("/products/{MOUSE}")), &staff);
            send(request.header("if-match", "\"1\"").json(&json!({ "price": price })))
        });
        let answers = futures::future::join_all(patches).await;
        let count = |status: u16| answers.iter().filter(|answer| answer.status == status).count();
        assert_eq!((count(200), count(412)), (1, 7), "{answers:?}");
    })
    .await;
}

#[tokio::test]
async fn an_archived_product_is_gone_but_its_orders_and_its_stock_are_not() {
    with_shop(async |shop| {
        let (customer, staff, path) = (shop.customer().await, shop.staff().await, format!("/products/{MOUSE}"));
        let order = shop.order(&customer, None, DOCUMENTED_ORDER).await.json();
        assert_eq!(shop.get("/products", "").await.json()["data"].as_array().unwrap().len(), 2);

        let archive = || async { send(bearer(shop.request(Method::DELETE, &path), &staff)).await };
        let archived = archive().await;
        assert_eq!((archived.status.as_u16(), archived.text.as_str()), (204, ""));
        assert_eq!(archive().await.problem(), (404, "not_found".into()));
        assert_eq!(shop.get(&path, "").await.problem(), (404, "not_found".into()));
        let listed = shop.get("/products", "").await.json();
        assert_eq!((listed["data"].as_array().unwrap().len(), &listed["data"][0]["id"]), (1, &json!(LAMP)));
        let change = bearer(shop.request(Method::PATCH, &path), &staff).header("if-match", "*");
        assert_eq!(send(change.json(&json!({ "price": 1 }))).await.problem(), (404, "not_found".into()));

        let refused = shop.order(&customer, None, DOCUMENTED_ORDER).await;
        assert_eq!(refused.problem(), (422, "unknown_product".into()));
        let known = shop.get(&format!("/orders/{}", order["orderId"].as_str().unwrap()), &customer).await.json();
        assert_eq!(known["items"], order["items"], "an order keeps what it was made of");
        // What is still on the shelves can be counted and written off.
        let lines = json!([{ "productId": MOUSE, "delta": -3 }]);
        let body = json!({ "location": "bangalore", "reason": "written off", "lines": lines });
        assert_eq!(shop.post("/inventory/adjustments", &staff, &body).await.status, 202);

        let body = json!({ "name": "Mouse", "description": "Again", "price": 7 });
        let back = shop.put(&path, &staff, &body).await;
        assert_eq!((back.status.as_u16(), back.json()["version"].clone()), (200, json!(3)));
        assert_eq!(back.json()["availability"], json!([{ "location": "bangalore", "available": 10 }]));
        assert_eq!(shop.get(&path, "").await.json()["description"], "Again");
    })
    .await;
}

fn random_below(limit: u8) -> u8 {
    ids::random_bytes::<1>().unwrap()[0] % limit
}

/// Makes a product; many have the same name and the same price.
async fn make(shop: &Shop) -> ProductId {
    let id = ProductId::from_bits(ids::random_bytes().unwrap());
    let facts = ProductFacts {
        name: format!("Thing {}", random_below(5)),
        description: String::new(),
        price: i64::from(random_below(5)).try_into().unwrap(),
    };
    shop.store.products.put(&id, &facts, shop.clock.now()).await.unwrap();
    id
}

#[rstest]
#[case("name")]
#[case("-name")]
#[case("price")]
#[case("-price")]
#[case("createdAt")]
#[case("-createdAt")]
#[tokio::test]
async fn pages_neither_repeat_nor_skip_while_products_come_and_go(#[case] sort: &str) {
    with_shop(async |shop| {
        let mut lasting = BTreeSet::new();
        for _ in 0..40 {
            lasting.insert(make(shop).await);
        }
        let (mut seen, mut cursor, mut pages) = (Vec::new(), String::new(), 0);
        loop {
            let page = shop.get(&format!("/products?q=thing&sort={sort}&limit=7&cursor={cursor}"), "").await.json();
            seen.extend(
                page["data"].as_array().unwrap().iter().map(|product| product["id"].as_str().unwrap().to_owned()),
            );
            pages += 1;
            let Some(next) = page["nextCursor"].as_str() else { break };
            cursor = next.to_owned();
            // New ones may come behind the cursor for ever: only so many.
            let mut fresh = Vec::new();
            for _ in 0..(if pages < 6 { 4 } else { 0 }) {
                fresh.push(make(shop).await);
            }
            let doomed = lasting.iter().nth(usize::from(random_below(u8::try_from(lasting.len()).unwrap()))).cloned();
            for id in fresh.into_iter().take(1).chain(doomed) {
                let version = 1;
                shop.store.products.archive(Seen { id: &id, version, now: shop.clock.now() }).await.unwrap();
                lasting.remove(&id);
            }
        }
        let distinct: BTreeSet<_> = seen.iter().cloned().collect();
        assert_eq!(distinct.len(), seen.len(), "a product came twice");
        let skipped: Vec<_> = lasting.iter().filter(|id| !distinct.contains(id.as_str())).collect();
        assert!(skipped.is_empty() && pages > 5, "{skipped:?} were there all the time, in {pages} pages");
    })
    .await;
}
