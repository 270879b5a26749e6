//! The catalogue over HTTP.

mod body;
mod parameters;

use axum::{
    extract::State,
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;
use shop_domain::{catalogue::Location, id::ProductId, money::Currency};
use utoipa::ToSchema;

pub use self::{
    body::{ProductBody, ProductPatchBody},
    parameters::ListParameters,
};
use super::ProblemBody;
use crate::{
    app::App,
    extract::{Body, Id, IfMatch, Query, Staff, to_cursor},
    problem::Problem,
    service::catalogue::{Offer, Page, Precondition, Served, tag},
    views::Amount,
};

/// A product and what there is of it.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ProductView {
    #[schema(example = "67c8830b7ef1b848ac52ebec")]
    id: String,
    name: String,
    description: String,
    #[schema(inline)]
    price: Amount,
    #[schema(example = "INR")]
    currency: String,
    /// At most a second old, unless the answer has an `Age`.
    availability: Vec<Available>,
    /// One more with each change.
    version: i64,
}

/// Units at one location.
#[derive(Debug, Serialize, ToSchema)]
pub struct Available {
    #[schema(example = "bangalore")]
    location: String,
    available: i64,
}

#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ProductPage {
    data: Vec<ProductView>,
    has_more: bool,
    /// Send it as `cursor` to get the next page; null on the last.
    next_cursor: Option<String>,
}

impl ProductPage {
    fn new(page: &Page, currency: Currency) -> Self {
        Self {
            data: page.offers.iter().map(|offer| ProductView::new(offer, currency)).collect(),
            has_more: page.next.is_some(),
            next_cursor: page.next.as_ref().and_then(to_cursor),
        }
    }
}

impl ProductView {
    fn new(offer: &Offer, currency: Currency) -> Self {
        let product = &offer.product;
        let available = |(location, available): &(Location, i64)| Available {
            location: location.to_string(),
            available: *available,
        };
        Self {
            id: product.id.to_string(),
            name: product.name.clone(),
            description: product.description.clone(),
            price: Amount::new(product.price, currency),
            currency: currency.to_string(),
            availability: offer.available.iter().map(available).collect(),
            version: product.version,
        }
    }
}

/// List products. While the database is away the last known answer is given, with its `Age` in seconds.
#[utoipa::path(get, path = "/products", operation_id = "listProducts", tag = "products", security(()),
    params(ListParameters, ("If-None-Match" = Option<String>, Header, description = "An ETag of this list: 304 when nothing has changed")), responses(
    (status = 200, body = ProductPage, headers(("ETag", description = "Of this page"), ("Age" = u64, description = "Seconds since it was read; only when it is not fresh"))),
    (status = 304, description = "Not changed since the ETag in If-None-Match", headers(("ETag", description = "The one in If-None-Match"), ("Age" = u64, description = "Seconds since it was read; only when it is not fresh"))),
    (status = 503, body = ProblemBody, description = "unavailable: nothing is known of this page", content_type = "application/problem+json"),
))]
pub async fn list(
    State(app): State<App>,
    headers: HeaderMap,
    Query(parameters): Query<ListParameters>,
) -> Result<Response, Problem> {
    let currency = app.catalogue.currency;
    let browse = parameters.browse(currency)?;
    let served = app.catalogue.browse(&browse, |page| serde_json::to_vec(&ProductPage::new(page, currency))).await?;
    conditional(&app, &headers, &served)
}

/// One product. While the database is away the last known answer is given, with its `Age` in seconds.
#[utoipa::path(get, path = "/products/{id}", operation_id = "getProduct", tag = "products", security(()),
    params(("id" = String, Path, pattern = "^[0-9a-f]{24}$", example = "67c8830b7ef1b848ac52ebec"),
        ("If-None-Match" = Option<String>, Header, description = "An ETag of this product: 304 when nothing has changed")), responses(
    (status = 200, body = ProductView, headers(("ETag", description = "`\"<version>-<digest>\"`"), ("Age" = u64, description = "Seconds since it was read; only when it is not fresh"))),
    (status = 304, description = "Not changed since the ETag in If-None-Match", headers(("ETag", description = "The one in If-None-Match"), ("Age" = u64, description = "Seconds since it was read; only when it is not fresh"))),
    (status = 404, body = ProblemBody, content_type = "application/problem+json"),
    (status = 503, body = ProblemBody, description = "unavailable: nothing is known of this product", content_type = "application/problem+json"),
))]
pub async fn get(State(app): State<App>, headers: HeaderMap, Id(id): Id<ProductId>) -> Result<Response, Problem> {
    let currency = app.catalogue.currency;
    let served = app.catalogue.offer(&id, |offer| serde_json::to_vec(&ProductView::new(offer, currency))).await?;
    conditional(&app, &headers, &*served.ok_or_else(Problem::not_found)?)
}

/// Make a product under a new id.
#[utoipa::path(post, path = "/products", operation_id = "createProduct", tag = "products", request_body = ProductBody, responses(
    (status = 201, body = ProductView, headers(("Location", description = "Of the product"), ("ETag", description = "`\"<version>-<digest>\"`"))),
    (status = 403, body = ProblemBody, content_type = "application/problem+json"),
))]
pub async fn create(State(app): State<App>, _staff: Staff, Body(body): Body<ProductBody>) -> Result<Response, Problem> {
    let currency = app.catalogue.currency;
    written(&app.catalogue.create(&body.facts(currency)?).await?, currency)
}

/// Make or replace the product with this id; with `If-Match` only replace. Brings an archived product back.
#[utoipa::path(put, path = "/products/{id}", operation_id = "putProduct", tag = "products", request_body = ProductBody,
    params(("id" = String, Path, pattern = "^[0-9a-f]{24}$", example = "67c8830b7ef1b848ac52ebec"),
        ("If-Match" = Option<String>, Header, pattern = r#"^(\*|(W/)?"[^"]*")( *, *(\*|(W/)?"[^"]*"))*$"#, description = "The product's ETag or its version in quotes; what counts is the version. `*`: any")), responses(
    (status = 200, body = ProductView, description = "Replaced", headers(("ETag", description = "`\"<version>-<digest>\"`"))),
    (status = 201, body = ProductView, description = "Made", headers(("Location", description = "Of the product"), ("ETag", description = "`\"<version>-<digest>\"`"))),
    (status = 403, body = ProblemBody, content_type = "application/problem+json"),
    (status = 412, body = ProblemBody, description = "precondition_failed", content_type = "application/problem+json"),
))]
pub async fn put(
    State(app): State<App>,
    _staff: Staff,
    Id(id): Id<ProductId>,
    IfMatch(wanted): IfMatch,
    Body(body): Body<ProductBody>,
) -> Result<Response, Problem> {
    let currency = app.catalogue.currency;
    written(&app.catalogue.put(&id, &body.facts(currency)?, wanted.as_ref()).await?, currency)
}

/// Change some fields of a product. `If-Match` is required, so that nobody undoes another's change unseen.
#[utoipa::path(patch, path = "/products/{id}", operation_id = "patchProduct", tag = "products", request_body = ProductPatchBody,
    params(("id" = String, Path, pattern = "^[0-9a-f]{24}$", example = "67c8830b7ef1b848ac52ebec"),
        ("If-Match" = String, Header, pattern = r#"^(\*|(W/)?"[^"]*")( *, *(\*|(W/)?"[^"]*"))*$"#, description = "The product's ETag or its version in quotes; what counts is the version. `*`: any", example = "\"3\"")), responses(
    (status = 200, body = ProductView, headers(("ETag", description = "`\"<version>-<digest>\"`"))),
    (status = 403, body = ProblemBody, content_type = "application/problem+json"),
    (status = 404, body = ProblemBody, content_type = "application/problem+json"),
    (status = 412, body = ProblemBody, description = "precondition_failed", content_type = "application/problem+json"),
    (status = 428, body = ProblemBody, description = "precondition_required", content_type = "application/problem+json"),
))]
pub async fn patch(
    State(app): State<App>,
    _staff: Staff,
    Id(id): Id<ProductId>,
    IfMatch(wanted): IfMatch,
    Body(body): Body<ProductPatchBody>,
) -> Result<Response, Problem> {
    let currency = app.catalogue.currency;
    let (patch, wanted) = (body.patch(currency)?, wanted.ok_or_else(Problem::precondition_required)?);
    let offer = app.catalogue.patch(&id, &patch, &wanted).await?.ok_or_else(Problem::not_found)?;
    written(&offer, currency)
}

/// Take a product out of the catalogue. Its stock and the orders of it stay; a PUT brings it back.
#[utoipa::path(delete, path = "/products/{id}", operation_id = "deleteProduct", tag = "products",
    params(("id" = String, Path, pattern = "^[0-9a-f]{24}$", example = "67c8830b7ef1b848ac52ebec"),
        ("If-Match" = Option<String>, Header, pattern = r#"^(\*|(W/)?"[^"]*")( *, *(\*|(W/)?"[^"]*"))*$"#, description = "The product's ETag or its version in quotes; what counts is the version. `*`: any")), responses(
    (status = 204, description = "It is in no list any more, and cannot be ordered"),
    (status = 403, body = ProblemBody, content_type = "application/problem+json"),
    (status = 404, body = ProblemBody, content_type = "application/problem+json"),
    (status = 412, body = ProblemBody, description = "precondition_failed", content_type = "application/problem+json"),
))]
pub async fn delete(
    State(app): State<App>,
    _staff: Staff,
    Id(id): Id<ProductId>,
    IfMatch(wanted): IfMatch,
) -> Result<StatusCode, Problem> {
    let archived = app.catalogue.archive(&id, &wanted.unwrap_or(Precondition::Any)).await?;
    archived.then_some(StatusCode::NO_CONTENT).ok_or_else(Problem::not_found)
}

/// A product as staff have just written it, with the entity tag that GET gives it too.
fn written(offer: &Offer, currency: Currency) -> Result<Response, Problem> {
    let view = ProductView::new(offer, currency);
    let json = serde_json::to_vec(&view).map_err(|error| Problem::internal(&error))?;
    let mut headers = HeaderMap::new();
    headers.insert(header::ETAG, text(&tag(&json, Some(view.version)))?);
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    if view.version > 1 {
        return Ok((headers, json).into_response());
    }
    headers.insert(header::LOCATION, text(&format!("/api/v1/products/{}", view.id))?);
    Ok((StatusCode::CREATED, headers, json).into_response())
}

/// The answer with its entity tag, or 304 when the client has it already.
fn conditional(app: &App, asked: &HeaderMap, served: &Served) -> Result<Response, Problem> {
    let mut headers = HeaderMap::new();
    headers.insert(header::ETAG, text(&served.tag)?);
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    let age = app.catalogue.age(served);
    if age > 0 {
        headers.insert(header::AGE, age.into());
    }
    let known = asked.get_all(header::IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
    let matches = known.flat_map(|value| value.split(',')).any(|known| {
        let known = known.trim();
        known == "*" || known.trim_start_matches("W/") == served.tag
    });
    if matches {
        return Ok((StatusCode::NOT_MODIFIED, headers).into_response());
    }
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Ok((headers, served.body.clone()).into_response())
}

fn text(value: &str) -> Result<HeaderValue, Problem> {
    HeaderValue::from_str(value).map_err(|error| Problem::internal(&error))
}
