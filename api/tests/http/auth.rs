//! Accounts and sessions.

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use reqwest::Method;
use rstest::rstest;
use serde_json::{Value, json};

use crate::shop::{PASSWORD, bearer, eventually, random_name, send, with_shop};

#[tokio::test]
async fn registering_signs_in_and_shows_no_secret() {
    with_shop(async |shop| {
        let answer =
            shop.post("/auth/register", "", &json!({ "email": " Ann@Example.com", "password": PASSWORD })).await;
        assert_eq!(answer.status, 201, "{answer:?}");
        let body = answer.json();
        assert_eq!((&body["status"], &body["message"]), (&json!("success"), &json!("User created successfully")));
        assert_eq!(body["user"]["email"], "ann@example.com");
        assert_eq!(body["user"]["role"], "customer");
        let members: Vec<_> = body["user"].as_object().unwrap().keys().collect();
        assert_eq!(members, ["createdAt", "email", "id", "role"], "never a hash");
        let cookie = answer.header("set-cookie");
        for part in ["Max-Age=604800", "Path=/", "HttpOnly", "SameSite=Strict", "Secure"] {
            assert!(cookie.contains(part), "{part} in {cookie}");
        }
        assert_eq!(answer.header("cache-control"), "no-store");

        let me = shop.get("/auth/me", body["accessToken"].as_str().unwrap()).await;
        assert_eq!(me.json(), body["user"]);
    })
    .await;
}

#[tokio::test]
async fn an_address_has_one_account_however_it_is_written() {
    with_shop(async |shop| {
        shop.register("ann@example.com").await;
        let again = shop.post("/auth/register", "", &json!({ "email": "ANN@example.com", "password": PASSWORD })).await;
        assert_eq!(again.problem(), (409, "email_taken".into()));
        assert_eq!(shop.login(" Ann@EXAMPLE.com ", PASSWORD).await.status, 200);
    })
    .await;
}

#[tokio::test]
async fn twins_of_one_registration_make_one_account() {
    with_shop(async |shop| {
        let body = json!({ "email": "twin@example.com", "password": PASSWORD });
        let (one, two) = tokio::join!(shop.post("/auth/register", "", &body), shop.post("/auth/register", "", &body));
        let mut statuses = [one.status.as_u16(), two.status.as_u16()];
        statuses.sort_unstable();
        assert_eq!(statuses, [201, 409]);
    })
    .await;
}

#[tokio::test]
async fn all_faults_of_a_registration_are_told_at_once() {
    with_shop(async |shop| {
        let answer = shop.post("/auth/register", "", &json!({ "email": "ann", "password": "short" })).await;
        assert_eq!(answer.problem(), (400, "invalid_request".into()));
        assert_eq!(answer.pointers(), ["/email", "/password"]);

        let answer = shop.post("/auth/register", "", &json!({ "role": "staff", "password": 1 })).await;
        assert_eq!(answer.pointers(), ["/email", "/password", "/role"]);
    })
    .await;
}

#[tokio::test]
async fn wrong_password_and_unknown_address_are_not_told_apart() {
    with_shop(async |shop| {
        shop.register("ann@example.com").await;
        let right = shop.login("ann@example.com", PASSWORD).await;
        assert_eq!((right.status.as_u16(), right.json()["message"].clone()), (200, json!("Login successful")));
        let mut answers = Vec::new();
        for (email, password) in [("ann@example.com", "wrong"), ("nobody@example.com", PASSWORD), ("no address", "x")] {
            let answer = shop.login(email, password).await;
            assert_eq!(answer.problem(), (401, "unauthenticated".into()));
            let mut body = answer.json();
            body["requestId"] = Value::Null;
            answers.push(body);
        }
        assert!(answers.windows(2).all(|pair| pair[0] == pair[1]));
    })
    .await;
}

#[tokio::test]
async fn refreshing_rotates_and_a_prompt_repetition_gets_the_same_successor() {
    with_shop(async |shop| {
        shop.register("ann@example.com").await;
        let first = shop.login("ann@example.com", PASSWORD).await.cookie();
        let answer = shop.refresh(&first).await;
        assert_eq!((answer.status.as_u16(), answer.json()["status"].clone()), (200, json!("success")));
        let second = answer.cookie();
        assert_ne!(first, second);
        // A tab that was not told: the same successor again, and a good access token.
        let repeated = shop.refresh(&first).await;
        assert_eq!(repeated.cookie(), second);
        assert_eq!(shop.get("/auth/me", repeated.json()["accessToken"].as_str().unwrap()).await.status, 200);
        // The successor is used: the first token is now a replay, and the family ends.
        let third = shop.refresh(&second).await.cookie();
        assert_eq!(shop.refresh(&first).await.problem(), (401, "unauthenticated".into()));
        assert_eq!(shop.refresh(&third).await.problem(), (401, "unauthenticated".into()));
        let token = repeated.json()["accessToken"].as_str().unwrap().to_owned();
        eventually("the session to end", || async {
            Some(shop.get("/auth/me", &token).await).filter(|answer| answer.status == 401)
        })
        .await;
    })
    .await;
}

#[tokio::test]
async fn simultaneous_refreshes_agree() {
    with_shop(async |shop| {
        shop.register("ann@example.com").await;
        let first = shop.login("ann@example.com", PASSWORD).await.cookie();
        let (a, b, c) = tokio::join!(shop.refresh(&first), shop.refresh(&first), shop.refresh(&first));
        assert!(a.cookie() == b.cookie() && b.cookie() == c.cookie());
        assert_eq!(shop.refresh(&a.cookie()).await.status, 200);
    })
    .await;
}

#[rstest]
#[case("")]
#[case("nonsense")]
#[case("67c8830b7ef1b848ac52ebec.AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA")]
#[tokio::test]
async fn other_cookies_do_not_refresh(#[case] cookie: &str) {
    with_shop(async |shop| {
        assert_eq!(shop.refresh(cookie).await.problem(), (401, "unauthenticated".into()));
    })
    .await;
}

#[rstest]
#[case(Method::POST)]
#[case(Method::GET)] // as the original has it
#[tokio::test]
async fn logging_out_ends_the_session(#[case] method: Method) {
    with_shop(async |shop| {
        shop.register("ann@example.com").await;
        let login = shop.login("ann@example.com", PASSWORD).await;
        let (cookie, token) = (login.cookie(), login.json()["accessToken"].as_str().unwrap().to_owned());
        assert_eq!(shop.get("/auth/me", &token).await.status, 200);
        let answer =
            send(shop.request(method, "/auth/logout").header("cookie", format!("refreshToken={cookie}"))).await;
        assert_eq!(answer.json(), json!({ "status": "success", "message": "Successfully logged out" }));
        assert!(answer.header("set-cookie").starts_with("refreshToken=; Max-Age=0"));
        assert_eq!(shop.get("/auth/me", &token).await.problem(), (401, "unauthenticated".into()));
        assert_eq!(shop.refresh(&cookie).await.status, 401);
    })
    .await;
}

#[tokio::test]
async fn logging_out_ends_the_cookies_session_and_the_access_tokens() {
    with_shop(async |shop| {
        let token = shop.register("ann@example.com").await;
        let other = shop.login("ann@example.com", PASSWORD).await;
        let (cookie, others) = (other.cookie(), other.json()["accessToken"].as_str().unwrap().to_owned());
        let logout = bearer(shop.request(Method::POST, "/auth/logout"), &token);
        assert_eq!(send(logout.header("cookie", format!("refreshToken={cookie}"))).await.status, 200);
        for token in [&token, &others] {
            assert_eq!(shop.get("/auth/me", token).await.problem(), (401, "unauthenticated".into()));
        }
    })
    .await;
}

#[tokio::test]
async fn logging_out_with_the_access_token_is_seen_by_other_replicas_within_five_seconds() {
    with_shop(async |shop| {
        let other = shop.replica(|_| {}).await;
        let token = shop.customer().await;
        let url = format!("http://{}/api/v1/auth/me", other.http_addr);
        let ask = || async { send(shop.client.get(&url).bearer_auth(&token)).await };
        assert_eq!(ask().await.status, 200);
        let ended = tokio::time::Instant::now();
        assert_eq!(send(bearer(shop.request(Method::POST, "/auth/logout"), &token)).await.status, 200);
        eventually("the other replica", || async { Some(ask().await).filter(|answer| answer.status == 401) }).await;
        assert!(ended.elapsed().as_millis() <= 5_200, "{:?}", ended.elapsed());
    })
    .await;
}

#[tokio::test]
async fn a_session_is_not_ended_by_a_guess() {
    with_shop(async |shop| {
        let login = shop.post("/auth/register", "", &json!({ "email": "ann@example.com", "password": PASSWORD })).await;
        let (cookie, token) = (login.cookie(), login.json()["accessToken"].as_str().unwrap().to_owned());
        // The session's id is in the access token, for anyone who reads it.
        let claims = BASE64_URL_SAFE_NO_PAD.decode(token.split('.').nth(1).unwrap()).unwrap();
        let claims: Value = serde_json::from_slice(&claims).unwrap();
        let guess = format!("{}.{}", claims["sid"].as_str().unwrap(), "A".repeat(43));
        assert_eq!(shop.refresh(&guess).await.problem(), (401, "unauthenticated".into()));
        let logout = shop.request(Method::POST, "/auth/logout").header("cookie", format!("refreshToken={guess}"));
        assert_eq!(send(logout).await.status, 200);
        assert_eq!(shop.refresh(&cookie).await.status, 200);
    })
    .await;
}

#[rstest]
#[case("")]
#[case("Bearer")]
#[case("Bearer nonsense")]
#[case("Basic YTpi")]
#[tokio::test]
async fn without_a_good_token_there_is_no_profile(#[case] authorization: &str) {
    with_shop(async |shop| {
        let request = shop.request(Method::GET, "/auth/me").header("authorization", authorization);
        let answer = send(request).await;
        assert_eq!(answer.problem(), (401, "unauthenticated".into()));
        assert_eq!(answer.header("www-authenticate"), "Bearer");
    })
    .await;
}

#[tokio::test]
async fn a_token_of_another_shop_is_refused() {
    with_shop(async |one| {
        let token = one.customer().await;
        with_shop(async |other| {
            assert_eq!(other.get("/auth/me", &token).await.problem(), (401, "unauthenticated".into()));
        })
        .await;
    })
    .await;
}

#[tokio::test]
async fn changed_keys_are_taken_over_and_old_tokens_stay_good() {
    use base64::prelude::BASE64_STANDARD;
    with_shop(async |shop| {
        let token = shop.customer().await;
        let path = shop.args.config().auth.auth_keys_file;
        let mut keys: Value = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
        let new = shop_runtime::ids::random_bytes::<32>().unwrap();
        keys["keys"]["k2"] = BASE64_STANDARD.encode(new).into();
        keys["signing"] = "k2".into();
        std::fs::write(&path, keys.to_string()).unwrap();
        let header = |token: &str| {
            let header = BASE64_URL_SAFE_NO_PAD.decode(token.split('.').next().unwrap()).unwrap();
            serde_json::from_slice::<Value>(&header).unwrap()
        };
        assert_eq!(header(&token)["kid"], "k1");
        let email = format!("{}@example.com", random_name("k"));
        shop.register(&email).await;
        eventually("the new key", || async {
            let token = shop.login(&email, PASSWORD).await.json()["accessToken"].as_str().unwrap().to_owned();
            (header(&token)["kid"] == "k2").then_some(())
        })
        .await;
        assert_eq!(shop.get("/auth/me", &token).await.status, 200);
    })
    .await;
}
