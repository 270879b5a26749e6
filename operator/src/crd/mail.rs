//! How mails leave.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::common::region;

/// How mails leave (SES).
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Mail {
    /// Sender address, verified in SES; the name beside it is settings.displayName.
    #[schemars(length(min = 3, max = 254), regex(pattern = r"^[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]+@[A-Za-z0-9.-]+$"))]
    pub from: String,
    /// AWS region of SES.
    #[serde(default = "region")]
    #[schemars(length(min = 1, max = 32), regex(pattern = r"^[a-z0-9-]+$"))]
    pub region: String,
    /// Another address than AWS's own, such as a local stand-in. Left out: AWS's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256), regex(pattern = r"^https?://[^/ ]+/?$"))]
    pub endpoint: Option<String>,
    /// Mails a second at most: the account's SES sending rate.
    #[serde(default = "Mail::rate")]
    #[schemars(range(min = 1, max = 10000))]
    pub per_second: i32,
    /// Refusals after which a mail is given up, an hour or so after the first; outages and throttling do not count.
    #[serde(default = "Mail::attempts")]
    #[schemars(range(min = 1, max = 1000))]
    pub max_attempts: i32,
}

impl Mail {
    fn rate() -> i32 {
        14
    }

    fn attempts() -> i32 {
        12
    }
}
