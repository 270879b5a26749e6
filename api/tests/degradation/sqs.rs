//! The queue is away: orders are accepted, and processed when it is back.

use shop_domain::order::Status;
use shop_harness::{Link, Servers};
use tokio::time::timeout;

use crate::{
    SLOW, Time, counts, diagnosis, readiness, ready,
    shop::{Args, MOUSE, Shop, with_shop_of},
    sound,
    tour::everything_works,
};

/// One mouse: there are ten.
const ORDER: &str =
    r#"{"location":"bangalore","totalAmount":1324,"items":[{"productId":"67c8830b7ef1b848ac52ebec","quantity":1}]}"#;
const NOT_SENT: &str = "shop_relay_failed_messages_total";

/// Runs a test in a shop whose api and worker reach the queue through a link, which is prepared before they start.
async fn with_link(prepare: fn(&Link), test: impl AsyncFnOnce(&Shop, (&Link, &str))) {
    let (link, endpoint) = Link::to_http(&Servers::from_environment().unwrap().sqs_endpoint).await.unwrap();
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

/// So many orders of one customer.
async fn orders(shop: &Shop, token: &str, count: usize) -> Vec<String> {
    let mut placed = Vec::new();
    for _ in 0..count {
        placed.push(shop.placed(token, ORDER).await);
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
    for id in placed {
        shop.becomes(id, Status::Processed).await;
    }
    assert_eq!(shop.units(MOUSE).await, 10 - i64::try_from(placed.len()).unwrap());
    assert_eq!(shop.faults().await, Vec::<String>::new());
}

#[tokio::test]
async fn sqs_down_at_start() {
    with_link(Link::cut, async |shop, (link, endpoint)| {
        let token = shop.customer().await;
        let noticing = Time::to_notice("sqs_down_at_start");
        let placed = orders(shop, &token, 3).await;
        noticing.until(counts(shop, (NOT_SENT, 1))).await;
        everything_works(shop).await;
        shop.worker(&["--sqs-endpoint", endpoint]).await;
        all_wait(shop, &placed).await;
        assert_eq!((readiness(shop).await.status.as_u16(), diagnosis(shop, "sqs").await.as_str()), (200, "failed"));
        link.mend();
        Time::to_recover("sqs_down_at_start").until(all_are_processed(shop, &placed)).await;
    })
    .await;
}

#[tokio::test]
async fn sqs_killed() {
    with_link(Link::mend, async |shop, (link, endpoint)| {
        shop.worker(&["--sqs-endpoint", endpoint]).await;
        let token = shop.customer().await;
        let mut placed = orders(shop, &token, 3).await;
        all_are_processed(shop, &placed).await;
        link.cut();
        let noticing = Time::to_notice("sqs_killed");
        let more = orders(shop, &token, 3).await;
        noticing.until(counts(shop, (NOT_SENT, 1))).await;
        all_wait(shop, &more).await;
        assert_eq!((readiness(shop).await.status.as_u16(), diagnosis(shop, "sqs").await.as_str()), (200, "failed"));
        link.mend();
        placed.extend(more);
        Time::to_recover("sqs_killed").until(all_are_processed(shop, &placed)).await;
    })
    .await;
}

#[tokio::test]
async fn sqs_slow_by_two_seconds() {
    with_link(Link::mend, async |shop, (link, endpoint)| {
        shop.worker(&["--sqs-endpoint", endpoint]).await;
        link.slow(SLOW);
        let token = shop.customer().await;
        let finishing = Time::to_finish("sqs_slow_by_two_seconds");
        // Each that waited for the queue would take two seconds.
        let placed = timeout(SLOW * 8, orders(shop, &token, 8)).await.expect("no order waits for the queue");
        finishing.until(all_are_processed(shop, &placed)).await;
    })
    .await;
}

#[tokio::test]
async fn sqs_back_again() {
    with_link(Link::mend, async |shop, (link, endpoint)| {
        shop.worker(&["--sqs-endpoint", endpoint]).await;
        link.cut();
        let placed = orders(shop, &shop.customer().await, 3).await;
        // Each has been tried so often that waiting twice as long each time would take half a minute more.
        counts(shop, (NOT_SENT, 15)).await;
        link.mend();
        Time::to_recover("sqs_back_again").until(all_are_processed(shop, &placed)).await;
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
        let token = shop.customer().await;
        let mut placed = orders(shop, &token, 3).await;
        all_are_processed(shop, &placed).await;
        link.strand();
        let noticing = Time::to_notice("an_sqs_that_falls_silent_holds_no_sender_up");
        placed.extend(orders(shop, &token, 3).await);
        // Two attempts of five seconds each.
        noticing.until(counts(shop, (NOT_SENT, 3))).await;
        link.mend();
        let recovering = Time::to_recover("an_sqs_that_falls_silent_holds_no_sender_up");
        recovering.until(all_are_processed(shop, &placed)).await;
    })
    .await;
}
