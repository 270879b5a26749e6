//! Gives every request an id: the client's own where it is harmless, else a new one; it comes back in the answer.
//! Begins the request's span, in the trace of whoever asks.

use std::sync::Arc;

use axum::{
    extract::{MatchedPath, Request},
    http::{HeaderName, HeaderValue},
    middleware::Next,
    response::Response,
};
use shop_runtime::{
    ids,
    trace::{self, Origin, Role, TRACEPARENT},
};
use tracing::{Instrument, Span, field::Empty};

use super::red::known_method;

pub const HEADER: HeaderName = HeaderName::from_static("x-request-id");
const MAX_LENGTH: usize = 128;

/// The id of the request, for logs and answers.
#[derive(Debug, Clone, Default)]
pub struct RequestId(Arc<str>);

impl RequestId {
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// A client's id may go into logs only when it is short and plain.
    fn from_client(value: &HeaderValue) -> Option<Self> {
        let text = value.to_str().ok()?;
        let plain = text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.:".contains(&b));
        ((1..=MAX_LENGTH).contains(&text.len()) && plain).then(|| Self(text.into()))
    }

    fn new() -> Self {
        // Without random bits the request goes on without an id.
        Self(ids::random_hex::<12>().unwrap_or_default().into())
    }
}

/// Layer: outermost, so that every answer has the header.
pub async fn assign(mut request: Request, next: Next) -> Response {
    let id = request.headers().get(HEADER).and_then(RequestId::from_client).unwrap_or_else(RequestId::new);
    request.extensions_mut().insert(id.clone());
    let method = known_method(request.method());
    let route = request.extensions().get::<MatchedPath>().cloned();
    let route = route.as_ref().map_or("none", MatchedPath::as_str);
    let origin = Origin::read(request.headers().get(TRACEPARENT).and_then(|value| value.to_str().ok()));
    let span = span(&id, (method, route), origin);
    let context = origin.join(&span, Role { name: &format!("{method} {route}"), kind: "server" });
    let mut response = trace::within(context, next.run(request)).instrument(span.clone()).await;
    span.record("http.response.status_code", response.status().as_u16());
    if response.status().is_server_error() {
        trace::failed(&span);
    }
    if let Ok(value) = HeaderValue::from_str(id.as_str()) {
        response.headers_mut().insert(HEADER, value);
    }
    response
}

/// With the route's template: a path may hold an id, a query an address.
fn span(id: &RequestId, (method, route): (&str, &str), origin: Origin) -> Span {
    // An error's span: the ids are in every line, whatever level is logged.
    tracing::error_span!(
        parent: None,
        "request",
        request_id = id.as_str(),
        trace_id = %origin.trace_id,
        http.request.method = method,
        http.route = route,
        http.response.status_code = Empty,
        otel.name = Empty,
        otel.kind = Empty,
    )
}

#[cfg(test)]
mod tests {
    use std::{
        io::{self, Write},
        sync::{Mutex, PoisonError},
    };

    use axum::{Router, body::Body, middleware::from_fn, routing::get};
    use rstest::rstest;
    use serde_json::Value;
    use tower::ServiceExt;

    use super::*;

    /// A log in memory.
    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[tokio::test]
    async fn every_line_of_a_request_has_its_ids_and_no_path() {
        let lines = Lines::default();
        let (log, written) = (lines.clone(), lines.0);
        let json = tracing_subscriber::fmt().json().with_max_level(tracing::Level::WARN).with_span_list(false);
        let _logging = tracing::subscriber::set_default(json.with_writer(move || log.clone()).finish());
        let handler = get(|| async { tracing::warn!("inside") });
        let routes: Router = Router::new().route("/things/{id}", handler).layer(from_fn(assign));
        let trace_id = "4bf92f3577b34da6a3ce929d0e0e4736";
        let request = Request::get("/things/hush?token=hush")
            .header(TRACEPARENT, format!("00-{trace_id}-00f067aa0ba902b7-00"))
            .header(HEADER, "mine")
            .body(Body::empty());
        assert_eq!(routes.oneshot(request.unwrap()).await.unwrap().headers()[HEADER], "mine");

        let line = written.lock().unwrap().clone();
        let span = &serde_json::from_slice::<Value>(&line).unwrap()["span"];
        assert_eq!((&span["request_id"], &span["trace_id"]), (&"mine".into(), &trace_id.into()));
        assert_eq!((&span["http.request.method"], &span["http.route"]), (&"GET".into(), &"/things/{id}".into()));
        assert!(!String::from_utf8(line).unwrap().contains("hush"));
    }

    #[rstest]
    #[case("abc-123_x.y:z", true)]
    #[case("", false)]
    #[case("two words", false)]
    #[case("a\"b", false)]
    fn only_plain_ids_are_taken_over(#[case] text: &str, #[case] taken: bool) {
        assert_eq!(RequestId::from_client(&HeaderValue::from_str(text).unwrap()).is_some(), taken);
        assert!(RequestId::from_client(&HeaderValue::from_str(&"x".repeat(129)).unwrap()).is_none());
    }
}
