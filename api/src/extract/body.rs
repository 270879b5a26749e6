//! A JSON body, checked for size, type and shape.

use axum::{
    body,
    body::HttpBody,
    extract::{FromRequest, OptionalFromRequest, Request},
    http::{HeaderMap, StatusCode, header},
};
use http_body_util::LengthLimitError;
use shop_domain::order::FieldFault;

use super::fields::{self, FromFields};
use crate::problem::Problem;

/// 100 kB as the original counts them.
pub const MAX_BODY_BYTES: usize = 100 * 1024;

/// A body of type `T`.
#[derive(Debug)]
pub struct Body<T>(pub T);

impl<S: Send + Sync, T: FromFields> FromRequest<S> for Body<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, _: &S) -> Result<Self, Problem> {
        fields::read(&read_text(request).await?).map(Self).map_err(Problem::invalid)
    }
}

/// A body that may be left out, or be null.
impl<S: Send + Sync, T: FromFields> OptionalFromRequest<S> for Body<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, _: &S) -> Result<Option<Self>, Problem> {
        if request.body().is_end_stream() {
            return Ok(None);
        }
        let text = read_text(request).await?;
        if text.trim() == "null" {
            return Ok(None);
        }
        fields::read(&text).map(|value| Some(Self(value))).map_err(Problem::invalid)
    }
}

/// The text of a JSON body, whatever it says.
async fn read_text(request: Request) -> Result<String, Problem> {
    let (parts, body) = request.into_parts();
    if declared_length(&parts.headers).is_some_and(|length| length > MAX_BODY_BYTES) {
        return Err(too_large());
    }
    if !is_json(&parts.headers) {
        return Err(Problem::of_status(StatusCode::UNSUPPORTED_MEDIA_TYPE));
    }
    let bytes = body::to_bytes(body, MAX_BODY_BYTES).await.map_err(|error| unreadable(&error))?;
    String::from_utf8(bytes.into()).map_err(|_| not_text())
}

fn declared_length(headers: &HeaderMap) -> Option<usize> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

fn is_json(headers: &HeaderMap) -> bool {
    let value = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let essence = value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    essence == "application/json" || (essence.starts_with("application/") && essence.ends_with("+json"))
}

fn too_large() -> Problem {
    Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", "a body may have at most 100 kB")
}

fn unreadable(error: &axum::Error) -> Problem {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(current) = cause {
        if current.is::<LengthLimitError>() {
            return too_large();
        }
        cause = current.source();
    }
    Problem::invalid(vec![FieldFault::new("", "the body ended before it was complete")])
}

fn not_text() -> Problem {
    Problem::invalid(vec![FieldFault::new("", "malformed JSON: the body is not UTF-8")])
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;
    use rstest::rstest;
    use serde_json::json;

    use super::*;
    use crate::extract::Fields;

    #[derive(Debug)]
    struct Name;

    impl FromFields for Name {
        fn from_fields(fields: &mut Fields<'_>) -> Option<Self> {
            fields.text("name").map(|_| Self)
        }
    }

    async fn status(content_type: &str, body: Vec<u8>) -> StatusCode {
        let request = Request::builder().header(header::CONTENT_TYPE, content_type).body(body.into()).unwrap();
        match <Body<Name> as FromRequest<()>>::from_request(request, &()).await {
            Ok(_) => StatusCode::OK,
            Err(problem) => problem.status,
        }
    }

    #[rstest]
    #[case("application/json", 200)]
    #[case("application/json; charset=utf-8", 200)]
    #[case("Application/JSON", 200)]
    #[case("application/problem+json", 200)]
    #[case("text/plain", 415)]
    #[case("application/x-www-form-urlencoded", 415)]
    #[case("", 415)]
    #[tokio::test]
    async fn only_json_is_read(#[case] content_type: &str, #[case] expected: u16) {
        assert_eq!(status(content_type, br#"{"name":"x"}"#.to_vec()).await, expected);
    }

    #[rstest]
    #[case(MAX_BODY_BYTES, 200)]
    #[case(MAX_BODY_BYTES + 1, 413)]
    #[tokio::test]
    async fn a_body_has_at_most_100_kb(#[case] size: usize, #[case] expected: u16) {
        let frame = json!({ "name": "" }).to_string().len();
        let body = json!({ "name": "x".repeat(size - frame) }).to_string().into_bytes();
        assert_eq!(status("application/json", body).await, expected);
    }

    #[rstest]
    #[case(b"")]
    #[case(b"{")]
    #[case(b"{\"name\":\"\xff\"}")]
    #[tokio::test]
    async fn malformed_json_is_a_bad_request(#[case] body: &[u8]) {
        assert_eq!(status("application/json", body.to_vec()).await, 400);
    }

    #[rstest]
    #[case("", Some(false))]
    #[case(" null", Some(false))]
    #[case(r#"{"name":"x"}"#, Some(true))]
    #[case("{", None)]
    #[tokio::test]
    async fn a_body_that_may_be_left_out_is_checked_when_it_is_there(#[case] body: &str, #[case] there: Option<bool>) {
        let json = Request::builder().header(header::CONTENT_TYPE, "application/json");
        let request = json.body(body.to_owned().into()).unwrap();
        let read = <Body<Name> as OptionalFromRequest<()>>::from_request(request, &()).await;
        assert_eq!(read.ok().map(|body| body.is_some()), there);
    }

    #[test]
    fn a_declared_length_is_enough_to_refuse() {
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from_static("102401"));
        assert_eq!(declared_length(&headers), Some(102_401));
    }
}
