//! What the shop's people can do, through the ingress of a whole cluster with two replicas of the api: follow and cancel
//! orders, get back in, end sessions, take failed work up again, have the shop examine itself. Every test has a shop of its own.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use shop_bench::client::Account;
use shop_e2e::{DOCUMENTED, LOCATION, PATIENCE, Tested, with_shop};

/// Sessions and revocations are known everywhere after this long.
const EVERYWHERE: Duration = Duration::from_secs(5);

/// Two replicas of the api; workers as many as `kubectl scale` says, one at first.
fn replicated(shop: &mut Value) {
    shop["spec"]["api"]["replicas"] = json!(2);
    shop["spec"]["worker"]["replicas"] = json!(1);
    shop["spec"]["worker"]["autoscaling"]["mode"] = json!("Manual");
    shop["spec"]["queue"]["deadLetter"] = json!({"maxReceiveCount": 1});
}

async fn stock_becomes(tested: &Tested, units: i64) -> Result<()> {
    tested
        .eventually(&format!("the stock is not {units}"), || async {
            Ok((tested.shop.product(DOCUMENTED[0].0).await?.available_at(LOCATION) == units).then_some(()))
        })
        .await
}

/// The status of the answer to a POST without a body.
async fn post(tested: &Tested, path: &str, account: &Account) -> Result<StatusCode> {
    Ok(tested.shop.request(Method::POST, path, Some(account)).json(&json!({})).send().await?.status())
}

async fn count_mails(tested: &Tested, address: &str, count: usize) -> Result<Vec<Value>> {
    tested
        .eventually(&format!("there are not {count} mails"), || async {
            let mails = tested.mails_to(address).await?;
            Ok((mails.len() >= count).then_some(mails))
        })
        .await
}

#[test]
fn an_order_is_followed_and_cancelled_before_and_after_it_is_processed() {
    with_shop(10, replicated, |tested| async move {
        let buyer = tested.customer("asha").await?;
        tested.scale_workers(0).await?;
        let early = tested.order_one(&buyer).await?;
        let path = format!("/api/v1/orders/{early}");
        let events = tested.shop.request(Method::GET, &format!("{path}/events"), Some(&buyer)).timeout(PATIENCE);
        let events = tokio::spawn(async move { events.send().await?.text().await });
        ensure!(post(&tested, &format!("{path}/cancel"), &buyer).await? == StatusCode::OK, "a pending order");
        let told = events.await??;
        ensure!(told.contains(r#""status":"Cancelled""#), "the stream did not end with the cancellation: {told}");

        let late = tested.order_one(&buyer).await?;
        tested.scale_workers(1).await?;
        tested.becomes(&buyer, &late, "Processed").await?;
        stock_becomes(&tested, 9).await?;
        let path = format!("/api/v1/orders/{late}/cancel");
        ensure!(post(&tested, &path, &buyer).await? == StatusCode::ACCEPTED, "a processed order");
        ensure!(post(&tested, &path, &buyer).await? == StatusCode::CONFLICT, "asked once more");
        tested.becomes(&buyer, &late, "Cancelled").await?;
        stock_becomes(&tested, 10).await?;
        // Two cancellations and one confirmation.
        count_mails(&tested, &tested.address("asha"), 3).await?;
        let books = tested.view().await?.store.audit.read().await?;
        ensure!(books.faults().is_empty(), "{:?}", books.faults());
        Ok(())
    });
}

#[test]
fn a_session_that_was_ended_is_dead_on_every_replica() {
    with_shop(1, replicated, |tested| async move {
        let email = tested.address("asha");
        let (old, other) = (tested.customer("asha").await?, tested.customer("asha").await?);
        let me = async |account: &Account| -> Result<StatusCode> {
            Ok(tested.shop.request(Method::GET, "/api/v1/auth/me", Some(account)).send().await?.status())
        };
        ensure!(me(&old).await? == StatusCode::OK && me(&other).await? == StatusCode::OK, "both are signed in");
        ensure!(post(&tested, "/api/v1/auth/logout", &old).await? == StatusCode::OK, "logout");
        tokio::time::sleep_until((Instant::now() + EVERYWHERE).into()).await;
        // By turns the ingress asks both replicas.
        for _ in 0..10 {
            ensure!(me(&old).await? == StatusCode::UNAUTHORIZED, "a session lives on after its logout");
            ensure!(me(&other).await? == StatusCode::OK, "another session ended with it");
        }

        let ask = tested.shop.request(Method::POST, "/api/v1/auth/password-reset", None).json(&json!({"email": email}));
        ensure!(ask.send().await?.status() == StatusCode::ACCEPTED, "a reset is asked for");
        let mails = count_mails(&tested, &email, 1).await?;
        let text = mails[0]["body"]["text"].as_str().context("the mail has no text")?;
        let (_, token) = text.split_once("/auth/password-reset/").context("the mail shows no token")?;
        let token = token.split_whitespace().next().unwrap_or_default();
        let set = tested.shop.request(Method::POST, &format!("/api/v1/auth/password-reset/{token}"), None);
        let set = set.json(&json!({"password": "another horse"})).send().await?;
        ensure!(set.status() == StatusCode::OK, "the token sets no password: {}", set.text().await?);
        tested.shop.login(&email, "another horse").await?;
        tokio::time::sleep_until((Instant::now() + EVERYWHERE).into()).await;
        for _ in 0..10 {
            ensure!(me(&other).await? == StatusCode::UNAUTHORIZED, "a session lives on after the reset");
        }
        Ok(())
    });
}

async fn redrive(tested: &Tested, staff: &Account, what: &Value) -> Result<Value> {
    let request = tested.shop.request(Method::POST, "/api/v1/admin/dead-letters/redrive", Some(staff));
    let answer = request.json(what).send().await?;
    ensure!(answer.status() == StatusCode::ACCEPTED, "redrive answered {}", answer.text().await?);
    Ok(answer.json().await?)
}

#[test]
fn failed_work_is_shown_to_staff_and_taken_up_again() {
    with_shop(10, replicated, |tested| async move {
        let (buyer, staff) = (tested.customer("asha").await?, tested.staff().await?);
        tested.scale_workers(0).await?;
        let order = tested.order_one(&buyer).await?;
        tested.spoil(&order).await?;
        tested.scale_workers(1).await?;
        let letters = async |account: &Account| -> Result<(StatusCode, Value)> {
            let answer = tested.shop.request(Method::GET, "/api/v1/admin/dead-letters", Some(account)).send().await?;
            Ok((answer.status(), answer.json().await?))
        };
        ensure!(letters(&buyer).await?.0 == StatusCode::FORBIDDEN, "a customer reads the dead letters");
        let letter = tested
            .eventually("the failure is not recorded", || async {
                let (_, page) = letters(&staff).await?;
                Ok(page["data"].as_array().and_then(|all| all.first()).cloned())
            })
            .await?;
        ensure!(letter["orderId"] == json!(order) && letter["reason"] == "unreadable", "{letter}");

        tested.mend(&order).await?;
        ensure!(redrive(&tested, &staff, &json!({"orderId": order})).await?["orders"] == 1, "one order");
        tested.becomes(&buyer, &order, "Processed").await?;
        // Its message still lies in the dead-letter queue, and would keep the queue from being deleted with the shop.
        let all = redrive(&tested, &staff, &json!({})).await?;
        ensure!(all == json!({"orders": 0, "adjustments": 0, "moveTask": "started"}), "{all}");
        let view = tested.view().await?;
        view.watch_until(PATIENCE, |_| {}, |now| now.backlog == 0).await?;
        ensure!(view.store.audit.read().await?.faults().is_empty(), "the message that came back did something");
        stock_becomes(&tested, 9).await
    });
}

#[test]
fn the_shop_examines_itself_for_staff_alone() {
    with_shop(1, replicated, |tested| async move {
        let doctor = async |account: Option<&Account>| -> Result<(StatusCode, Value)> {
            let answer = tested.shop.request(Method::GET, "/api/v1/admin/doctor", account).send().await?;
            Ok((answer.status(), answer.json().await?))
        };
        ensure!(doctor(None).await?.0 == StatusCode::UNAUTHORIZED, "without a token");
        ensure!(doctor(Some(&tested.customer("asha").await?)).await?.0 == StatusCode::FORBIDDEN, "as a customer");
        let (status, found) = doctor(Some(&tested.staff().await?)).await?;
        ensure!(status == StatusCode::OK && found["status"] == "ok", "{found}");
        let names: Vec<_> = found["checks"].as_array().into_iter().flatten().map(|check| &check["name"]).collect();
        for name in ["mongodb", "redis", "sqs", "ses", "clock", "indexes", "ledger", "unfinished"] {
            ensure!(names.contains(&&json!(name)), "{name} was not looked at: {names:?}");
        }
        Ok(())
    });
}
