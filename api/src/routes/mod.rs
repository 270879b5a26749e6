//! Handlers, with the request and response types that are the API. They speak to `service` only.

use serde::{Deserialize, Serialize};
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
