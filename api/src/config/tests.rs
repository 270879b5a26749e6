//! What the settings may be, and what is said of those that may not.

use clap::{CommandFactory, Parser};
use rstest::rstest;
use secrecy::ExposeSecret;
use shop_runtime::queue::QueueAddress;

use super::*;

#[test]
fn every_variable_is_documented() {
    let docs = include_str!("../../../docs/configuration.md");
    let command = Cli::command();
    let arguments = command.get_subcommands().flat_map(clap::Command::get_arguments);
    let variables: Vec<_> = arguments.filter_map(|argument| Some(argument.get_env()?.to_str()?.to_owned())).collect();
    assert!(variables.len() > 20);
    let missing: Vec<_> = variables.iter().filter(|name| !docs.contains(&format!("`{name}`"))).collect();
    assert_eq!(missing, Vec::<&String>::new());
}

const BASE: [&str; 10] = [
    "shop-api",
    "serve",
    "--mongodb-uri",
    "mongodb://u:hush@h/",
    "--mail-from",
    "shop@example.com",
    "--auth-keys-file",
    "/keys.json",
    "--queue-name",
    "orders.fifo",
];

fn read(extra: &[&str]) -> Result<Config, String> {
    // A flag may be repeated here and nowhere else: the case overrides the base.
    let base = BASE.chunks(2).filter(|pair| !extra.contains(&pair[0]) && !pair.is_empty());
    let args = base.flatten().chain(extra);
    match Cli::try_parse_from(args).map_err(|error| error.to_string())?.command {
        Command::Serve(config) => Ok(*config),
        Command::Migrate(_) | Command::Smoke(_) => Err("migrate".to_owned()),
    }
}

#[test]
fn defaults_are_those_of_the_documentation() {
    let config = read(&[]).unwrap();
    assert_eq!(config.http.http_addr.to_string(), "0.0.0.0:3000");
    assert_eq!(config.currency.to_string(), "INR");
    assert!(config.http.cookie_secure && config.http.trusted_proxies().is_empty());
    assert!(config.auth.staff().unwrap().is_none());
    assert!(config.validate().is_ok());
    assert!(!format!("{config:?}").contains("hush"), "secrets are not printed");
}

#[rstest]
#[case(&["--queue-url", "http://q"], "exactly one of SHOP_SQS_QUEUE_URL")]
#[case(&["--staff-email", "a@b.c"], "SHOP_STAFF_PASSWORD")]
#[case(&["--staff-password", "x"], "SHOP_STAFF_EMAIL")]
#[case(&["--mail-from", "Shop <shop@example.com>"], "SHOP_MAIL_FROM")]
#[case(&["--mail-from", "shop@exa_mple..com"], "SHOP_MAIL_FROM")]
#[case(&["--mail-from", "bücher@example.com"], "SHOP_MAIL_FROM")]
#[case(&["--password-reset-url", "https://shop.example.com/reset"], "SHOP_PASSWORD_RESET_URL")]
#[case(&["--password-reset-url", "shop.example.com/reset?token={token}"], "SHOP_PASSWORD_RESET_URL")]
fn what_does_not_go_together_is_named(#[case] extra: &[&str], #[case] message: &str) {
    let error = read(extra).unwrap().validate().unwrap_err().to_string();
    assert!(error.contains(message), "{error}");
}

#[rstest]
#[case(&["--trusted-proxies", "10.0.0.0/40"], "SHOP_TRUSTED_PROXIES")]
#[case(&["--cors-origins", "*"], "SHOP_CORS_ORIGINS")]
#[case(&["--cors-origins", "https://a.example/path"], "SHOP_CORS_ORIGINS")]
#[case(&["--http-addr", "3000"], "SHOP_HTTP_ADDR")]
#[case(&["--currency", "rupee"], "SHOP_CURRENCY")]
#[case(&["--mail-per-second", "0"], "SHOP_MAIL_PER_SECOND")]
#[case(&["--limit-writes-per-minute", "0"], "SHOP_LIMIT_WRITES_PER_MINUTE")]
#[case(&["--argon2-memory-kib", "64"], "SHOP_ARGON2_MEMORY_KIB")]
#[case(&["--argon2-passes", "0"], "SHOP_ARGON2_PASSES")]
#[case(&["--password-workers", "0"], "SHOP_PASSWORD_WORKERS")]
#[case(&["--cookie-secure", "maybe"], "SHOP_COOKIE_SECURE")]
fn a_bad_value_names_its_variable(#[case] extra: &[&str], #[case] variable: &str) {
    let error = read(extra).unwrap_err();
    assert!(error.contains(variable), "{error}");
}

#[test]
fn lists_may_be_empty_and_have_blanks() {
    let config = read(&["--trusted-proxies", "10.0.0.0/8, 192.168.1.1", "--redis-url", ""]).unwrap();
    assert_eq!(config.http.trusted_proxies().len(), 2);
    assert!(config.store.redis_url().is_none());
}

#[test]
fn line_ends_of_a_secret_are_no_part_of_it() {
    let config = read(&[
        "--mongodb-uri",
        "mongodb://h/\n",
        "--redis-url",
        "redis://h\r\n",
        "--queue-name",
        "orders.fifo\n",
        "--sqs-endpoint",
        " \n",
        "--staff-email",
        "boss@example.com\n",
        "--staff-password",
        "two words \n",
    ])
    .unwrap();
    assert_eq!(config.store.mongodb_uri.expose_secret(), "mongodb://h/");
    assert_eq!(config.store.redis_url().unwrap().expose_secret(), "redis://h");
    assert_eq!(config.queue.address().unwrap(), QueueAddress::Name("orders.fifo".into()));
    assert_eq!(config.queue.service().endpoint, None);
    let staff = config.auth.staff().unwrap().unwrap();
    assert_eq!((staff.email.as_str(), staff.password.expose_secret()), ("boss@example.com", "two words "));
}
