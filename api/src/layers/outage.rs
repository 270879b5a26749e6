//! While MongoDB is away: writes are refused at once, and reads live on what the caches hold.

use std::time::Duration;

use axum::{
    extract::{Request, State},
    http::Method,
    middleware::Next,
    response::{IntoResponse, Response},
};

use crate::{app::App, problem::Problem};

/// A cache answers within this time; a read that takes longer waits for MongoDB.
const CACHED: Duration = Duration::from_millis(250);

/// Layer: answers 503 instead of waiting for MongoDB, also to calls that were waiting when it went away. A write among
/// them may have happened: its client repeats it, an order under the same `Idempotency-Key`.
pub async fn refuse(State(app): State<App>, request: Request, next: Next) -> Response {
    let may_be_cached = matches!(*request.method(), Method::GET | Method::HEAD);
    let away = async {
        app.gate.shut().await;
        if may_be_cached {
            tokio::time::sleep(CACHED).await;
        }
    };
    tokio::select! {
        biased;
        () = away => Problem::away().into_response(),
        response = next.run(request) => response,
    }
}
