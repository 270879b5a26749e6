//! The catalogue over HTTP.

use axum::{
    Json,
    extract::State,
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use rust_decimal::Decimal;
use serde::Serialize;
use sha2::{Digest, Sha256};
use shop_domain::{
    catalogue::{Location, query_terms},
    id::ProductId,
    money::{Currency, Money},
};
use utoipa::{IntoParams, ToSchema};

use super::{Amount, ProblemBody};
use crate::{
    app::App,
    extract::{Body, Fields, FromFields, Id, Limit, Query, Staff, to_cursor},
    problem::Problem,
    service::catalogue::{Browse, Cursor, MAX_DESCRIPTION, MAX_NAME, Offer, ProductFacts, Sort},
};

const MAX_QUERY: usize = 200;

/// What staff say of a product.
#[derive(Debug, ToSchema)]
pub struct ProductBody {
    #[schema(example = "Wireless Mouse", max_length = 200)]
    name: String,
    #[schema(max_length = 5000)]
    description: String,
    /// In major units.
    #[schema(value_type = f64, example = 29.99, minimum = 0)]
    price: Decimal,
}

impl FromFields for ProductBody {
    fn from_fields(fields: &mut Fields<'_>) -> Option<Self> {
        let name = fields.text("name").map(|name| name.trim().to_owned());
        if name.as_ref().is_some_and(|name| name.is_empty() || name.chars().count() > MAX_NAME) {
            fields.fault("name", format!("must have 1 to {MAX_NAME} characters"));
        }
        if name.as_ref().is_some_and(|name| name.chars().any(char::is_control)) {
            fields.fault("name", "must not have control characters");
        }
        let description = fields.text("description");
        if description.as_ref().is_some_and(|text| text.chars().count() > MAX_DESCRIPTION) {
            fields.fault("description", format!("must have at most {MAX_DESCRIPTION} characters"));
        }
        let price = fields.decimal("price");
        Some(Self { name: name?, description: description?, price: price? })
    }
}

impl ProductBody {
    fn facts(self, currency: Currency) -> Result<ProductFacts, Problem> {
        let price = Money::from_decimal(self.price, currency).map_err(|error| Problem::field("/price", &error))?;
        Ok(ProductFacts { name: self.name, description: self.description, price })
    }
}

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
    /// At most a second old.
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

/// What to list.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct ListParameters {
    /// Words, or beginnings of words, of the name or the description; all must be there.
    #[param(value_type = Option<String>)]
    q: Vec<String>,
    /// Only what is in stock there (or not, with `inStock=false`).
    #[param(value_type = Option<String>)]
    location: Option<Location>,
    /// Only what is in stock, or what is not.
    #[param(rename = "inStock")]
    in_stock: Option<bool>,
    #[param(rename = "minPrice", value_type = Option<f64>)]
    min_price: Option<Decimal>,
    #[param(rename = "maxPrice", value_type = Option<f64>)]
    max_price: Option<Decimal>,
    /// `name`, `-name`, `price`, `-price`, `createdAt` or `-createdAt`.
    #[param(value_type = Option<String>, example = "name")]
    sort: Sort,
    /// The `nextCursor` of the page before.
    #[param(value_type = Option<String>)]
    cursor: Option<Cursor>,
    #[param(value_type = Option<u8>, minimum = 1, maximum = 100)]
    limit: Limit,
}

impl FromFields for ListParameters {
    fn from_fields(fields: &mut Fields<'_>) -> Option<Self> {
        let q = fields.optional_text("q").unwrap_or_default();
        if q.chars().count() > MAX_QUERY {
            fields.fault("q", format!("must have at most {MAX_QUERY} characters"));
        }
        let sort = match fields.optional_text("sort").as_deref() {
            None | Some("" | "name") => Sort::Name,
            Some("-name") => Sort::NameDown,
            Some("price") => Sort::Price,
            Some("-price") => Sort::PriceDown,
            Some("createdAt") => Sort::Oldest,
            Some("-createdAt") => Sort::Newest,
            Some(_) => {
                fields.fault("sort", "must be name, -name, price, -price, createdAt or -createdAt");
                Sort::Name
            }
        };
        let cursor = fields.cursor::<Cursor>();
        if cursor.as_ref().is_some_and(|cursor| !cursor.fits(sort)) {
            fields.fault("cursor", "belongs to a list in another order");
        }
        Some(Self {
            q: query_terms(&q),
            location: fields.parameter("location", "must be a location"),
            in_stock: fields.parameter("inStock", "must be true or false"),
            min_price: fields.decimal_parameter("minPrice"),
            max_price: fields.decimal_parameter("maxPrice"),
            sort,
            cursor,
            limit: fields.limit(),
        })
    }
}

impl ListParameters {
    fn browse(self, currency: Currency) -> Result<Browse, Problem> {
        let mut faults = Vec::new();
        let mut money = |amount: Option<Decimal>, pointer: &str| {
            let money = amount.map(|amount| Money::from_decimal(amount, currency)).transpose();
            money.unwrap_or_else(|error| {
                faults.push(shop_domain::order::FieldFault::new(pointer, error.to_string()));
                None
            })
        };
        let (min_price, max_price) = (money(self.min_price, "/minPrice"), money(self.max_price, "/maxPrice"));
        if !faults.is_empty() {
            return Err(Problem::invalid(faults));
        }
        Ok(Browse {
            terms: self.q,
            location: self.location,
            in_stock: self.in_stock,
            min_price,
            max_price,
            sort: self.sort,
            cursor: self.cursor,
            limit: self.limit.0,
        })
    }
}

/// List products.
#[utoipa::path(get, path = "/products", operation_id = "listProducts", tag = "products", security(()), params(ListParameters), responses(
    (status = 200, body = ProductPage),
    (status = 304, description = "Not changed since the ETag in If-None-Match"),
    (status = 400, body = ProblemBody, content_type = "application/problem+json"),
))]
pub async fn list(
    State(app): State<App>,
    headers: HeaderMap,
    Query(parameters): Query<ListParameters>,
) -> Result<Response, Problem> {
    let currency = app.catalogue.currency;
    let page = app.catalogue.browse(&parameters.browse(currency)?).await?;
    let body = ProductPage {
        data: page.offers.iter().map(|offer| ProductView::new(offer, currency)).collect(),
        has_more: page.next.is_some(),
        next_cursor: page.next.as_ref().and_then(to_cursor),
    };
    conditional(&headers, &body)
}

/// One product.
#[utoipa::path(get, path = "/products/{id}", operation_id = "getProduct", tag = "products", security(()),
    params(("id" = String, Path, pattern = "^[0-9a-f]{24}$", example = "67c8830b7ef1b848ac52ebec")), responses(
    (status = 200, body = ProductView),
    (status = 304, description = "Not changed since the ETag in If-None-Match"),
    (status = 404, body = ProblemBody, content_type = "application/problem+json"),
))]
pub async fn get(State(app): State<App>, headers: HeaderMap, Id(id): Id<ProductId>) -> Result<Response, Problem> {
    let offer = app.catalogue.offer(&id).await?.ok_or_else(Problem::not_found)?;
    conditional(&headers, &ProductView::new(&offer, app.catalogue.currency))
}

/// Make a product under a new id.
#[utoipa::path(post, path = "/products", operation_id = "createProduct", tag = "products", request_body = ProductBody, responses(
    (status = 201, body = ProductView),
    (status = 400, body = ProblemBody, content_type = "application/problem+json"),
    (status = 401, body = ProblemBody, content_type = "application/problem+json"),
    (status = 403, body = ProblemBody, content_type = "application/problem+json"),
))]
pub async fn create(State(app): State<App>, _staff: Staff, Body(body): Body<ProductBody>) -> Result<Response, Problem> {
    let currency = app.catalogue.currency;
    let offer = app.catalogue.create(&body.facts(currency)?).await?;
    Ok(created(&ProductView::new(&offer, currency)))
}

/// Make or replace the product with this id.
#[utoipa::path(put, path = "/products/{id}", operation_id = "putProduct", tag = "products", request_body = ProductBody,
    params(("id" = String, Path, pattern = "^[0-9a-f]{24}$", example = "67c8830b7ef1b848ac52ebec")), responses(
    (status = 200, body = ProductView, description = "Replaced"),
    (status = 201, body = ProductView, description = "Made"),
    (status = 400, body = ProblemBody, content_type = "application/problem+json"),
    (status = 401, body = ProblemBody, content_type = "application/problem+json"),
    (status = 403, body = ProblemBody, content_type = "application/problem+json"),
))]
pub async fn put(
    State(app): State<App>,
    _staff: Staff,
    Id(id): Id<ProductId>,
    Body(body): Body<ProductBody>,
) -> Result<Response, Problem> {
    let currency = app.catalogue.currency;
    let offer = app.catalogue.put(&id, &body.facts(currency)?).await?;
    let view = ProductView::new(&offer, currency);
    Ok(if view.version == 1 { created(&view) } else { Json(view).into_response() })
}

fn created(view: &ProductView) -> Response {
    let location = HeaderValue::from_str(&format!("/api/v1/products/{}", view.id));
    let headers = location.map(|location| [(header::LOCATION, location)]).ok();
    (StatusCode::CREATED, headers.map(HeaderMap::from_iter).unwrap_or_default(), Json(view)).into_response()
}

/// The body with its entity tag, or 304 when the client has it already.
fn conditional<T: Serialize>(headers: &HeaderMap, body: &T) -> Result<Response, Problem> {
    let json = serde_json::to_vec(body).map_err(|error| Problem::internal(&error))?;
    let tag = format!("\"{}\"", hex::encode(&Sha256::digest(&json)[..12]));
    let known = headers.get_all(header::IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
    let matches = known.flat_map(|value| value.split(',')).any(|known| {
        let known = known.trim();
        known == "*" || known.trim_start_matches("W/") == tag
    });
    let tag = HeaderValue::from_str(&tag).map_err(|error| Problem::internal(&error))?;
    let fixed: [(HeaderName, HeaderValue); 2] =
        [(header::ETAG, tag), (header::CACHE_CONTROL, HeaderValue::from_static("no-cache"))];
    if matches {
        return Ok((StatusCode::NOT_MODIFIED, fixed).into_response());
    }
    Ok((fixed, [(header::CONTENT_TYPE, "application/json")], json).into_response())
}
