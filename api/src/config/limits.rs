//! Settings of the rate limits.

use clap::Args;

#[derive(Debug, Clone, Copy, Args)]
pub struct LimitsConfig {
    #[arg(long, env = "SHOP_LIMIT_AUTH_PER_15_MINUTES", value_name = "SHOP_LIMIT_AUTH_PER_15_MINUTES",
          default_value = "10", value_parser = clap::value_parser!(u32).range(1..))]
    pub limit_auth_per_15_minutes: u32,
    #[arg(long, env = "SHOP_LIMIT_WRITES_PER_MINUTE", value_name = "SHOP_LIMIT_WRITES_PER_MINUTE",
          default_value = "60", value_parser = clap::value_parser!(u32).range(1..))]
    pub limit_writes_per_minute: u32,
    #[arg(long, env = "SHOP_LIMIT_READS_PER_MINUTE", value_name = "SHOP_LIMIT_READS_PER_MINUTE",
          default_value = "1200", value_parser = clap::value_parser!(u32).range(1..))]
    pub limit_reads_per_minute: u32,
    #[arg(long, env = "SHOP_LIMIT_ADDRESS_PER_MINUTE", value_name = "SHOP_LIMIT_ADDRESS_PER_MINUTE",
          default_value = "3000", value_parser = clap::value_parser!(u32).range(1..))]
    pub limit_address_per_minute: u32,
}
