//! `kubectl shop` against a whole shop: the real program, the real cluster, what it prints and how it ends.

use std::process::{Output, Stdio};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};
use shop_e2e::{PATIENCE, Tested, in_namespace, with_shop};
use shop_operator::names::PAUSE_SCALE_DOWN;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::Command,
};

const WRONG_PASSWORD: &str = "not the password";

#[expect(
    clippy::disallowed_methods,
    reason = "tests have no config.rs; this is the one place that reads this variable"
)]
fn program() -> String {
    std::env::var("SHOP_TEST_KUBECTL_SHOP").unwrap_or_else(|_| "kubectl-shop".to_owned())
}

/// One call in the test's namespace.
async fn call(tested: &Tested, line: &[&str]) -> Result<Output> {
    let output = Command::new(program()).args(["-n", &tested.namespace]).args(line).output().await;
    output.context("no kubectl-shop: run `cargo xtask test e2e`, or set SHOP_TEST_KUBECTL_SHOP")
}

/// What a call prints, which ends as it should.
async fn printed(tested: &Tested, line: &[&str], code: i32) -> Result<String> {
    let output = call(tested, line).await?;
    let [out, err] = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    ensure!(output.status.code() == Some(code), "{line:?} ended with {}: {out}{err}", output.status);
    ensure!(!out.contains('\x1b'), "{line:?} has colours without a terminal: {out:?}");
    Ok(out)
}

async fn told(tested: &Tested, line: &[&str]) -> Result<Value> {
    let text = printed(tested, &[line, &["-o", "json"]].concat(), 0).await?;
    serde_json::from_str(&text).with_context(|| format!("{line:?} printed no JSON: {text}"))
}

/// What a call complains of, which could not be done.
async fn complaint(tested: &Tested, line: &[&str]) -> Result<String> {
    let output = call(tested, line).await?;
    ensure!(output.status.code() == Some(2), "{line:?} ended with {}", output.status);
    Ok(String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn a_shop_is_shown_explained_and_simulated() {
    with_shop(
        1,
        |_| {},
        |tested| async move {
            let text = printed(&tested, &["status", "demo"], 0).await?;
            for part in ["demo in ", "CONDITION", "Ready", "demo-api-", "demo-worker-", "queue ", "scaling "] {
                ensure!(text.contains(part), "status shows no {part}: {text}");
            }
            let status = told(&tested, &["status", "demo"]).await?;
            ensure!(
                status["conditions"][0]["type"] == "Ready" && status["conditions"][0]["status"] == "True",
                "{status}"
            );
            ensure!(status["pods"].as_array().is_some_and(|pods| pods.len() >= 2), "{status}");
            ensure!(status["autoscaling"]["desired"] == 1, "{status}");

            let why = told(&tested, &["why", "demo"]).await?;
            ensure!(why["reason"] == status["autoscaling"]["reason"] && why["terms"].as_array().is_some(), "{why}");
            let text = printed(&tested, &["why", "demo"], 0).await?;
            ensure!(text.contains("what would change it:"), "{text}");

            let simulated = told(&tested, &["simulate", "demo", "--generate", "step", "--minutes", "5"]).await?;
            ensure!(simulated["shop"] == "demo" && simulated["max"] == 8, "{simulated}");
            ensure!(simulated["rules"].as_array().is_some_and(|rules| rules.len() == 6), "{simulated}");
            a_file_under_a_recorded_load(&tested).await?;
            watched(&tested).await
        },
    );
}

/// Neither the shop nor its load need be on the cluster.
async fn a_file_under_a_recorded_load(tested: &Tested) -> Result<()> {
    let sample = concat!(env!("CARGO_MANIFEST_DIR"), "/../sample/minimal.yaml");
    let load = tempfile::NamedTempFile::new()?;
    std::fs::write(load.path(), "second,arrivals,service_seconds\n0,5,0.1\n10,100,0.2\n")?;
    let path = load.path().display().to_string();
    let simulated = told(tested, &["simulate", "-f", sample, "--trace", &path]).await?;
    ensure!(simulated["messages"] == 105, "{simulated}");
    let rules = simulated["rules"].as_array().context("no rules")?;
    ensure!(!rules.is_empty() && rules.iter().all(|rule| rule["completed"] == 105), "{simulated}");
    Ok(())
}

/// Draws again when something changes, and ends with Ctrl-C as it should.
async fn watched(tested: &Tested) -> Result<()> {
    let mut command = Command::new(program());
    command.args(["-n", &tested.namespace, "status", "demo", "--watch", "-o", "json"]).kill_on_drop(true);
    let mut program = command.stdout(Stdio::piped()).spawn().context("no kubectl-shop")?;
    let mut drawn = BufReader::new(program.stdout.take().context("no output")?).lines();
    let mut until = async |switches: &Value| -> Result<()> {
        let seen = async {
            while let Some(line) = drawn.next_line().await? {
                let status: Value = serde_json::from_str(&line)?;
                if status["switches"] == *switches {
                    return Ok(());
                }
            }
            bail!("it ended before it had drawn {switches}")
        };
        tokio::time::timeout(PATIENCE, seen).await.with_context(|| format!("{switches} was never drawn"))?
    };
    until(&json!([])).await?;
    told(tested, &["pause", "demo", "--scale-down"]).await?;
    until(&json!(["scaling down paused"])).await?;
    told(tested, &["resume", "demo"]).await?;
    until(&json!([])).await?;
    let id = program.id().context("it has ended by itself")?.to_string();
    ensure!(Command::new("kill").args(["-INT", &id]).status().await?.success(), "no signal was sent");
    let status = tokio::time::timeout(PATIENCE, program.wait()).await.context("Ctrl-C does not end it")??;
    ensure!(status.success(), "it ended with {status}");
    Ok(())
}

#[test]
fn switches_are_set_once_and_undone_together() {
    with_shop(
        1,
        |_| {},
        |tested| async move {
            for (line, switch) in [
                (&["pause", "demo", "--scale-down"][..], "scaling down paused"),
                (&["pause", "demo", "--scaling"], "scaling paused"),
                (&["suspend", "demo"], "suspended"),
            ] {
                let done = told(&tested, line).await?;
                ensure!(done["changed"] == true && done["switches"].to_string().contains(switch), "{line:?}: {done}");
                ensure!(told(&tested, line).await?["changed"] == false, "{line:?} once more");
            }
            let shop = tested.deployment().await?;
            ensure!(shop.spec.suspended, "it is not suspended");
            ensure!(
                shop.metadata.annotations.is_some_and(|all| all.contains_key(PAUSE_SCALE_DOWN)),
                "it is not paused"
            );
            tested
                .eventually("there are pods of a suspended shop", || async {
                    let status = told(&tested, &["status", "demo"]).await?;
                    Ok((status["pods"] == json!([])).then_some(()))
                })
                .await?;
            let text = printed(&tested, &["resume", "demo"], 0).await?;
            ensure!(text.starts_with("demo: resumed\n"), "{text}");
            ensure!(told(&tested, &["resume", "demo"]).await?["changed"] == false, "resumed once more");
            tested.ready().await?;
            a_paused_shop_goes_on_when_it_is_resumed(&tested).await
        },
    );
}

async fn a_paused_shop_goes_on_when_it_is_resumed(tested: &Tested) -> Result<()> {
    let done = told(tested, &["pause", "demo"]).await?;
    ensure!(done["changed"] == true && done["switches"] == json!(["paused"]), "{done}");
    tested.condition("Paused", "True").await?;
    ensure!(told(tested, &["pause", "demo"]).await?["changed"] == false, "paused once more");
    told(tested, &["resume", "demo"]).await?;
    tested.condition("Paused", "False").await?;
    tested.ready().await
}

#[test]
fn staff_see_what_the_shop_says_of_itself() {
    with_shop(
        1,
        |_| {},
        |tested| async move {
            let doctor = told(&tested, &["doctor", "demo"]).await?;
            ensure!(doctor["status"] == "ok", "{doctor}");
            let text = printed(&tested, &["doctor", "demo"], 0).await?;
            ensure!(text.ends_with("demo: all is well\n"), "{text}");
            ensure!(
                told(&tested, &["dead-letters", "list", "demo"]).await? == json!([]),
                "a new shop gave something up"
            );
            let redriven = told(&tested, &["dead-letters", "redrive", "demo", "--all"]).await?;
            ensure!(redriven["orders"] == 0 && redriven["moveTask"] == "started", "{redriven}");
            let unknown = ["dead-letters", "redrive", "demo", "--id", "67c8830b7ef1b848ac52ebec"];
            let told = complaint(&tested, &unknown).await?;
            ensure!(told.contains("is not among the dead letters: nothing was taken up"), "{told}");

            let file = tempfile::NamedTempFile::new()?;
            std::fs::write(file.path(), WRONG_PASSWORD)?;
            let path = file.path().display().to_string();
            let wrong = ["doctor", "demo", "--email", "staff@example.com", "--password-file", &path];
            let told = complaint(&tested, &wrong).await?;
            ensure!(
                told.contains("does not accept the account staff@example.com") && !told.contains(WRONG_PASSWORD),
                "{told}"
            );
            Ok(())
        },
    );
}

#[test]
fn what_was_given_up_is_listed_and_taken_up_again_by_its_id() {
    with_shop(
        10,
        |shop| {
            shop["spec"]["worker"]["autoscaling"]["mode"] = json!("Manual");
            shop["spec"]["queue"]["deadLetter"] = json!({"maxReceiveCount": 1});
        },
        |tested| async move {
            let buyer = tested.customer("asha").await?;
            tested.scale_workers(0).await?;
            let orders = [tested.order_one(&buyer).await?, tested.order_one(&buyer).await?];
            for order in &orders {
                tested.spoil(order).await?;
            }
            tested.scale_workers(1).await?;
            let letters = tested
                .eventually("the failures are not listed", || async {
                    let letters = told(&tested, &["dead-letters", "list", "demo"]).await?;
                    Ok(letters.as_array().filter(|all| all.len() == 2).cloned())
                })
                .await?;
            for letter in letters {
                ensure!(letter["kind"] == "OrderPlaced" && letter["reason"] == "unreadable", "{letter}");
            }
            let [first, second] = &orders;
            tested.mend(first).await?;
            let text = printed(&tested, &["dead-letters", "redrive", "demo", "--id", first], 0).await?;
            ensure!(text.starts_with("1 orders and 0 adjustments"), "{text}");
            tested.becomes(&buyer, first, "Processed").await?;
            let text = printed(&tested, &["dead-letters", "list", "demo"], 0).await?;
            ensure!(text.contains(second) && !text.contains(first.as_str()), "{text}");
            // What is left in the dead-letter queue would keep it from being deleted with the shop.
            tested.mend(second).await?;
            let all = told(&tested, &["dead-letters", "redrive", "demo", "--all"]).await?;
            ensure!(all["orders"] == 1, "{all}");
            tested.becomes(&buyer, second, "Processed").await?;
            tested.view().await?.watch_until(PATIENCE, |_| {}, |now| now.backlog == 0).await?;
            Ok(())
        },
    );
}

#[test]
fn what_cannot_be_done_says_what_to_do() {
    in_namespace(|tested| async move {
        let nothing = complaint(&tested, &["status", "demo"]).await?;
        let expected = format!("error: there is no shop demo in namespace {}\n", tested.namespace);
        ensure!(nothing.starts_with(&expected), "{nothing}");
        tested.create_shop(|_| {}).await?;
        let slip = complaint(&tested, &["why", "demoo"]).await?;
        ensure!(slip.contains("did you mean demo?"), "{slip}");
        let context = complaint(&tested, &["status", "demo", "--context", "no-such-context"]).await?;
        ensure!(context.contains("no-such-context"), "{context}");
        let config = complaint(&tested, &["status", "demo", "--kubeconfig", "/no/such/file"]).await?;
        ensure!(config.contains("name a file with --kubeconfig"), "{config}");
        Ok(())
    });
}
