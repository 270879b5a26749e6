//! Settings of accounts: keys, the first staff account, and what a password's hash costs.

use std::path::PathBuf;

use clap::Args;
use secrecy::{ExposeSecret, SecretString};
use shop_runtime::parsers::{filled, secret_line, trimmed};

use super::ConfigError;

#[derive(Debug, Clone, Args)]
pub struct AuthConfig {
    /// File with the token keys: {"signing":"k1","keys":{"k1":"<base64 of 32 random bytes>"}}.
    #[arg(long, env = "SHOP_AUTH_KEYS_FILE", value_name = "SHOP_AUTH_KEYS_FILE")]
    pub auth_keys_file: PathBuf,
    #[arg(long, env = "SHOP_ACCESS_TOKEN_MINUTES", value_name = "SHOP_ACCESS_TOKEN_MINUTES", default_value = "15",
          value_parser = clap::value_parser!(u32).range(1..=1440))]
    pub access_token_minutes: u32,
    #[arg(long, env = "SHOP_STAFF_EMAIL", value_name = "SHOP_STAFF_EMAIL", value_parser = trimmed)]
    staff_email: Option<String>,
    #[arg(long, env = "SHOP_STAFF_PASSWORD", value_name = "SHOP_STAFF_PASSWORD", hide_env_values = true,
          value_parser = secret_line)]
    staff_password: Option<SecretString>,
    #[arg(long, env = "SHOP_PASSWORD_MIN_LENGTH", value_name = "SHOP_PASSWORD_MIN_LENGTH", default_value = "6",
          value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub password_min_length: u32,
}

/// The staff account that the Secret names.
#[derive(Debug, Clone)]
pub struct StaffAccount {
    pub email: String,
    pub password: SecretString,
}

impl AuthConfig {
    pub fn staff(&self) -> Result<Option<StaffAccount>, ConfigError> {
        let password = self.staff_password.clone().filter(|password| !password.expose_secret().is_empty());
        match (filled(self.staff_email.as_ref()), password) {
            (Some(email), Some(password)) => Ok(Some(StaffAccount { email, password })),
            (None, None) => Ok(None),
            _ => Err(ConfigError::Staff),
        }
    }
}

/// What a password's hash costs: argon2id, by default the second choice of OWASP's password storage sheet.
#[derive(Debug, Clone, Copy, Args)]
pub struct PasswordConfig {
    #[arg(long, env = "SHOP_ARGON2_MEMORY_KIB", value_name = "SHOP_ARGON2_MEMORY_KIB", default_value = "19456",
          value_parser = clap::value_parser!(u32).range(7_168..=1_048_576))]
    pub argon2_memory_kib: u32,
    #[arg(long, env = "SHOP_ARGON2_PASSES", value_name = "SHOP_ARGON2_PASSES", default_value = "2",
          value_parser = clap::value_parser!(u32).range(1..=16))]
    pub argon2_passes: u32,
    #[arg(long, env = "SHOP_ARGON2_LANES", value_name = "SHOP_ARGON2_LANES", default_value = "1",
          value_parser = clap::value_parser!(u32).range(1..=16))]
    pub argon2_lanes: u32,
    /// Passwords hashed at once; without it one per processor but one.
    #[arg(long, env = "SHOP_PASSWORD_WORKERS", value_name = "SHOP_PASSWORD_WORKERS",
          value_parser = clap::value_parser!(u32).range(1..=256))]
    password_workers: Option<u32>,
}

impl PasswordConfig {
    pub fn workers(&self) -> usize {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        self.password_workers.map_or(cores.saturating_sub(1).max(1), |workers| workers as usize)
    }
}
