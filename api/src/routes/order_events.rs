//! An order's events over HTTP: a stream of server-sent events (HTML standard, 9.2).

use std::{convert::Infallible, time::Duration};

use axum::{
    extract::State,
    http::{HeaderName, HeaderValue, StatusCode, header},
    response::{
        IntoResponse, Response,
        sse::{Event, Sse},
    },
};
use futures::stream;
use jiff::Timestamp;
use serde::Serialize;
use shop_domain::{id::OrderId, order::Status};
use shop_runtime::ids;
use utoipa::ToSchema;

use super::{ProblemBody, orders::OrderStatus};
use crate::{
    app::App,
    extract::{AccessToken, CurrentUser, Id, LastEventId},
    problem::Problem,
    service::{
        order_events::{Change, Followed, Follower, Signal, Wish},
        orders::Reason,
    },
};

/// Tells nginx and its like to pass events on at once.
const ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");

/// The data of an event `status`; its id is the version.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct StatusEvent<'a> {
    #[schema(value_type = String)]
    order_id: &'a OrderId,
    #[schema(value_type = OrderStatus)]
    status: Status,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
    version: i64,
    #[schema(value_type = String, format = DateTime)]
    at: Timestamp,
}

/// One event of the stream, field by field.
#[derive(ToSchema)]
#[expect(dead_code, reason = "describes the events in the API's document")]
pub struct OrderEvent {
    #[schema(pattern = "^status$")]
    event: String,
    /// The version of the order: send the last one as `Last-Event-ID` to go on after it.
    #[schema(pattern = "^[0-9]+$")]
    id: String,
    /// A `StatusEvent` in JSON.
    #[schema(content_media_type = "application/json")]
    data: String,
}

/// Follow an order: its present status, then each change, until it is settled.
#[utoipa::path(get, path = "/orders/{orderId}/events", operation_id = "followOrder", tag = "orders",
    params(
        ("orderId" = String, Path, pattern = "^[0-9a-f]{24}$"),
        ("Last-Event-ID" = Option<String>, Header, description = "The id of the last event that was seen: only what came after it is sent"),
    ),
    responses(
    (status = 200, body = OrderEvent, content_type = "text/event-stream", description = "Events `status`, each with the version as its id, and a comment every 15 s"),
    (status = 204, description = "Nothing will follow the event that was seen: do not connect again"),
    (status = 404, body = ProblemBody, content_type = "application/problem+json"),
    (status = 429, body = ProblemBody, description = "too_many_streams: this account has 10 open ones", content_type = "application/problem+json"),
    (status = 503, body = ProblemBody, description = "too_many_streams: the process holds as many as it may", content_type = "application/problem+json"),
))]
pub async fn events(
    State(app): State<App>,
    CurrentUser(viewer): CurrentUser,
    AccessToken(token): AccessToken,
    Id(order): Id<OrderId>,
    LastEventId(seen): LastEventId,
) -> Result<Response, Problem> {
    let wish = Wish { viewer, token, order: order.clone(), seen };
    match app.order_events.follow(wish).await? {
        Followed::Absent => Err(Problem::not_found()),
        Followed::Nothing => Ok(StatusCode::NO_CONTENT.into_response()),
        Followed::Stream(follower) => Ok(stream_of(order, follower)),
    }
}

fn stream_of(order: OrderId, follower: Box<Follower>) -> Response {
    let events = stream::unfold((order, follower), |(order, mut follower)| async move {
        let event = event(&order, follower.next().await?);
        Some((Ok::<_, Infallible>(event), (order, follower)))
    });
    let mut response = Sse::new(events).into_response();
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response.headers_mut().insert(ACCEL_BUFFERING, HeaderValue::from_static("no"));
    response
}

fn event(order_id: &OrderId, signal: Signal) -> Event {
    match signal {
        Signal::Change(Change { version, status, reason, at }) => {
            let data = StatusEvent { order_id, status, reason: reason.map(Reason::as_str), version, at };
            let data = serde_json::to_string(&data).unwrap_or_default();
            Event::default().event("status").id(version.to_string()).data(data)
        }
        Signal::Heartbeat => Event::default().comment("still here"),
        Signal::Leaving => Event::default().retry(soon()).comment("this process is leaving: connect again"),
        Signal::SignedOut => Event::default().retry(soon()).comment("the token has expired or its session is over"),
    }
}

/// One to five seconds: those who are sent away together do not come back together.
fn soon() -> Duration {
    let jitter = ids::random_bytes::<1>().map_or(128, |[byte]| byte);
    Duration::from_millis(1_000 + u64::from(jitter) * 4_000 / 255)
}
