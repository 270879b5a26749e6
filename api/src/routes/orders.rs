//! Orders over HTTP.

use axum::{
    Json,
    extract::State,
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use jiff::Timestamp;
use serde::Serialize;
use shop_domain::{
    id::OrderId,
    order::{NewOrder, RawItem, RawOrder, Status},
};
use utoipa::{IntoParams, ToSchema};

use super::{
    ProblemBody,
    mails::{MailKindSchema, MailStateSchema},
};
use crate::{
    app::App,
    extract::{Body, CurrentUser, Fields, FromFields, Id, IdempotencyKey, Limit, Query, to_cursor},
    problem::Problem,
    service::orders::{Cancelled, MailReason, OrderCursor, OrderQuery, OrderView, Placed, Reason, ViewedMail},
    views::{Amount, Item, ShortLine, items, short_lines},
};

pub const REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");

/// Where an order stands.
#[derive(ToSchema)]
#[expect(dead_code, reason = "describes the statuses in the API's document")]
pub enum OrderStatus {
    Pending,
    Processed,
    Failed,
    Cancelled,
}

/// An order as it comes in, checked.
#[derive(Debug)]
pub struct OrderBody(NewOrder);

/// What to order, from which location.
#[derive(ToSchema)]
#[schema(rename_all = "camelCase")]
#[expect(dead_code, reason = "describes the body in the API's document")]
pub struct CreateOrder {
    #[schema(
        example = "bangalore",
        min_length = 1,
        max_length = 64,
        pattern = r"^[^@\s\x00-\x1f\x7f-\x9f]([^@\x00-\x1f\x7f-\x9f]*[^@\s\x00-\x1f\x7f-\x9f])?$"
    )]
    location: String,
    /// If given it must equal the shop's own total.
    #[schema(example = 4324, minimum = 0)]
    total_amount: Option<f64>,
    #[schema(min_items = 1, max_items = 100)]
    items: Vec<CreateItem>,
}

#[derive(ToSchema)]
#[schema(rename_all = "camelCase")]
#[expect(dead_code, reason = "describes the body in the API's document")]
pub struct CreateItem {
    #[schema(example = "67c8830b7ef1b848ac52ebec", pattern = "^[0-9a-f]{24}$")]
    product_id: String,
    #[schema(minimum = 1, maximum = 1_000_000, example = 1)]
    quantity: u32,
}

impl FromFields for OrderBody {
    fn from_fields(fields: &mut Fields<'_>) -> Option<Self> {
        let raw = RawOrder {
            location: fields.text("location").unwrap_or_default(),
            total: fields.optional_decimal("totalAmount"),
            items: fields.list("items", |item| Some(read_item(item))).unwrap_or_default(),
        };
        NewOrder::parse(&raw).map_err(|faults| fields.merge(faults)).ok().map(Self)
    }
}

/// An item with faults stays in the list, so that the pointers of the others are right.
fn read_item(item: &mut Fields<'_>) -> RawItem {
    let (product, quantity) = (item.text("productId"), item.integer("quantity"));
    RawItem { product_id: product.unwrap_or_default(), quantity: quantity.unwrap_or_default() }
}

#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct OrderCreated {
    #[schema(example = "Order created successfully")]
    message: &'static str,
    order_id: String,
    #[schema(value_type = OrderStatus)]
    status: Status,
    #[schema(inline)]
    total_amount: Amount,
    currency: String,
    items: Vec<Item>,
}

/// One step of an order's life.
#[derive(Debug, Serialize, ToSchema)]
pub struct Step {
    #[schema(value_type = OrderStatus)]
    status: Status,
    #[schema(value_type = String, format = DateTime)]
    at: Timestamp,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
}

/// What became of a mail.
#[derive(Debug, Serialize, ToSchema)]
pub struct MailEnd {
    #[schema(value_type = MailKindSchema)]
    kind: &'static str,
    #[schema(value_type = MailStateSchema)]
    state: &'static str,
    #[schema(value_type = String, format = DateTime)]
    at: Timestamp,
    /// How often it was offered to the mail service.
    attempts: u32,
    /// Why it was not sent: `address_rejected`, `refused` or `not_rendered`.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
}

/// An order.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct OrderDetail {
    order_id: String,
    #[schema(value_type = OrderStatus)]
    status: Status,
    location: String,
    #[schema(inline)]
    total_amount: Amount,
    currency: String,
    items: Vec<Item>,
    /// Why the order failed, was cancelled or was taken up again.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
    /// What was missing, when it failed for want of stock.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    shortages: Vec<ShortLine>,
    history: Vec<Step>,
    /// What became of the order's mails; one that is on its way is not in it yet.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    mails: Vec<MailEnd>,
    #[schema(value_type = String, format = DateTime)]
    created_at: Timestamp,
    #[schema(value_type = String, format = DateTime)]
    updated_at: Timestamp,
}

#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct OrderPageBody {
    data: Vec<OrderDetail>,
    has_more: bool,
    next_cursor: Option<String>,
}

/// Which orders to list, newest first.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct OrderParameters {
    #[param(value_type = Option<OrderStatus>)]
    status: Option<Status>,
    /// The `nextCursor` of the page before.
    #[param(value_type = Option<String>)]
    cursor: Option<OrderCursor>,
    #[param(value_type = Option<u8>, minimum = 1, maximum = 100)]
    limit: Limit,
}

impl FromFields for OrderParameters {
    fn from_fields(fields: &mut Fields<'_>) -> Option<Self> {
        let name = fields.optional_text("status");
        let status = name.as_ref().and_then(|name| Status::ALL.into_iter().find(|status| status.as_str() == name));
        if name.is_some() && status.is_none() {
            fields.fault("status", "must be Pending, Processed, Failed or Cancelled");
        }
        Some(Self { status, cursor: fields.cursor(), limit: fields.limit() })
    }
}

/// Place an order.
#[utoipa::path(post, path = "/orders", operation_id = "createOrder", tag = "orders", request_body = CreateOrder,
    params(("Idempotency-Key" = Option<String>, Header, pattern = "^[ -~]{1,255}$", description = "1 to 255 printable characters: repeat a request without a second order")),
    responses(
    (status = 201, body = OrderCreated, description = "Accepted; the worker decides. The same key and body again: the same answer",
        headers(("Location", description = "Of the order"), ("Idempotency-Replayed", description = "`true` when the key made the order before"))),
    (status = 409, body = ProblemBody, description = "out_of_stock, total_changed", content_type = "application/problem+json"),
    (status = 422, body = ProblemBody, description = "unknown_product, unknown_location, idempotency_key_reused", content_type = "application/problem+json"),
))]
pub async fn create(
    State(app): State<App>,
    CurrentUser(buyer): CurrentUser,
    IdempotencyKey(key): IdempotencyKey,
    Body(body): Body<OrderBody>,
) -> Result<Response, Problem> {
    let placed = app.orders.place(&buyer, &body.0, key).await?;
    Ok(created(placed))
}

/// List orders: one's own, or all for staff.
#[utoipa::path(get, path = "/orders", operation_id = "listOrders", tag = "orders", params(OrderParameters), responses(
    (status = 200, body = OrderPageBody),
))]
pub async fn list(
    State(app): State<App>,
    CurrentUser(user): CurrentUser,
    Query(parameters): Query<OrderParameters>,
) -> Result<Json<OrderPageBody>, Problem> {
    let OrderParameters { status, cursor, limit } = parameters;
    let page = app.orders.list(&user, OrderQuery { status, cursor, limit: limit.0 }).await?;
    Ok(Json(OrderPageBody {
        data: page.orders.iter().map(detail).collect(),
        has_more: page.next.is_some(),
        next_cursor: page.next.as_ref().and_then(to_cursor),
    }))
}

/// One order, with its history.
#[utoipa::path(get, path = "/orders/{orderId}", operation_id = "getOrder", tag = "orders", params(("orderId" = String, Path, pattern = "^[0-9a-f]{24}$")), responses(
    (status = 200, body = OrderDetail),
    (status = 404, body = ProblemBody, content_type = "application/problem+json"),
))]
pub async fn get(
    State(app): State<App>,
    CurrentUser(user): CurrentUser,
    Id(id): Id<OrderId>,
) -> Result<Json<OrderDetail>, Problem> {
    let order = app.orders.find(&user, &id).await?;
    order.map(|order| Json(detail(&order))).ok_or_else(Problem::not_found)
}

/// Cancel an order: at once while it is pending, within the shop's window when it is processed.
#[utoipa::path(post, path = "/orders/{orderId}/cancel", operation_id = "cancelOrder", tag = "orders", params(("orderId" = String, Path, pattern = "^[0-9a-f]{24}$")), responses(
    (status = 200, body = OrderDetail, description = "It was pending"),
    (status = 202, body = OrderDetail, description = "It was processed: its stock goes back soon"),
    (status = 404, body = ProblemBody, content_type = "application/problem+json"),
    (status = 409, body = ProblemBody, description = "not_cancellable", content_type = "application/problem+json"),
))]
pub async fn cancel(
    State(app): State<App>,
    CurrentUser(user): CurrentUser,
    Id(id): Id<OrderId>,
) -> Result<(StatusCode, Json<OrderDetail>), Problem> {
    let (status, order) = match app.orders.cancel(&user, &id).await?.ok_or_else(Problem::not_found)? {
        Cancelled::AtOnce(order) => (StatusCode::OK, order),
        Cancelled::RestockQueued(order) => (StatusCode::ACCEPTED, order),
    };
    Ok((status, Json(detail(&order))))
}

/// The first answer, whatever has become of the order since.
fn created(placed: Placed) -> Response {
    let Placed { order, replayed } = placed;
    let mut headers = HeaderMap::new();
    if let Ok(location) = HeaderValue::from_str(&format!("/api/v1/orders/{}", order.id)) {
        headers.insert(header::LOCATION, location);
    }
    if replayed {
        headers.insert(REPLAYED, HeaderValue::from_static("true"));
    }
    let body = OrderCreated {
        message: "Order created successfully",
        order_id: order.id.to_string(),
        status: Status::Pending,
        total_amount: Amount::new(order.total, order.currency),
        currency: order.currency.to_string(),
        items: items(&order.lines, order.currency),
    };
    (StatusCode::CREATED, headers, Json(body)).into_response()
}

fn detail(order: &OrderView) -> OrderDetail {
    let history = order.history.iter();
    OrderDetail {
        order_id: order.id.to_string(),
        status: order.status,
        location: order.location.to_string(),
        total_amount: Amount::new(order.total, order.currency),
        currency: order.currency.to_string(),
        items: items(&order.lines, order.currency),
        reason: order.reason.map(Reason::as_str),
        shortages: short_lines(&order.shortages),
        history: history
            .map(|step| Step { status: step.status, at: step.at, reason: step.reason.map(Reason::as_str) })
            .collect(),
        mails: order.mails.iter().map(mail_end).collect(),
        created_at: order.created_at,
        updated_at: order.updated_at,
    }
}

fn mail_end(mail: &ViewedMail) -> MailEnd {
    let (kind, state, reason) = (mail.kind.as_str(), mail.state.as_str(), mail.reason.map(MailReason::as_str));
    MailEnd { kind, state, at: mail.at, attempts: mail.attempts, reason }
}
