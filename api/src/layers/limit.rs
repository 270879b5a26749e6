//! The limit per address, and the `RateLimit` headers that tell the client where it stands.

use axum::{
    extract::{Request, State},
    http::{HeaderMap, HeaderName, HeaderValue},
    middleware::Next,
    response::{IntoResponse, Response},
};

use crate::{
    app::App,
    layers::address::ClientAddress,
    limits::{LimitReached, Standing, Standings},
    problem::Problem,
};

pub const RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit");
pub const RATE_LIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");

/// Layer: counts the call against its address; later checks note their standing in the request's [`Standings`].
pub async fn by_address(State(app): State<App>, mut request: Request, next: Next) -> Response {
    let standings = Standings::default();
    request.extensions_mut().insert(standings.clone());
    let address = request.extensions().get::<ClientAddress>().copied();
    let checked = address.map_or(Ok(()), |address| note(&standings, app.limits.call_from(address.bucket())));
    let mut response = match checked {
        Ok(()) => next.run(request).await,
        Err(problem) => problem.into_response(),
    };
    if let Some(standing) = standings.tightest() {
        add_headers(response.headers_mut(), standing);
    }
    response
}

/// Remembers the outcome of a limit for the answer's headers; a limit that is used up becomes a 429.
pub fn note(standings: &Standings, outcome: Result<Standing, LimitReached>) -> Result<(), Problem> {
    match outcome {
        Ok(standing) => {
            standings.note(standing);
            Ok(())
        }
        Err(reached) => {
            standings.note(reached.standing);
            Err(Problem::too_many_requests(reached.retry_after_seconds))
        }
    }
}

/// Fields of draft-ietf-httpapi-ratelimit-headers.
fn add_headers(headers: &mut HeaderMap, standing: Standing) {
    let Standing { policy, quota, window_seconds, remaining, reset_seconds } = standing;
    let values = [
        (RATE_LIMIT, format!("\"{policy}\";r={remaining};t={reset_seconds}")),
        (RATE_LIMIT_POLICY, format!("\"{policy}\";q={quota};w={window_seconds}")),
    ];
    for (name, value) in values {
        if let Ok(value) = HeaderValue::from_str(&value) {
            headers.insert(name, value);
        }
    }
}
