//! Identifiers: 24 lower-case hex digits (96 bits), one newtype per kind of thing.
//! Random bits are handed in by the caller; nothing here draws them.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// Why a text is not an id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("an id is 24 lower-case hex digits")]
pub struct InvalidId;

fn is_id(text: &str) -> bool {
    text.len() == 24 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// The id made of 96 random bits.
            pub fn from_bits(bits: [u8; 12]) -> Self {
                Self(bits.iter().fold(String::with_capacity(24), |mut text, byte| {
                    for nibble in [byte >> 4, byte & 0xf] {
                        text.push(char::from_digit(u32::from(nibble), 16).unwrap_or('0'));
                    }
                    text
                }))
            }

            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = InvalidId;
            fn from_str(text: &str) -> Result<Self, InvalidId> {
                if is_id(text) { Ok(Self(text.to_owned())) } else { Err(InvalidId) }
            }
        }

        impl TryFrom<String> for $name {
            type Error = InvalidId;
            fn try_from(text: String) -> Result<Self, InvalidId> {
                if is_id(&text) { Ok(Self(text)) } else { Err(InvalidId) }
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> String {
                id.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

id!(/// An order.
    OrderId);
id!(/// A product of the catalogue.
    ProductId);
id!(/// An account, customer or staff.
    UserId);
id!(/// A login session; also the family of its refresh tokens.
    SessionId);
id!(/// A batch of stock changes made by staff.
    AdjustmentId);
id!(/// A request for a new password.
    PasswordResetId);
id!(/// One entry of a document's outbox.
    OutboxId);
id!(/// One taking of outbox entries by a sender: whoever holds it may remove them.
    ClaimId);

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("67c8830b7ef1b848ac52ebec", true)]
    #[case("67C8830B7EF1B848AC52EBEC", false)]
    #[case("67c8830b7ef1b848ac52ebe", false)]
    #[case("67c8830b7ef1b848ac52ebecc", false)]
    #[case("67c8830b7ef1b848ac52ebeg", false)]
    #[case("", false)]
    fn only_24_lower_case_hex_digits_are_an_id(#[case] text: &str, #[case] valid: bool) {
        assert_eq!(text.parse::<ProductId>().is_ok(), valid);
        assert_eq!(serde_json::from_value::<ProductId>(text.into()).is_ok(), valid);
    }

    #[test]
    fn bits_become_hex_and_read_back() {
        let id = OrderId::from_bits([0, 1, 0xab, 0xff, 4, 5, 6, 7, 8, 9, 10, 0x1b]);
        assert_eq!(id.as_str(), "0001abff0405060708090a1b");
        assert_eq!(id.as_str().parse(), Ok(id));
    }
}
