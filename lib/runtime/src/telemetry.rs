//! Logging: one JSON object a line on standard output. Never log a secret, a token, an address or a body.

use std::io::IsTerminal;

use tracing_subscriber::{
    EnvFilter, Layer,
    filter::{LevelFilter, filter_fn},
    fmt,
    layer::SubscriberExt,
    util::SubscriberInitExt,
};

use crate::otlp::{Collector, CollectorError, Spans};

/// How every crate's name of ours begins.
const OURS: &str = "shop_";

#[derive(Debug, thiserror::Error)]
#[error("{level:?} is no log level: use error, warn, info, debug, trace, or directives such as info,shop_api=debug")]
pub struct InvalidLogLevel {
    level: String,
}

/// Starts logging at `level`: a level for our own crates, or `EnvFilter` directives. Text on a terminal, JSON otherwise.
/// Call once.
pub fn init(level: &str) -> Result<(), InvalidLogLevel> {
    start(level, None)
}

/// The same, and sends our own spans to a collector, where there is one. Within the runtime.
pub fn init_traced(level: &str, collector: Option<&Collector>) -> Result<Traces, TelemetryError> {
    let spans = collector.map(Spans::start).transpose()?;
    start(level, spans.as_ref())?;
    Ok(Traces(spans))
}

/// Why there is no telemetry.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    #[error("SHOP_LOG_LEVEL")]
    Level(#[from] InvalidLogLevel),
    #[error(transparent)]
    Collector(#[from] CollectorError),
}

/// The spans that are still on their way.
#[derive(Debug)]
pub struct Traces(Option<Spans>);

impl Traces {
    /// Call last: sends what is left, for a few seconds at most.
    pub async fn flush(self) {
        if let Some(spans) = self.0 {
            spans.flush().await;
        }
    }
}

fn start(level: &str, spans: Option<&Spans>) -> Result<(), InvalidLogLevel> {
    let filter = EnvFilter::try_new(directives(level)).map_err(|_| InvalidLogLevel { level: level.to_owned() })?;
    let lines = fmt::layer().with_target(true);
    let lines = if std::io::stdout().is_terminal() {
        lines.with_filter(filter).boxed()
    } else {
        let json = lines.json().flatten_event(true).with_current_span(true).with_span_list(false);
        json.with_filter(filter).boxed()
    };
    let ours = filter_fn(|metadata| metadata.is_span() && metadata.target().starts_with(OURS));
    let traces = spans.map(|spans| tracing_opentelemetry::layer().with_tracer(spans.tracer()).with_filter(ours));
    // A second call keeps the first subscriber: tests start several services in one process.
    let _already_started = tracing_subscriber::registry().with(lines).with(traces).try_init();
    Ok(())
}

/// What other crates say below `info` may hold tokens and addresses: a bare level makes only our own say more.
fn directives(level: &str) -> String {
    match level.trim().parse::<LevelFilter>() {
        Ok(level) => format!("{},{OURS}={level}", level.min(LevelFilter::INFO)),
        Err(_) => level.to_owned(),
    }
}

/// An error with everything that caused it, in one line.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.ends_with(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use tracing::{Level, enabled, subscriber::with_default};
    use tracing_subscriber::registry;

    use super::*;

    #[rstest]
    #[case("info", "info,shop_=info")]
    #[case("DEBUG", "info,shop_=debug")]
    #[case("trace\n", "info,shop_=trace")]
    #[case("warn", "warn,shop_=warn")]
    #[case("off", "off,shop_=off")]
    #[case("info,hyper=debug", "info,hyper=debug")]
    fn a_bare_level_is_for_our_own_crates(#[case] level: &str, #[case] expected: &str) {
        assert_eq!(directives(level), expected);
    }

    #[test]
    fn others_stay_quiet_when_ours_say_more() {
        let filter = EnvFilter::try_new(directives("trace")).unwrap();
        with_default(registry().with(filter), || {
            assert!(enabled!(target: "shop_api::relay", Level::TRACE));
            assert!(enabled!(target: "hyper::proto", Level::INFO));
            assert!(!enabled!(target: "hyper::proto", Level::DEBUG));
        });
    }

    #[test]
    fn a_bad_level_is_named() {
        let error = init("loud,=").unwrap_err().to_string();
        assert!(error.contains("loud"), "{error}");
    }

    #[test]
    fn the_chain_has_every_cause_once() {
        #[derive(Debug, thiserror::Error)]
        #[error("cannot read the order")]
        struct Outer(#[source] std::io::Error);
        let error = Outer(std::io::Error::other("connection reset"));
        assert_eq!(chain(&error), "cannot read the order: connection reset");
    }
}
