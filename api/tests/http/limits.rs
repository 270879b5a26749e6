//! Rate limits as clients meet them.

use reqwest::Method;
use rstest::rstest;
use serde_json::json;
use shop_harness::Link;
use shop_runtime::ids;

use crate::shop::{Answer, Args, PASSWORD, Shop, eventually, random_name, send, with_shop_of};

/// The tests' clients choose their addresses, as clients behind a proxy have them. The service counts by itself: where
/// Redis is slow for a moment it would begin to.
fn few_sign_ins(args: &mut Args) {
    args.set("--limit-auth-per-15-minutes", "3").set("--trusted-proxies", "127.0.0.0/8");
    args.unset("--staff-email").unset("--staff-password").unset("--redis-url");
}

impl Shop {
    async fn login_from(&self, address: &str, email: &str, password: &str) -> Answer {
        let request = self.request(Method::POST, "/auth/login").header("x-forwarded-for", address);
        send(request.json(&json!({ "email": email, "password": password }))).await
    }
}

#[tokio::test]
async fn sign_ins_are_limited_by_address_and_account() {
    with_shop_of(few_sign_ins, async |shop| {
        let login = |from: &str, email: &str| {
            let request = shop.request(Method::POST, "/auth/login").header("x-forwarded-for", from);
            send(request.json(&json!({ "email": email, "password": PASSWORD })))
        };
        for left in ["2", "1", "0"] {
            let answer = login("198.51.100.1", &format!("{left}@example.com")).await;
            assert_eq!(answer.status, 401);
            assert!(answer.header("ratelimit").contains(&format!(";r={left};")), "{answer:?}");
            assert_eq!(answer.header("ratelimit-policy").split(';').nth(1), Some("q=3"));
        }
        let refused = login("198.51.100.1", "another@example.com").await;
        assert_eq!(refused.problem(), (429, "rate_limited".into()));
        let wait: u64 = refused.header("retry-after").parse().unwrap();
        assert!((1..=301).contains(&wait), "{wait}");
        // One account from many addresses, however it is written.
        for (from, email) in [
            ("198.51.100.2", "ann@example.com"),
            ("198.51.100.3", "ANN@example.com"),
            ("198.51.100.4", " ann@example.com"),
        ] {
            assert_eq!(login(from, email).await.status, 401);
        }
        assert_eq!(login("198.51.100.5", "ann@example.com").await.problem(), (429, "rate_limited".into()));
        assert_eq!(login("198.51.100.5", "bob@example.com").await.status, 401);
    })
    .await;
}

#[tokio::test]
async fn who_is_no_proxy_cannot_choose_an_address() {
    with_shop_of(
        |args| {
            args.set("--limit-auth-per-15-minutes", "2").unset("--redis-url");
            args.unset("--staff-email").unset("--staff-password");
        },
        async |shop| {
            let mut statuses = Vec::new();
            for from in ["198.51.100.1", "198.51.100.2", "198.51.100.3"] {
                let request = shop.request(Method::POST, "/auth/login").header("x-forwarded-for", from);
                statuses.push(send(request.json(&json!({ "email": from, "password": "x" }))).await.status.as_u16());
            }
            assert_eq!(statuses, [401, 401, 429]);
        },
    )
    .await;
}

#[rstest]
#[case("--limit-reads-per-minute", "/orders", 429)]
#[case("--limit-address-per-minute", "/products", 429)]
#[tokio::test]
async fn reads_are_limited(#[case] flag: &'static str, #[case] path: &str, #[case] status: u16) {
    with_shop_of(
        |args| {
            args.set(flag, "4");
        },
        async |shop| {
            let token = shop.customer().await;
            let mut last = 0;
            for _ in 0..5 {
                last = shop.get(path, &token).await.status.as_u16();
            }
            assert_eq!(last, status);
            assert_eq!(shop.get("//health", "").await.status, 200, "health is never limited");
        },
    )
    .await;
}

#[tokio::test]
async fn writes_are_limited_per_user() {
    with_shop_of(
        |args| {
            args.set("--limit-writes-per-minute", "2").unset("--redis-url");
        },
        async |shop| {
            let (one, other) = (shop.customer().await, shop.customer().await);
            for status in [400, 400, 429] {
                assert_eq!(shop.post("/orders", &one, &json!({})).await.status, status);
            }
            assert_eq!(shop.post("/orders", &other, &json!({})).await.status, 400);
            assert_eq!(shop.get("/orders", &one).await.status, 200, "reads go on");
        },
    )
    .await;
}

#[rstest]
#[case::no_token("")]
#[case::a_bad_token("nonsense")]
#[tokio::test]
async fn the_limit_by_address_is_checked_before_the_token(#[case] token: &str) {
    with_shop_of(
        |args| {
            args.set("--limit-address-per-minute", "2");
        },
        async |shop| {
            for (status, code) in [(401, "unauthenticated"), (401, "unauthenticated"), (429, "rate_limited")] {
                assert_eq!(shop.get("/orders", token).await.problem(), (status, code.into()));
            }
        },
    )
    .await;
}

#[tokio::test]
async fn the_role_is_checked_before_the_callers_limit() {
    with_shop_of(
        |args| {
            args.set("--limit-writes-per-minute", "1").unset("--redis-url");
        },
        async |shop| {
            let customer = shop.customer().await;
            for (path, status, code) in [
                ("/products", 403, "forbidden"),
                ("/products", 403, "forbidden"),
                // Only now the first is counted.
                ("/orders", 400, "invalid_request"),
                ("/orders", 429, "rate_limited"),
                ("/products", 403, "forbidden"),
            ] {
                let answer = shop.post(path, &customer, &json!({})).await;
                assert_eq!(answer.problem(), (status, code.into()), "{path}");
            }
        },
    )
    .await;
}

/// Strangers use up what the account allows to addresses it does not know; the owner's own is held by its own limit.
#[tokio::test]
async fn strangers_do_not_lock_the_owner_out() {
    with_shop_of(few_sign_ins, async |shop| {
        let email = "ann@example.com";
        let home = "2001:db8::1";
        let register = shop.request(Method::POST, "/auth/register").header("x-forwarded-for", home);
        assert_eq!(send(register.json(&json!({ "email": email, "password": PASSWORD }))).await.status, 201);
        let mut refused = 0;
        for attacker in 1..=20 {
            let answer = shop.login_from(&format!("198.51.100.{attacker}"), email, "guess").await;
            refused += u32::from(answer.status == 429);
        }
        assert!(refused >= 17, "{refused} of 20 guesses refused");
        // The right password does not help a stranger's address past the limit.
        assert_eq!(shop.login_from("198.51.100.99", email, PASSWORD).await.problem(), (429, "rate_limited".into()));
        // The owner's network, from another device in it.
        let owner = shop.login_from("2001:db8::2", email, PASSWORD).await;
        assert_eq!(owner.status, 200, "{owner:?}");
        assert!(owner.header("ratelimit").starts_with("\"auth-address\""), "{owner:?}");
        // Guesses from there are as few as from anywhere.
        let statuses = [(); 3].map(|()| shop.login_from(home, email, "guess"));
        let statuses = futures::future::join_all(statuses).await;
        assert!(statuses.iter().any(|answer| answer.status == 429), "{statuses:?}");
    })
    .await;
}

/// What six writes of a new customer come to, at the one replica and the other in turn: the calls that are left, or 429.
async fn six_writes(replicas: [&Shop; 2]) -> Vec<String> {
    let token = replicas[0].register(&format!("{}@example.com", random_name("w"))).await;
    let mut left = Vec::new();
    for replica in replicas.into_iter().cycle().take(6) {
        let answer = replica.post("/orders", &token, &json!({})).await;
        let standing = answer.header("ratelimit").to_owned();
        let remaining = standing.strip_prefix("\"writes\";r=").and_then(|rest| rest.split(';').next());
        left.push(if answer.status == 429 { "429" } else { remaining.unwrap() }.to_owned());
    }
    left
}

/// How many of six guesses, at the one replica and the other in turn, a new address may make.
async fn six_guesses(replicas: [&Shop; 2]) -> usize {
    let address = format!("2001:db8:{}::1", ids::random_hex::<2>().unwrap());
    let mut allowed = 0;
    for replica in replicas.into_iter().cycle().take(6) {
        let email = format!("{}@example.com", random_name("g"));
        allowed += usize::from(replica.login_from(&address, &email, "x").await.status != 429);
    }
    allowed
}

#[tokio::test]
async fn replicas_share_the_limits_of_sign_ins_and_writes() {
    let few = |args: &mut Args| {
        args.set("--limit-writes-per-minute", "3").set("--trusted-proxies", "127.0.0.0/8");
        args.set("--argon2-memory-kib", "7168").set("--argon2-passes", "1");
    };
    with_shop_of(few, async |shop| {
        let url = shop.args.config().store.redis_url().unwrap().clone();
        let (link, through) = Link::to_redis(&url).await.unwrap();
        let linked = |args: &mut Args| {
            args.set("--redis-url", through.as_str());
        };
        let (one, other) = (shop.beside(linked).await, shop.beside(linked).await);
        // Not at once: where Redis is slow for a moment, the replicas count by themselves for a second.
        let together =
            || async { (six_writes([&one, &other]).await == ["2", "1", "0", "429", "429", "429"]).then_some(()) };
        eventually("three writes together", together).await;
        let few = |args: &mut Args| {
            args.set("--limit-auth-per-15-minutes", "3");
        };
        let strict = [shop.beside(few).await, shop.beside(few).await];
        eventually("three guesses together", || async {
            (six_guesses([&strict[0], &strict[1]]).await == 3).then_some(())
        })
        .await;
        link.cut();
        assert_eq!(six_writes([&one, &other]).await, ["2", "2", "1", "1", "0", "0"], "three each");
        link.mend();
        eventually("three writes together again", together).await;
    })
    .await;
}

#[tokio::test]
async fn a_redis_that_hangs_holds_up_no_request() {
    with_shop_of(
        |_| {},
        async |shop| {
            let url = shop.args.config().store.redis_url().unwrap().clone();
            let (link, through) = Link::to_redis(&url).await.unwrap();
            let linked = shop
                .beside(|args| {
                    args.set("--redis-url", through.as_str());
                })
                .await;
            let token = shop.customer().await;
            assert_eq!(linked.post("/orders", &token, &json!({})).await.status, 400);
            link.stall();
            let started = tokio::time::Instant::now();
            for _ in 0..50 {
                assert_eq!(linked.post("/orders", &token, &json!({})).await.status, 400);
            }
            // Each second one request waits 100 ms; five times as long is allowed, for a busy machine. Fifty waits are 5 s.
            assert!(started.elapsed().as_millis() < 2_500, "{:?}", started.elapsed());
        },
    )
    .await;
}
