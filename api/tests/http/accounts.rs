//! What someone does with their own account: change the password, erase it; and what passwords cost.

use futures::future::join_all;
use jiff::SignedDuration;
use reqwest::Method;
use serde_json::{Value, json};
use shop_domain::id::{OrderId, OutboxId, PasswordResetId};
use shop_runtime::ids;
use shop_store::{
    orders::{BuyerEmail, OrderDocument, Viewer},
    outbox::{OutboxEntry, OutboxKind},
    password_resets::PasswordReset,
};

use crate::{
    shop::{
        Answer, DOCUMENTED_ORDER, PASSWORD, Shop, bearer, eventually, send, with_shop, with_shop_of, with_still_shop,
    },
    tokens::claims,
};

const EMAIL: &str = "ann@example.com";
const NEW: &str = "battery staple";

impl Shop {
    async fn change_password(&self, token: &str, current: &str, new: &str) -> Answer {
        self.post("/auth/password", token, &json!({ "currentPassword": current, "newPassword": new })).await
    }

    async fn erase(&self, token: &str, password: &str) -> Answer {
        send(bearer(self.request(Method::DELETE, "/auth/me"), token).json(&json!({ "password": password }))).await
    }

    async fn stored_order(&self, id: &str) -> OrderDocument {
        let id: OrderId = id.parse().unwrap();
        self.store.orders.find(&id, &Viewer::Staff).await.unwrap().unwrap()
    }

    /// Password hashes that the service has computed, by what they cost.
    async fn hashes(&self) -> Vec<(String, u64)> {
        let metrics = send(self.client.get(format!("{}/metrics", self.ops))).await.text;
        let lines = metrics.lines().filter_map(|line| line.strip_prefix("shop_api_password_hashes_total"));
        lines
            .map(|line| {
                let (cost, count) = line.rsplit_once(' ').unwrap();
                (cost.to_owned(), count.parse().unwrap())
            })
            .collect()
    }

    async fn stored_hash(&self) -> String {
        self.store.users.find_by_email(EMAIL).await.unwrap().unwrap().password_hash
    }
}

#[tokio::test]
async fn a_changed_password_ends_all_other_sessions_everywhere() {
    with_still_shop(async |shop| {
        let other = shop.beside(|_| {}).await;
        let (mine, elsewhere) = (shop.register(EMAIL).await, shop.login(EMAIL, PASSWORD).await);
        assert_eq!(other.get("/auth/me", &elsewhere.token()).await.status, 200);
        assert_eq!(shop.change_password(&mine, PASSWORD, NEW).await.status, 204);
        for replica in [shop, &other] {
            assert_eq!(replica.get("/auth/me", &mine).await.status, 200, "whoever changed it stays signed in");
            assert_eq!(replica.refresh(&elsewhere.cookie()).await.status, 401);
        }
        shop.clock.advance(SignedDuration::from_millis(5_001));
        for replica in [shop, &other] {
            assert_eq!(replica.get("/auth/me", &mine).await.status, 200);
            assert_eq!(replica.get("/auth/me", &elsewhere.token()).await.status, 401);
        }
        assert_eq!(shop.login(EMAIL, PASSWORD).await.status, 401);
        assert_eq!(shop.login(EMAIL, NEW).await.status, 200);
    })
    .await;
}

#[tokio::test]
async fn a_password_is_changed_only_by_who_knows_it() {
    with_shop(async |shop| {
        let token = shop.register(EMAIL).await;
        let before = shop.stored_hash().await;
        let wrong = shop.change_password(&token, "wrong", NEW).await;
        assert_eq!(wrong.problem(), (401, "unauthenticated".into()));
        let short = shop.change_password(&token, PASSWORD, "short").await;
        assert_eq!((short.problem(), short.pointers()), ((400, "invalid_request".into()), vec!["/newPassword".into()]));
        assert_eq!(
            shop.post("/auth/password", &token, &json!({})).await.pointers(),
            ["/currentPassword", "/newPassword"]
        );
        assert_eq!(shop.stored_hash().await, before);
        assert_eq!(shop.get("/auth/me", &token).await.status, 200);
    })
    .await;
}

#[tokio::test]
async fn guesses_at_the_password_of_a_session_are_limited() {
    with_shop_of(
        |args| {
            args.set("--limit-auth-per-15-minutes", "4").set("--trusted-proxies", "127.0.0.0/8");
            args.unset("--staff-email").unset("--staff-password").unset("--redis-url");
        },
        async |shop| {
            let token = shop.register(EMAIL).await;
            let guess = async |method: Method, path: &str, body: Value, from: u8| {
                let request = bearer(shop.request(method, path), &token);
                send(request.header("x-forwarded-for", format!("198.51.100.{from}")).json(&body)).await.status.as_u16()
            };
            let change = json!({ "currentPassword": "wrong", "newPassword": NEW });
            for from in 1..=3 {
                assert_eq!(guess(Method::POST, "/auth/password", change.clone(), from).await, 401);
            }
            assert_eq!(guess(Method::DELETE, "/auth/me", json!({ "password": "wrong" }), 4).await, 401);
            assert_eq!(guess(Method::POST, "/auth/password", change, 5).await, 429);
            assert_eq!(guess(Method::DELETE, "/auth/me", json!({ "password": PASSWORD }), 6).await, 429);
        },
    )
    .await;
}

/// The change and the end of the sessions are one write: there is nothing between them that could fail.
#[tokio::test]
async fn a_new_staff_password_ends_sessions_without_a_second_step() {
    with_still_shop(async |shop| {
        let (staff, cookie) =
            (shop.staff().await, shop.login(crate::shop::STAFF.0, crate::shop::STAFF.1).await.cookie());
        assert_eq!(shop.get("/admin/users", &staff).await.status, 200);
        let user = shop.store.users.find_by_email(crate::shop::STAFF.0).await.unwrap().unwrap();
        shop.store.users.make_staff(&user, &user.password_hash).await.unwrap().unwrap();
        shop.clock.advance(SignedDuration::from_millis(5_001));
        assert_eq!(shop.get("/admin/users", &staff).await.problem(), (401, "unauthenticated".into()));
        assert_eq!(shop.refresh(&cookie).await.problem(), (401, "unauthenticated".into()));
    })
    .await;
}

#[tokio::test]
async fn an_erased_account_leaves_its_orders_and_nothing_of_itself() {
    with_still_shop(async |shop| {
        let (token, cookie) = (shop.register(EMAIL).await, shop.login(EMAIL, PASSWORD).await.cookie());
        let order = shop.order(&token, None, DOCUMENTED_ORDER).await.json()["orderId"].as_str().unwrap().to_owned();
        assert_eq!(shop.stored_order(&order).await.email.expose(), EMAIL);

        assert_eq!(shop.erase(&token, "wrong").await.problem(), (401, "unauthenticated".into()));
        assert_eq!(shop.erase("", PASSWORD).await.problem(), (401, "unauthenticated".into()));
        assert_eq!(shop.get("/auth/me", &token).await.status, 200);
        let erased = shop.erase(&token, PASSWORD).await;
        assert_eq!(erased.status, 204, "{erased:?}");
        assert!(erased.header("set-cookie").starts_with("refreshToken=; Max-Age=0"));

        assert_eq!(shop.get("/auth/me", &token).await.status, 401);
        assert_eq!(shop.refresh(&cookie).await.status, 401);
        assert_eq!(shop.login(EMAIL, PASSWORD).await.status, 401);
        for session in [claims(&token)["sid"].as_str().unwrap(), cookie.split('.').next().unwrap()] {
            let kept = shop.store.sessions.find(&session.parse().unwrap()).await.unwrap();
            assert_eq!(kept, None, "device and address are personal too");
        }
        let (stored, staff) = (shop.stored_order(&order).await, shop.staff().await);
        assert!(stored.email.is_erased(), "nothing of the address is left");
        assert_eq!(stored.user_id.as_str(), claims(&token)["sub"].as_str().unwrap());
        assert_eq!(shop.get(&format!("/orders/{order}"), &staff).await.json()["status"], "Pending", "staff go on");

        // The address is free again, for somebody else as far as the shop knows.
        let next = shop.register(EMAIL).await;
        assert_ne!(claims(&next)["sub"], claims(&token)["sub"]);
        assert_eq!(shop.get(&format!("/orders/{order}"), &next).await.status, 404);
        assert_eq!(shop.get("/orders", &next).await.json()["data"], json!([]));
    })
    .await;
}

/// The address is in its requests for new passwords too, and in the mails that they owe.
#[tokio::test]
async fn an_erased_account_leaves_no_request_for_a_new_password() {
    with_still_shop(async |shop| {
        let requested = async |email: &str| {
            let user = shop.store.users.find_by_email(email).await.unwrap().unwrap();
            let later = shop.clock.now() + SignedDuration::from_hours(1);
            let entry = OutboxId::from_bits(ids::random_bytes().unwrap());
            let reset = PasswordReset {
                id: PasswordResetId::from_bits(ids::random_bytes().unwrap()),
                user_id: user.id,
                password_mark: String::new(),
                email: Some(BuyerEmail::new(email)),
                created_at: shop.clock.now(),
                expires_at: later,
                outbox: vec![OutboxEntry::due(entry, OutboxKind::PasswordResetMail, later)],
            };
            shop.store.password_resets.create(&reset).await.unwrap();
            reset.id
        };
        let token = shop.register(EMAIL).await;
        shop.register("bob@example.com").await;
        let (of_erased, of_other) = (requested(EMAIL).await, requested("bob@example.com").await);
        assert_eq!(shop.erase(&token, PASSWORD).await.status, 204);
        assert_eq!(shop.store.password_resets.find(&of_erased).await.unwrap(), None);
        assert!(shop.store.password_resets.find(&of_other).await.unwrap().is_some());
    })
    .await;
}

#[tokio::test]
async fn an_erasure_that_was_interrupted_is_brought_to_its_end() {
    with_shop(async |shop| {
        let token = shop.register(EMAIL).await;
        let order = shop.order(&token, None, DOCUMENTED_ORDER).await.json()["orderId"].as_str().unwrap().to_owned();
        let user = shop.store.users.find_by_email(EMAIL).await.unwrap().unwrap();
        // The process that began it ended before it did anything else.
        let long_ago = shop.clock.now().saturating_sub(SignedDuration::from_mins(5)).unwrap();
        shop.store.erasures.begin(&user.id, long_ago).await.unwrap();
        eventually("the end of the erasure", || async {
            let open = shop.store.erasures.begun_before(shop.clock.now()).await.unwrap();
            open.is_empty().then_some(())
        })
        .await;
        assert_eq!(shop.store.users.find(&user.id).await.unwrap(), None);
        assert!(shop.stored_order(&order).await.email.is_erased());
        assert_eq!(shop.store.sessions.live_of(&user.id, shop.clock.now()).await.unwrap(), []);
    })
    .await;
}

#[tokio::test]
async fn an_unknown_address_and_a_wrong_password_cost_one_hash_each() {
    with_shop_of(
        |args| {
            args.set("--argon2-memory-kib", "8192").set("--argon2-passes", "3");
            args.unset("--staff-email").unset("--staff-password");
        },
        async |shop| {
            let token = shop.register(EMAIL).await;
            let cost = r#"{memory_kib="8192",passes="3",lanes="1"}"#;
            let mut computed = 1;
            assert_eq!(shop.hashes().await, [(cost.to_owned(), computed)]);
            for (email, password, status) in [
                (EMAIL, "wrong", 401),
                ("nobody@example.com", PASSWORD, 401),
                ("no address", "x", 401),
                (EMAIL, PASSWORD, 200),
            ] {
                assert_eq!(shop.login(email, password).await.status, status);
                computed += 1;
                assert_eq!(shop.hashes().await, [(cost.to_owned(), computed)], "{email}");
            }
            assert_eq!(shop.change_password(&token, "wrong", NEW).await.status, 401);
            assert_eq!(shop.hashes().await, [(cost.to_owned(), computed + 1)]);
        },
    )
    .await;
}

#[tokio::test]
async fn a_password_is_hashed_anew_when_the_parameters_change() {
    with_shop_of(
        |args| {
            args.set("--argon2-memory-kib", "8192").set("--argon2-passes", "1");
        },
        async |shop| {
            shop.register(EMAIL).await;
            assert!(shop.stored_hash().await.starts_with("$argon2id$v=19$m=8192,t=1,p=1$"));
            let stronger = shop
                .beside(|args| {
                    args.set("--argon2-memory-kib", "9216").set("--argon2-passes", "2");
                })
                .await;
            assert_eq!(stronger.login(EMAIL, "wrong").await.status, 401);
            assert!(shop.stored_hash().await.starts_with("$argon2id$v=19$m=8192,t=1,p=1$"));
            let login = stronger.login(EMAIL, PASSWORD).await;
            assert_eq!(login.status, 200);
            let renewed = shop.stored_hash().await;
            assert!(renewed.starts_with("$argon2id$v=19$m=9216,t=2,p=1$"), "{renewed}");
            assert_eq!(stronger.login(EMAIL, PASSWORD).await.status, 200);
            assert_eq!(shop.stored_hash().await, renewed, "once");
            assert_eq!(stronger.get("/auth/me", &login.token()).await.status, 200, "no session ends by it");
        },
    )
    .await;
}

#[tokio::test]
async fn a_full_password_pool_says_come_back() {
    with_shop_of(
        |args| {
            // One at a time: seventeen have a place, and all of them get their turn on a busy machine too.
            args.set("--password-workers", "1").set("--request-timeout-seconds", "300");
            args.unset("--staff-email").unset("--staff-password");
        },
        async |shop| {
            let answers = join_all((0..200).map(|_| shop.login("nobody@example.com", "x"))).await;
            let (served, refused): (Vec<_>, Vec<_>) = answers.iter().partition(|answer| answer.status == 401);
            assert!(served.len() >= 17 && !refused.is_empty(), "{} served, {} refused", served.len(), refused.len());
            for answer in refused {
                assert_eq!(answer.problem(), (503, "busy".into()));
                assert_eq!(answer.header("retry-after"), "1");
            }
            assert_eq!(shop.login("nobody@example.com", "x").await.status, 401, "there is room again");
        },
    )
    .await;
}
