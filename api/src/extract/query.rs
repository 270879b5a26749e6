//! Query parameters, read like the fields of a body: all faults at once, unknown names refused.

use std::{collections::BTreeMap, str::FromStr};

use axum::{extract::FromRequestParts, http::request::Parts};
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use rust_decimal::Decimal;
use serde::{Serialize, de::DeserializeOwned};
use shop_domain::order::FieldFault;

use super::fields::{self, Fields, FromFields};
use crate::problem::Problem;

const DEFAULT_LIMIT: i64 = 20;
const MAX_LIMIT: i64 = 100;

/// The parameters as a `T`.
#[derive(Debug)]
pub struct Query<T>(pub T);

impl<S: Send + Sync, T: FromFields> FromRequestParts<S> for Query<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let parameters = axum::extract::Query::<Vec<(String, String)>>::try_from_uri(&parts.uri);
        let malformed = |_| Problem::invalid(vec![FieldFault::new("", "malformed query parameters")]);
        let parameters: BTreeMap<String, String> = parameters.map_err(malformed)?.0.into_iter().collect();
        let json = serde_json::to_string(&parameters).map_err(|error| Problem::internal(&error))?;
        fields::read(&json).map(Self).map_err(Problem::invalid)
    }
}

impl Fields<'_> {
    /// A parameter of type `T`.
    pub fn parameter<T: FromStr>(&mut self, name: &str, must: &str) -> Option<T> {
        let text = self.optional_text(name)?;
        let value = text.parse().ok();
        if value.is_none() {
            self.fault(name, must);
        }
        value
    }

    /// An exact decimal.
    pub fn decimal_parameter(&mut self, name: &str) -> Option<Decimal> {
        self.parameter::<Exact>(name, "must be a number").map(|exact| exact.0)
    }

    /// Where the page before ended.
    pub fn cursor<T: DeserializeOwned>(&mut self) -> Option<T> {
        let text = self.optional_text("cursor").filter(|text| !text.is_empty())?;
        let cursor = BASE64_URL_SAFE_NO_PAD.decode(text).ok().and_then(|json| serde_json::from_slice(&json).ok());
        if cursor.is_none() {
            self.fault("cursor", "is not a cursor of this list: use nextCursor as it was given");
        }
        cursor
    }

    /// How many entries a page has.
    pub fn limit(&mut self) -> Limit {
        let limit = self.parameter("limit", "must be a whole number from 1 to 100").unwrap_or(DEFAULT_LIMIT);
        if !(1..=MAX_LIMIT).contains(&limit) {
            self.fault("limit", "must be a whole number from 1 to 100");
        }
        Limit(limit)
    }
}

/// Entries per page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limit(pub i64);

/// The opaque text of a cursor.
pub fn to_cursor<T: Serialize>(position: &T) -> Option<String> {
    serde_json::to_vec(position).ok().map(|json| BASE64_URL_SAFE_NO_PAD.encode(json))
}

struct Exact(Decimal);

impl FromStr for Exact {
    type Err = rust_decimal::Error;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Decimal::from_str_exact(text).map(Self)
    }
}
