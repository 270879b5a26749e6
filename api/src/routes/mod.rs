//! Handlers, with the request and response types that are the API. They speak to `service` only.

use serde::Serialize;
use utoipa::ToSchema;

use crate::views::{Amount, Item, ShortLine};

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

/// What every error answer holds (RFC 9457, `application/problem+json`).
#[derive(Debug, Serialize, ToSchema)]
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
    /// `out_of_stock`: the lines that fell short.
    #[schema(nullable = false)]
    pub shortages: Option<Vec<ShortLine>>,
    /// `unknown_product`: the ids that are not in the catalogue.
    #[schema(nullable = false)]
    pub products: Option<Vec<String>>,
    // No text of its own: with one, the document says that it is an object.
    #[schema(inline, nullable = false)]
    pub total_amount: Option<Amount>,
    /// `total_changed`: of `totalAmount`, which is the present total.
    #[schema(nullable = false)]
    pub currency: Option<String>,
    /// `total_changed`: the lines at their present prices.
    #[schema(nullable = false)]
    pub items: Option<Vec<Item>>,
    /// `not_cancellable` and `no_mail`: what the order is.
    #[schema(nullable = false)]
    pub order_status: Option<String>,
    /// `not_cancellable`: `already_cancelled`, `failed` or `window_over`.
    #[schema(nullable = false)]
    pub reason: Option<String>,
}

/// A fault of one field.
#[derive(Debug, Serialize, ToSchema)]
pub struct FaultBody {
    /// JSON pointer (RFC 6901).
    #[schema(example = "/items/0/quantity")]
    pub pointer: String,
    pub detail: String,
}
