//! While the process drains, every answer asks the client to open its next connection elsewhere.

use axum::{
    extract::{Request, State},
    http::{HeaderValue, Version, header},
    middleware::Next,
    response::Response,
};

use crate::app::App;

/// Layer: `Connection: close` during the drain (HTTP/1 only; HTTP/2 says it with GOAWAY).
pub async fn close_when_draining(State(app): State<App>, request: Request, next: Next) -> Response {
    let http1 = request.version() <= Version::HTTP_11;
    let mut response = next.run(request).await;
    if http1 && app.draining.is_cancelled() {
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}
