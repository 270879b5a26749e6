//! Settings of the shop itself.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::common::yes;

/// Settings of the shop itself.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Settings {
    /// Name of the shop in mails and on its pages.
    #[serde(default = "Settings::display_name")]
    #[schemars(length(min = 1, max = 80))]
    pub display_name: String,
    /// ISO 4217 code of the prices.
    #[serde(default = "Settings::currency")]
    #[schemars(regex(pattern = r"^[A-Z]{3}$"), length(min = 3, max = 3))]
    pub currency: String,
    /// Shortest password that a new account may have.
    #[serde(default = "Settings::password_min_length")]
    #[schemars(range(min = 6, max = 64))]
    pub password_min_length: i32,
    /// Cookies only over HTTPS. False only where the shop is served over plain HTTP.
    #[serde(default = "yes")]
    pub cookie_secure: bool,
    /// How much the pods log.
    #[serde(default)]
    pub log_level: LogLevel,
    /// Spans of requests and orders, for a collector.
    #[serde(default)]
    pub tracing: Tracing,
    /// How long after it was processed a customer may cancel an order; 0: never. Staff may at any time.
    #[serde(default = "Settings::cancel_window_minutes")]
    #[schemars(range(min = 0, max = 525_600))]
    pub cancel_window_minutes: i32,
    /// Streams of order events that one api pod holds open; one more is refused with 503.
    #[serde(default = "Settings::max_event_streams")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub max_event_streams: i32,
    /// Longest that a request may take; then it is answered with 503.
    #[serde(default = "Settings::request_timeout_seconds")]
    #[schemars(range(min = 1, max = 600))]
    pub request_timeout_seconds: i32,
    /// How long an api pod that is told to stop still accepts connections, until all who call have heard of it. What is in
    /// flight then has 20 s more.
    #[serde(default = "Settings::drain_seconds")]
    #[schemars(range(min = 0, max = 60))]
    pub drain_seconds: i32,
    /// Requests that one caller may make.
    #[serde(default)]
    pub limits: Limits,
    /// Networks (CIDR) whose X-Forwarded-For is believed: the ingress controller's.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), inner(length(min = 1, max = 49)))]
    pub trusted_proxies: Vec<String>,
    /// Origins whose pages may call the api from a browser.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), inner(length(min = 1, max = 253), regex(pattern = r"^https?://[^,/ ]+$")))]
    pub cors_origins: Vec<String>,
}

impl Settings {
    fn display_name() -> String {
        "Xhipment".to_owned()
    }

    fn currency() -> String {
        "INR".to_owned()
    }

    fn password_min_length() -> i32 {
        6
    }

    fn cancel_window_minutes() -> i32 {
        30
    }

    fn max_event_streams() -> i32 {
        10_000
    }

    fn request_timeout_seconds() -> i32 {
        30
    }

    fn drain_seconds() -> i32 {
        5
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            display_name: Self::display_name(),
            currency: Self::currency(),
            password_min_length: Self::password_min_length(),
            cookie_secure: true,
            log_level: LogLevel::default(),
            tracing: Tracing::default(),
            cancel_window_minutes: Self::cancel_window_minutes(),
            max_event_streams: Self::max_event_streams(),
            request_timeout_seconds: Self::request_timeout_seconds(),
            drain_seconds: Self::drain_seconds(),
            limits: Limits::default(),
            trusted_proxies: Vec::new(),
            cors_origins: Vec::new(),
        }
    }
}

#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum LogLevel {
    Error,
    Warn,
    #[default]
    Info,
    Debug,
    Trace,
}

/// Where spans go. What else the exporter reads (headers, delays) are variables of its own: api.env, worker.env.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct Tracing {
    /// Base address of an OTLP collector over HTTP, such as http://collector:4318. Left out: no spans are exported.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256), regex(pattern = r"^https?://[^/ ]+(/[^ ]*)?$"))]
    pub otlp_endpoint: Option<String>,
    /// Share of the traces that begin here of which spans are exported; the others keep what their caller decided.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub sample_ratio: f64,
}

impl Default for Tracing {
    fn default() -> Self {
        Self { otlp_endpoint: None, sample_ratio: 1.0 }
    }
}

/// Requests that one caller may make.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "camelCase", default)]
pub struct Limits {
    /// Registrations and logins per address in 15 minutes.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub auth_per15_minutes: i32,
    /// Writes per user and minute.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub writes_per_minute: i32,
    /// Reads per user and minute.
    #[schemars(range(min = 1, max = 10_000_000))]
    pub reads_per_minute: i32,
    /// Requests of any kind per address and minute.
    #[schemars(range(min = 1, max = 10_000_000))]
    pub address_per_minute: i32,
}

impl Default for Limits {
    fn default() -> Self {
        Self { auth_per15_minutes: 10, writes_per_minute: 60, reads_per_minute: 1200, address_per_minute: 3000 }
    }
}
