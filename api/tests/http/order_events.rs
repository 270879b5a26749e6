//! Following orders: the stream of server-sent events, with and without Redis, on one replica and on two.

use std::time::{Duration, Instant};

use futures::future::join_all;
use jiff::SignedDuration;
use reqwest::Method;
use serde_json::json;
use shop_api::{
    keys::Keys,
    service::sessions::{Origin, Sessions},
    tokens::Tokens,
};
use shop_domain::{id::UserId, order::Status};
use shop_harness::{Link, customer, eventually};
use shop_store::{orders::Viewer, session_cache::SessionCache};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::{
    events::Events,
    process::Process,
    shop::{Args, DOCUMENTED_ORDER, Shop, bearer, send, with_shop, with_shop_of},
};

async fn statuses(events: &mut Events) -> Vec<(String, String)> {
    let mut told = Vec::new();
    while let Some((id, data)) = events.status().await {
        told.push((id, data["status"].as_str().unwrap().to_owned()));
    }
    told
}

fn told(expected: &[(&str, &str)]) -> Vec<(String, String)> {
    expected.iter().map(|&(id, status)| (id.to_owned(), status.to_owned())).collect()
}

#[tokio::test]
async fn a_stream_tells_the_present_status_then_each_change_and_ends() {
    with_shop(async |shop| {
        let token = shop.customer().await;
        let id = shop.placed(&token, DOCUMENTED_ORDER).await;
        let mut events = Events::open(shop, &shop.base, (&id, &token)).await;
        let headers = events.response.headers();
        assert_eq!(headers["content-type"], "text/event-stream");
        assert_eq!(headers["cache-control"], "no-store");
        assert_eq!(headers["x-accel-buffering"], "no");
        assert!(headers.get("content-encoding").is_none());

        let (event, data) = events.status().await.unwrap();
        let at = data["at"].clone();
        assert_eq!(
            (event.as_str(), &data),
            ("1", &json!({ "orderId": id, "status": "Pending", "version": 1, "at": at }))
        );
        shop.worker(&[]).await;
        assert_eq!(statuses(&mut events).await, told(&[("2", "Processed")]));

        // Who comes back is told only what is new, and in the end that there will be nothing.
        let again = async |seen: &str| {
            let request = bearer(shop.request(Method::GET, &format!("/orders/{id}/events")), &token);
            send(request.header("last-event-id", seen)).await
        };
        let fresh = again("").await;
        assert_eq!(fresh.text.matches("event: status").count(), 1, "{fresh:?}");
        let missed = again("1").await;
        assert!(missed.text.contains("id: 2\n") && !missed.text.contains("id: 1\n"), "{missed:?}");
        assert_eq!((again("2").await.status.as_u16(), again("2").await.text), (204, String::new()));
    })
    .await;
}

#[tokio::test]
async fn a_stream_is_its_owners_and_staffs() {
    with_shop(async |shop| {
        let (owner, stranger, staff) = (shop.customer().await, shop.customer().await, shop.staff().await);
        let id = shop.placed(&owner, DOCUMENTED_ORDER).await;
        let path = format!("/orders/{id}/events");
        assert_eq!(shop.get(&path, &stranger).await.problem(), (404, "not_found".into()));
        assert_eq!(shop.get(&path, "").await.problem(), (401, "unauthenticated".into()));
        assert_eq!(shop.get("/orders/0123456789abcdef01234567/events", &owner).await.problem().0, 404);
        let mut events = Events::open(shop, &shop.base, (&id, &staff)).await;
        assert_eq!(events.status().await.unwrap().1["status"], "Pending");
    })
    .await;
}

#[tokio::test]
async fn a_failure_is_told_with_its_reason() {
    with_shop(async |shop| {
        let token = shop.customer().await;
        let id = shop.placed(&token, DOCUMENTED_ORDER).await;
        shop.stock(&[(crate::shop::MOUSE, "bangalore", -10)]).await;
        let mut events = Events::open(shop, &shop.base, (&id, &token)).await;
        events.status().await.unwrap();
        shop.worker(&[]).await;
        let (_, data) = events.status().await.unwrap();
        assert_eq!((&data["status"], &data["reason"]), (&json!("Failed"), &json!("out_of_stock")));
        assert!(events.next().await.is_none());
    })
    .await;
}

/// Follows an order on one replica while it is cancelled on another; how long it took to be told.
async fn told_across(shop: &Shop, follow: &str) -> Duration {
    let token = shop.customer().await;
    let id = shop.placed(&token, DOCUMENTED_ORDER).await;
    let mut events = Events::open(shop, follow, (&id, &token)).await;
    assert_eq!(events.status().await.unwrap().0, "1");
    let cancel = shop.post(&format!("/orders/{id}/cancel"), &token, &json!({})).await;
    assert_eq!(cancel.status, 200);
    let cancelled = Instant::now();
    let (version, data) = events.status().await.unwrap();
    assert_eq!((version.as_str(), &data["status"], &data["reason"]), ("2", &json!("Cancelled"), &json!("cancelled")));
    assert!(events.next().await.is_none());
    cancelled.elapsed()
}

#[tokio::test]
async fn a_change_on_one_replica_is_told_on_the_other() {
    with_shop(async |shop| {
        let other = format!("http://{}", shop.replica(|_| {}).await.http_addr);
        told_across(shop, &other).await;
    })
    .await;
}

#[tokio::test]
async fn without_redis_a_change_is_told_by_asking_the_database() {
    let no_redis = |args: &mut Args| {
        args.unset("--redis-url");
    };
    with_shop_of(no_redis, async |shop| {
        let other = format!("http://{}", shop.replica(|_| {}).await.http_addr);
        let late = told_across(shop, &other).await;
        // Promised are 2 s; a busy machine may take five times as long.
        assert!(late < Duration::from_secs(10), "{late:?}");
    })
    .await;
}

#[tokio::test]
async fn a_redis_that_is_cut_hangs_and_comes_back_costs_no_change() {
    with_shop(async |shop| {
        let (link, through) = Link::to_redis(&shop.ground.servers.redis_url).await.unwrap();
        let other = shop.replica(|args| {
            args.set("--redis-url", through);
        });
        let other = format!("http://{}", other.await.http_addr);
        told_across(shop, &other).await;
        for disturb in [Link::cut, Link::stall] {
            disturb(&link);
            let late = told_across(shop, &other).await;
            // Promised are 2 s; a busy machine may take five times as long.
            assert!(late < Duration::from_secs(10), "{late:?}");
            link.mend();
            told_across(shop, &other).await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_drain_ends_streams_at_once_and_says_when_to_come_back() {
    let slow_drain = |args: &mut Args| {
        args.set("--drain-seconds", "10");
    };
    with_shop_of(slow_drain, async |shop| {
        let token = shop.customer().await;
        let id = shop.placed(&token, DOCUMENTED_ORDER).await;
        let mut events = Events::open(shop, &shop.base, (&id, &token)).await;
        events.status().await.unwrap();
        shop.shutdown.drain();
        let draining = Instant::now();
        let last = events.next().await.unwrap();
        assert!(last.iter().any(|line| line.starts_with("retry: ")), "{last:?}");
        assert!(last.iter().any(|line| line.starts_with(": ")), "{last:?}");
        assert!(events.next().await.is_none());
        assert!(draining.elapsed() < Duration::from_secs(10), "before the port closes: {:?}", draining.elapsed());
    })
    .await;
}

#[tokio::test]
async fn a_stream_outlives_the_request_timeout_and_ends_with_its_session() {
    let hasty = |args: &mut Args| {
        args.set("--request-timeout-seconds", "1");
    };
    with_shop_of(hasty, async |shop| {
        let token = shop.customer().await;
        let id = shop.placed(&token, DOCUMENTED_ORDER).await;
        let mut events = Events::open(shop, &shop.base, (&id, &token)).await;
        events.status().await.unwrap();
        let beat = events.next().await.unwrap();
        assert!(beat.iter().all(|line| line.starts_with(':')), "a heartbeat, not {beat:?}");
        assert_eq!(shop.post("/auth/logout", &token, &json!({})).await.status, 200);
        // The heartbeat may be on its way.
        let last = eventually("the end", async || {
            let lines = events.next().await.unwrap();
            Ok(lines.iter().any(|line| line.starts_with("retry: ")).then_some(lines))
        });
        last.await.unwrap();
        assert!(events.next().await.is_none());
    })
    .await;
}

#[tokio::test]
async fn streams_are_bounded_per_account_and_per_process() {
    let twelve = |args: &mut Args| {
        args.set("--max-event-streams", "12");
    };
    with_shop_of(twelve, async |shop| {
        let (one, other) = (shop.customer().await, shop.customer().await);
        let (first, second) = (shop.placed(&one, DOCUMENTED_ORDER).await, shop.placed(&other, DOCUMENTED_ORDER).await);
        let mut open = join_all((0..10).map(|_| Events::open(shop, &shop.base, (&first, &one)))).await;
        let refused = shop.get(&format!("/orders/{first}/events"), &one).await;
        assert_eq!(refused.problem(), (429, "too_many_streams".into()));
        assert!(!refused.header("retry-after").is_empty());
        open.extend(join_all((0..2).map(|_| Events::open(shop, &shop.base, (&second, &other)))).await);
        let path = format!("/orders/{second}/events");
        let refused = shop.get(&path, &other).await;
        assert_eq!(refused.problem(), (503, "too_many_streams".into()));
        assert!(!refused.header("retry-after").is_empty());
        // Whoever leaves makes room.
        open.clear();
        eventually("there is room", async || {
            let request = bearer(shop.request(Method::GET, &path), &other);
            Ok((request.send().await?.status() == 200).then_some(()))
        })
        .await
        .unwrap();
    })
    .await;
}

const STREAMS: usize = 1_000;
const PER_ACCOUNT: usize = 10;
const AT_ONCE: usize = 50;
const MOST_BYTES: u64 = 30_000_000;

#[tokio::test]
async fn a_thousand_open_streams_take_at_most_30_mb_and_end_in_order() {
    with_shop(async |shop| {
        let mut process = Process::start(shop, |args| {
            args.set("--limit-address-per-minute", "100000");
        })
        .await;
        let tokens = tokens(shop, (STREAMS + AT_ONCE) / PER_ACCOUNT).await;
        let mut targets = Vec::new();
        for (user, token) in &tokens {
            let product = crate::shop::MOUSE.parse().unwrap();
            let mut new = shop.ground.new_order(&[(&product, 1)], shop.clock.now()).unwrap();
            new.user_id = user.clone();
            let id = shop.store.orders.accept(&new).await.unwrap().document.id;
            targets.extend((0..PER_ACCOUNT).map(|_| (id.to_string(), token.clone())));
        }
        // What is made once (connections to the database, caches), and what so many requests at once take, is there before
        // the count begins.
        let (warm, counted) = targets.split_at(AT_ONCE);
        let address = process.base.trim_start_matches("http://").to_owned();
        drop(join_all(warm.iter().map(|target| raw(&address, target))).await);
        let before = process.resident();
        let mut open = Vec::with_capacity(STREAMS);
        for some in counted.chunks(AT_ONCE) {
            open.extend(join_all(some.iter().map(|target| raw(&address, target))).await);
        }
        let more = process.resident().saturating_sub(before);
        assert_eq!(open.len(), STREAMS);
        println!("{STREAMS} streams take {more} bytes");
        assert!(more <= MOST_BYTES, "{STREAMS} streams take {more} bytes");

        // They are alive: the last of them is told of a change.
        let id = counted[STREAMS - 1].0.parse().unwrap();
        let pending = shop.store.orders.find(&id, &Viewer::Staff).await.unwrap().unwrap();
        assert_eq!(pending.status, Status::Pending);
        let staff = shop.staff().await;
        assert_eq!(shop.post(&format!("/orders/{id}/cancel"), &staff, &json!({})).await.status, 200);
        let mut last = open.pop().unwrap();
        until(&mut last, "Cancelled").await;

        // Each of the others is told when to come back before the process ends, and no work is left over.
        open.truncate(STREAMS - PER_ACCOUNT);
        let (ended, ()) = tokio::join!(process.terminate(), async {
            join_all(open.iter_mut().map(|stream| until(stream, "retry: "))).await;
        });
        assert!(ended.success(), "{ended}");
    })
    .await;
}

/// Accounts with a session each, made without hashing any password.
async fn tokens(shop: &Shop, accounts: usize) -> Vec<(UserId, String)> {
    let keys = Keys::load(&shop.args.config().auth.auth_keys_file).await.unwrap();
    let tokens = Tokens::new(keys, SignedDuration::from_mins(15));
    let sessions = Sessions::new(shop.store.clone(), tokens, SessionCache::disabled(), shop.clock.clone());
    let mut made = Vec::new();
    for at in 0..accounts {
        let user = customer(format!("follower-{at}@example.com"), shop.clock.now()).unwrap();
        shop.store.users.create(&user).await.unwrap();
        made.push((user.id.clone(), sessions.open(&user, &Origin::default()).await.unwrap().access));
    }
    made
}

/// Opens a stream on a connection of its own and reads its first event.
async fn raw(address: &str, (id, token): &(String, String)) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request =
        format!("GET /api/v1/orders/{id}/events HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    until(&mut stream, "Pending").await;
    stream
}

async fn until(stream: &mut TcpStream, text: &str) {
    let (mut read, mut buffer) = (Vec::new(), [0; 4_096]);
    while !String::from_utf8_lossy(&read).contains(text) {
        let length = tokio::time::timeout(Duration::from_mins(1), stream.read(&mut buffer)).await.unwrap().unwrap();
        assert!(length > 0, "the stream ended: {}", String::from_utf8_lossy(&read));
        read.extend_from_slice(&buffer[..length]);
    }
}
