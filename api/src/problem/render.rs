//! The layer that writes problems: body, headers, and the one line in the log.

use axum::{
    extract::{MatchedPath, Request},
    http::{HeaderValue, StatusCode, header},
    middleware::Next,
    response::Response,
};

use super::Problem;
use crate::layers::request_id::RequestId;

/// Gives every error answer its body, with the request's path and id, and logs server faults once.
pub async fn render(request: Request, next: Next) -> Response {
    let instance = request.uri().path().to_owned();
    let route = request.extensions().get::<MatchedPath>().cloned();
    let request_id = request.extensions().get::<RequestId>().cloned().unwrap_or_default();
    let response = next.run(request).await;
    let status = response.status();
    if !status.is_client_error() && !status.is_server_error() {
        return response;
    }
    let (mut parts, _) = response.into_parts();
    let problem = parts.extensions.remove::<Box<Problem>>().unwrap_or_else(|| Box::new(Problem::of_status(status)));
    log(&problem, route.as_ref().map_or("none", MatchedPath::as_str), &request_id);
    parts.headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
    parts.headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    parts.headers.remove(header::CONTENT_LENGTH);
    if let Some(seconds) = problem.retry_after_seconds {
        parts.headers.insert(header::RETRY_AFTER, seconds.into());
    }
    if status == StatusCode::UNAUTHORIZED {
        parts.headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    let body = problem.body(&instance, request_id.as_str()).unwrap_or_default();
    Response::from_parts(parts, body.into())
}

/// Names the route's template, not the path: a path may hold a one-time token.
fn log(problem: &Problem, route: &str, request_id: &RequestId) {
    if let Some(cause) = &problem.cause {
        tracing::error!(request_id = request_id.as_str(), route, code = problem.code, %cause, "request failed");
    } else if problem.status.is_server_error() {
        tracing::warn!(request_id = request_id.as_str(), route, code = problem.code, "request refused");
    }
}
