//! Settings of a try of a running shop: `shop-api smoke`.

use clap::Args;
use secrecy::SecretString;
use shop_runtime::parsers::{secret_line, trimmed};

/// How a running shop is tried out.
#[derive(Debug, Clone, Args)]
pub struct SmokeConfig {
    /// Address of the shop's api, such as `http://demo-api`.
    #[arg(long, env = "SHOP_SMOKE_URL", value_name = "SHOP_SMOKE_URL", value_parser = trimmed)]
    pub url: String,
    /// A staff account, which makes the product that is ordered.
    #[arg(long, env = "SHOP_STAFF_EMAIL", value_name = "SHOP_STAFF_EMAIL", value_parser = trimmed)]
    pub staff_email: String,
    #[arg(long, env = "SHOP_STAFF_PASSWORD", value_name = "SHOP_STAFF_PASSWORD", hide_env_values = true,
          value_parser = secret_line)]
    pub staff_password: SecretString,
    /// How long the worker may take over stock and order together.
    #[arg(long, env = "SHOP_SMOKE_PATIENCE_SECONDS", value_name = "SHOP_SMOKE_PATIENCE_SECONDS", default_value = "60",
          value_parser = clap::value_parser!(u32).range(1..=3600))]
    pub patience_seconds: u32,
}
