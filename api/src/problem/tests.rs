//! Which answer each error becomes, and what it looks like.

use axum::{
    Router,
    body::{Body, to_bytes},
    extract::Request,
    http::{Method, header},
    middleware::from_fn,
    routing::get,
};
use rstest::rstest;
use shop_domain::{
    id::ProductId,
    money::{Money, MoneyError},
    order::{OrderLine, PricedOrder, Status},
    stock::Shortage,
};
use shop_store::StoreError;
use tower::ServiceExt;

use super::*;
use crate::{
    dead_letters::RedriveError,
    layers::request_id,
    passwords::PasswordError,
    service::{
        accounts::AccountError,
        catalogue::{self, CatalogueError},
        inventory::InventoryError,
        mails::MailError,
        order_events::FollowError,
        orders::{Miss, NotCancellable, OrderError},
        password_reset::ResetError,
        sessions::SessionError,
    },
};

fn product() -> ProductId {
    ProductId::from_bits([1; 12])
}

fn stale() -> StoreError {
    StoreError::Stale { what: "orders" }
}

fn refused() -> StoreError {
    StoreError::WriteRefused { code: 121, message: "secret detail of the inside".into() }
}

fn priced() -> PricedOrder {
    let price = Money::try_from(9_007_199_254_740_993_i64).unwrap(); // not representable as a double
    let line = OrderLine { product_id: product(), name: "x".into(), quantity: 1, unit_price: price, total: price };
    PricedOrder { lines: vec![line], total: price }
}

#[rstest]
#[case(AccountError::EmailTaken.into(), 409, "email_taken")]
#[case(AccountError::WrongCredentials.into(), 401, "unauthenticated")]
#[case(AccountError::Password(PasswordError::Busy).into(), 503, "busy")]
#[case(AccountError::Store(stale()).into(), 503, "unavailable")]
#[case(AccountError::Store(refused()).into(), 500, "internal")]
#[case(SessionError::Invalid.into(), 401, "unauthenticated")]
#[case(SessionError::SharedRead(Arc::new(stale())).into(), 503, "unavailable")]
#[case(CatalogueError::Read(Arc::new(catalogue::Miss::Store(refused()))).into(), 500, "internal")]
#[case(CatalogueError::Read(Arc::new(catalogue::Miss::Store(stale()))).into(), 503, "unavailable")]
#[case(CatalogueError::Changed.into(), 412, "precondition_failed")]
#[case(Problem::precondition_required(), 428, "precondition_required")]
#[case(Problem::away(), 503, "unavailable")]
#[case(InventoryError::UnknownProducts(vec![product()]).into(), 422, "unknown_product")]
#[case(OrderError::UnknownLocation.into(), 422, "unknown_location")]
#[case(OrderError::UnknownProducts(vec![product()]).into(), 422, "unknown_product")]
#[case(OrderError::TotalChanged { present: Box::new(priced()), currency: "INR".parse().unwrap() }.into(), 409, "total_changed")]
#[case(OrderError::OutOfStock(vec![Shortage { product_id: product(), wanted: 2, available: 1 }]).into(), 409, "out_of_stock")]
#[case(OrderError::TooLarge(MoneyError::Overflow).into(), 400, "invalid_request")]
#[case(OrderError::KeyReused.into(), 422, "idempotency_key_reused")]
#[case(OrderError::NotCancellable { status: Status::Failed, why: NotCancellable::Failed }.into(), 409, "not_cancellable")]
#[case(RedriveError::NotRedrivable.into(), 409, "not_redrivable")]
#[case(FollowError::Full.into(), 503, "too_many_streams")]
#[case(FollowError::FullForAccount.into(), 429, "too_many_streams")]
#[case(RedriveError::Unknown.into(), 404, "not_found")]
#[case(OrderError::SharedRead(Arc::new(Miss::Store(stale()))).into(), 503, "unavailable")]
#[case(MailError::NoMail(Status::Pending).into(), 409, "no_mail")]
#[case(MailError::Store(refused()).into(), 500, "internal")]
#[case(ResetError::InvalidToken.into(), 400, "invalid_reset_token")]
#[case(ResetError::Password(PasswordError::Busy).into(), 503, "busy")]
#[case(ResetError::Store(stale()).into(), 503, "unavailable")]
#[case(Problem::forbidden(), 403, "forbidden")]
#[case(Problem::too_many_requests(0), 429, "rate_limited")]
#[case(Problem::timeout(), 503, "timeout")]
fn each_error_has_its_status_and_code(#[case] problem: Problem, #[case] status: u16, #[case] code: &str) {
    assert_eq!((problem.status.as_u16(), problem.code), (status, code));
    let body = problem.body("/x", "id").unwrap();
    assert!(!body.contains("secret detail"), "nothing of the inside: {body}");
    let retry = problem.retry_after_seconds;
    assert_eq!(retry.is_some(), matches!(status, 429 | 503), "{problem:?}");
    assert!(retry.is_none_or(|seconds| seconds >= 1));
}

#[test]
fn amounts_keep_every_digit() {
    let error = OrderError::TotalChanged { present: Box::new(priced()), currency: "INR".parse().unwrap() };
    let body = Problem::from(error).body("/x", "id").unwrap();
    assert!(body.contains(r#""totalAmount":90071992547409.93,"currency":"INR""#), "{body}");
}

async fn answer(method: Method, path: &str) -> (u16, serde_json::Value, axum::http::HeaderMap) {
    async fn breaks() -> &'static str {
        panic!("a secret of the inside")
    }
    let routes = Router::new()
        .route("/breaks", get(breaks))
        .route("/bare", get(|| async { StatusCode::BAD_GATEWAY }))
        .route("/fault", get(|| async { Problem::invalid(vec![FieldFault::new("/a", "is required")]) }))
        .layer(tower_http::catch_panic::CatchPanicLayer::custom(crate::router::panicked))
        .layer(from_fn(render))
        .layer(from_fn(request_id::assign));
    let request = Request::builder().method(method).uri(path).body(Body::empty()).unwrap();
    let (parts, body) = routes.oneshot(request).await.unwrap().into_parts();
    let body = to_bytes(body, usize::MAX).await.unwrap();
    (parts.status.as_u16(), serde_json::from_slice(&body).unwrap(), parts.headers)
}

#[rstest]
#[case(Method::GET, "/breaks", 500, "internal")]
#[case(Method::GET, "/bare", 502, "internal")]
#[case(Method::GET, "/fault", 400, "invalid_request")]
#[case(Method::GET, "/nowhere", 404, "not_found")]
#[case(Method::PUT, "/fault", 405, "method_not_allowed")]
#[tokio::test]
async fn every_failure_is_rendered(
    #[case] method: Method,
    #[case] path: &str,
    #[case] status: u16,
    #[case] code: &str,
) {
    let (got, body, headers) = answer(method, path).await;
    assert_eq!((got, &body["code"], &body["instance"]), (status, &json!(code), &json!(path)));
    assert_eq!(headers[header::CONTENT_TYPE], "application/problem+json");
    assert_eq!(headers["x-request-id"], body["requestId"].as_str().unwrap());
    assert!(!body.to_string().contains("secret"));
}

/// `render` has one line for a problem, with its cause where it has one.
#[test]
fn a_panic_is_a_problem_with_its_message_as_cause() {
    let answer = crate::router::panicked(Box::new("out of range"));
    let problem = answer.extensions().get::<Box<Problem>>().unwrap();
    assert_eq!((problem.code, problem.cause.as_deref()), ("internal", Some("a handler panicked: out of range")));
}

#[tokio::test]
async fn faults_are_listed() {
    let (_, body, _) = answer(Method::GET, "/fault").await;
    assert_eq!(body["errors"], json!([{ "pointer": "/a", "detail": "is required" }]));
    assert_eq!(body["detail"], "/a: is required");
}
