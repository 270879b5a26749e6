//! What a client asks of the list of products.

use rust_decimal::Decimal;
use shop_domain::{
    catalogue::{Location, query_terms},
    money::{Currency, Money},
    order::FieldFault,
};
use utoipa::IntoParams;

use crate::{
    extract::{Fields, FromFields, Limit},
    problem::Problem,
    service::catalogue::{Browse, Cursor, Sort},
};

const MAX_QUERY: usize = 200;

/// What to list.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct ListParameters {
    /// Words, or beginnings of words, of the name or the description; all must be there.
    #[param(value_type = Option<String>, max_length = 200)]
    q: Vec<String>,
    /// Only what is in stock there (or not, with `inStock=false`).
    #[param(value_type = Option<String>, min_length = 1, max_length = 64, pattern = r"^[^@\s\x00-\x1f\x7f-\x9f]([^@\x00-\x1f\x7f-\x9f]*[^@\s\x00-\x1f\x7f-\x9f])?$")]
    location: Option<Location>,
    /// Only what is in stock, or what is not.
    #[param(rename = "inStock")]
    in_stock: Option<bool>,
    #[param(rename = "minPrice", value_type = Option<f64>)]
    min_price: Option<Decimal>,
    #[param(rename = "maxPrice", value_type = Option<f64>)]
    max_price: Option<Decimal>,
    /// `name`, `-name`, `price`, `-price`, `createdAt` or `-createdAt`.
    #[param(value_type = Option<String>, example = "name", pattern = "^-?(name|price|createdAt)$")]
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
            None | Some("name") => Sort::Name,
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
    pub fn browse(self, currency: Currency) -> Result<Browse, Problem> {
        let mut faults = Vec::new();
        let mut money = |amount: Option<Decimal>, pointer: &str| {
            let money = amount.map(|amount| Money::from_decimal(amount, currency)).transpose();
            money.unwrap_or_else(|error| {
                faults.push(FieldFault::new(pointer, error.to_string()));
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
