//! The service against its own OpenAPI document: requests that Schemathesis makes up from it, valid and not.
//! No answer may be a server error, and none may be one that the document does not have.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking, in its helpers too")]

#[path = "http/shop.rs"]
#[expect(dead_code, reason = "the other tests use the rest of it")]
mod shop;

use std::path::PathBuf;

use serde_json::Value;
use tokio::process::Command;

use crate::shop::{Shop, with_shop_of};

/// Operations that can end the session with which the others are called, or its account. Nobody takes their own role away,
/// and nobody can guess the token of a password reset: what does so is not among them.
const END_SESSIONS: [&str; 5] = ["logout", "logoutByGet", "revokeSession", "changePassword", "eraseAccount"];
const LIMITS: [&str; 4] = [
    "--limit-auth-per-15-minutes",
    "--limit-writes-per-minute",
    "--limit-reads-per-minute",
    "--limit-address-per-minute",
];
/// Of the checks, one is left out: no schema says what makes a cursor, a token of a mail or an amount of the shop's currency,
/// so that a request of the right form may still be refused.
/// A change without `If-Match` is refused with the status that RFC 6585 has for it.
const CHECKS: &str = r#"
[checks.positive_data_acceptance]
enabled = false
[checks.missing_required_header]
expected-statuses = ["400", "401", "403", "404", "428"]
"#;

#[tokio::test(flavor = "multi_thread")]
async fn every_answer_is_documented_and_none_is_a_server_error() {
    let (examples, least) = if long() { ("240", 5_000) } else { ("12", 500) };
    let generous = |args: &mut shop::Args| {
        for limit in LIMITS {
            args.set(limit, "100000000");
        }
    };
    with_shop_of(generous, async |shop| {
        let excluded = END_SESSIONS.iter().flat_map(|name| ["--exclude-operation-id", name]);
        let mut made = fuzz(shop, &shop.staff().await, ["--max-examples", examples].into_iter().chain(excluded)).await;
        for ending in END_SESSIONS {
            // As someone of their own: after the first that succeeds, what follows is an answer to nobody.
            let only = ["--max-examples", "5", "--include-operation-id", ending];
            made += fuzz(shop, &shop.customer().await, only.into_iter()).await;
        }
        assert!(made >= least, "only {made} requests were made up, not {least}");
    })
    .await;
}

/// Runs Schemathesis as the owner of `token`; how many requests it made up.
async fn fuzz(shop: &Shop, token: &str, more: impl Iterator<Item = &str>) -> u64 {
    let folder = tempfile::tempdir().unwrap();
    let (config, report) = (folder.path().join("schemathesis.toml"), folder.path().join("report.json"));
    // In a file: arguments can be read by everyone on the machine.
    let headers = format!("headers = {{ Authorization = \"Bearer {token}\" }}\n");
    std::fs::write(&config, headers + CHECKS).unwrap();
    let output = Command::new(schemathesis())
        .arg("--config-file")
        .arg(&config)
        .args(["run", &format!("{}/openapi.json", shop.base), "--continue-on-failure", "--seed", "1"])
        .args(["--report", "json", "--report-json-path"])
        .arg(&report)
        .args(more)
        .current_dir(folder.path())
        .kill_on_drop(true)
        .output()
        .await
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    let report: Value = serde_json::from_slice(&std::fs::read(report).unwrap()).unwrap();
    report["test_cases"]["generated"].as_u64().unwrap()
}

#[expect(clippy::disallowed_methods, reason = "the tests' own settings")]
fn schemathesis() -> PathBuf {
    std::env::var("SHOP_TEST_SCHEMATHESIS")
        .unwrap_or_else(|_| panic!("SHOP_TEST_SCHEMATHESIS is not set: run `cargo xtask test integration`"))
        .into()
}

#[expect(clippy::disallowed_methods, reason = "the tests' own settings")]
fn long() -> bool {
    std::env::var("SHOP_TEST_LONG").is_ok()
}
