//! Settings of the mails: sender, pace, and the shop's page for new passwords.

use std::num::NonZeroU32;

use clap::Args;
use email_address::EmailAddress;
use shop_runtime::{
    aws::Service,
    parsers::{filled, trimmed},
};

use super::ConfigError;
use crate::mailer::reset_link;

#[derive(Debug, Clone, Args)]
pub struct MailConfig {
    #[arg(long, env = "SHOP_SES_REGION", value_name = "SHOP_SES_REGION", default_value = "ap-south-1")]
    ses_region: String,
    #[arg(long, env = "SHOP_SES_ENDPOINT", value_name = "SHOP_SES_ENDPOINT", value_parser = trimmed)]
    ses_endpoint: Option<String>,
    /// Sender of all mails; verified in SES.
    #[arg(long, env = "SHOP_MAIL_FROM", value_name = "SHOP_MAIL_FROM")]
    pub mail_from: String,
    #[arg(long, env = "SHOP_MAIL_PER_SECOND", value_name = "SHOP_MAIL_PER_SECOND", default_value = "14")]
    pub mail_per_second: NonZeroU32,
    /// Refusals after which a mail is given up; outages and throttling do not count.
    #[arg(long, env = "SHOP_MAIL_MAX_ATTEMPTS", value_name = "SHOP_MAIL_MAX_ATTEMPTS", default_value = "12",
          value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub mail_max_attempts: u32,
    /// The shop's page for new passwords, such as `https://shop.example.com/reset?token={token}`.
    #[arg(long, env = "SHOP_PASSWORD_RESET_URL", value_name = "SHOP_PASSWORD_RESET_URL", value_parser = trimmed)]
    password_reset_url: Option<String>,
}

impl MailConfig {
    pub(super) fn validate(&self) -> Result<(), ConfigError> {
        let from = self.mail_from.as_str();
        // Strict: what SES says of a sender that it cannot read is easily taken for a fault of the buyer's address.
        let plain =
            from.is_ascii() && !from.contains(|c: char| c.is_control() || c.is_whitespace() || "<>\",;".contains(c));
        if !plain || !EmailAddress::is_valid(from) {
            return Err(ConfigError::MailFrom);
        }
        let fits = |url: &String| {
            (url.starts_with("https://") || url.starts_with("http://")) && url.matches(reset_link::PLACE).count() == 1
        };
        if self.reset_url().as_ref().is_none_or(fits) { Ok(()) } else { Err(ConfigError::ResetUrl) }
    }

    /// The address of the shop's page for new passwords, with the place for the token in it.
    pub fn reset_url(&self) -> Option<String> {
        filled(self.password_reset_url.as_ref())
    }

    /// The SES that sends the mails.
    pub fn service(&self) -> Service {
        Service { region: self.ses_region.clone(), endpoint: filled(self.ses_endpoint.as_ref()) }
    }
}
