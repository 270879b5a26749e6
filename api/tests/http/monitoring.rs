//! The chart's alerts and panels read only metrics that there are: in the running api's and the running worker's own words.

use std::collections::BTreeSet;

use reqwest::Method;
use shop_domain::order::Status;

use crate::shop::{DOCUMENTED_ORDER, Shop, send, with_shop};

/// Names of the metrics of ours that an api or a worker is asked for.
fn read() -> BTreeSet<String> {
    let texts = [
        include_str!("../../../charts/shop-operator/files/monitoring/alerts.yaml"),
        include_str!("../../../charts/shop-operator/files/monitoring/dashboard.json"),
    ];
    let words = texts.iter().flat_map(|text| text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_')));
    let ours = ["shop_api_", "shop_relay_", "shop_mailer_", "shop_sweeper_", "shop_worker_"];
    words.filter(|word| ours.iter().any(|start| word.starts_with(start))).map(str::to_owned).collect()
}

async fn scraped(shop: &Shop, ops: &str) -> BTreeSet<String> {
    let text = send(shop.client.request(Method::GET, format!("{ops}/metrics"))).await.text;
    text.lines().filter_map(|line| line.split(['{', ' ']).next()).map(str::to_owned).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn alerts_and_panels_read_only_what_there_is() {
    with_shop(async |shop| {
        let ops = shop.worker(&[]).await;
        // What has labels is told once something has happened: an answered request, a finished message.
        let buyer = shop.customer().await;
        let order = shop.placed(&buyer, DOCUMENTED_ORDER).await;
        shop.becomes(&order, Status::Processed).await;
        shop.quiet().await;
        let mut all = scraped(shop, &shop.ops).await;
        all.extend(scraped(shop, &ops).await);
        let read = read();
        assert!(read.len() > 15, "{read:?}");
        assert_eq!(read.difference(&all).collect::<Vec<_>>(), Vec::<&String>::new());
    })
    .await;
}
