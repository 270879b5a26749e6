//! Stock over HTTP: changes that staff ask for, and the ledger.

use axum::{Json, extract::State, http::StatusCode};
use serde::Serialize;
use shop_domain::{
    catalogue::Location,
    id::{AdjustmentId, ProductId},
};
use utoipa::{IntoParams, ToSchema};

use super::ProblemBody;
use crate::{
    app::App,
    extract::{Body, Fields, FromFields, Id, Limit, Query, Staff, to_cursor},
    problem::Problem,
    service::inventory::{
        Adjustment, AdjustmentRequest, AdjustmentStatus, LedgerCursor, LedgerLine, LedgerQuery, RawAdjustment,
    },
};

/// Where an adjustment stands.
#[derive(ToSchema)]
#[expect(dead_code, reason = "describes the statuses in the API's document")]
pub enum AdjustmentProgress {
    Pending,
    Applied,
    Refused,
}

/// An adjustment as it comes in, checked.
#[derive(Debug)]
pub struct AdjustmentBody(AdjustmentRequest);

/// Changes of stock at one location: all are made, or none.
#[derive(ToSchema)]
#[schema(rename_all = "camelCase")]
#[expect(dead_code, reason = "describes the body in the API's document")]
pub struct CreateAdjustment {
    #[schema(
        example = "bangalore",
        min_length = 1,
        max_length = 64,
        pattern = r"^[^@\s\x00-\x1f\x7f-\x9f]([^@\x00-\x1f\x7f-\x9f]*[^@\s\x00-\x1f\x7f-\x9f])?$"
    )]
    location: String,
    #[schema(example = "delivery 4711", min_length = 1, max_length = 200)]
    reason: String,
    #[schema(min_items = 1, max_items = 1000)]
    lines: Vec<AdjustmentLine>,
}

/// A change of one product's stock.
#[derive(ToSchema)]
#[schema(rename_all = "camelCase")]
#[expect(dead_code, reason = "describes the body in the API's document")]
pub struct AdjustmentLine {
    #[schema(example = "67c8830b7ef1b848ac52ebec", pattern = "^[0-9a-f]{24}$")]
    product_id: String,
    /// Units to add, or to take when negative; not 0.
    #[schema(example = 10, minimum = -1_000_000_000_000_i64, maximum = 1_000_000_000_000_i64)]
    delta: i64,
}

impl FromFields for AdjustmentBody {
    fn from_fields(fields: &mut Fields<'_>) -> Option<Self> {
        let raw = RawAdjustment {
            location: fields.text("location").unwrap_or_default(),
            reason: fields.text("reason").unwrap_or_default(),
            lines: fields.list("lines", |line| Some(read_line(line))).unwrap_or_default(),
        };
        AdjustmentRequest::parse(&raw).map_err(|faults| fields.merge(faults)).ok().map(Self)
    }
}

/// A line with faults stays in the list, so that the pointers of the others are right.
fn read_line(line: &mut Fields<'_>) -> (String, i64) {
    let (product, delta) = (line.text("productId"), line.integer("delta"));
    (product.unwrap_or_default(), delta.unwrap_or_default())
}

#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct AdjustmentAccepted {
    adjustment_id: String,
}

/// The changes of one product's stock taken together, which may be more than one line can ask for.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct AdjustedProduct {
    product_id: String,
    delta: i64,
}

/// An adjustment and what became of it.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct AdjustmentView {
    adjustment_id: String,
    location: String,
    reason: String,
    lines: Vec<AdjustedProduct>,
    #[schema(value_type = AdjustmentProgress)]
    status: AdjustmentStatus,
    /// The lines that could not be made, when refused.
    refused: Vec<Refused>,
    #[schema(value_type = String, format = DateTime)]
    created_at: jiff::Timestamp,
    #[schema(value_type = Option<String>, format = DateTime)]
    settled_at: Option<jiff::Timestamp>,
}

/// A line that would have taken a row below zero.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Refused {
    product_id: String,
    delta: i64,
    available: i64,
}

/// A line of the ledger.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Movement {
    product_id: String,
    location: String,
    delta: i64,
    /// `Order`, `Cancel` or `Adjustment`.
    cause: String,
    /// Id of the order or adjustment.
    cause_id: String,
    #[schema(value_type = String, format = DateTime)]
    at: jiff::Timestamp,
}

#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct MovementPage {
    data: Vec<Movement>,
    has_more: bool,
    next_cursor: Option<String>,
}

/// Which movements to list, newest first.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct MovementParameters {
    #[param(rename = "productId", value_type = Option<String>, pattern = "^[0-9a-f]{24}$")]
    product: Option<ProductId>,
    #[param(value_type = Option<String>, min_length = 1, max_length = 64, pattern = r"^[^@\s\x00-\x1f\x7f-\x9f]([^@\x00-\x1f\x7f-\x9f]*[^@\s\x00-\x1f\x7f-\x9f])?$")]
    location: Option<Location>,
    /// The `nextCursor` of the page before.
    #[param(value_type = Option<String>)]
    cursor: Option<LedgerCursor>,
    #[param(value_type = Option<u8>, minimum = 1, maximum = 100)]
    limit: Limit,
}

impl FromFields for MovementParameters {
    fn from_fields(fields: &mut Fields<'_>) -> Option<Self> {
        Some(Self {
            product: fields.parameter("productId", "must be an id: 24 lower-case hex digits"),
            location: fields.parameter("location", "must be a location"),
            cursor: fields.cursor(),
            limit: fields.limit(),
        })
    }
}

/// Ask for a change of stock. It is queued; the worker makes all of it, or nothing.
#[utoipa::path(post, path = "/inventory/adjustments", operation_id = "createAdjustment", tag = "inventory", request_body = CreateAdjustment, responses(
    (status = 202, body = AdjustmentAccepted),
    (status = 403, body = ProblemBody, content_type = "application/problem+json"),
    (status = 422, body = ProblemBody, description = "unknown_product", content_type = "application/problem+json"),
))]
pub async fn adjust(
    State(app): State<App>,
    Staff(staff): Staff,
    Body(body): Body<AdjustmentBody>,
) -> Result<(StatusCode, Json<AdjustmentAccepted>), Problem> {
    let id = app.inventory.adjust(body.0, &staff.user).await?;
    Ok((StatusCode::ACCEPTED, Json(AdjustmentAccepted { adjustment_id: id.to_string() })))
}

/// What became of an adjustment.
#[utoipa::path(get, path = "/inventory/adjustments/{id}", operation_id = "getAdjustment", tag = "inventory", params(("id" = String, Path, pattern = "^[0-9a-f]{24}$")), responses(
    (status = 200, body = AdjustmentView),
    (status = 403, body = ProblemBody, content_type = "application/problem+json"),
    (status = 404, body = ProblemBody, content_type = "application/problem+json"),
))]
pub async fn adjustment(
    State(app): State<App>,
    _staff: Staff,
    Id(id): Id<AdjustmentId>,
) -> Result<Json<AdjustmentView>, Problem> {
    let adjustment = app.inventory.find(&id).await?.ok_or_else(Problem::not_found)?;
    Ok(Json(view(adjustment)))
}

/// The ledger: every movement of stock.
#[utoipa::path(get, path = "/inventory/movements", operation_id = "listMovements", tag = "inventory", params(MovementParameters), responses(
    (status = 200, body = MovementPage),
    (status = 403, body = ProblemBody, content_type = "application/problem+json"),
))]
pub async fn movements(
    State(app): State<App>,
    _staff: Staff,
    Query(parameters): Query<MovementParameters>,
) -> Result<Json<MovementPage>, Problem> {
    let MovementParameters { product, location, cursor, limit } = parameters;
    let page = app.inventory.ledger(LedgerQuery { product, location, cursor, limit: limit.0 }).await?;
    Ok(Json(MovementPage {
        has_more: page.next.is_some(),
        next_cursor: page.next.as_ref().and_then(to_cursor),
        data: page.lines.into_iter().map(movement).collect(),
    }))
}

fn view(adjustment: Adjustment) -> AdjustmentView {
    let lines = adjustment.lines.iter();
    AdjustmentView {
        adjustment_id: adjustment.id.to_string(),
        location: adjustment.location.to_string(),
        lines: lines.map(|l| AdjustedProduct { product_id: l.product_id.to_string(), delta: l.delta }).collect(),
        status: adjustment.status,
        refused: adjustment
            .refused
            .iter()
            .map(|l| Refused { product_id: l.product_id.to_string(), delta: l.delta, available: l.available })
            .collect(),
        reason: adjustment.reason,
        created_at: adjustment.created_at,
        settled_at: adjustment.settled_at,
    }
}

fn movement(line: LedgerLine) -> Movement {
    Movement {
        product_id: line.product_id.to_string(),
        location: line.location.to_string(),
        delta: line.delta,
        cause: line.cause.as_str().to_owned(),
        cause_id: line.cause_id,
        at: line.at,
    }
}
