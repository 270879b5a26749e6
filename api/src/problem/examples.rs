//! One problem of each code and status, made by the errors themselves: the examples of the API's document.

use axum::http::StatusCode;
use jiff::SignedDuration;
use serde_json::Value;
use shop_domain::{
    id::ProductId,
    money::{Currency, Money},
    order::{FieldFault, MAX_QUANTITY, OrderLine, PricedOrder, Status},
    stock::Shortage,
};

use super::Problem;
use crate::{
    dead_letters::RedriveError,
    service::{
        accounts::AccountError,
        catalogue::CatalogueError,
        mails::MailError,
        order_events::FollowError,
        orders::{NotCancellable, OrderError},
        password_reset::ResetError,
        sessions::SessionError,
        users::UsersError,
    },
};

const LOGIN: &str = "/api/v1/auth/login";
const ORDERS: &str = "/api/v1/orders";
const ORDER: &str = "/api/v1/orders/68f1c2a09b7d4e3f5a6b7c02";
const EVENTS: &str = "/api/v1/orders/68f1c2a09b7d4e3f5a6b7c02/events";
const PRODUCT: &str = "/api/v1/products/67c8830b7ef1b848ac52ebec";
const REQUEST: &str = "5f0c2f6d8f1e4a7b9c3d2e1f";

/// Their bodies by status and code, as `409_out_of_stock`.
pub fn examples() -> Vec<(String, Value)> {
    let body = |(path, problem): (&str, Problem)| {
        let body = serde_json::from_str(&problem.body(path, REQUEST).ok()?).ok()?;
        Some((name(problem.status.as_u16(), problem.code), body))
    };
    all().into_iter().filter_map(body).collect()
}

/// The name of the example of a code with this status.
pub fn name(status: u16, code: &str) -> String {
    format!("{status}_{code}")
}

fn all() -> Vec<(&'static str, Problem)> {
    let fault = FieldFault::new("/items/0/quantity", format!("must be a whole number from 1 to {MAX_QUANTITY}"));
    let short = Shortage { product_id: product(), wanted: 2, available: 1 };
    let late = NotCancellable::WindowOver(SignedDuration::from_mins(30));
    let mut all = vec![
        (ORDERS, Problem::invalid(vec![fault])),
        ("/api/v1/auth/password-reset/68f1c2a09b7d4e3f5a6b7c03", ResetError::InvalidToken.into()),
        (ORDERS, SessionError::Invalid.into()),
        ("/api/v1/inventory/adjustments", Problem::forbidden()),
        (ORDER, Problem::not_found()),
        (ORDERS, Problem::of_status(StatusCode::METHOD_NOT_ALLOWED)),
        ("/api/v1/auth/register", AccountError::EmailTaken.into()),
        ("/api/v1/admin/users/68f1c2a09b7d4e3f5a6b7c01", UsersError::OwnRole.into()),
        (ORDERS, OrderError::OutOfStock(vec![short]).into()),
        (
            "/api/v1/orders/68f1c2a09b7d4e3f5a6b7c02/cancel",
            OrderError::NotCancellable { status: Status::Processed, why: late }.into(),
        ),
        ("/api/v1/orders/68f1c2a09b7d4e3f5a6b7c02/mails", MailError::NoMail(Status::Pending).into()),
        ("/api/v1/admin/dead-letters/redrive", RedriveError::NotRedrivable.into()),
        (PRODUCT, CatalogueError::Changed.into()),
        (ORDERS, Problem::of_status(StatusCode::PAYLOAD_TOO_LARGE)),
        (ORDERS, Problem::of_status(StatusCode::UNSUPPORTED_MEDIA_TYPE)),
        (ORDERS, OrderError::UnknownProducts(vec![product()]).into()),
        (ORDERS, OrderError::UnknownLocation.into()),
        (ORDERS, OrderError::KeyReused.into()),
        (PRODUCT, Problem::precondition_required()),
        (LOGIN, Problem::too_many_requests(7)),
        (EVENTS, FollowError::FullForAccount.into()),
        (EVENTS, FollowError::Full.into()),
        (ORDERS, Problem::of_status(StatusCode::INTERNAL_SERVER_ERROR)),
        (ORDERS, Problem::away()),
        (LOGIN, Problem::busy()),
        (ORDERS, Problem::timeout()),
    ];
    all.extend(dearer().map(|error| (ORDERS, error.into())));
    all
}

fn product() -> ProductId {
    ProductId::from_bits([0x67, 0xc8, 0x83, 0x0b, 0x7e, 0xf1, 0xb8, 0x48, 0xac, 0x52, 0xeb, 0xec])
}

/// The sample catalogue's mouse at its price: the client had another one in mind.
fn dearer() -> Option<OrderError> {
    let (currency, price): (Currency, _) = ("INR".parse().ok()?, Money::try_from(132_400).ok()?);
    let line = OrderLine { product_id: product(), name: "Mouse".into(), quantity: 1, unit_price: price, total: price };
    Some(OrderError::TotalChanged { present: Box::new(PricedOrder { lines: vec![line], total: price }), currency })
}
