//! Products and locations as the shop knows them.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// A place that holds stock, such as `bangalore`: 1–64 characters without control characters or surrounding blanks,
/// and without `@` (which joins product and location in a stock key).
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Location(String);

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a location is 1 to 64 characters, without control characters, '@' or blanks at its ends")]
pub struct InvalidLocation;

impl Location {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Location {
    type Err = InvalidLocation;
    fn from_str(text: &str) -> Result<Self, InvalidLocation> {
        let fits = (1..=64).contains(&text.chars().count());
        if fits && text.trim() == text && !text.chars().any(|c| c.is_control() || c == '@') {
            Ok(Self(text.to_owned()))
        } else {
            Err(InvalidLocation)
        }
    }
}

impl TryFrom<String> for Location {
    type Error = InvalidLocation;
    fn try_from(text: String) -> Result<Self, InvalidLocation> {
        text.parse()
    }
}

impl From<Location> for String {
    fn from(location: Location) -> String {
        location.0
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0)
    }
}

/// The words and prefixes under which a product is found: lower-case, split at everything that is no letter or digit,
/// each word with all its prefixes of two characters and more, at most `MAX_TERMS`, sorted, without repeats.
///
/// An indexed array of these answers word-prefix searches on every MongoDB, without a text index.
pub fn search_terms(name: &str, description: &str) -> Vec<String> {
    let mut terms = std::collections::BTreeSet::new();
    for word in words(name).chain(words(description)) {
        let ends = word.char_indices().map(|(at, c)| at + c.len_utf8()).skip(1);
        for end in ends.take(MAX_PREFIX) {
            if terms.len() >= MAX_TERMS {
                return terms.into_iter().collect();
            }
            terms.insert(word[..end].to_owned());
        }
        if word.chars().count() == 1 {
            terms.insert(word);
        }
    }
    terms.into_iter().collect()
}

/// The terms a query asks for; each must be among the product's [`search_terms`].
pub fn query_terms(query: &str) -> Vec<String> {
    words(query).map(|word| word.chars().take(MAX_PREFIX + 1).collect()).take(8).collect()
}

const MAX_TERMS: usize = 400;
/// Prefixes of a word reach up to `MAX_PREFIX + 1` characters.
const MAX_PREFIX: usize = 15;

fn words(text: &str) -> impl Iterator<Item = String> {
    text.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty()).map(str::to_lowercase)
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("bangalore", true)]
    #[case("New Delhi", true)]
    #[case("", false)]
    #[case(" x", false)]
    #[case("a@b", false)]
    #[case("a\nb", false)]
    fn locations_are_checked(#[case] text: &str, #[case] valid: bool) {
        assert_eq!(text.parse::<Location>().is_ok(), valid);
    }

    #[rstest]
    #[case("wireless", true)]
    #[case("Wire", true)]
    #[case("wire mouse", true)]
    #[case("4k", true)]
    #[case("ireless", false)]
    #[case("mouse keyboard", false)]
    fn a_product_is_found_by_word_prefixes(#[case] query: &str, #[case] found: bool) {
        let terms = search_terms("Wireless Mouse", "A 4K é cursor");
        assert_eq!(query_terms(query).iter().all(|term| terms.contains(term)), found);
    }

    #[test]
    fn a_long_word_is_found_by_its_whole_text() {
        let word = "x".repeat(40);
        assert!(query_terms(&word).iter().all(|term| search_terms(&word, "").contains(term)));
    }
}
