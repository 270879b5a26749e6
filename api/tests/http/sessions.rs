//! Sessions: families of refresh tokens, lists, and how soon an end is known. The clock moves only when a test moves it,
//! so that five seconds are five seconds on a busy machine too.

use jiff::SignedDuration;
use reqwest::Method;
use rstest::rstest;
use serde_json::json;
use shop_domain::account::Role;
use shop_harness::Link;
use shop_store::{
    redis_link::RedisLink,
    session_cache::{Holder, SessionAnswer, SessionCache},
};

use crate::{
    shop::{Answer, PASSWORD, Shop, bearer, eventually, send, with_shop, with_still_shop},
    tokens::claims,
};

const EMAIL: &str = "ann@example.com";
/// The longest that an ended session may still be known anywhere, and a little more.
const SOON: SignedDuration = SignedDuration::from_millis(5_001);

impl Shop {
    fn pass(&self, time: SignedDuration) {
        self.clock.advance(time);
    }

    async fn me(&self, token: &str) -> u16 {
        self.get("/auth/me", token).await.status.as_u16()
    }

    async fn logout(&self, token: &str) {
        assert_eq!(send(bearer(self.request(Method::POST, "/auth/logout"), token)).await.status, 200);
    }

    async fn signed_in(&self) -> Answer {
        self.register(EMAIL).await;
        self.login(EMAIL, PASSWORD).await
    }
}

#[track_caller]
fn is_refused(answer: &Answer) {
    assert_eq!(answer.problem(), (401, "unauthenticated".into()));
}

#[tokio::test]
async fn an_answer_that_got_lost_is_had_again_for_ten_seconds() {
    with_still_shop(async |shop| {
        let first = shop.signed_in().await.cookie();
        let lost = shop.refresh(&first).await;
        shop.pass(SignedDuration::from_secs(10));
        let again = shop.refresh(&first).await;
        assert_eq!(again.cookie(), lost.cookie());
        assert_eq!((shop.me(&lost.token()).await, shop.me(&again.token()).await), (200, 200));
        assert_eq!(shop.refresh(&again.cookie()).await.status, 200);
    })
    .await;
}

#[tokio::test]
async fn two_tabs_go_on_with_one_family() {
    with_still_shop(async |shop| {
        let mut cookie = shop.signed_in().await.cookie();
        for _ in 0..5 {
            let (one, other) = tokio::join!(shop.refresh(&cookie), shop.refresh(&cookie));
            assert_eq!(one.cookie(), other.cookie());
            assert_eq!((shop.me(&one.token()).await, shop.me(&other.token()).await), (200, 200));
            cookie = one.cookie();
            shop.pass(SignedDuration::from_mins(10));
        }
    })
    .await;
}

/// Whoever comes second, owner or thief, gives the theft away; both lose.
#[tokio::test]
async fn a_token_that_is_presented_after_ten_seconds_ends_its_family() {
    with_still_shop(async |shop| {
        let stolen = shop.signed_in().await.cookie();
        let owner = shop.refresh(&stolen).await;
        assert_eq!(shop.me(&owner.token()).await, 200);
        shop.pass(SignedDuration::from_millis(10_001));
        is_refused(&shop.refresh(&stolen).await);
        is_refused(&shop.refresh(&owner.cookie()).await);
        assert_eq!(shop.me(&owner.token()).await, 401);
        assert_eq!(shop.login(EMAIL, PASSWORD).await.status, 200, "the account is not harmed");
    })
    .await;
}

#[tokio::test]
async fn a_token_whose_successor_is_used_ends_its_family() {
    with_still_shop(async |shop| {
        let first = shop.signed_in().await.cookie();
        let second = shop.refresh(&first).await.cookie();
        let third = shop.refresh(&second).await;
        is_refused(&shop.refresh(&first).await);
        is_refused(&shop.refresh(&third.cookie()).await);
        assert_eq!(shop.me(&third.token()).await, 401);
    })
    .await;
}

#[tokio::test]
async fn a_session_ends_a_week_after_its_last_use() {
    with_still_shop(async |shop| {
        let mut cookie = shop.signed_in().await.cookie();
        for _ in 0..3 {
            shop.pass(SignedDuration::from_hours(7 * 24 - 1));
            let answer = shop.refresh(&cookie).await;
            assert_eq!(shop.me(&answer.token()).await, 200);
            cookie = answer.cookie();
        }
        shop.pass(SignedDuration::from_hours(7 * 24));
        is_refused(&shop.refresh(&cookie).await);
    })
    .await;
}

#[tokio::test]
async fn a_revoked_session_does_not_refresh() {
    with_still_shop(async |shop| {
        let login = shop.signed_in().await;
        shop.logout(&login.token()).await;
        is_refused(&shop.refresh(&login.cookie()).await);
    })
    .await;
}

#[tokio::test]
async fn sessions_are_listed_and_ended_one_by_one() {
    with_shop(async |shop| {
        let mine = shop.register(EMAIL).await;
        let login = shop.request(Method::POST, "/auth/login").header("user-agent", "Phone/1 ".repeat(50));
        let phone = send(login.json(&json!({ "email": EMAIL, "password": PASSWORD }))).await;
        let list = shop.get("/auth/sessions", &mine).await;
        assert_eq!((list.status.as_u16(), list.header("cache-control")), (200, "no-store"));
        let list = list.json()["data"].as_array().cloned().unwrap();
        let id = |token: &str| claims(token)["sid"].clone();
        let seen: Vec<_> = list.iter().map(|session| (session["id"].clone(), session["current"].clone())).collect();
        assert_eq!(seen, [(id(&phone.token()), json!(false)), (id(&mine), json!(true))], "newest first");
        assert_eq!(list[0]["address"], "127.0.0.1");
        let device = list[0]["device"].as_str().unwrap();
        assert!(device.starts_with("Phone/1 Phone/1") && device.len() == 200, "{device}");
        assert!(list.iter().all(|session| session["createdAt"].is_string() && session["lastUsedAt"].is_string()));

        let path = format!("/auth/sessions/{}", id(&phone.token()).as_str().unwrap());
        let stranger = shop.customer().await;
        assert_eq!(shop.delete(&path, &stranger).await.problem(), (404, "not_found".into()));
        assert_eq!(shop.me(&phone.token()).await, 200);
        assert_eq!(shop.delete(&path, &mine).await.status, 204);
        assert_eq!(shop.me(&phone.token()).await, 401);
        is_refused(&shop.refresh(&phone.cookie()).await);
        assert_eq!(shop.delete(&path, &mine).await.problem(), (404, "not_found".into()));
        assert_eq!(shop.get("/auth/sessions", &mine).await.json()["data"].as_array().map(Vec::len), Some(1));
    })
    .await;
}

#[rstest]
#[case::with_redis(false)]
#[case::while_redis_is_away(true)]
#[tokio::test]
async fn other_replicas_refuse_an_ended_session_after_five_seconds(#[case] redis_is_away: bool) {
    with_still_shop(async |shop| {
        let url = shop.args.config().store.redis_url().unwrap().clone();
        let (link, through) = Link::to_redis(&url).await.unwrap();
        let linked = |args: &mut crate::shop::Args| {
            args.set("--redis-url", through.as_str());
        };
        let (one, other) = (shop.beside(linked).await, shop.beside(linked).await);
        let (logged_out, revoked) = (one.signed_in().await.token(), one.login(EMAIL, PASSWORD).await.token());
        for token in [&logged_out, &revoked] {
            assert_eq!((one.me(token).await, other.me(token).await), (200, 200));
        }
        if redis_is_away {
            link.cut();
        }
        one.logout(&logged_out).await;
        let path = format!("/auth/sessions/{}", claims(&revoked)["sid"].as_str().unwrap());
        assert_eq!(one.delete(&path, &revoked).await.status, 204);
        for token in [&logged_out, &revoked] {
            assert_eq!(one.me(token).await, 401, "here at once");
        }
        shop.pass(SOON);
        for token in [&logged_out, &revoked] {
            assert_eq!((one.me(token).await, other.me(token).await), (401, 401));
        }
        link.mend();
        for token in [&logged_out, &revoked] {
            assert_eq!((one.me(token).await, other.me(token).await), (401, 401));
        }
    })
    .await;
}

/// What Redis keeps of a session, written by a replica that asked before the session ended.
fn kept_before_the_end(shop: &Shop, token: &str) -> (SessionCache, SessionAnswer) {
    let config = shop.args.config();
    let link = RedisLink::connect(config.store.redis_url().unwrap(), &config.store.mongodb_database).unwrap();
    let user = claims(token)["sub"].as_str().unwrap().parse().unwrap();
    let holder = Holder { user, role: Role::Customer, email: EMAIL.into(), created_at: shop.clock.now() };
    (SessionCache::new(link), SessionAnswer { holder: Some(holder), asked_at: shop.clock.now() })
}

/// A replica that has no Redis: nothing there is told of the sessions that it ends.
async fn replica_without_redis(shop: &Shop) -> Shop {
    shop.beside(|args| {
        args.unset("--redis-url");
    })
    .await
}

/// A session that has ended on a replica which told nobody.
async fn ended_unheard(shop: &Shop) -> (Shop, String) {
    let alone = replica_without_redis(shop).await;
    let token = alone.signed_in().await.token();
    alone.logout(&token).await;
    (alone, token)
}

/// What the process keeps is as old as it was in Redis: the five seconds are those of all caches together.
#[rstest]
#[case::late(4_000)]
#[case::at_the_last_moment(5_000)]
#[tokio::test]
async fn an_answer_that_comes_late_from_redis_is_not_believed_for_another_five_seconds(#[case] millis: i64) {
    with_still_shop(async |shop| {
        let (_alone, token) = ended_unheard(shop).await;
        let id = claims(&token)["sid"].as_str().unwrap().parse().unwrap();
        let (cache, answer) = kept_before_the_end(shop, &token);
        let late = SignedDuration::from_millis(millis);
        shop.pass(late);
        // MongoDB says that the session is over. Redis forgets by a clock of its own, and whoever does not reach it at
        // once asks MongoDB: then another replica tries.
        let replica = eventually("a replica has the old answer from Redis", || async {
            cache.put(&id, &answer, answer.asked_at).await;
            let replica = shop.beside(|_| {}).await;
            (replica.me(&token).await == 200).then_some(replica)
        })
        .await;
        shop.pass(SOON - late);
        assert_eq!(replica.me(&token).await, 401);
    })
    .await;
}

#[tokio::test]
async fn an_ended_session_does_not_rise_again_with_redis() {
    with_still_shop(async |shop| {
        let (alone, token) = ended_unheard(shop).await;
        let id = claims(&token)["sid"].as_str().unwrap().parse().unwrap();
        let (cache, answer) = kept_before_the_end(shop, &token);
        // Redis comes back with what it kept, to a replica that has never heard of the session.
        eventually("the old value", || async {
            cache.put(&id, &answer, answer.asked_at).await;
            cache.get(&id, answer.asked_at).await
        })
        .await;
        shop.pass(SOON);
        assert_eq!((shop.me(&token).await, alone.me(&token).await), (401, 401));
        // Nor by a write that was under way all the time.
        cache.put(&id, &answer, answer.asked_at).await;
        assert_eq!(shop.beside(|_| {}).await.me(&token).await, 401);
    })
    .await;
}
