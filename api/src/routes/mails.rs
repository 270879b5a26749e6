//! The mails of an order over HTTP.

use axum::{Json, extract::State, http::StatusCode};
use serde::Serialize;
use shop_domain::id::OrderId;
use utoipa::ToSchema;

use super::ProblemBody;
use crate::{
    app::App,
    extract::{Body, Fields, FromFields, Id, Staff},
    problem::Problem,
    service::mails::MailKind,
};

/// The mails there are of an order.
#[derive(ToSchema)]
#[schema(as = MailKind)]
#[expect(dead_code, reason = "describes the kinds in the API's document")]
pub enum MailKindSchema {
    Confirmation,
    Failure,
    Cancellation,
}

/// What became of a mail.
#[derive(ToSchema)]
#[schema(as = MailState)]
#[expect(dead_code, reason = "describes the states in the API's document")]
pub enum MailStateSchema {
    /// The mail service took it.
    Sent,
    /// It was refused for good, or too often.
    GivenUp,
    /// Not sent: the mail service had refused the address before.
    Suppressed,
}

/// Which mail to send; left out: the one of the order's present status.
#[derive(ToSchema)]
pub struct MailAgain {
    #[schema(value_type = Option<MailKindSchema>)]
    kind: Option<MailKind>,
}

impl FromFields for MailAgain {
    fn from_fields(fields: &mut Fields<'_>) -> Option<Self> {
        let name = fields.optional_text("kind");
        let kind = name.as_ref().and_then(|name| MailKind::ALL.into_iter().find(|kind| kind.as_str() == name));
        if name.is_some() && kind.is_none() {
            fields.fault("kind", "must be Confirmation, Failure or Cancellation");
        }
        Some(Self { kind })
    }
}

/// A mail that is on its way.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct MailOwed {
    order_id: String,
    #[schema(value_type = MailKindSchema)]
    kind: &'static str,
}

/// Send a mail of an order again, also to an address that was rejected before: it is tried once more.
#[utoipa::path(post, path = "/orders/{orderId}/mails", operation_id = "sendMailAgain", tag = "orders", request_body = Option<MailAgain>,
    params(("orderId" = String, Path, pattern = "^[0-9a-f]{24}$")), responses(
    (status = 202, body = MailOwed, description = "It is sent within seconds; mails of the order says what became of it"),
    (status = 403, body = ProblemBody, content_type = "application/problem+json"),
    (status = 404, body = ProblemBody, content_type = "application/problem+json"),
    (status = 409, body = ProblemBody, description = "no_mail: the order has never been what the mail would say, or its buyer has erased their account", content_type = "application/problem+json"),
))]
pub async fn send_again(
    State(app): State<App>,
    _staff: Staff,
    Id(id): Id<OrderId>,
    body: Option<Body<MailAgain>>,
) -> Result<(StatusCode, Json<MailOwed>), Problem> {
    let asked = body.and_then(|Body(body)| body.kind);
    let kind = app.order_mails.send_again(&id, asked).await?.ok_or_else(Problem::not_found)?;
    Ok((StatusCode::ACCEPTED, Json(MailOwed { order_id: id.to_string(), kind: kind.as_str() })))
}
