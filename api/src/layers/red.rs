//! Rate, errors and duration of requests, per method and route template (never per path: paths are unbounded).

use std::sync::Arc;

use axum::{
    extract::{MatchedPath, Request, State},
    http::Method,
    middleware::Next,
    response::Response,
};
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
};
use shop_runtime::metrics::Metrics;
use tokio::time::Instant;

use crate::app::App;

const BUCKETS: [f64; 12] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0];

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RouteLabels {
    method: &'static str,
    route: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct AnswerLabels {
    method: &'static str,
    route: String,
    status: u16,
}

/// The request metrics of this service.
#[derive(Debug, Clone)]
pub struct RequestMetrics(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    requests: Family<AnswerLabels, Counter>,
    duration: Family<RouteLabels, Histogram, fn() -> Histogram>,
    in_flight: Gauge,
}

impl RequestMetrics {
    pub fn register(metrics: &Metrics) -> Self {
        let new_histogram: fn() -> Histogram = || Histogram::new(BUCKETS);
        let inner = Inner {
            requests: Family::default(),
            duration: Family::new_with_constructor(new_histogram),
            in_flight: Gauge::default(),
        };
        metrics.register(|registry| {
            registry.register("shop_api_requests", "Requests answered", inner.requests.clone());
            registry.register("shop_api_request_duration_seconds", "Time to answer", inner.duration.clone());
            registry.register("shop_api_requests_in_flight", "Requests being answered", inner.in_flight.clone());
        });
        Self(Arc::new(inner))
    }
}

/// Counts down also when the client goes away and the handler is dropped.
struct InFlight(Gauge);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// Layer: measures every request.
pub async fn measure(State(app): State<App>, request: Request, next: Next) -> Response {
    let metrics = app.request_metrics.0.as_ref();
    let method = known_method(request.method());
    let route = request.extensions().get::<MatchedPath>().map_or("none", MatchedPath::as_str).to_owned();
    metrics.in_flight.inc();
    let _in_flight = InFlight(metrics.in_flight.clone());
    let started = Instant::now();
    let response = next.run(request).await;
    let labels = RouteLabels { method, route: route.clone() };
    metrics.duration.get_or_create(&labels).observe(started.elapsed().as_secs_f64());
    let status = response.status().as_u16();
    metrics.requests.get_or_create(&AnswerLabels { method, route, status }).inc();
    response
}

/// A client may invent methods; labels must stay few.
pub(super) fn known_method(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        Method::OPTIONS => "OPTIONS",
        _ => "other",
    }
}
