//! The queue is away: orders are accepted, and processed when it is back.

use std::time::Duration;

use shop_domain::order::Status;
use shop_harness::{Link, Servers};

use crate::{
    NOTICED, RECOVERED, SLOW, counts, diagnosis, link_to, readiness, ready,
    shop::{Args, MOUSE, Shop, with_shop_of},
    sound,
    tour::everything_works,
    within,
};

/// One mouse: there are ten.
const ORDER: &str =
    r#"{"location":"bangalore","totalAmount":1324,"items":[{"productId":"67c8830b7ef1b848ac52ebec","quantity":1}]}"#;
/// SQS may give messages to a receive that was cut off; they come again after this time.
const VISIBILITY: &str = "10";
const NOT_SENT: &str = "shop_relay_failed_messages_total";

/// Runs a test in a shop whose api and worker reach the queue through a link, which is prepared before they start.
async fn with_link(prepare: fn(&Link), test: impl AsyncFnOnce(&Shop, (&Link, &str))) {
    let (link, endpoint) = link_to(&Servers::from_environment().unwrap().sqs_endpoint).await;
    prepare(&link);
    let through = |args: &mut Args| {
        args.set("--sqs-endpoint", &endpoint);
    };
    with_shop_of(through, async |shop| {
        ready(shop).await;
        test(shop, (&link, &endpoint)).await;
    })
    .await;
}

/// Orders of one customer.
async fn three_orders(shop: &Shop) -> Vec<String> {
    let (token, mut placed) = (shop.customer().await, Vec::new());
    for _ in 0..3 {
        placed.push(shop.placed(&token, ORDER).await);
    }
    placed
}

async fn all_wait(shop: &Shop, placed: &[String]) {
    for id in placed {
        shop.becomes(id, Status::Pending).await;
    }
    assert!(shop.ground.waiting_sends().await.unwrap() >= placed.len() as u64);
}

/// Nothing that was accepted is lost, and nothing is done twice.
async fn all_are_processed(shop: &Shop, placed: &[String]) {
    within(RECOVERED, "all are processed", || async {
        for id in placed {
            shop.becomes(id, Status::Processed).await;
        }
        Some(())
    })
    .await;
    assert_eq!(shop.units(MOUSE).await, 10 - i64::try_from(placed.len()).unwrap());
    assert_eq!(shop.faults().await, Vec::<String>::new());
}

#[tokio::test]
async fn sqs_down_at_start() {
    with_link(Link::cut, async |shop, (link, endpoint)| {
        everything_works(shop).await;
        shop.worker(&["--sqs-endpoint", endpoint, "--visibility-seconds", VISIBILITY]).await;
        let placed = three_orders(shop).await;
        counts(NOTICED, shop, (NOT_SENT, 1)).await;
        all_wait(shop, &placed).await;
        assert_eq!((readiness(shop).await.status.as_u16(), diagnosis(shop, "sqs").await.as_str()), (200, "failed"));
        link.mend();
        all_are_processed(shop, &placed).await;
    })
    .await;
}

#[tokio::test]
async fn sqs_killed() {
    with_link(Link::mend, async |shop, (link, endpoint)| {
        shop.worker(&["--sqs-endpoint", endpoint, "--visibility-seconds", VISIBILITY]).await;
        let mut placed = three_orders(shop).await;
        all_are_processed(shop, &placed).await;
        link.cut();
        let more = three_orders(shop).await;
        counts(NOTICED, shop, (NOT_SENT, 1)).await;
        all_wait(shop, &more).await;
        assert_eq!((readiness(shop).await.status.as_u16(), diagnosis(shop, "sqs").await.as_str()), (200, "failed"));
        link.mend();
        placed.extend(more);
        all_are_processed(shop, &placed).await;
    })
    .await;
}

#[tokio::test]
async fn sqs_slow_by_two_seconds() {
    with_link(Link::mend, async |shop, (link, endpoint)| {
        shop.worker(&["--sqs-endpoint", endpoint, "--visibility-seconds", VISIBILITY]).await;
        link.slow(SLOW);
        let token = shop.customer().await;
        let started = tokio::time::Instant::now();
        let mut placed = Vec::new();
        for _ in 0..3 {
            placed.push(shop.placed(&token, ORDER).await);
        }
        assert!(started.elapsed() < NOTICED, "no order waits for the queue: {:?}", started.elapsed());
        all_are_processed(shop, &placed).await;
    })
    .await;
}

#[tokio::test]
async fn sqs_back_again() {
    with_link(Link::mend, async |shop, (link, endpoint)| {
        shop.worker(&["--sqs-endpoint", endpoint, "--visibility-seconds", VISIBILITY]).await;
        link.cut();
        let placed = three_orders(shop).await;
        // Each has been tried so often that waiting twice as long each time would take half a minute more.
        counts(RECOVERED, shop, (NOT_SENT, 15)).await;
        link.mend();
        all_are_processed(shop, &placed).await;
        shop.quiet().await;
        sound(shop, "sqs").await;
    })
    .await;
}

/// Its machine is gone: nobody says that connections are over. Those that send must not wait for that.
#[tokio::test]
async fn an_sqs_that_falls_silent_holds_no_sender_up() {
    with_link(Link::mend, async |shop, (link, _)| {
        shop.worker(&[]).await;
        let mut placed = three_orders(shop).await;
        all_are_processed(shop, &placed).await;
        link.strand();
        placed.extend(three_orders(shop).await);
        // Two attempts of five seconds each.
        counts(Duration::from_secs(30), shop, (NOT_SENT, 3)).await;
        link.mend();
        all_are_processed(shop, &placed).await;
    })
    .await;
}
