//! A forgotten password: the mail's token sets a new one, once, and tells nobody anything.

use jiff::SignedDuration;
use rstest::rstest;
use secrecy::ExposeSecret;
use serde_json::{Value, json};
use shop_api::{keys::Keys, reset_tokens::ResetTokens};
use shop_domain::id::PasswordResetId;
use shop_store::password_resets::PasswordReset;

use crate::shop::{Answer, PASSWORD, Shop, eventually, random_name, with_shop, with_shop_of, with_still_shop};

const NEW: &str = "another horse";

async fn ask(shop: &Shop, email: &str) -> Answer {
    shop.post("/auth/password-reset", "", &json!({ "email": email })).await
}

async fn set(shop: &Shop, token: &str, password: &str) -> Answer {
    shop.post(&format!("/auth/password-reset/{token}"), "", &json!({ "password": password })).await
}

/// The texts of the mails to an address, oldest first, as soon as there are so many.
pub async fn mails_to(shop: &Shop, email: &str, count: usize) -> Vec<String> {
    let url = format!("{}/store", shop.args.config().mail.service().endpoint.unwrap());
    eventually(&format!("{count} mails"), || async {
        let store: Value = reqwest::get(&url).await.unwrap().json().await.unwrap();
        let all = store["emails"].as_array().cloned().unwrap_or_default();
        let texts: Vec<_> = all
            .iter()
            .filter(|mail| mail["destination"]["to"][0] == email)
            .map(|mail| mail["body"]["text"].as_str().unwrap().to_owned())
            .collect();
        (texts.len() >= count).then_some(texts)
    })
    .await
}

pub fn token_in(mail: &str) -> String {
    let (_, rest) = mail.split_once("/auth/password-reset/").unwrap();
    rest.split_whitespace().next().unwrap().to_owned()
}

/// Asks for a mail and takes the token out of it, the `nth` mail to the address.
async fn token(shop: &Shop, email: &str, nth: usize) -> String {
    assert_eq!(ask(shop, email).await.status, 202);
    token_in(mails_to(shop, email, nth).await.last().unwrap())
}

fn somebody() -> String {
    format!("{}@example.com", random_name("r"))
}

#[tokio::test]
async fn the_mails_token_sets_the_password_once_and_ends_all_sessions() {
    with_shop(async |shop| {
        let email = somebody();
        let old_session = shop.register(&email).await;
        let token = token(shop, &email, 1).await;
        let answer = set(shop, &token, NEW).await;
        assert_eq!((answer.status.as_u16(), &answer.json()["status"]), (200, &json!("success")), "{answer:?}");
        assert_eq!(shop.login(&email, PASSWORD).await.status, 401);
        assert_eq!(shop.login(&email, NEW).await.status, 200);
        eventually("the old session to end", || async {
            Some(shop.get("/auth/me", &old_session).await).filter(|answer| answer.status == 401)
        })
        .await;
        assert_eq!(set(shop, &token, "a third horse").await.problem(), (400, "invalid_reset_token".into()));
        assert_eq!(shop.login(&email, NEW).await.status, 200);
    })
    .await;
}

#[tokio::test]
async fn known_and_unknown_addresses_get_the_same_answer_and_only_one_gets_a_mail() {
    with_shop(async |shop| {
        let (known, unknown) = (somebody(), somebody());
        shop.register(&known).await;
        let (one, other) = (ask(shop, &unknown).await, ask(shop, &known).await);
        assert_eq!((one.status, &one.text), (other.status, &other.text));
        assert_eq!(one.status, 202);
        let names = |answer: &Answer| answer.headers.keys().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(names(&one), names(&other));
        // The unknown address was asked for first: its mail would be out as well.
        mails_to(shop, &known, 1).await;
        assert_eq!(mails_to(shop, &unknown, 0).await.len(), 0);
        assert_eq!(ask(shop, "no address").await.problem(), (400, "invalid_request".into()));
    })
    .await;
}

#[tokio::test]
async fn a_weak_password_leaves_the_token_good() {
    with_shop(async |shop| {
        let email = somebody();
        shop.register(&email).await;
        let token = token(shop, &email, 1).await;
        let answer = set(shop, &token, "short").await;
        assert_eq!(
            (answer.problem(), answer.pointers()),
            ((400, "invalid_request".into()), vec!["/password".to_owned()])
        );
        assert_eq!(set(shop, &token, NEW).await.status, 200);
    })
    .await;
}

#[rstest]
#[case("nonsense")]
#[case("67c8830b7ef1b848ac52ebec.AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA")]
#[case("%00")]
#[tokio::test]
async fn other_tokens_are_refused_alike(#[case] token: &str) {
    with_shop(async |shop| {
        assert_eq!(set(shop, token, NEW).await.problem(), (400, "invalid_reset_token".into()));
    })
    .await;
}

#[tokio::test]
async fn of_two_who_use_a_token_at_once_one_succeeds() {
    with_shop(async |shop| {
        let email = somebody();
        shop.register(&email).await;
        let token = token(shop, &email, 1).await;
        let (one, two) = tokio::join!(set(shop, &token, "first horse"), set(shop, &token, "second horse"));
        let mut statuses = [one.status.as_u16(), two.status.as_u16()];
        statuses.sort_unstable();
        assert_eq!(statuses, [200, 400]);
        let winner = if one.status == 200 { "first horse" } else { "second horse" };
        assert_eq!(shop.login(&email, winner).await.status, 200);
    })
    .await;
}

#[tokio::test]
async fn only_the_three_newest_tokens_are_good_and_none_from_before_a_new_password() {
    with_shop(async |shop| {
        let email = somebody();
        shop.register(&email).await;
        let mut tokens = Vec::new();
        for nth in 1..=4 {
            tokens.push(token(shop, &email, nth).await);
        }
        assert_eq!(set(shop, &tokens[0], NEW).await.problem(), (400, "invalid_reset_token".into()));
        assert_eq!(set(shop, &tokens[1], NEW).await.status, 200);
        for token in &tokens[2..] {
            assert_eq!(set(shop, token, PASSWORD).await.problem(), (400, "invalid_reset_token".into()));
        }
        assert_eq!(set(shop, &token(shop, &email, 5).await, PASSWORD).await.status, 200);
    })
    .await;
}

#[tokio::test]
async fn a_token_is_good_for_an_hour() {
    with_shop(async |shop| {
        let email = somebody();
        shop.register(&email).await;
        let known = token(shop, &email, 1).await;
        let known = known.split('.').next().unwrap().parse().unwrap();
        let reset = shop.store.password_resets.find(&known).await.unwrap().unwrap();
        assert_eq!(reset.expires_at.duration_since(reset.created_at), SignedDuration::from_hours(1));
        let keys = Keys::load(&shop.args.config().auth.auth_keys_file).await.unwrap();
        // The same request once more, over for a second or still good for a minute.
        for (seconds, status) in [(-1, 400), (60, 200)] {
            let id = PasswordResetId::from_bits(shop_runtime::ids::random_bytes().unwrap());
            let expires_at = shop.clock.now() + SignedDuration::from_secs(seconds);
            let again = PasswordReset { id, expires_at, ..reset.clone() };
            shop.store.password_resets.create(&again).await.unwrap();
            let token = ResetTokens::new(keys.clone()).issue(&again.id).unwrap();
            assert_eq!(set(shop, token.expose_secret(), NEW).await.status, status);
        }
    })
    .await;
}

#[tokio::test]
async fn what_the_database_holds_is_no_token() {
    with_shop(async |shop| {
        let email = somebody();
        shop.register(&email).await;
        let token = token(shop, &email, 1).await;
        let (id, secret) = token.split_once('.').unwrap();
        let stored = shop.store.password_resets.find(&id.parse().unwrap()).await.unwrap().unwrap();
        let stored = serde_json::to_string(&stored).unwrap();
        assert!(stored.contains(id) && !stored.contains(secret), "{stored}");
    })
    .await;
}

#[tokio::test]
async fn a_shop_with_a_page_for_it_links_there() {
    let page = "https://shop.example.com/reset?token={token}";
    with_shop_of(
        |args| {
            args.set("--password-reset-url", page);
        },
        async |shop| {
            let email = somebody();
            shop.register(&email).await;
            assert_eq!(ask(shop, &email).await.status, 202);
            let mail = mails_to(shop, &email, 1).await.remove(0);
            let (_, rest) = mail.split_once("https://shop.example.com/reset?token=").unwrap();
            let token = rest.split_whitespace().next().unwrap();
            assert_eq!(set(shop, token, NEW).await.status, 200);
        },
    )
    .await;
}

#[tokio::test]
async fn requests_are_limited_by_account_apart_from_sign_ins() {
    with_shop_of(
        |args| {
            args.set("--limit-auth-per-15-minutes", "3").unset("--staff-email").unset("--staff-password");
            // Each request below comes from an address of its own.
            args.set("--trusted-proxies", "127.0.0.1");
        },
        async |shop| {
            let from = |n: u8, path: &'static str, body: Value| {
                let request =
                    shop.request(reqwest::Method::POST, path).header("x-forwarded-for", format!("203.0.113.{n}"));
                crate::shop::send(request.json(&body))
            };
            for n in 1..=3 {
                assert_eq!(from(n, "/auth/password-reset", json!({ "email": "ann@example.com" })).await.status, 202);
            }
            let fourth = from(4, "/auth/password-reset", json!({ "email": " Ann@example.com" })).await;
            assert_eq!(fourth.problem(), (429, "rate_limited".into()));
            let sign_in = from(5, "/auth/login", json!({ "email": "ann@example.com", "password": "x" })).await;
            assert_eq!(sign_in.status, 401);
        },
    )
    .await;
}

/// The new password and the end of the sessions are one write: there is nothing between them that could fail.
#[tokio::test]
async fn a_reset_ends_sessions_without_a_second_step() {
    with_still_shop(async |shop| {
        let email = somebody();
        let (session, cookie) = (shop.register(&email).await, shop.login(&email, PASSWORD).await.cookie());
        assert_eq!(shop.get("/auth/me", &session).await.status, 200);
        let user = shop.store.users.find_by_email(&email).await.unwrap().unwrap();
        assert!(shop.store.users.reset_password(&user, &user.password_hash).await.unwrap());
        shop.clock.advance(SignedDuration::from_millis(5_001));
        assert_eq!(shop.get("/auth/me", &session).await.problem(), (401, "unauthenticated".into()));
        assert_eq!(shop.refresh(&cookie).await.problem(), (401, "unauthenticated".into()));
    })
    .await;
}

/// The clock stands still: only who was told knows.
#[tokio::test]
async fn the_caches_are_told_of_a_reset() {
    with_still_shop(async |shop| {
        let email = somebody();
        let session = shop.register(&email).await;
        let token = token(shop, &email, 1).await;
        assert_eq!(shop.get("/auth/me", &session).await.status, 200);
        assert_eq!(set(shop, &token, NEW).await.status, 200);
        assert_eq!(shop.get("/auth/me", &session).await.problem(), (401, "unauthenticated".into()));
        let user = shop.store.users.find_by_email(&email).await.unwrap().unwrap();
        assert_eq!(shop.store.sessions.live_of(&user.id, shop.clock.now()).await.unwrap(), []);
    })
    .await;
}

#[tokio::test]
async fn who_has_set_a_new_password_can_sign_in_from_there_whatever_strangers_do() {
    with_shop_of(
        |args| {
            args.set("--limit-auth-per-15-minutes", "4").unset("--staff-email").unset("--staff-password");
            args.set("--trusted-proxies", "127.0.0.1");
        },
        async |shop| {
            let email = somebody();
            shop.register(&email).await;
            let from = |n: u8, path: &str, body: Value| {
                let request =
                    shop.request(reqwest::Method::POST, path).header("x-forwarded-for", format!("203.0.113.{n}"));
                crate::shop::send(request.json(&body))
            };
            let token = token(shop, &email, 1).await;
            let path = format!("/auth/password-reset/{token}");
            assert_eq!(from(1, &path, json!({ "password": NEW })).await.status, 200);
            // The first attempt was to register.
            for (n, status) in [(2, 401), (3, 401), (4, 401), (5, 429)] {
                let guess = json!({ "email": email, "password": "wrong" });
                assert_eq!(from(n, "/auth/login", guess).await.status, status);
            }
            let right = json!({ "email": email, "password": NEW });
            assert_eq!(from(6, "/auth/login", right.clone()).await.status, 429);
            assert_eq!(from(1, "/auth/login", right).await.status, 200);
        },
    )
    .await;
}
