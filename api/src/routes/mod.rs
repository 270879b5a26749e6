//! Handlers, with the request and response types that are the API. They speak to `service` only.

use serde::{Deserialize, Serialize};
use shop_domain::money::{self, Currency, Money};
use utoipa::ToSchema;

pub mod account;
pub mod auth;
pub mod dead_letters;
pub mod doctor;
pub mod inventory;
pub mod mails;
pub mod order_events;
pub mod orders;
pub mod password_reset;
pub mod products;
pub mod sessions;
pub mod system;
pub mod users;

/// An amount in major units: an exact decimal number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(transparent)]
#[schema(value_type = f64, example = 29.99)]
pub struct Amount(money::Amount);

impl Amount {
    pub fn new(money: Money, currency: Currency) -> Self {
        Self(money::Amount(money.to_decimal(currency)))
    }
}

/// What every error answer holds (RFC 9457, `application/problem+json`).
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ProblemBody {
    #[serde(rename = "type")]
    pub kind: String,
    pub title: String,
    #[schema(example = 400)]
    pub status: u16,
    pub detail: String,
    /// The path that was called.
    pub instance: String,
    /// For programs: does not change.
    #[schema(example = "invalid_request")]
    pub code: String,
    /// The same as `detail`.
    pub message: String,
    pub request_id: String,
    /// What is wrong with which field.
    pub errors: Vec<FaultBody>,
}

/// A fault of one field.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct FaultBody {
    /// JSON pointer (RFC 6901).
    #[schema(example = "/items/0/quantity")]
    pub pointer: String,
    pub detail: String,
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case(432_400, "4324")]
    #[case(2_999, "29.99")]
    #[case(10, "0.1")]
    #[case(0, "0")]
    #[case(i64::MAX, "92233720368547758.07")]
    fn amounts_are_written_exactly(#[case] minor: i64, #[case] json: &str) {
        let amount = Amount::new(minor.try_into().unwrap(), "INR".parse().unwrap());
        assert_eq!(serde_json::to_string(&amount).unwrap(), json);
    }
}
