//! Readers of settings that come out of Secrets and files, where an editor may have left a blank or a line end.
//! For clap's `value_parser`; those of text refuse nothing.

use std::convert::Infallible;

use secrecy::SecretString;

/// An address or a name, without blanks and line ends around it.
pub fn trimmed(text: &str) -> Result<String, Infallible> {
    Ok(text.trim().to_owned())
}

/// The same for an address that holds a password.
pub fn trimmed_secret(text: &str) -> Result<SecretString, Infallible> {
    Ok(text.trim().into())
}

/// A password: blanks are a part of it, the file's last line end is not.
pub fn secret_line(text: &str) -> Result<SecretString, Infallible> {
    Ok(text.trim_end_matches(['\r', '\n']).into())
}

/// The setting, if it says something: an empty variable is as good as an unset one.
pub fn filled(value: Option<&String>) -> Option<String> {
    value.filter(|text| !text.is_empty()).cloned()
}

#[derive(Debug, thiserror::Error)]
#[error("must be a number from 0 to 1")]
pub struct NoRatio;

/// A share, from 0 to 1.
pub fn ratio(text: &str) -> Result<f64, NoRatio> {
    text.trim().parse().ok().filter(|ratio| (0.0..=1.0).contains(ratio)).ok_or(NoRatio)
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use secrecy::ExposeSecret;

    use super::*;

    #[rstest]
    #[case("0", Some(0.0))]
    #[case(" 0.25\n", Some(0.25))]
    #[case("1", Some(1.0))]
    #[case("1.1", None)]
    #[case("-0.1", None)]
    #[case("NaN", None)]
    #[case("half", None)]
    fn a_ratio_is_a_share(#[case] text: &str, #[case] expected: Option<f64>) {
        assert_eq!(ratio(text).ok(), expected);
    }

    #[test]
    fn what_an_editor_left_is_dropped() {
        assert_eq!(trimmed(" http://q \r\n").unwrap(), "http://q");
        assert_eq!(trimmed_secret("redis://:hush@h\n").unwrap().expose_secret(), "redis://:hush@h");
        assert_eq!(secret_line(" two words \r\n").unwrap().expose_secret(), " two words ");
    }
}
