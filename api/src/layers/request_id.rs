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
    use rstest::rstest;

    use super::*;

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
