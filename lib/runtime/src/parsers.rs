//! Readers of settings that come out of Secrets and files, where an editor may have left a blank or a line end.
//! For clap's `value_parser`; none of them refuses anything.

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

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret;

    use super::*;

    #[test]
    fn what_an_editor_left_is_dropped() {
        assert_eq!(trimmed(" http://q \r\n").unwrap(), "http://q");
        assert_eq!(trimmed_secret("redis://:hush@h\n").unwrap().expose_secret(), "redis://:hush@h");
        assert_eq!(secret_line(" two words \r\n").unwrap().expose_secret(), " two words ");
    }
}
