//! An error on its way to the client: what it is made of, and how it is written. RFC 9457 `application/problem+json`,
//! always. Which error is which problem stands in `problem/errors.rs`.

pub mod codes;
mod errors;
pub mod examples;
mod render;

use std::{borrow::Cow, error::Error, sync::Arc};

use axum::{
    http::StatusCode,
    response::{IntoResponse, Response},
};
use serde::{Serialize, Serializer};
use serde_json::{
    json,
    value::{RawValue, to_raw_value},
};
use shop_domain::order::FieldFault;
use shop_runtime::telemetry;

pub use self::render::render;

/// An error on its way to the client. Rendered by [`render`], which knows the request.
#[derive(Debug, Clone)]
pub struct Problem {
    pub status: StatusCode,
    pub code: &'static str,
    pub detail: Cow<'static, str>,
    pub errors: Vec<FieldFault>,
    /// Members beyond the standard ones, such as the present total.
    pub extra: Vec<(&'static str, Box<RawValue>)>,
    pub retry_after_seconds: Option<u32>,
    /// What went wrong inside: logged once, never answered.
    cause: Option<Arc<str>>,
}

impl Problem {
    pub fn new(status: StatusCode, code: &'static str, detail: impl Into<Cow<'static, str>>) -> Self {
        debug_assert!(codes::is_known(code), "{code} is not in the table of codes");
        let (errors, extra) = (Vec::new(), Vec::new());
        Self { status, code, detail: detail.into(), errors, extra, retry_after_seconds: None, cause: None }
    }

    #[must_use]
    pub fn with(mut self, member: &'static str, value: &impl Serialize) -> Self {
        // Raw: amounts must not pass through a float on their way out.
        self.extra.extend(to_raw_value(value).map(|value| (member, value)));
        self
    }

    #[must_use]
    pub fn retry_after(mut self, seconds: u32) -> Self {
        self.retry_after_seconds = Some(seconds.max(1));
        self
    }

    /// The request is wrong: all faults at once.
    pub fn invalid(errors: Vec<FieldFault>) -> Self {
        let detail = match errors.as_slice() {
            [only] if only.pointer.is_empty() => Cow::Owned(only.detail.clone()),
            [only] => Cow::Owned(format!("{}: {}", only.pointer, only.detail)),
            _ => Cow::Borrowed("the request has faults; see errors"),
        };
        Self { errors, ..Self::new(StatusCode::BAD_REQUEST, "invalid_request", detail) }
    }

    pub fn unauthenticated(detail: &'static str) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "unauthenticated", detail)
    }

    pub fn forbidden() -> Self {
        Self::new(StatusCode::FORBIDDEN, "forbidden", "only staff may do this")
    }

    pub fn not_found() -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found", "there is nothing here, or it is not yours")
    }

    pub fn too_many_requests(seconds: u32) -> Self {
        Self::new(StatusCode::TOO_MANY_REQUESTS, "rate_limited", "too many requests; try again later")
            .retry_after(seconds)
    }

    pub fn precondition_required() -> Self {
        let detail = "send the product's ETag as If-Match, or * to change it whatever it is now";
        Self::new(StatusCode::PRECONDITION_REQUIRED, "precondition_required", detail)
    }

    /// Something the service needs is away or busy.
    pub fn unavailable(cause: &dyn Error) -> Self {
        Self { cause: Some(telemetry::chain(cause).into()), ..Self::away() }
    }

    /// The same, where it is known without asking.
    pub fn away() -> Self {
        let detail = "the service cannot do this right now; try again";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", detail).retry_after(1)
    }

    pub fn internal(cause: &dyn Error) -> Self {
        Self { cause: Some(telemetry::chain(cause).into()), ..Self::internal_without_cause() }
    }

    pub fn panicked(message: &str) -> Self {
        Self { cause: Some(format!("a handler panicked: {message}").into()), ..Self::internal_without_cause() }
    }

    pub fn busy() -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "busy", "too many sign-ins at once; try again").retry_after(1)
    }

    pub fn timeout() -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "timeout", "the request took too long; try again").retry_after(1)
    }

    /// One field is wrong.
    pub fn field(pointer: &str, error: &dyn Error) -> Self {
        Self::invalid(vec![FieldFault::new(pointer, error.to_string())])
    }

    fn internal_without_cause() -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", "something went wrong on our side")
    }

    /// The problem that a bare status stands for: answers made outside our handlers.
    pub fn of_status(status: StatusCode) -> Self {
        match status {
            StatusCode::NOT_FOUND => Self::not_found(),
            StatusCode::METHOD_NOT_ALLOWED => {
                Self::new(status, "method_not_allowed", "this method is not allowed here")
            }
            StatusCode::PAYLOAD_TOO_LARGE => Self::new(status, "too_large", "a body may have at most 100 kB"),
            StatusCode::UNSUPPORTED_MEDIA_TYPE => {
                let detail = "the body must be JSON: send Content-Type: application/json";
                Self::new(status, "unsupported_media_type", detail)
            }
            status if status.is_server_error() => Self::internal_without_cause(),
            status => Self::new(status, "invalid_request", status.canonical_reason().unwrap_or("the request is wrong")),
        }
    }

    fn body(&self, instance: &str, request_id: &str) -> Result<String, serde_json::Error> {
        let errors: Vec<_> =
            self.errors.iter().map(|fault| json!({"pointer": fault.pointer, "detail": fault.detail})).collect();
        let members = [
            ("type", json!(format!("urn:xhipment:problem:{}", self.code))),
            ("title", json!(self.status.canonical_reason().unwrap_or("Error"))),
            ("status", json!(self.status.as_u16())),
            ("detail", json!(self.detail)),
            ("instance", json!(instance)),
            ("code", json!(self.code)),
            ("message", json!(self.detail)),
            ("requestId", json!(request_id)),
            ("errors", json!(errors)),
        ];
        let members = members.iter().map(|(name, value)| Ok((*name, to_raw_value(value)?)));
        let mut all: Vec<_> = members.collect::<Result<_, serde_json::Error>>()?;
        all.extend(self.extra.iter().cloned());
        serde_json::to_string(&Members(all))
    }
}

/// The members of an object, in this order.
struct Members(Vec<(&'static str, Box<RawValue>)>);

impl Serialize for Members {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(name, value)| (name, value)))
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = self.status.into_response();
        response.extensions_mut().insert(Box::new(self));
        response
    }
}

#[cfg(test)]
mod tests;
