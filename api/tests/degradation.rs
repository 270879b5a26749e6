//! What a server that is away costs: one test for each cell of the table in `docs/operating.md`, on the real servers.
//! How long each takes is measured and told, and fails no test: the machine that runs the tests may be busy.
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

use std::time::{Duration, Instant};

use futures::FutureExt;

use crate::shop::{Answer, Shop, eventually, send};

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
            assert!(source.contains(&format!("\"{server}_{state}\"")), "{server}_{state} tells no time");
        }
    }
}

/// A time of the table, from now on. The wait for its end has the harness's patience, whatever the table promises.
struct Time {
    test: &'static str,
    end: &'static str,
    since: Instant,
}

impl Time {
    /// Until an outage is noticed.
    fn to_notice(test: &'static str) -> Self {
        Self::of(test, "noticed")
    }

    /// Until everything is as before, from the end of an outage.
    fn to_recover(test: &'static str) -> Self {
        Self::of(test, "recovered")
    }

    /// Until what was asked for is done, by a server that is only slow.
    fn to_finish(test: &'static str) -> Self {
        Self::of(test, "finished")
    }

    fn of(test: &'static str, end: &'static str) -> Self {
        Self { test, end, since: Instant::now() }
    }

    /// Waits for the end, and tells how long it took.
    fn until<T>(self, end: impl Future<Output = T>) -> impl Future<Output = T> {
        end.inspect(move |_| {
            println!("degradation {}: {} after {} ms", self.test, self.end, self.since.elapsed().as_millis());
        })
    }
}

async fn readiness(shop: &Shop) -> Answer {
    send(shop.client.get(format!("{}/readyz", shop.ops))).await
}

async fn ready(shop: &Shop) {
    eventually("it is ready", || async { (readiness(shop).await.status == 200).then_some(()) }).await;
}

/// What a counter of the service's stands at.
async fn counted(shop: &Shop, name: &str) -> u64 {
    let metrics = send(shop.client.get(format!("{}/metrics", shop.ops))).await.text;
    metrics.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok()).unwrap_or(0)
}

/// Waits until a counter has reached `least`.
async fn counts(shop: &Shop, (name, least): (&str, u64)) {
    eventually(&format!("{name} reaches {least}"), || async { (counted(shop, name).await >= least).then_some(()) })
        .await;
}

/// Waits until the self-check finds a server well: it asks once, and has little patience.
async fn sound(shop: &Shop, server: &str) {
    eventually(server, || async { (diagnosis(shop, server).await == "ok").then_some(()) }).await;
}

/// What the self-check says of a server.
async fn diagnosis(shop: &Shop, server: &str) -> String {
    let answer = shop.get("/admin/doctor", &shop.staff().await).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let checks = answer.json()["checks"].as_array().cloned().unwrap();
    checks.iter().find(|check| check["name"] == server).unwrap()["status"].as_str().unwrap().to_owned()
}
