//! The catalogue's caches: how often MongoDB is asked, and what a write does to them on every replica.

use std::{sync::Arc, time::Duration};

use futures::future::join_all;
use mongodb::{
    Client, Database,
    bson::{Document, doc},
};
use reqwest::Method;
use secrecy::ExposeSecret;
use serde_json::json;
use shop_api::service::catalogue::{Browse, Catalogue, Sort};
use shop_domain::id::ProductId;
use shop_harness::{Link, Servers};
use shop_runtime::ids;
use shop_store::{
    catalogue_cache::{CatalogueCache, Lookup},
    redis_link::RedisLink,
};
use tokio::time::timeout;

use crate::shop::{Args, MOUSE, Shop, eventually, send, with_shop, with_shop_of};

fn everything() -> Browse {
    Browse {
        terms: Vec::new(),
        location: None,
        in_stock: None,
        min_price: None,
        max_price: None,
        sort: Sort::Name,
        cursor: None,
        limit: 20,
    }
}

/// What MongoDB was asked, by collection, from now on.
struct Record(Database);

impl Record {
    async fn begin(shop: &Shop) -> Self {
        let config = shop.args.config();
        let client = Client::with_uri_str(config.store.mongodb_uri.expose_secret()).await.unwrap();
        let database = client.database(&config.store.mongodb_database);
        database.run_command(doc! { "profile": 2 }).await.unwrap();
        Self(database)
    }

    async fn queries(&self, collection: &str) -> u64 {
        let asked = doc! { "command.find": collection };
        self.0.collection::<Document>("system.profile").count_documents(asked).await.unwrap()
    }
}

#[tokio::test]
async fn five_thousand_readers_of_an_expired_key_ask_once() {
    with_shop(async |shop| {
        let redis = shop.args.config().store.redis_url().unwrap().clone();
        let redis = RedisLink::connect(&redis, &ids::random_hex::<6>().unwrap()).unwrap();
        for cache in [CatalogueCache::disabled(), CatalogueCache::new(redis)] {
            let catalogue =
                Arc::new(Catalogue::new(shop.store.clone(), cache, shop.clock.clone(), "INR".parse().unwrap()));
            let browse = everything();
            let read = async || {
                let served = catalogue.browse(&browse, |page| serde_json::to_vec(&page.offers.len())).await.unwrap();
                served.read_at
            };
            let first = read().await;
            eventually("the page is read anew when it has expired", || async { (read().await != first).then_some(()) })
                .await;
            // Expired by a write rather than by time, so that nobody reads it before all do.
            let facts = shop.store.products.find(&MOUSE.parse().unwrap()).await.unwrap().unwrap();
            let facts = shop_store::products::ProductFacts {
                name: facts.name,
                description: facts.description,
                price: facts.price,
            };
            catalogue.put(&MOUSE.parse().unwrap(), &facts, None).await.unwrap();
            let record = Record::begin(shop).await;
            let before = (record.queries("products").await, record.queries("stock").await);
            let seen = join_all((0..5_000).map(|_| read())).await;
            assert!(seen.iter().all(|read_at| *read_at == seen[0]));
            assert_eq!((record.queries("products").await, record.queries("stock").await), (before.0 + 1, before.1 + 1));
        }
    })
    .await;
}

#[tokio::test]
async fn a_scan_of_invented_ids_neither_asks_twice_nor_drives_out_products() {
    with_shop(async |shop| {
        let catalogue =
            Catalogue::new(shop.store.clone(), CatalogueCache::disabled(), shop.clock.clone(), "INR".parse().unwrap());
        let look = async |id: &ProductId| {
            let served = catalogue.offer(id, |offer| serde_json::to_vec(&offer.product.name)).await.unwrap();
            served.map(|served| served.read_at)
        };
        let invented = ProductId::from_bits(ids::random_bytes().unwrap());
        assert!(look(&invented).await.is_none());
        let record = Record::begin(shop).await;
        let again = join_all((0..100).map(|_| look(&invented))).await;
        assert!(again.iter().all(Option::is_none));
        assert!(record.queries("products").await < 10, "what is unknown is remembered for a moment");

        let mouse: ProductId = MOUSE.parse().unwrap();
        let known = look(&mouse).await.unwrap();
        for _ in 0..20 {
            join_all((0..100).map(async |_| look(&ProductId::from_bits(ids::random_bytes().unwrap())).await)).await;
        }
        // The same answer as long as it is the last known one: nothing has driven it out.
        shop.store.gate.close();
        let kept = eventually("the last known answer", || async { Some(look(&mouse).await.unwrap()) });
        assert!(kept.await >= known);
    })
    .await;
}

#[tokio::test]
async fn a_product_that_is_made_is_there_at_once_although_it_was_unknown() {
    with_shop(async |shop| {
        let (staff, path) = (shop.staff().await, "/products/0123456789abcdef01234567");
        assert_eq!(shop.get(path, "").await.status, 404);
        let body = json!({ "name": "Drone", "description": "Flies", "price": 499.99 });
        assert_eq!(shop.put(path, &staff, &body).await.status, 201);
        assert_eq!(shop.get(path, "").await.status, 200);
    })
    .await;
}

#[tokio::test]
async fn another_replica_shows_a_write_within_a_second() {
    with_shop(async |shop| {
        let other = shop.replica(|_| {}).await;
        let (staff, path) = (shop.staff().await, format!("/products/{MOUSE}"));
        let there = async |path: &str| {
            let url = format!("http://{}/api/v1{path}", other.http_addr);
            send(shop.client.get(url)).await
        };
        for price in 1..4 {
            assert_eq!(there(&path).await.status, 200);
            assert_eq!(there("/products?q=mouse").await.status, 200);
            let body = json!({ "name": "Travel Mouse", "description": "For the desk", "price": price });
            assert_eq!(shop.put(&path, &staff, &body).await.status, 200);
            assert_eq!(shop.get(&path, "").await.json()["price"], price, "at once where it was written");
            let seen = eventually("the other replica shows it", || async {
                let (one, list) = (there(&path).await.json(), there("/products?q=mouse").await.json());
                (one["price"] == price && list["data"][0]["price"] == price).then_some(())
            });
            // Five times what is promised: the machine that runs the tests may be busy.
            timeout(Duration::from_secs(5), seen).await.expect("within a second");
        }
    })
    .await;
}

#[tokio::test]
async fn a_write_while_redis_is_away_is_not_undone_when_redis_comes_back() {
    let (link, url) = Link::to_redis(&Servers::from_environment().unwrap().redis_url).await.unwrap();
    let through = |args: &mut Args| {
        args.set("--redis-url", &url);
    };
    with_shop_of(through, async |shop| {
        let other = shop.replica(|_| {}).await;
        let (staff, path) = (shop.staff().await, format!("/products/{MOUSE}"));
        let there = async || send(shop.client.get(format!("http://{}/api/v1{path}", other.http_addr))).await.json();
        assert_eq!(
            (shop.get(&path, "").await.json()["price"].clone(), there().await["price"].clone()),
            (json!(1324), json!(1324))
        );
        link.cut();
        let body = json!({ "name": "Travel Mouse", "description": "For the desk", "price": 1 });
        assert_eq!(shop.put(&path, &staff, &body).await.status, 200);
        link.mend();
        // Longer than Redis is left alone after a failure, and far shorter than what it keeps: the old price is in there.
        for _ in 0..60 {
            let answer = shop.get(&path, "").await;
            let price = answer.json()["price"].clone();
            assert_eq!((answer.status.as_u16(), price), (200, json!(1)), "the writer never shows the old price again");
            tokio::time::sleep(Duration::from_millis(50)).await; // the pace of the readers, within their limit
        }
        eventually("the other replica shows it", || async { (there().await["price"] == 1).then_some(()) }).await;
    })
    .await;
}

#[tokio::test]
async fn what_was_read_before_a_write_and_kept_after_it_is_not_found() {
    with_shop(async |shop| {
        let redis = shop.args.config().store.redis_url().unwrap().clone();
        let shop_name = ids::random_hex::<6>().unwrap();
        let replica = || CatalogueCache::new(RedisLink::connect(&redis, &shop_name).unwrap());
        let (reader, writer) = (replica(), replica());
        let slot = eventually("Redis answers", || async {
            match reader.get::<String>("page").await {
                Lookup::Miss(slot) => Some(slot),
                Lookup::Hit(_) | Lookup::Away => None,
            }
        })
        .await;
        // The reader has asked MongoDB; before it keeps what it got, there is a write.
        eventually("the write reaches Redis", || async {
            writer.invalidate().await;
            matches!(writer.get::<String>("page").await, Lookup::Miss(_)).then_some(())
        })
        .await;
        reader.put(&slot, &"old".to_owned()).await;
        for cache in [&reader, &writer] {
            eventually("Redis answers", || async {
                match cache.get::<String>("page").await {
                    Lookup::Away => None,
                    Lookup::Miss(_) => Some(()),
                    Lookup::Hit(page) => panic!("{page} was found"),
                }
            })
            .await;
        }
    })
    .await;
}

#[tokio::test]
async fn nothing_is_asked_for_a_page_that_the_client_has() {
    with_shop(async |shop| {
        let first = shop.get("/products", "").await;
        let record = Record::begin(shop).await;
        let calls =
            (0..20).map(|_| send(shop.request(Method::GET, "/products").header("if-none-match", first.header("etag"))));
        for answer in join_all(calls).await {
            assert_eq!((answer.status.as_u16(), answer.text.as_str()), (304, ""));
        }
        assert!(record.queries("products").await < 5, "fresh for a moment");
    })
    .await;
}
