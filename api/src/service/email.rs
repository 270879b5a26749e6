//! E-mail addresses in the one form under which accounts are kept.

use std::fmt;

use email_address::{EmailAddress, Options};

/// Longest address that mail can be sent to (RFC 5321, 4.5.3.1.3, without its brackets).
const MAX_LENGTH: usize = 254;

/// A normalised address: trimmed and in lower case. Never logged.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Email(String);

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("must be an e-mail address")]
pub struct InvalidEmail;

impl Email {
    pub fn parse(text: &str) -> Result<Self, InvalidEmail> {
        let normalised = Self::normalise(text);
        let options = Options::default().without_display_text().without_domain_literal().with_required_tld();
        let valid = EmailAddress::parse_with_options(&normalised, options).is_ok();
        // Quoted local parts and anything that could end up in a mail's header are not worth their risk.
        let plain = !normalised.contains(|c: char| c.is_control() || c.is_whitespace() || "\"<>,;".contains(c));
        if valid && plain && normalised.len() <= MAX_LENGTH { Ok(Self(normalised)) } else { Err(InvalidEmail) }
    }

    /// The form under which limits count any text that was given as an address.
    pub fn normalise(text: &str) -> String {
        text.trim().to_lowercase()
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Email {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Email(…)")
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("Ann@Example.COM", Some("ann@example.com"))]
    #[case("  ann@example.com ", Some("ann@example.com"))]
    #[case("ann+tag@mail.example.com", Some("ann+tag@mail.example.com"))]
    #[case("ÅNN@example.com", Some("ånn@example.com"))]
    #[case("", None)]
    #[case("ann", None)]
    #[case("ann@", None)]
    #[case("@example.com", None)]
    #[case("ann@localhost", None)]
    #[case("ann@[127.0.0.1]", None)]
    #[case("Ann <ann@example.com>", None)]
    #[case("ann@example.com\nbcc: x@example.com", None)]
    #[case("\"a b\"@example.com", None)]
    fn addresses_are_checked_and_normalised(#[case] text: &str, #[case] email: Option<&str>) {
        assert_eq!(Email::parse(text).ok().as_ref().map(Email::as_str), email);
        assert!(Email::parse(&format!("{}@example.com", "x".repeat(250))).is_err());
    }
}
