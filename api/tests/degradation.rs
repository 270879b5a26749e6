//! What a server that is away costs: one test for each cell of the table in `docs/operating.md`, on the real servers.
//! A promised second is given five here, and five seconds twenty-five: the machine that runs the tests may be busy.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking, in its helpers too")]

#[path = "http/events.rs"]
mod events;
#[path = "http/shop.rs"]
#[expect(dead_code, reason = "the http tests use the rest of it")]
mod shop;
#[path = "http/tour.rs"]
mod tour;

#[path = "degradation/mongodb.rs"]
mod mongodb;
#[path = "degradation/redis.rs"]
mod redis;
#[path = "degradation/ses.rs"]
mod ses;
#[path = "degradation/sqs.rs"]
mod sqs;

use std::time::Duration;

use shop_harness::Link;
use tokio::time::timeout;

use crate::shop::{Answer, Shop, eventually, send};

const NOTICED: Duration = Duration::from_secs(5);
const RECOVERED: Duration = Duration::from_secs(25);
/// How slow a slow server is.
const SLOW: Duration = Duration::from_secs(2);

const TABLE: &str = include_str!("../../docs/operating.md");
const SERVERS: [(&str, &str); 4] = [
    ("redis", include_str!("degradation/redis.rs")),
    ("sqs", include_str!("degradation/sqs.rs")),
    ("ses", include_str!("degradation/ses.rs")),
    ("mongodb", include_str!("degradation/mongodb.rs")),
];
const STATES: [&str; 4] = ["down_at_start", "killed", "slow_by_two_seconds", "back_again"];

#[test]
fn the_table_has_a_row_for_each_cell_and_each_row_a_test() {
    let named = |line: &str| {
        let last = line.strip_prefix('|')?.strip_suffix('|')?.rsplit('|').next()?;
        Some(last.trim().strip_prefix('`')?.strip_suffix('`')?.to_owned())
    };
    let rows: Vec<String> = TABLE.lines().filter_map(named).collect();
    let cells = SERVERS.iter().flat_map(|(server, _)| STATES.map(|state| format!("{server}_{state}")));
    assert_eq!(rows, cells.collect::<Vec<_>>());
    for (server, source) in SERVERS {
        for state in STATES {
            let test = format!("#[tokio::test]\nasync fn {server}_{state}(");
            assert!(source.contains(&test), "no test {server}_{state}");
        }
    }
}

/// A link to the server at an `http://` endpoint, and the endpoint that goes through it.
async fn link_to(endpoint: &str) -> (Link, String) {
    let server = endpoint.strip_prefix("http://").unwrap().trim_end_matches('/');
    let link = Link::to(server).await.unwrap();
    let through = format!("http://{}", link.address());
    (link, through)
}

/// Asks until there is an answer, for as long as `limit`.
async fn within<T, F: Future<Output = Option<T>>>(limit: Duration, what: &str, ask: impl Fn() -> F) -> T {
    timeout(limit, eventually(what, ask)).await.unwrap_or_else(|_| panic!("not within {limit:?}: {what}"))
}

async fn readiness(shop: &Shop) -> Answer {
    send(shop.client.get(format!("{}/readyz", shop.ops))).await
}

async fn ready(shop: &Shop) {
    within(NOTICED, "it is ready", || async { (readiness(shop).await.status == 200).then_some(()) }).await;
}

/// What a counter of the service's stands at.
async fn counted(shop: &Shop, name: &str) -> u64 {
    let metrics = send(shop.client.get(format!("{}/metrics", shop.ops))).await.text;
    metrics.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok()).unwrap_or(0)
}

/// Waits until a counter has reached `least`.
async fn counts(limit: Duration, shop: &Shop, (name, least): (&str, u64)) {
    within(limit, &format!("{name} reaches {least}"), || async { (counted(shop, name).await >= least).then_some(()) })
        .await;
}

/// Waits until the self-check finds a server well: it asks once, and has little patience.
async fn sound(shop: &Shop, server: &str) {
    within(RECOVERED, server, || async { (diagnosis(shop, server).await == "ok").then_some(()) }).await;
}

/// What the self-check says of a server.
async fn diagnosis(shop: &Shop, server: &str) -> String {
    let answer = shop.get("/admin/doctor", &shop.staff().await).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let checks = answer.json()["checks"].as_array().cloned().unwrap();
    checks.iter().find(|check| check["name"] == server).unwrap()["status"].as_str().unwrap().to_owned()
}
