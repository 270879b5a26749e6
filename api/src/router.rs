//! Every route of the service, and the layers around them, on one page.

use std::sync::LazyLock;

use axum::{
    Router,
    body::Bytes,
    extract::DefaultBodyLimit,
    http::{HeaderName, HeaderValue, Method, StatusCode, header},
    middleware::{from_fn, from_fn_with_state},
    response::{IntoResponse, Response},
    routing::get,
};
use tower_http::{catch_panic::CatchPanicLayer, cors::CorsLayer};
use utoipa::OpenApi;
use utoipa_axum::{router::OpenApiRouter, routes};
use utoipa_swagger_ui::{Config, SwaggerUi};

use crate::{
    app::App,
    layers::{address, drain, headers, limit, outage, red, request_id, timeout},
    openapi::{self, Document},
    problem::{self, Problem},
    routes::{
        account, auth, dead_letters, doctor, inventory, mails, order_events, orders, password_reset, products,
        sessions, system, users,
    },
};

const API: &str = "/api/v1";
const DOCUMENT: &str = "/openapi.json";

/// The calls of the API. utoipa describes each of them as well, which takes milliseconds.
pub fn calls() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(auth::register))
        .routes(routes!(auth::login))
        .routes(routes!(auth::refresh))
        .routes(routes!(auth::logout, auth::logout_by_get))
        .routes(routes!(auth::me, account::erase))
        .routes(routes!(account::change_password))
        .routes(routes!(password_reset::request))
        .routes(routes!(password_reset::set))
        .routes(routes!(sessions::list))
        .routes(routes!(sessions::revoke))
        .routes(routes!(users::list))
        .routes(routes!(users::change))
        .routes(routes!(products::list, products::create))
        .routes(routes!(products::get, products::put, products::patch, products::delete))
        .routes(routes!(inventory::adjust))
        .routes(routes!(inventory::adjustment))
        .routes(routes!(inventory::movements))
        .routes(routes!(orders::create, orders::list))
        .routes(routes!(orders::get))
        .routes(routes!(orders::cancel))
        .routes(routes!(doctor::examine))
        .routes(routes!(order_events::events))
        .routes(routes!(dead_letters::list))
        .routes(routes!(dead_letters::redrive))
        .routes(routes!(mails::send_again))
}

/// The OpenAPI document of all routes.
pub fn document() -> utoipa::openapi::OpenApi {
    let mut document = placed(OpenApiRouter::with_openapi(Document::openapi()), calls()).into_openapi();
    openapi::complete(&mut document);
    document
}

/// As it is served: made when it is asked for first, as few processes ever are, and kept as text.
async fn document_as_text() -> impl IntoResponse {
    // Our own types always serialise.
    static TEXT: LazyLock<Bytes> = LazyLock::new(|| document().to_json().unwrap_or_default().into());
    ([(header::CONTENT_TYPE, "application/json")], TEXT.clone())
}

fn placed(all: OpenApiRouter<App>, calls: OpenApiRouter<App>) -> OpenApiRouter<App> {
    all.routes(routes!(system::health)).nest(API, calls)
}

/// The service. Checks run in this order: route and method, limit by address, then what the handlers extract.
pub fn router(app: &App, calls: OpenApiRouter<App>, cors_origins: Vec<HeaderValue>) -> Router {
    let calls = calls
        .route_layer(from_fn_with_state(app.clone(), outage::refuse))
        .route_layer(from_fn_with_state(app.clone(), limit::by_address));
    let (routes, _) = placed(OpenApiRouter::new(), calls).split_for_parts();
    routes
        .route(DOCUMENT, get(document_as_text))
        .merge(SwaggerUi::new("/docs").config(Config::from(DOCUMENT)))
        .fallback(|| async { Problem::not_found() })
        .method_not_allowed_fallback(|| async { Problem::of_status(StatusCode::METHOD_NOT_ALLOWED) })
        .layer(DefaultBodyLimit::disable()) // `Body` has a limit of its own
        .layer(CatchPanicLayer::custom(panicked))
        .layer(from_fn_with_state(app.clone(), timeout::limit_time))
        .layer(from_fn_with_state(app.clone(), address::find))
        .layer(from_fn(problem::render))
        .layer(cors(cors_origins))
        .layer(from_fn_with_state(app.clone(), headers::secure))
        .layer(from_fn_with_state(app.clone(), red::measure))
        .layer(from_fn_with_state(app.clone(), drain::close_when_draining))
        .layer(from_fn(request_id::assign))
        .with_state(app.clone())
}

#[expect(clippy::needless_pass_by_value, reason = "the layer hands it over")]
pub fn panicked(panic: Box<dyn std::any::Any + Send>) -> Response {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no message");
    Problem::panicked(text).into_response()
}

/// Browsers of these origins may call with cookies; without any, no CORS header is ever sent.
fn cors(origins: Vec<HeaderValue>) -> CorsLayer {
    if origins.is_empty() {
        return CorsLayer::new();
    }
    let asked = [header::AUTHORIZATION, header::CONTENT_TYPE, header::IF_MATCH, header::IF_NONE_MATCH];
    let own = ["idempotency-key", "last-event-id", "x-request-id"].map(HeaderName::from_static);
    let told = [header::AGE, header::ETAG, header::LOCATION, header::RETRY_AFTER, request_id::HEADER, orders::REPLAYED];
    CorsLayer::new()
        .allow_origin(origins)
        .allow_credentials(true)
        .allow_methods([Method::GET, Method::POST, Method::PUT, Method::PATCH, Method::DELETE])
        .allow_headers(asked.into_iter().chain(own).collect::<Vec<_>>())
        .expose_headers(told.into_iter().chain([limit::RATE_LIMIT, limit::RATE_LIMIT_POLICY]).collect::<Vec<_>>())
        .max_age(std::time::Duration::from_mins(10))
}
