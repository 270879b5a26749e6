//! The whole configuration of the service, read once from the environment (or flags). Nothing else reads it.

use std::{net::SocketAddr, path::PathBuf, str::FromStr};

use axum::http::HeaderValue;
use clap::{Args, Parser, Subcommand};
use email_address::EmailAddress;
use ipnet::IpNet;
use secrecy::{ExposeSecret, SecretString};
use shop_domain::money::Currency;
use shop_runtime::{
    otlp::Collector,
    parsers::{ratio, secret_line, trimmed, trimmed_secret},
    queue::QueueAddress,
    trust::{PrivateCa, TrustError},
};

use crate::mailer::reset_link;

/// What the process was asked to do.
#[derive(Debug, Clone, Parser)]
#[command(name = "shop-api", version, about = "The HTTP service of the shop")]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Clone, Subcommand)]
pub enum Command {
    /// Serve HTTP (the default).
    Serve(Box<Config>),
    /// Create the indexes, then end; safe to repeat.
    Migrate(StoreConfig),
    /// Place an order in a running shop, see it processed, and take everything back.
    Smoke(SmokeConfig),
}

/// How a running shop is tried out.
#[derive(Debug, Clone, Args)]
pub struct SmokeConfig {
    /// Address of the shop's api, such as `http://demo-api`.
    #[arg(long, env = "SHOP_SMOKE_URL", value_name = "SHOP_SMOKE_URL", value_parser = trimmed)]
    pub url: String,
    /// A staff account, which makes the product that is ordered.
    #[arg(long, env = "SHOP_STAFF_EMAIL", value_name = "SHOP_STAFF_EMAIL", value_parser = trimmed)]
    pub staff_email: String,
    #[arg(long, env = "SHOP_STAFF_PASSWORD", value_name = "SHOP_STAFF_PASSWORD", hide_env_values = true,
          value_parser = secret_line)]
    pub staff_password: SecretString,
    /// How long the worker may take over stock and order together.
    #[arg(long, env = "SHOP_SMOKE_PATIENCE_SECONDS", value_name = "SHOP_SMOKE_PATIENCE_SECONDS", default_value = "60",
          value_parser = clap::value_parser!(u32).range(1..=3600))]
    pub patience_seconds: u32,
}

/// Everything the service needs.
#[derive(Debug, Clone, Args)]
pub struct Config {
    #[command(flatten)]
    pub store: StoreConfig,
    #[command(flatten)]
    pub queue: QueueConfig,
    #[command(flatten)]
    pub mail: MailConfig,
    #[command(flatten)]
    pub http: HttpConfig,
    #[command(flatten)]
    pub auth: AuthConfig,
    #[command(flatten)]
    pub passwords: PasswordConfig,
    #[command(flatten)]
    pub limits: LimitsConfig,
    #[command(flatten)]
    pub tracing: TracingConfig,
    /// Display name of the shop.
    #[arg(long, env = "SHOP_NAME", value_name = "SHOP_NAME", default_value = "Xhipment")]
    pub name: String,
    /// The shop's one currency (ISO 4217).
    #[arg(long, env = "SHOP_CURRENCY", value_name = "SHOP_CURRENCY", default_value = "INR")]
    pub currency: Currency,
    #[command(flatten)]
    pub orders: OrdersConfig,
}

#[derive(Debug, Clone, Copy, Args)]
pub struct OrdersConfig {
    /// How long after it was processed a customer may cancel an order; 0: never. Staff may at any time.
    #[arg(long, env = "SHOP_CANCEL_WINDOW_MINUTES", value_name = "SHOP_CANCEL_WINDOW_MINUTES", default_value = "30",
          value_parser = clap::value_parser!(u32).range(0..=525_600))]
    pub cancel_window_minutes: u32,
    /// Streams of order events that one process holds open.
    #[arg(long, env = "SHOP_MAX_EVENT_STREAMS", value_name = "SHOP_MAX_EVENT_STREAMS", default_value = "10000",
          value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub max_event_streams: u32,
}

#[derive(Debug, Clone, Args)]
pub struct StoreConfig {
    /// `mongodb://user:password@host:27017/?replicaSet=…`
    #[arg(long, env = "SHOP_MONGODB_URI", value_name = "SHOP_MONGODB_URI", hide_env_values = true,
          value_parser = trimmed_secret)]
    pub mongodb_uri: SecretString,
    #[arg(long, env = "SHOP_MONGODB_DATABASE", value_name = "SHOP_MONGODB_DATABASE", default_value = "xhipment")]
    pub mongodb_database: String,
    /// `redis://:password@host:6379` (optional: caches only).
    #[arg(long, env = "SHOP_REDIS_URL", value_name = "SHOP_REDIS_URL", hide_env_values = true,
          value_parser = trimmed_secret)]
    redis_url: Option<SecretString>,
    /// PEM file of a private CA that `MongoDB`, Redis and SQS may be certified by.
    #[arg(long, env = "SHOP_CA_FILE", value_name = "SHOP_CA_FILE", value_parser = trimmed)]
    ca_file: Option<String>,
    /// A level for the shop's own code, or directives such as `info,shop_api=debug`.
    #[arg(long, env = "SHOP_LOG_LEVEL", value_name = "SHOP_LOG_LEVEL", default_value = "info")]
    pub log_level: String,
}

#[derive(Debug, Clone, Args)]
pub struct QueueConfig {
    #[arg(long, env = "SHOP_SQS_QUEUE_URL", value_name = "SHOP_SQS_QUEUE_URL", value_parser = trimmed)]
    queue_url: Option<String>,
    #[arg(long, env = "SHOP_SQS_QUEUE_NAME", value_name = "SHOP_SQS_QUEUE_NAME", value_parser = trimmed)]
    queue_name: Option<String>,
    #[arg(long, env = "SHOP_SQS_REGION", value_name = "SHOP_SQS_REGION", default_value = "ap-south-1")]
    pub sqs_region: String,
    #[arg(long, env = "SHOP_SQS_ENDPOINT", value_name = "SHOP_SQS_ENDPOINT", value_parser = trimmed)]
    sqs_endpoint: Option<String>,
}

#[derive(Debug, Clone, Args)]
pub struct MailConfig {
    #[arg(long, env = "SHOP_SES_REGION", value_name = "SHOP_SES_REGION", default_value = "ap-south-1")]
    pub ses_region: String,
    #[arg(long, env = "SHOP_SES_ENDPOINT", value_name = "SHOP_SES_ENDPOINT", value_parser = trimmed)]
    ses_endpoint: Option<String>,
    /// Sender of all mails; verified in SES.
    #[arg(long, env = "SHOP_MAIL_FROM", value_name = "SHOP_MAIL_FROM")]
    pub mail_from: String,
    #[arg(long, env = "SHOP_MAIL_PER_SECOND", value_name = "SHOP_MAIL_PER_SECOND", default_value = "14",
          value_parser = clap::value_parser!(u32).range(1..))]
    pub mail_per_second: u32,
    /// Refusals after which a mail is given up; outages and throttling do not count.
    #[arg(long, env = "SHOP_MAIL_MAX_ATTEMPTS", value_name = "SHOP_MAIL_MAX_ATTEMPTS", default_value = "12",
          value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub mail_max_attempts: u32,
    /// The shop's page for new passwords, such as `https://shop.example.com/reset?token={token}`.
    #[arg(long, env = "SHOP_PASSWORD_RESET_URL", value_name = "SHOP_PASSWORD_RESET_URL", value_parser = trimmed)]
    password_reset_url: Option<String>,
}

#[derive(Debug, Clone, Args)]
pub struct HttpConfig {
    #[arg(long, env = "SHOP_HTTP_ADDR", value_name = "SHOP_HTTP_ADDR", default_value = "0.0.0.0:3000")]
    pub http_addr: SocketAddr,
    #[arg(long, env = "SHOP_METRICS_ADDR", value_name = "SHOP_METRICS_ADDR", default_value = "0.0.0.0:9090")]
    pub metrics_addr: SocketAddr,
    /// Networks whose X-Forwarded-For is believed.
    #[arg(long, env = "SHOP_TRUSTED_PROXIES", value_name = "SHOP_TRUSTED_PROXIES", default_value = "")]
    trusted_proxies: List<Network>,
    /// Web origins that may call from a browser.
    #[arg(long, env = "SHOP_CORS_ORIGINS", value_name = "SHOP_CORS_ORIGINS", default_value = "")]
    cors_origins: List<Origin>,
    /// Off only for trials over plain HTTP.
    #[arg(long, env = "SHOP_COOKIE_SECURE", value_name = "SHOP_COOKIE_SECURE", default_value = "true",
          action = clap::ArgAction::Set)]
    pub cookie_secure: bool,
    #[arg(long, env = "SHOP_REQUEST_TIMEOUT_SECONDS", value_name = "SHOP_REQUEST_TIMEOUT_SECONDS",
          default_value = "30", value_parser = clap::value_parser!(u32).range(1..=600))]
    pub request_timeout_seconds: u32,
    /// How long connections are still accepted after SIGTERM.
    #[arg(long, env = "SHOP_DRAIN_SECONDS", value_name = "SHOP_DRAIN_SECONDS", default_value = "5",
          value_parser = clap::value_parser!(u32).range(0..=60))]
    pub drain_seconds: u32,
}

#[derive(Debug, Clone, Args)]
pub struct AuthConfig {
    /// File with the token keys: {"signing":"k1","keys":{"k1":"<base64 of 32 random bytes>"}}.
    #[arg(long, env = "SHOP_AUTH_KEYS_FILE", value_name = "SHOP_AUTH_KEYS_FILE")]
    pub auth_keys_file: PathBuf,
    #[arg(long, env = "SHOP_ACCESS_TOKEN_MINUTES", value_name = "SHOP_ACCESS_TOKEN_MINUTES", default_value = "15",
          value_parser = clap::value_parser!(u32).range(1..=1440))]
    pub access_token_minutes: u32,
    #[arg(long, env = "SHOP_STAFF_EMAIL", value_name = "SHOP_STAFF_EMAIL", value_parser = trimmed)]
    staff_email: Option<String>,
    #[arg(long, env = "SHOP_STAFF_PASSWORD", value_name = "SHOP_STAFF_PASSWORD", hide_env_values = true,
          value_parser = secret_line)]
    staff_password: Option<SecretString>,
    #[arg(long, env = "SHOP_PASSWORD_MIN_LENGTH", value_name = "SHOP_PASSWORD_MIN_LENGTH", default_value = "6",
          value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub password_min_length: u32,
}

/// What a password's hash costs: argon2id, by default the second choice of OWASP's password storage sheet.
#[derive(Debug, Clone, Copy, Args)]
pub struct PasswordConfig {
    #[arg(long, env = "SHOP_ARGON2_MEMORY_KIB", value_name = "SHOP_ARGON2_MEMORY_KIB", default_value = "19456",
          value_parser = clap::value_parser!(u32).range(7_168..=1_048_576))]
    pub argon2_memory_kib: u32,
    #[arg(long, env = "SHOP_ARGON2_PASSES", value_name = "SHOP_ARGON2_PASSES", default_value = "2",
          value_parser = clap::value_parser!(u32).range(1..=16))]
    pub argon2_passes: u32,
    #[arg(long, env = "SHOP_ARGON2_LANES", value_name = "SHOP_ARGON2_LANES", default_value = "1",
          value_parser = clap::value_parser!(u32).range(1..=16))]
    pub argon2_lanes: u32,
    /// Passwords hashed at once; without it one per processor but one.
    #[arg(long, env = "SHOP_PASSWORD_WORKERS", value_name = "SHOP_PASSWORD_WORKERS",
          value_parser = clap::value_parser!(u32).range(1..=256))]
    password_workers: Option<u32>,
}

#[derive(Debug, Clone, Copy, Args)]
pub struct LimitsConfig {
    #[arg(long, env = "SHOP_LIMIT_AUTH_PER_15_MINUTES", value_name = "SHOP_LIMIT_AUTH_PER_15_MINUTES",
          default_value = "10", value_parser = clap::value_parser!(u32).range(1..))]
    pub limit_auth_per_15_minutes: u32,
    #[arg(long, env = "SHOP_LIMIT_WRITES_PER_MINUTE", value_name = "SHOP_LIMIT_WRITES_PER_MINUTE",
          default_value = "60", value_parser = clap::value_parser!(u32).range(1..))]
    pub limit_writes_per_minute: u32,
    #[arg(long, env = "SHOP_LIMIT_READS_PER_MINUTE", value_name = "SHOP_LIMIT_READS_PER_MINUTE",
          default_value = "1200", value_parser = clap::value_parser!(u32).range(1..))]
    pub limit_reads_per_minute: u32,
    #[arg(long, env = "SHOP_LIMIT_ADDRESS_PER_MINUTE", value_name = "SHOP_LIMIT_ADDRESS_PER_MINUTE",
          default_value = "3000", value_parser = clap::value_parser!(u32).range(1..))]
    pub limit_address_per_minute: u32,
}

/// Names as OpenTelemetry has them; what else its exporter reads (headers, delays, resource attributes) has its names too.
#[derive(Debug, Clone, Args)]
pub struct TracingConfig {
    /// Base address of an OTLP collector over HTTP, such as `http://collector:4318`. Left out: no spans are exported.
    #[arg(long, env = "OTEL_EXPORTER_OTLP_ENDPOINT", value_name = "OTEL_EXPORTER_OTLP_ENDPOINT",
          value_parser = trimmed)]
    otlp_endpoint: Option<String>,
    /// Share of the traces that begin here of which spans are exported.
    #[arg(long, env = "OTEL_TRACES_SAMPLER_ARG", value_name = "OTEL_TRACES_SAMPLER_ARG", default_value = "1",
          value_parser = ratio)]
    trace_ratio: f64,
}

impl TracingConfig {
    /// An empty variable is as good as an unset one.
    pub fn collector(&self) -> Option<Collector> {
        let endpoint = self.otlp_endpoint.clone().filter(|endpoint| !endpoint.is_empty())?;
        Some(Collector { service: "shop-api", endpoint, ratio: self.trace_ratio })
    }
}

/// A configuration that cannot work; each says what to set.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("set exactly one of SHOP_SQS_QUEUE_URL and SHOP_SQS_QUEUE_NAME")]
    Queue,
    #[error("set both SHOP_STAFF_EMAIL and SHOP_STAFF_PASSWORD, or neither")]
    Staff,
    #[error("SHOP_MAIL_FROM must be a bare e-mail address such as shop@example.com; the name comes from SHOP_NAME")]
    MailFrom,
    #[error(
        "SHOP_PASSWORD_RESET_URL must be a web address with {{token}} in it, such as \
         https://shop.example.com/reset?token={{token}}"
    )]
    ResetUrl,
    #[error("SHOP_MONGODB_URI is empty: set it to the address of MongoDB")]
    Store,
}

/// The staff account that the Secret names.
#[derive(Debug, Clone)]
pub struct StaffAccount {
    pub email: String,
    pub password: SecretString,
}

impl Cli {
    /// Reads arguments and environment; a bare call means `serve`. Ends the process with a message when they are wrong.
    pub fn read() -> Self {
        Self::parse_from(with_default_command(std::env::args()))
    }
}

fn with_default_command(args: impl Iterator<Item = String>) -> Vec<String> {
    let mut args: Vec<_> = args.collect();
    let named = args
        .get(1)
        .is_some_and(|first| !first.starts_with('-') || matches!(first.as_str(), "-h" | "--help" | "-V" | "--version"));
    if !named {
        args.insert(1.min(args.len()), "serve".to_owned());
    }
    args
}

impl Config {
    /// Checks what no single field can: call before use.
    pub fn validate(&self) -> Result<(), ConfigError> {
        self.store.validate()?;
        self.queue.queue()?;
        self.auth.staff()?;
        self.mail.validate()
    }
}

impl StoreConfig {
    pub fn redis_url(&self) -> Option<&SecretString> {
        self.redis_url.as_ref().filter(|url| !url.expose_secret().is_empty())
    }

    /// The private CA, if there is one.
    pub fn ca(&self) -> Result<Option<PrivateCa>, TrustError> {
        filled(self.ca_file.as_ref()).map(|path| PrivateCa::load(path.as_ref())).transpose()
    }

    pub fn validate(&self) -> Result<(), ConfigError> {
        if self.mongodb_uri.expose_secret().is_empty() { Err(ConfigError::Store) } else { Ok(()) }
    }
}

impl QueueConfig {
    pub fn queue(&self) -> Result<QueueAddress, ConfigError> {
        match (filled(self.queue_url.as_ref()), filled(self.queue_name.as_ref())) {
            (Some(url), None) => Ok(QueueAddress::Url(url)),
            (None, Some(name)) => Ok(QueueAddress::Name(name)),
            _ => Err(ConfigError::Queue),
        }
    }

    pub fn endpoint(&self) -> Option<String> {
        filled(self.sqs_endpoint.as_ref())
    }
}

impl MailConfig {
    fn validate(&self) -> Result<(), ConfigError> {
        let from = self.mail_from.as_str();
        // Strict: what SES says of a sender that it cannot read is easily taken for a fault of the buyer's address.
        let plain =
            from.is_ascii() && !from.contains(|c: char| c.is_control() || c.is_whitespace() || "<>\",;".contains(c));
        if !plain || !EmailAddress::is_valid(from) {
            return Err(ConfigError::MailFrom);
        }
        let fits = |url: &String| {
            (url.starts_with("https://") || url.starts_with("http://")) && url.matches(reset_link::PLACE).count() == 1
        };
        if self.reset_url().as_ref().is_none_or(fits) { Ok(()) } else { Err(ConfigError::ResetUrl) }
    }

    /// The address of the shop's page for new passwords, with the place for the token in it.
    pub fn reset_url(&self) -> Option<String> {
        filled(self.password_reset_url.as_ref())
    }

    pub fn endpoint(&self) -> Option<String> {
        filled(self.ses_endpoint.as_ref())
    }
}

impl HttpConfig {
    pub fn trusted_proxies(&self) -> Vec<IpNet> {
        self.trusted_proxies.0.iter().map(|network| network.0).collect()
    }

    pub fn cors_origins(&self) -> Vec<HeaderValue> {
        self.cors_origins.0.iter().map(|origin| origin.0.clone()).collect()
    }
}

impl AuthConfig {
    pub fn staff(&self) -> Result<Option<StaffAccount>, ConfigError> {
        let password = self.staff_password.clone().filter(|password| !password.expose_secret().is_empty());
        match (filled(self.staff_email.as_ref()), password) {
            (Some(email), Some(password)) => Ok(Some(StaffAccount { email, password })),
            (None, None) => Ok(None),
            _ => Err(ConfigError::Staff),
        }
    }
}

impl PasswordConfig {
    pub fn workers(&self) -> usize {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        self.password_workers.map_or(cores.saturating_sub(1).max(1), |workers| workers as usize)
    }
}

/// An empty variable is as good as an unset one.
fn filled(value: Option<&String>) -> Option<String> {
    value.filter(|text| !text.is_empty()).cloned()
}

/// Values separated by commas; blanks around them are ignored.
#[derive(Debug, Clone, PartialEq, Eq)]
struct List<T>(Vec<T>);

impl<T: FromStr> FromStr for List<T> {
    type Err = T::Err;
    fn from_str(text: &str) -> Result<Self, T::Err> {
        text.split(',')
            .map(str::trim)
            .filter(|item| !item.is_empty())
            .map(T::from_str)
            .collect::<Result<_, _>>()
            .map(Self)
    }
}

/// A network (10.0.0.0/8) or one address.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Network(IpNet);

impl FromStr for Network {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let net = text.parse().or_else(|_| text.parse::<std::net::IpAddr>().map(IpNet::from));
        net.map(Self).map_err(|_| format!("{text:?} is no network such as 10.0.0.0/8"))
    }
}

/// A web origin: scheme, host and port, nothing after it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Origin(HeaderValue);

impl FromStr for Origin {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let host = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
        host.filter(|host| !host.is_empty() && !host.contains(['/', '*', '?', '#', ' ']))
            .and_then(|_| HeaderValue::from_str(text).ok())
            .map(Self)
            .ok_or_else(|| format!("{text:?} is no origin such as https://shop.example.com"))
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;
    use rstest::rstest;

    use super::*;

    #[test]
    fn every_variable_is_documented() {
        let docs = include_str!("../../docs/configuration.md");
        let command = Cli::command();
        let arguments = command.get_subcommands().flat_map(clap::Command::get_arguments);
        let variables: Vec<_> =
            arguments.filter_map(|argument| Some(argument.get_env()?.to_str()?.to_owned())).collect();
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
        assert_eq!(config.currency.as_str(), "INR");
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
        assert_eq!(config.queue.queue().unwrap(), QueueAddress::Name("orders.fifo".into()));
        assert_eq!(config.queue.endpoint(), None);
        let staff = config.auth.staff().unwrap().unwrap();
        assert_eq!((staff.email.as_str(), staff.password.expose_secret()), ("boss@example.com", "two words "));
    }

    #[rstest]
    #[case(&["shop-api"], &["shop-api", "serve"])]
    #[case(&["shop-api", "--name", "x"], &["shop-api", "serve", "--name", "x"])]
    #[case(&["shop-api", "migrate"], &["shop-api", "migrate"])]
    #[case(&["shop-api", "--help"], &["shop-api", "--help"])]
    fn serving_is_the_default(#[case] args: &[&str], #[case] read: &[&str]) {
        assert_eq!(with_default_command(args.iter().map(ToString::to_string)), read);
    }
}
