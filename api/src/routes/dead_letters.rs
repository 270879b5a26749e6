//! Dead letters over HTTP: what was given up, and taking it up again. For staff.

use axum::{Json, extract::State, http::StatusCode};
use jiff::Timestamp;
use serde::Serialize;
use shop_domain::{
    id::{AdjustmentId, OrderId},
    message::Message,
    order::FailureClass,
};
use utoipa::{IntoParams, ToSchema};

use super::ProblemBody;
use crate::{
    app::App,
    dead_letters::{DeadCause, DeadLetter, DeadPosition, MoveTask, Target},
    extract::{Body, Fields, FromFields, Limit, Query, Staff, to_cursor},
    problem::Problem,
};

/// One piece of work that was given up: an order's, or an adjustment's.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct DeadLetterView {
    /// What is to be done: `OrderPlaced`, `OrderCancelled` (its stock goes back) or `StockAdjusted`.
    #[schema(example = "OrderPlaced")]
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    order_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    adjustment_id: Option<String>,
    /// `failed`: the worker gave up with the last delivery. `stuck`: its message got lost again and again.
    #[schema(example = "failed")]
    cause: &'static str,
    /// Why the worker gave up: `unreadable`, `timeout`, `conflict`, `store_refused`, `store_unavailable`, `internal`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "timeout")]
    reason: Option<&'static str>,
    /// How often its message had been delivered by then.
    #[serde(skip_serializing_if = "Option::is_none")]
    deliveries: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    failed_at: Option<Timestamp>,
    #[schema(value_type = String, format = DateTime)]
    created_at: Timestamp,
    #[schema(value_type = String, format = DateTime)]
    updated_at: Timestamp,
}

#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct DeadLetterPage {
    data: Vec<DeadLetterView>,
    has_more: bool,
    next_cursor: Option<String>,
}

/// Which dead letters to list: orders, then adjustments, each by id.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct DeadLetterParameters {
    /// The `nextCursor` of the page before.
    #[param(value_type = Option<String>)]
    cursor: Option<DeadPosition>,
    #[param(value_type = Option<u8>, minimum = 1, maximum = 100)]
    limit: Limit,
}

impl FromFields for DeadLetterParameters {
    fn from_fields(fields: &mut Fields<'_>) -> Option<Self> {
        Some(Self { cursor: fields.cursor(), limit: fields.limit() })
    }
}

/// What is to be taken up again, checked.
#[derive(Debug)]
pub struct RedriveBody(Target);

/// One order or one adjustment. With neither: everything, and what is in the queue's dead letters.
#[derive(ToSchema)]
#[schema(rename_all = "camelCase")]
#[expect(dead_code, reason = "describes the body in the API's document")]
pub struct Redrive {
    #[schema(example = "67c8830b7ef1b848ac52ebec", pattern = "^[0-9a-f]{24}$")]
    order_id: Option<String>,
    #[schema(pattern = "^[0-9a-f]{24}$")]
    adjustment_id: Option<String>,
}

impl FromFields for RedriveBody {
    fn from_fields(fields: &mut Fields<'_>) -> Option<Self> {
        const ID: &str = "must be an id: 24 lower-case hex digits";
        let order: Option<OrderId> = fields.parameter("orderId", ID);
        let adjustment: Option<AdjustmentId> = fields.parameter("adjustmentId", ID);
        match (order, adjustment) {
            (Some(id), None) => Some(Self(Target::Order(id))),
            (None, Some(id)) => Some(Self(Target::Adjustment(id))),
            (None, None) => Some(Self(Target::All)),
            (Some(_), Some(_)) => {
                fields.fault("adjustmentId", "give an orderId or an adjustmentId, not both");
                None
            }
        }
    }
}

/// What was started.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct RedriveStarted {
    /// How many orders, and how many adjustments, are sent to the worker anew.
    orders: u64,
    adjustments: u64,
    /// The queue's own dead letters, when everything was asked for: `started`, `no_dead_letter_queue`, or `not_started`
    /// (the queue refused or is away, or a task is running already).
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "started")]
    move_task: Option<&'static str>,
}

/// Work that was given up, with the reasons.
#[utoipa::path(get, path = "/admin/dead-letters", operation_id = "listDeadLetters", tag = "admin", params(DeadLetterParameters), responses(
    (status = 200, body = DeadLetterPage),
    (status = 403, body = ProblemBody, content_type = "application/problem+json"),
))]
pub async fn list(
    State(app): State<App>,
    _staff: Staff,
    Query(parameters): Query<DeadLetterParameters>,
) -> Result<Json<DeadLetterPage>, Problem> {
    let page = app.dead_letters.list(parameters.cursor.as_ref(), parameters.limit.0).await;
    let (letters, next) = page.map_err(|error| Problem::from(&error))?;
    Ok(Json(DeadLetterPage {
        data: letters.iter().map(view).collect(),
        has_more: next.is_some(),
        next_cursor: next.as_ref().and_then(to_cursor),
    }))
}

/// Take up again what was given up.
#[utoipa::path(post, path = "/admin/dead-letters/redrive", operation_id = "redriveDeadLetters", tag = "admin", request_body = Redrive, responses(
    (status = 202, body = RedriveStarted, description = "The worker will try again"),
    (status = 403, body = ProblemBody, content_type = "application/problem+json"),
    (status = 404, body = ProblemBody, content_type = "application/problem+json"),
    (status = 409, body = ProblemBody, description = "not_redrivable", content_type = "application/problem+json"),
))]
pub async fn redrive(
    State(app): State<App>,
    _staff: Staff,
    Body(body): Body<RedriveBody>,
) -> Result<(StatusCode, Json<RedriveStarted>), Problem> {
    let redriven = app.dead_letters.redrive(&body.0).await?;
    let move_task = redriven.move_task.map(|task| match task {
        MoveTask::Started => "started",
        MoveTask::NoDeadLetterQueue => "no_dead_letter_queue",
        MoveTask::NotStarted => "not_started",
    });
    let started = RedriveStarted { orders: redriven.orders, adjustments: redriven.adjustments, move_task };
    Ok((StatusCode::ACCEPTED, Json(started)))
}

fn view(letter: &DeadLetter) -> DeadLetterView {
    let id = letter.message.group().to_owned();
    let (kind, order_id, adjustment_id) = match letter.message {
        Message::OrderPlaced { .. } => ("OrderPlaced", Some(id), None),
        Message::OrderCancelled { .. } => ("OrderCancelled", Some(id), None),
        Message::StockAdjusted { .. } => ("StockAdjusted", None, Some(id)),
    };
    let cause = match letter.cause {
        DeadCause::Failed => "failed",
        DeadCause::Stuck => "stuck",
    };
    let failure = letter.failure.as_ref();
    DeadLetterView {
        kind,
        order_id,
        adjustment_id,
        cause,
        reason: failure.map(|failure| FailureClass::as_str(failure.class)),
        deliveries: failure.map(|failure| failure.deliveries),
        failed_at: failure.map(|failure| failure.at),
        created_at: letter.created_at,
        updated_at: letter.updated_at,
    }
}
