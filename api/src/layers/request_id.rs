//! Gives every request an id: the client's own where it is harmless, else a new one; it comes back in the answer.

use std::sync::Arc;

use axum::{
    extract::Request,
    http::{HeaderName, HeaderValue},
    middleware::Next,
    response::Response,
};
use shop_runtime::ids;
use tracing::Instrument;

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
    let span = tracing::info_span!("request", request_id = id.as_str());
    let mut response = next.run(request).instrument(span).await;
    if let Ok(value) = HeaderValue::from_str(id.as_str()) {
        response.headers_mut().insert(HEADER, value);
    }
    response
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
