//! The whole configuration of the service, read once from the environment (or flags). Nothing else reads it.

mod auth;
mod cli;
mod http;
mod limits;
mod mail;
mod smoke;
mod store;

use clap::Args;
use shop_domain::money::Currency;
use shop_runtime::{
    otlp::TracingConfig,
    queue::{QueueConfig, QueueNotNamed},
};

pub use self::{
    auth::{AuthConfig, PasswordConfig, StaffAccount},
    cli::{Cli, Command},
    http::HttpConfig,
    limits::LimitsConfig,
    mail::MailConfig,
    smoke::SmokeConfig,
    store::StoreConfig,
};

/// Everything the service needs.
#[derive(Debug, Clone, Args)]
pub struct Config {
    #[command(flatten)]
    pub store: StoreConfig,
    #[command(flatten)]
    pub queue: QueueConfig,
    #[command(flatten)]
    pub mail: MailConfig,
    #[command(flatten)]
    pub http: HttpConfig,
    #[command(flatten)]
    pub auth: AuthConfig,
    #[command(flatten)]
    pub passwords: PasswordConfig,
    #[command(flatten)]
    pub limits: LimitsConfig,
    #[command(flatten)]
    pub tracing: TracingConfig,
    /// Display name of the shop.
    #[arg(long, env = "SHOP_NAME", value_name = "SHOP_NAME", default_value = "Xhipment")]
    pub name: String,
    /// The shop's one currency (ISO 4217).
    #[arg(long, env = "SHOP_CURRENCY", value_name = "SHOP_CURRENCY", default_value = "INR")]
    pub currency: Currency,
    #[command(flatten)]
    pub orders: OrdersConfig,
}

#[derive(Debug, Clone, Copy, Args)]
pub struct OrdersConfig {
    /// How long after it was processed a customer may cancel an order; 0: never. Staff may at any time.
    #[arg(long, env = "SHOP_CANCEL_WINDOW_MINUTES", value_name = "SHOP_CANCEL_WINDOW_MINUTES", default_value = "30",
          value_parser = clap::value_parser!(u32).range(0..=525_600))]
    pub cancel_window_minutes: u32,
    /// Streams of order events that one process holds open.
    #[arg(long, env = "SHOP_MAX_EVENT_STREAMS", value_name = "SHOP_MAX_EVENT_STREAMS", default_value = "10000",
          value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub max_event_streams: u32,
}

/// A configuration that cannot work; each says what to set.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error(transparent)]
    Queue(#[from] QueueNotNamed),
    #[error("set both SHOP_STAFF_EMAIL and SHOP_STAFF_PASSWORD, or neither")]
    Staff,
    #[error("SHOP_MAIL_FROM must be a bare e-mail address such as shop@example.com; the name comes from SHOP_NAME")]
    MailFrom,
    #[error(
        "SHOP_PASSWORD_RESET_URL must be a web address with {{token}} in it, such as \
         https://shop.example.com/reset?token={{token}}"
    )]
    ResetUrl,
    #[error("SHOP_MONGODB_URI is empty: set it to the address of MongoDB")]
    Store,
}

impl Config {
    /// Checks what no single field can: call before use.
    pub fn validate(&self) -> Result<(), ConfigError> {
        self.store.validate()?;
        self.queue.address()?;
        self.auth.staff()?;
        self.mail.validate()
    }
}

#[cfg(test)]
mod tests;
