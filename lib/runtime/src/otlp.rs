//! The way of spans to a collector: OTLP over HTTP, in batches, in the background. What finds no room is dropped, so
//! that a collector that is slow or away never slows the work. Knows nothing of what the spans are about.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use clap::Args;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::connect::HttpConnector;
use opentelemetry::trace::TracerProvider;
use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response, hyper::HyperClient};
use opentelemetry_otlp::{ExporterBuildError, SpanExporter, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::{
    Resource,
    trace::{Sampler, SdkTracerProvider, Tracer},
};
use tokio::runtime::Handle;

use crate::{
    parsers::{filled, ratio, trimmed},
    trace::OwnIds,
};

/// One export may take so long.
const PATIENCE: Duration = Duration::from_secs(10);
/// The last export, when the process ends.
const LAST_PATIENCE: Duration = Duration::from_secs(3);

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
    /// Where the spans of `service` go, if they go anywhere; an empty variable counts as unset.
    pub fn collector(&self, service: &'static str) -> Option<Collector> {
        let endpoint = filled(self.otlp_endpoint.as_ref())?;
        Some(Collector { service, endpoint, ratio: self.trace_ratio })
    }
}

/// Where spans go.
#[derive(Debug, Clone)]
pub struct Collector {
    /// The name of this process in the traces.
    pub service: &'static str,
    /// The base address, such as `http://collector:4318`.
    pub endpoint: String,
    /// The share of traces that are recorded, where nobody has decided that before.
    pub ratio: f64,
}

#[derive(Debug, thiserror::Error)]
pub enum CollectorError {
    #[error("the system's certificates cannot be read")]
    Certificates(#[source] std::io::Error),
    #[error("OTEL_EXPORTER_OTLP_ENDPOINT cannot be used: set it to an address such as http://collector:4318")]
    Endpoint(#[from] ExporterBuildError),
}

/// Spans on their way. Flushed by [`Spans::flush`], lost otherwise.
#[derive(Debug)]
pub struct Spans(SdkTracerProvider);

impl Spans {
    /// Starts the exporter. Connects when there is something to send.
    pub fn start(collector: &Collector) -> Result<Self, CollectorError> {
        let exporter = SpanExporter::builder()
            .with_http()
            .with_http_client(OnRuntime::new()?)
            .with_endpoint(format!("{}/v1/traces", collector.endpoint.trim_end_matches('/')))
            .build()?;
        let sampler = Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(collector.ratio)));
        let resource = Resource::builder().with_service_name(collector.service).build();
        let provider = SdkTracerProvider::builder().with_id_generator(OwnIds).with_batch_exporter(exporter);
        Ok(Self(provider.with_sampler(sampler).with_resource(resource).build()))
    }

    pub fn tracer(&self) -> Tracer {
        self.0.tracer("shop")
    }

    /// Sends what is left, for at most 3 s.
    pub async fn flush(self) {
        let shut_down = tokio::task::spawn_blocking(move || self.0.shutdown_with_timeout(LAST_PATIENCE));
        if !matches!(shut_down.await, Ok(Ok(()))) {
            tracing::warn!("the last spans did not reach the collector");
        }
    }
}

/// The exporter has a thread of its own, outside the runtime that hyper needs.
#[derive(Debug)]
struct OnRuntime {
    client: HyperClient<HttpsConnector<HttpConnector>>,
    runtime: Handle,
    away: Arc<AtomicBool>,
}

impl OnRuntime {
    fn new() -> Result<Self, CollectorError> {
        let tls = HttpsConnectorBuilder::new().with_native_roots().map_err(CollectorError::Certificates)?;
        let connector = tls.https_or_http().enable_http1().build();
        let client = HyperClient::new(connector, PATIENCE, None);
        Ok(Self { client, runtime: Handle::current(), away: Arc::default() })
    }

    /// Says it once when the collector goes, and once when it is back.
    fn note(&self, away: bool) {
        match (self.away.swap(away, Ordering::Relaxed), away) {
            (false, true) => tracing::warn!("the trace collector does not take spans; they are dropped"),
            (true, false) => tracing::info!("the trace collector takes spans again"),
            _ => {}
        }
    }
}

#[async_trait]
impl HttpClient for OnRuntime {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let client = self.client.clone();
        let answer = self.runtime.spawn(async move { client.send_bytes(request).await }).await?;
        self.note(!matches!(&answer, Ok(answer) if answer.status().is_success()));
        answer
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use clap::Parser;
    use rstest::rstest;
    use tracing::subscriber::with_default;
    use tracing_subscriber::{layer::SubscriberExt, registry};

    use super::*;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        tracing: TracingConfig,
    }

    #[rstest]
    #[case(&[], None)]
    #[case(&["--otlp-endpoint", " \n"], None)]
    #[case(&["--otlp-endpoint", "http://c:4318\n"], Some(("http://c:4318", 1.0)))]
    #[case(&["--otlp-endpoint", "http://c:4318", "--trace-ratio", "0.25"], Some(("http://c:4318", 0.25)))]
    fn spans_go_to_the_collector_that_is_named(#[case] args: &[&str], #[case] expected: Option<(&str, f64)>) {
        let cli = Cli::try_parse_from(["x"].iter().chain(args)).unwrap();
        let collector = cli.tracing.collector("test");
        assert_eq!(collector.as_ref().map(|collector| (collector.endpoint.as_str(), collector.ratio)), expected);
    }

    fn collector(endpoint: String) -> Collector {
        Collector { service: "test", endpoint, ratio: 1.0 }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_collector_that_hangs_slows_nothing() {
        crate::install_tls_provider();
        // Connections wait in its backlog: nobody ever answers.
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let spans = Spans::start(&collector(format!("http://{}", listener.local_addr().unwrap()))).unwrap();
        let began = Instant::now();
        with_default(registry().with(tracing_opentelemetry::layer().with_tracer(spans.tracer())), || {
            for _ in 0..20_000 {
                tracing::error_span!("x").in_scope(|| ());
            }
        });
        // Far below the 10 s that one export may take; a busy machine needs a part of it.
        assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
        let began = Instant::now();
        spans.flush().await;
        assert!(began.elapsed() < LAST_PATIENCE * 3, "{:?}", began.elapsed());
    }

    #[tokio::test]
    async fn an_endpoint_that_is_none_is_named_by_its_variable() {
        crate::install_tls_provider();
        let error = Spans::start(&collector("not an address".into())).unwrap_err().to_string();
        assert!(error.contains("OTEL_EXPORTER_OTLP_ENDPOINT"), "{error}");
    }
}
