//! Errors to answers: the only file that knows which status an error has. RFC 9457 `application/problem+json`, always.

pub mod codes;

use std::{borrow::Cow, error::Error, sync::Arc};

use axum::{
    extract::{MatchedPath, Request},
    http::{HeaderValue, StatusCode, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use serde::{Serialize, Serializer};
use serde_json::{
    json,
    value::{RawValue, to_raw_value},
};
use shop_domain::{id::ProductId, order::FieldFault};
use shop_runtime::telemetry;
use shop_store::StoreError;

use crate::{
    dead_letters::RedriveError,
    layers::request_id::RequestId,
    passwords::PasswordError,
    service::{
        accounts::AccountError,
        catalogue::{self, CatalogueError},
        erasure::ErasureError,
        inventory::InventoryError,
        mails::MailError,
        order_events::FollowError,
        orders::{Miss, NotCancellable, OrderError},
        password_reset::ResetError,
        sessions::SessionError,
        users::UsersError,
    },
    views::{self, Amount},
};

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

impl From<&StoreError> for Problem {
    fn from(error: &StoreError) -> Self {
        if error.is_transient() { Self::unavailable(error) } else { Self::internal(error) }
    }
}

impl From<SessionError> for Problem {
    fn from(error: SessionError) -> Self {
        match &error {
            SessionError::Invalid => Self::unauthenticated("the token is not valid, or its session is over: sign in"),
            SessionError::Store(store) => store.into(),
            SessionError::SharedRead(store) => store.as_ref().into(),
            SessionError::Signing(_) | SessionError::Random(_) => Self::internal(&error),
        }
    }
}

impl From<AccountError> for Problem {
    fn from(error: AccountError) -> Self {
        match error {
            AccountError::EmailTaken => {
                Self::new(StatusCode::CONFLICT, "email_taken", "an account with this e-mail address exists")
            }
            AccountError::WrongCredentials => Self::unauthenticated("incorrect email or password"),
            AccountError::WrongPassword => Self::unauthenticated("the password is wrong"),
            AccountError::Store(store) => (&store).into(),
            AccountError::Password(PasswordError::Busy) => Self::busy(),
            AccountError::Session(session) => session.into(),
            error @ (AccountError::Password(_) | AccountError::Random(_)) => Self::internal(&error),
        }
    }
}

impl From<ErasureError> for Problem {
    fn from(error: ErasureError) -> Self {
        match error {
            ErasureError::Store(store) => (&store).into(),
            ErasureError::Session(session) => session.into(),
        }
    }
}

impl From<UsersError> for Problem {
    fn from(error: UsersError) -> Self {
        match error {
            UsersError::OwnRole => {
                let detail = "nobody can take their own staff role away; another member of the staff can";
                Self::new(StatusCode::CONFLICT, "own_role", detail)
            }
            UsersError::Unknown => Self::not_found(),
            UsersError::Store(store) => (&store).into(),
        }
    }
}

impl From<CatalogueError> for Problem {
    fn from(error: CatalogueError) -> Self {
        match &error {
            CatalogueError::Changed => {
                let detail = "the product has changed since you read it: read it again, then change it";
                Self::new(StatusCode::PRECONDITION_FAILED, "precondition_failed", detail)
            }
            CatalogueError::Store(store) => store.into(),
            CatalogueError::Read(miss) => match miss.as_ref() {
                catalogue::Miss::Absent => Self::not_found(),
                catalogue::Miss::Store(store) => store.into(),
                catalogue::Miss::Unwritable(_) => Self::internal(&error),
            },
            CatalogueError::Random(_) => Self::internal(&error),
        }
    }
}

impl From<InventoryError> for Problem {
    fn from(error: InventoryError) -> Self {
        match &error {
            InventoryError::UnknownProducts(ids) => unknown_products(ids),
            InventoryError::Store(store) => store.into(),
            InventoryError::Random(_) => Self::internal(&error),
        }
    }
}

impl From<OrderError> for Problem {
    fn from(error: OrderError) -> Self {
        match &error {
            OrderError::UnknownLocation => {
                let detail = "nothing has ever been sold at this location";
                Self::new(StatusCode::UNPROCESSABLE_ENTITY, "unknown_location", detail)
            }
            OrderError::UnknownProducts(ids) => unknown_products(ids),
            OrderError::TotalChanged { present, currency } => {
                let detail = "the total is not what you expect; see totalAmount and items for the present prices";
                Self::new(StatusCode::CONFLICT, "total_changed", detail)
                    .with("totalAmount", &Amount::new(present.total, *currency))
                    .with("currency", &currency)
                    .with("items", &views::items(&present.lines, *currency))
            }
            OrderError::OutOfStock(short) => {
                let detail = "some products are out of stock at this location; see shortages";
                Self::new(StatusCode::CONFLICT, "out_of_stock", detail).with("shortages", &views::short_lines(short))
            }
            OrderError::TooLarge(cause) => Self::field("/items", cause),
            OrderError::KeyReused => {
                let detail = "this Idempotency-Key was used for another request";
                Self::new(StatusCode::UNPROCESSABLE_ENTITY, "idempotency_key_reused", detail)
            }
            OrderError::NotCancellable { status, why } => not_cancellable(*why).with("orderStatus", status),
            OrderError::Store(store) => store.into(),
            OrderError::SharedRead(miss) => match miss.as_ref() {
                Miss::Store(store) => store.into(),
                Miss::Absent => Self::not_found(),
            },
            OrderError::Random(_) => Self::internal(&error),
        }
    }
}

impl From<FollowError> for Problem {
    fn from(error: FollowError) -> Self {
        let code = "too_many_streams";
        match error {
            FollowError::Full => {
                let detail = "the service holds as many open streams as it may; ask for the order instead";
                Self::new(StatusCode::SERVICE_UNAVAILABLE, code, detail).retry_after(5)
            }
            FollowError::FullForAccount => {
                let detail = "you have as many open streams as an account may have; close one";
                Self::new(StatusCode::TOO_MANY_REQUESTS, code, detail).retry_after(5)
            }
            FollowError::Order(order) => order.into(),
        }
    }
}

impl From<RedriveError> for Problem {
    fn from(error: RedriveError) -> Self {
        match &error {
            RedriveError::Unknown => Self::not_found(),
            RedriveError::NotRedrivable => {
                let detail = "it was not given up, or it has been taken up again";
                Self::new(StatusCode::CONFLICT, "not_redrivable", detail)
            }
            RedriveError::Store(store) => store.into(),
            RedriveError::Random(_) => Self::internal(&error),
        }
    }
}

impl From<MailError> for Problem {
    fn from(error: MailError) -> Self {
        match &error {
            MailError::NoMail(status) => {
                let detail =
                    "the order has no such mail: it has never been what the mail would say, or its buyer is gone";
                Self::new(StatusCode::CONFLICT, "no_mail", detail).with("orderStatus", &status)
            }
            MailError::Store(store) => store.into(),
            MailError::Random(_) => Self::internal(&error),
        }
    }
}

fn not_cancellable(why: NotCancellable) -> Problem {
    let (reason, detail) = match why {
        NotCancellable::AlreadyCancelled => ("already_cancelled", Cow::Borrowed("the order is cancelled already")),
        NotCancellable::Failed => ("failed", Cow::Borrowed("the order has failed: there is nothing to cancel")),
        NotCancellable::WindowOver(window) if window.is_zero() => {
            ("window_over", Cow::Borrowed("the order is processed: ask the shop's staff to cancel it"))
        }
        NotCancellable::WindowOver(window) => {
            let minutes = window.as_mins();
            let detail = format!("the order was processed more than {minutes} minutes ago: ask the shop's staff");
            ("window_over", Cow::Owned(detail))
        }
    };
    Problem::new(StatusCode::CONFLICT, "not_cancellable", detail).with("reason", &reason)
}

impl From<ResetError> for Problem {
    fn from(error: ResetError) -> Self {
        match error {
            ResetError::InvalidToken => {
                let detail = "the token is wrong, used or expired: ask for another mail";
                Self::new(StatusCode::BAD_REQUEST, "invalid_reset_token", detail)
            }
            ResetError::Store(store) => (&store).into(),
            ResetError::Password(PasswordError::Busy) => Self::busy(),
            error => Self::internal(&error),
        }
    }
}

fn unknown_products(ids: &[ProductId]) -> Problem {
    let detail = "some products are not in the catalogue; see products";
    Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "unknown_product", detail).with("products", &ids)
}

/// Layer: gives every error answer its body, with the request's path and id, and logs server faults once.
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

#[cfg(test)]
mod tests;
