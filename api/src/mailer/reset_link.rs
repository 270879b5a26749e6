//! What a mail shows of a password reset: the token, and the shop's page that takes it, if there is one.

use secrecy::{ExposeSecret, SecretString};
use shop_domain::id::PasswordResetId;

use crate::reset_tokens::ResetTokens;

/// Where the token stands in the configured URL.
pub const PLACE: &str = "{token}";

/// Makes the links of password resets.
#[derive(Debug, Clone)]
pub struct ResetLinks {
    tokens: ResetTokens,
    /// With [`PLACE`] in it.
    url: Option<String>,
}

/// The token of one reset and its link; never logged.
#[derive(Debug, Clone)]
pub struct ResetLink {
    pub token: SecretString,
    pub url: Option<SecretString>,
}

impl ResetLinks {
    pub fn new(tokens: ResetTokens, url: Option<String>) -> Self {
        Self { tokens, url }
    }

    /// None only if the signing key cannot be used.
    pub fn to(&self, reset: &PasswordResetId) -> Option<ResetLink> {
        let token = self.tokens.issue(reset)?;
        let url = self.url.as_ref().map(|url| url.replace(PLACE, token.expose_secret()).into());
        Some(ResetLink { token, url })
    }
}
