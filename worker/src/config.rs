//! The whole configuration of the worker, read once from the environment (or flags). Nothing else reads it.

use std::{net::SocketAddr, time::Duration};

use clap::Parser;
use secrecy::{ExposeSecret, SecretString};
use shop_runtime::{
    otlp::TracingConfig,
    parsers::{filled, trimmed, trimmed_secret},
    queue::{QueueConfig, QueueNotNamed},
    trust::{PrivateCa, TrustError},
};

use crate::simulated::SimulatedWork;

/// How long one receive waits for a message, as long as SQS allows.
pub const LONG_POLL: Duration = Duration::from_secs(20);
/// Between the moment at which unfinished work is handed back and the end of the process.
const HAND_BACK: Duration = Duration::from_secs(5);

/// Everything the worker needs.
#[derive(Debug, Clone, Parser)]
#[command(name = "shop-worker", version, about = "The queue worker of the shop")]
pub struct Config {
    /// A connection string such as `mongodb://user:password@host:27017/?replicaSet=…`.
    #[arg(long, env = "SHOP_MONGODB_URI", value_name = "SHOP_MONGODB_URI", hide_env_values = true,
          value_parser = trimmed_secret)]
    pub mongodb_uri: SecretString,
    #[arg(long, env = "SHOP_MONGODB_DATABASE", value_name = "SHOP_MONGODB_DATABASE", default_value = "xhipment")]
    pub mongodb_database: String,
    /// A URL such as `redis://:password@host:6379`. Left out: no status cache.
    #[arg(long, env = "SHOP_REDIS_URL", value_name = "SHOP_REDIS_URL", hide_env_values = true,
          value_parser = trimmed_secret)]
    redis_url: Option<SecretString>,
    /// PEM file of a private CA that `MongoDB`, Redis and SQS may be certified by.
    #[arg(long, env = "SHOP_CA_FILE", value_name = "SHOP_CA_FILE", value_parser = trimmed)]
    ca_file: Option<String>,
    #[command(flatten)]
    pub queue: QueueConfig,
    /// How long a received message is hidden from other workers before it is extended.
    #[arg(long, env = "SHOP_SQS_VISIBILITY_SECONDS", value_name = "SHOP_SQS_VISIBILITY_SECONDS",
          default_value = "60", value_parser = clap::value_parser!(u32).range(2..=43_200))]
    visibility_seconds: u32,
    /// Deliveries after which the queue moves a message to its dead letters.
    #[arg(long, env = "SHOP_SQS_MAX_RECEIVE_COUNT", value_name = "SHOP_SQS_MAX_RECEIVE_COUNT",
          default_value = "10", value_parser = clap::value_parser!(u32).range(1..=1_000))]
    max_receive_count: u32,
    #[arg(long, env = "SHOP_METRICS_ADDR", value_name = "SHOP_METRICS_ADDR", default_value = "0.0.0.0:9090")]
    pub metrics_addr: SocketAddr,
    /// A level for the shop's own code, or directives such as `info,shop_worker=debug`.
    #[arg(long, env = "SHOP_LOG_LEVEL", value_name = "SHOP_LOG_LEVEL", default_value = "info")]
    pub log_level: String,
    #[command(flatten)]
    pub tracing: TracingConfig,
    /// Messages in work at once.
    #[arg(long, env = "SHOP_WORKER_CONCURRENCY", value_name = "SHOP_WORKER_CONCURRENCY", default_value = "10",
          value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub concurrency: u32,
    /// Messages held beyond those in work, so that the next ones are at hand. They wait hidden from other workers.
    #[arg(long, env = "SHOP_WORKER_PREFETCH", value_name = "SHOP_WORKER_PREFETCH", default_value = "0",
          value_parser = clap::value_parser!(u32).range(0..=1_000))]
    prefetch: u32,
    /// Messages taken and decided together at most.
    #[arg(long, env = "SHOP_WORKER_BATCH_SIZE", value_name = "SHOP_WORKER_BATCH_SIZE", default_value = "10",
          value_parser = clap::value_parser!(u32).range(1..=10))]
    batch_size: u32,
    /// Longest time that a message may be in work.
    #[arg(long, env = "SHOP_WORKER_MAX_PROCESSING_SECONDS", value_name = "SHOP_WORKER_MAX_PROCESSING_SECONDS",
          default_value = "30", value_parser = clap::value_parser!(u32).range(1..=3_600))]
    max_processing_seconds: u32,
    /// A stand-in for a slow downstream, per message, such as 400 or 100..20000: for demonstrations and capacity tests only.
    #[arg(long, env = "SHOP_SIMULATED_WORK_MS", value_name = "SHOP_SIMULATED_WORK_MS", default_value = "0")]
    simulated_work_ms: SimulatedWork,
}

/// Settings that do not go together.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    #[error(transparent)]
    Queue(#[from] QueueNotNamed),
    #[error(
        "SHOP_SIMULATED_WORK_MS must be below SHOP_WORKER_MAX_PROCESSING_SECONDS: no message could ever be finished"
    )]
    SimulatedWork,
}

impl Config {
    /// The private CA, if there is one.
    pub fn ca(&self) -> Result<Option<PrivateCa>, TrustError> {
        filled(self.ca_file.as_ref()).map(|path| PrivateCa::load(path.as_ref())).transpose()
    }

    pub fn redis_url(&self) -> Option<&SecretString> {
        self.redis_url.as_ref().filter(|url| !url.expose_secret().is_empty())
    }

    pub fn visibility(&self) -> Duration {
        Duration::from_secs(self.visibility_seconds.into())
    }

    /// Messages held at once, in work or waiting for it.
    pub fn held(&self) -> u32 {
        self.concurrency + self.prefetch
    }

    /// Messages of one receive: never more than can be in work at once.
    pub fn batch(&self) -> u32 {
        self.batch_size.min(self.concurrency)
    }

    pub fn max_receive_count(&self) -> u32 {
        self.max_receive_count
    }

    pub fn max_processing(&self) -> Duration {
        Duration::from_secs(self.max_processing_seconds.into())
    }

    /// How long messages are held before they are decided; normally zero.
    pub fn simulated_work(&self) -> Result<SimulatedWork, ConfigError> {
        let work = self.simulated_work_ms;
        if work.longest() < self.max_processing() { Ok(work) } else { Err(ConfigError::SimulatedWork) }
    }

    /// After the signal to stop: when work that is still unfinished is handed back to the queue. Until then the open
    /// receive may answer (20 s) and what it brought may be worked on.
    pub fn hand_back_after(&self) -> Duration {
        LONG_POLL + self.max_processing() + HAND_BACK
    }

    /// After the signal to stop: when the process ends at the latest. The pod's grace must not be shorter.
    pub fn grace(&self) -> Duration {
        self.hand_back_after() + HAND_BACK
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;
    use rstest::rstest;
    use shop_runtime::queue::QueueAddress;

    use super::*;

    #[test]
    fn every_variable_is_documented() {
        let docs = include_str!("../../docs/configuration.md");
        let command = Config::command();
        let variables: Vec<_> = command.get_arguments().filter_map(|argument| argument.get_env()?.to_str()).collect();
        assert!(variables.len() > 5);
        let missing: Vec<_> = variables.iter().filter(|name| !docs.contains(&format!("`{name}`"))).collect();
        assert_eq!(missing, Vec::<&&str>::new());
    }

    fn parse(more: &[&str]) -> Config {
        let base = ["shop-worker", "--mongodb-uri", "mongodb://localhost"];
        Config::try_parse_from(base.iter().chain(more)).unwrap()
    }

    #[test]
    fn line_ends_of_a_secret_are_no_part_of_it() {
        let config = parse(&["--redis-url", "redis://h\r\n", "--queue-url", "http://sqs/q\n", "--sqs-endpoint", " \n"]);
        assert_eq!(config.redis_url().unwrap().expose_secret(), "redis://h");
        assert_eq!(config.queue.address(), Ok(QueueAddress::Url("http://sqs/q".into())));
        assert_eq!(config.queue.service().endpoint, None);
        let config = Config::try_parse_from(["shop-worker", "--mongodb-uri", "mongodb://h/\n"]).unwrap();
        assert_eq!(config.mongodb_uri.expose_secret(), "mongodb://h/");
    }

    #[rstest]
    #[case("0", true)]
    #[case("29999", true)]
    #[case("30000", false)]
    #[case("100..29999", true)]
    #[case("100..30000", false)]
    fn simulated_work_leaves_time_to_decide(#[case] millis: &str, #[case] fits: bool) {
        assert_eq!(parse(&["--simulated-work-ms", millis]).simulated_work().is_ok(), fits);
    }

    #[rstest]
    #[case(&[], (10, 10))]
    #[case(&["--concurrency", "4"], (4, 4))]
    #[case(&["--concurrency", "4", "--prefetch", "20"], (24, 4))]
    #[case(&["--concurrency", "50", "--batch-size", "5"], (50, 5))]
    fn a_batch_fits_into_what_is_in_work_at_once(#[case] flags: &[&str], #[case] (held, batch): (u32, u32)) {
        let config = parse(flags);
        assert_eq!((config.held(), config.batch()), (held, batch));
    }

    #[rstest]
    #[case("--batch-size", "0")]
    #[case("--batch-size", "11")]
    #[case("--concurrency", "0")]
    #[case("--prefetch", "1001")]
    fn what_sqs_or_memory_cannot_bear_is_refused(#[case] flag: &str, #[case] value: &str) {
        let error = Config::try_parse_from(["shop-worker", "--mongodb-uri", "mongodb://h", flag, value]).unwrap_err();
        assert!(error.to_string().contains("SHOP_WORKER_"), "{error}");
    }

    #[test]
    fn the_grace_covers_a_receive_and_the_work_it_brings() {
        let config = parse(&["--max-processing-seconds", "7"]);
        assert_eq!(config.hand_back_after(), Duration::from_secs(32));
        assert_eq!(config.grace(), Duration::from_secs(37));
    }

    #[test]
    fn a_missing_setting_is_named_by_its_variable() {
        let error = Config::try_parse_from(["shop-worker"]).unwrap_err().to_string();
        assert!(error.contains("SHOP_MONGODB_URI"), "{error}");
    }

    #[test]
    fn secrets_are_not_shown() {
        assert!(!format!("{:?}", parse(&["--redis-url", "redis://:hush@host"])).contains("hush"));
    }
}
