//! A service whose MongoDB, Redis and SQS are behind TLS with a private CA.

use reqwest::Method;
use secrecy::ExposeSecret;
use shop_harness::{Servers, TlsFront};
use shop_runtime::queue::Queue;

use crate::shop::{DOCUMENTED_ORDER, bearer, eventually, send, with_shop};

#[tokio::test]
async fn a_service_that_trusts_the_ca_takes_and_sends_orders() {
    with_shop(async |shop| {
        let front = TlsFront::new().unwrap();
        let servers = front.of(&Servers::from_environment().unwrap()).await.unwrap();
        let replica = shop
            .replica(|args| {
                args.set("--mongodb-uri", servers.mongodb_uri.expose_secret())
                    .set("--redis-url", servers.redis_url.expose_secret())
                    .set("--sqs-endpoint", &servers.sqs_endpoint)
                    .set("--ca-file", front.ca_file().to_string_lossy());
            })
            .await;
        let token = shop.customer().await;
        let url = format!("http://{}/api/v1/orders", replica.http_addr);
        let order = shop.client.request(Method::POST, url).header("content-type", "application/json");
        let answer = send(bearer(order.body(DOCUMENTED_ORDER), &token)).await;
        assert_eq!(answer.status, 201, "{answer:?}");
        eventually("the message of the order", || async {
            Some(visible(&shop.queue).await).filter(|count| *count == 1)
        })
        .await;
    })
    .await;
}

async fn visible(queue: &Queue) -> u64 {
    queue.counts().await.unwrap().visible
}
