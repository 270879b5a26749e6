//! Products: browsing and what staff change.

use reqwest::Method;
use rstest::rstest;
use serde_json::{Value, json};

use crate::shop::{LAMP, MOUSE, Shop, bearer, eventually, send, with_shop};

fn names(page: &Value) -> Vec<&str> {
    page["data"].as_array().unwrap().iter().map(|product| product["name"].as_str().unwrap()).collect()
}

/// Adds three products to Desk Lamp 1500 and Travel Mouse 1324; the access token of the staff.
async fn fill(shop: &Shop) -> String {
    let staff = shop.staff().await;
    for (name, price) in [("Cable", "15.99"), ("Kettle", "39.99"), ("Office Chair", "219.99")] {
        let body = format!(r#"{{"name":"{name}","description":"Useful","price":{price}}}"#);
        let request = bearer(shop.request(Method::POST, "/products"), &staff);
        let answer = send(request.header("content-type", "application/json").body(body)).await;
        assert_eq!(answer.status, 201, "{answer:?}");
        assert!(answer.text.contains(&format!(r#""price":{price},"#)), "{answer:?}");
    }
    staff
}

#[tokio::test]
async fn a_product_tells_its_price_and_what_there_is() {
    with_shop(async |shop| {
    let answer = shop.get(&format!("/products/{MOUSE}"), "").await;
    assert_eq!(
        answer.text,
        r#"{"id":"67c8830b7ef1b848ac52ebec","name":"Travel Mouse","description":"For the desk","price":1324,"currency":"INR","availability":[{"location":"bangalore","available":10}],"version":1}"#
    );
    shop.stock(&[(MOUSE, "bangalore", -3), (MOUSE, "pune", 2)]).await;
    eventually("the new stock", || async {
        let availability = shop.get(&format!("/products/{MOUSE}"), "").await.json()["availability"].clone();
        let expected = json!([{ "location": "bangalore", "available": 7 }, { "location": "pune", "available": 2 }]);
        (availability == expected).then_some(())
    })
    .await;
    })
    .await;
}

#[rstest]
#[case("0123456789abcdef01234567")]
#[case("nonsense")]
#[case("67C8830B7EF1B848AC52EBEC")]
#[tokio::test]
async fn what_is_not_there_is_not_found(#[case] id: &str) {
    with_shop(async |shop| {
        assert_eq!(shop.get(&format!("/products/{id}"), "").await.problem(), (404, "not_found".into()));
    })
    .await;
}

#[tokio::test]
async fn lists_are_filtered_and_sorted() {
    with_shop(async |shop| {
        fill(shop).await;
        let cases: [(&str, &[&str]); 14] = [
            ("", &["Cable", "Desk Lamp", "Kettle", "Office Chair", "Travel Mouse"]),
            ("?sort=-name", &["Travel Mouse", "Office Chair", "Kettle", "Desk Lamp", "Cable"]),
            ("?sort=price", &["Cable", "Kettle", "Office Chair", "Travel Mouse", "Desk Lamp"]),
            ("?sort=-price&limit=2", &["Desk Lamp", "Travel Mouse"]),
            ("?sort=createdAt&limit=1&q=useful", &["Cable"]),
            ("?sort=-createdAt&limit=1", &["Office Chair"]),
            ("?q=desk", &["Desk Lamp", "Travel Mouse"]),
            ("?q=Off%20CHA", &["Office Chair"]),
            ("?q=hair", &[]),
            ("?minPrice=39.99&maxPrice=219.99", &["Kettle", "Office Chair"]),
            ("?minPrice=40&maxPrice=219.98", &[]),
            ("?location=bangalore", &["Desk Lamp", "Travel Mouse"]),
            ("?location=nowhere", &[]),
            ("?inStock=false", &["Cable", "Kettle", "Office Chair"]),
        ];
        for (query, expected) in cases {
            let answer = shop.get(&format!("/products{query}"), "").await;
            assert_eq!(answer.status, 200, "{query}: {answer:?}");
            assert_eq!(names(&answer.json()), expected, "{query}");
        }
    })
    .await;
}

#[rstest]
#[case("name")]
#[case("-name")]
#[case("price")]
#[case("-price")]
#[case("createdAt")]
#[case("-createdAt")]
#[tokio::test]
async fn pages_make_up_the_list_whatever_is_added_meanwhile(#[case] sort: &str) {
    with_shop(async |shop| {
        let staff = fill(shop).await;
        let all = shop.get(&format!("/products?sort={sort}"), "").await.json();
        assert_eq!((all["hasMore"].clone(), all["nextCursor"].clone()), (json!(false), Value::Null));
        let first = shop.get(&format!("/products?sort={sort}&limit=2"), "").await.json();
        assert_eq!(first["hasMore"], true);
        let early = json!({ "name": "AAA", "description": "", "price": 0.01 });
        let late = json!({ "name": "ZZZ", "description": "", "price": 9999 });
        for body in [early, late] {
            assert_eq!(shop.post("/products", &staff, &body).await.status, 201);
        }
        let mut seen = first["data"].as_array().unwrap().clone();
        let mut cursor = first["nextCursor"].as_str().map(str::to_owned);
        while let Some(next) = cursor {
            let page = shop.get(&format!("/products?sort={sort}&limit=2&cursor={next}"), "").await.json();
            seen.extend(page["data"].as_array().unwrap().iter().cloned());
            cursor = page["nextCursor"].as_str().map(str::to_owned);
        }
        seen.retain(|product| product["name"] != "AAA" && product["name"] != "ZZZ");
        assert_eq!(&seen, all["data"].as_array().unwrap());
    })
    .await;
}

#[rstest]
#[case("?limit=0", "/limit")]
#[case("?limit=101", "/limit")]
#[case("?limit=x", "/limit")]
#[case("?sort=colour", "/sort")]
#[case("?cursor=nonsense", "/cursor")]
#[case("?minPrice=cheap", "/minPrice")]
#[case("?maxPrice=1.001", "/maxPrice")]
#[case("?inStock=maybe", "/inStock")]
#[case("?colour=red", "/colour")]
#[tokio::test]
async fn bad_parameters_are_named(#[case] query: &str, #[case] pointer: &str) {
    with_shop(async |shop| {
        let answer = shop.get(&format!("/products{query}"), "").await;
        assert_eq!(answer.problem(), (400, "invalid_request".into()));
        assert_eq!(answer.json()["errors"][0]["pointer"], pointer);
    })
    .await;
}

#[tokio::test]
async fn a_cursor_of_another_order_is_refused() {
    with_shop(async |shop| {
        fill(shop).await;
        let page = shop.get("/products?limit=1", "").await.json();
        let cursor = page["nextCursor"].as_str().unwrap();
        let answer = shop.get(&format!("/products?sort=price&cursor={cursor}"), "").await;
        assert_eq!(answer.json()["errors"][0]["pointer"], "/cursor");
    })
    .await;
}

#[tokio::test]
async fn what_is_known_is_not_sent_again() {
    with_shop(async |shop| {
        let staff = fill(shop).await;
        for path in [format!("/products/{MOUSE}"), "/products".to_owned()] {
            let first = shop.get(&path, "").await;
            assert_eq!(first.header("cache-control"), "no-cache");
            let tag = first.header("etag").to_owned();
            let again = |tag: String| send(shop.request(Method::GET, &path).header("if-none-match", tag));
            let same = again(tag.clone()).await;
            assert_eq!((same.status.as_u16(), same.text.as_str(), same.header("etag")), (304, "", tag.as_str()));
            assert_eq!(again(format!("\"other\", W/{tag}")).await.status, 304);
            assert_eq!(again("\"other\"".into()).await.status, 200);
            let body = json!({ "name": format!("Mouse {}", tag.len()), "description": path, "price": 1324 });
            assert_eq!(shop.put(&format!("/products/{MOUSE}"), &staff, &body).await.status, 200);
            assert_eq!(again(tag).await.status, 200, "{path} has changed");
        }
    })
    .await;
}

#[tokio::test]
async fn put_makes_or_replaces_and_everyone_sees_it() {
    with_shop(async |shop| {
        let other = shop.replica(|_| {}).await;
        let staff = shop.staff().await;
        let path = "/products/0123456789abcdef01234567";
        let body = json!({ "name": "Drone", "description": "Flies", "price": 499.99 });
        let made = shop.put(path, &staff, &body).await;
        assert_eq!((made.status.as_u16(), made.header("location")), (201, "/api/v1/products/0123456789abcdef01234567"));
        assert_eq!(made.json()["version"], 1);
        assert_eq!(shop.get(path, "").await.json()["price"], 499.99);
        let url = format!("http://{}/api/v1{path}", other.http_addr);
        assert_eq!(send(shop.client.get(&url)).await.json()["price"], 499.99);

        let replaced = shop.put(path, &staff, &json!({ "name": "Drone", "description": "Flies", "price": 450 })).await;
        assert_eq!((replaced.status.as_u16(), replaced.json()["version"].clone()), (200, json!(2)));
        assert_eq!(shop.get(path, "").await.json()["price"], 450, "at once where it was written");
        eventually("the other replica", || async {
            (send(shop.client.get(&url)).await.json()["price"] == 450).then_some(())
        })
        .await;
    })
    .await;
}

#[rstest]
#[case(json!({}), &["/name", "/description", "/price"])]
#[case(json!({ "name": " ", "description": "", "price": 1 }), &["/name"])]
#[case(json!({ "name": "x", "description": "", "price": "1" }), &["/price"])]
#[case(json!({ "name": "x", "description": "", "price": -1 }), &["/price"])]
#[case(json!({ "name": "x", "description": "", "price": 0.001 }), &["/price"])]
#[case(json!({ "name": "x".repeat(201), "description": "x".repeat(5001), "price": 1, "id": 1 }), &["/name", "/description", "/id"])]
#[tokio::test]
async fn bad_products_are_refused(#[case] body: Value, #[case] expected: &[&str]) {
    with_shop(async |shop| {
        let staff = shop.staff().await;
        let answer = shop.put(&format!("/products/{LAMP}"), &staff, &body).await;
        assert_eq!(answer.problem(), (400, "invalid_request".into()));
        assert_eq!(answer.pointers(), expected);
    })
    .await;
}
