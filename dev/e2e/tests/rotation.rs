//! The rotation of the signing keys on a whole cluster: at no moment is a valid token refused.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use kube::api::{Patch, PatchParams};
use reqwest::Method;
use serde_json::{Value, json};
use shop_bench::client::Account;
use shop_e2e::{Tested, with_shop};
use shop_operator::crd::ShopDeployment;
use tokio::time::Instant;

const PASSWORD: &str = "correct horse";
/// A token of one minute is used for so long.
const USED_FOR: Duration = Duration::from_secs(55);
/// The kubelet renews a file within two minutes, twice; then a token's life and its leeway pass.
const LONGEST: Duration = Duration::from_mins(9);

/// The access token of a new login, and the cookie that renews it.
async fn login(tested: &Tested, email: &str) -> Result<(String, String)> {
    let credentials = json!({ "email": email, "password": PASSWORD });
    let answer = tested.shop.request(Method::POST, "/api/v1/auth/login", None).json(&credentials).send().await?;
    ensure!(answer.status().is_success(), "login answered {}", answer.status());
    tokens(answer).await
}

async fn renew(tested: &Tested, cookie: &str) -> Result<(String, String)> {
    let request = tested.shop.request(Method::POST, "/api/v1/auth/refresh-token", None).header("Cookie", cookie);
    let answer = request.send().await?;
    ensure!(answer.status().is_success(), "refresh answered {}: {}", answer.status(), answer.text().await?);
    tokens(answer).await
}

async fn tokens(answer: reqwest::Response) -> Result<(String, String)> {
    let cookie = answer.headers().get("set-cookie").context("no cookie")?.to_str()?;
    let cookie = cookie.split(';').next().unwrap_or_default().to_owned();
    let body: Value = answer.json().await?;
    Ok((body["accessToken"].as_str().context("no token")?.to_owned(), cookie))
}

/// The part of a token that names its key.
fn header(token: &str) -> &str {
    token.split('.').next().unwrap_or_default()
}

/// Uses one session, renewing its token before it expires, until told to stop; the first refusal ends it.
async fn use_tokens(tested: Arc<Tested>, email: String, (stop, used): (Arc<AtomicBool>, Arc<AtomicU64>)) -> Result<()> {
    let (mut token, mut cookie) = login(&tested, &email).await?;
    let mut made = Instant::now();
    while !stop.load(Ordering::Relaxed) {
        if made.elapsed() > USED_FOR {
            (token, cookie) = renew(&tested, &cookie).await?;
            made = Instant::now();
        }
        let holder = Account::with_token(token.clone());
        let answer = tested.shop.request(Method::GET, "/api/v1/auth/me", Some(&holder)).send().await?;
        let (status, age) = (answer.status(), made.elapsed());
        ensure!(status.is_success(), "a token of {age:?} was answered {status}: {}", answer.text().await?);
        used.fetch_add(1, Ordering::Relaxed);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Ok(())
}

/// Follows the rotation to its end, telling each step.
async fn rotated(tested: &Tested, request: &str) -> Result<Vec<String>> {
    let patch = json!({ "metadata": { "annotations": { "shop.xhipment.io/rotate-keys": request } } });
    tested.api::<ShopDeployment>().patch("demo", &PatchParams::default(), &Patch::Merge(patch)).await?;
    let (started, mut steps) = (Instant::now(), Vec::new());
    loop {
        let rotation = tested.deployment().await?.status.and_then(|status| status.key_rotation);
        let (step, message) = rotation.map(|rotation| (rotation.step, rotation.message)).unwrap_or_default();
        if steps.last() != Some(&step) && message.contains(request) {
            eprintln!("after {:?}: {step}: {message}", started.elapsed());
            steps.push(step.clone());
        }
        if step == "Done" && message.contains(request) {
            return Ok(steps);
        }
        ensure!(started.elapsed() < LONGEST, "the rotation stays at {step}: {message}");
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

#[test]
fn no_valid_token_is_refused_while_the_keys_are_rotated() {
    let two_pods = |shop: &mut Value| {
        shop["spec"]["api"]["replicas"] = json!(2);
        shop["spec"]["auth"]["accessTokenMinutes"] = json!(1);
    };
    with_shop(1, two_pods, |tested| async move {
        let (stop, used) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let mut users = tokio::task::JoinSet::new();
        for n in 0..4 {
            let email = tested.address(&format!("user{n}"));
            tested.shop.customer(&email, PASSWORD).await?;
            users.spawn(use_tokens(tested.clone(), email, (stop.clone(), used.clone())));
        }
        let email = tested.address("user0");
        let before = login(&tested, &email).await?.0;
        let outcome = tokio::select! {
            rotated = rotated(&tested, "first") => rotated,
            failed = users.join_next() => match failed {
                Some(failed) => failed?.and_then(|()| anyhow::bail!("a user ended before the rotation")),
                None => anyhow::bail!("there was no user"),
            },
        };
        stop.store(true, Ordering::Relaxed);
        let steps = outcome?;
        while let Some(user) = users.join_next().await {
            user??;
        }
        ensure!(steps == ["Accept", "Sign", "Expire", "Done"], "{steps:?}");
        let after = login(&tested, &email).await?.0;
        ensure!(header(&before) != header(&after), "the same key signs");
        eprintln!("{} uses of a token, none refused", used.load(Ordering::Relaxed));
        Ok(())
    });
}
