//! Tokens with which a forgotten password is replaced: made from a request's id and a key, so that nothing in the database
//! is one. No store, no HTTP.

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use hmac::{Hmac, KeyInit, Mac};
use secrecy::SecretString;
use sha2::Sha256;
use shop_domain::id::PasswordResetId;

use crate::keys::Keys;

/// Keeps these tokens apart from everything else that the keys sign.
const PURPOSE: &[u8] = b"password-reset\0";

/// Makes and checks tokens with the keys in use; clones share them.
#[derive(Debug, Clone)]
pub struct ResetTokens {
    keys: Keys,
}

impl ResetTokens {
    pub fn new(keys: Keys) -> Self {
        Self { keys }
    }

    /// The token of a request: `id.signature`, safe in a URL. None only if the signing key cannot be used.
    pub fn issue(&self, id: &PasswordResetId) -> Option<SecretString> {
        let signature = mac(self.keys.current().signing_key(), id)?.finalize().into_bytes();
        Some(format!("{id}.{}", BASE64_URL_SAFE_NO_PAD.encode(signature)).into())
    }

    /// The request that a token is of, if a key that is accepted made it.
    pub fn verify(&self, token: &str) -> Option<PasswordResetId> {
        let (id, signature) = token.split_once('.')?;
        let id = id.parse().ok()?;
        let signature = BASE64_URL_SAFE_NO_PAD.decode(signature).ok()?;
        let ring = self.keys.current();
        let ours = ring.all().filter_map(|key| mac(key, &id)).any(|mac| mac.verify_slice(&signature).is_ok());
        ours.then_some(id)
    }
}

fn mac(key: &[u8], id: &PasswordResetId) -> Option<Hmac<Sha256>> {
    Some(Hmac::<Sha256>::new_from_slice(key).ok()?.chain_update(PURPOSE).chain_update(id.as_str()))
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use secrecy::ExposeSecret;

    use super::*;
    use crate::keys::tests::ring;

    fn tokens(seeds: &[u8]) -> ResetTokens {
        ResetTokens::new(Keys::new(ring(seeds)))
    }

    fn id() -> PasswordResetId {
        PasswordResetId::from_bits([5; 12])
    }

    #[test]
    fn a_token_is_good_under_every_accepted_key_and_no_other() {
        let token = tokens(&[1]).issue(&id()).unwrap();
        assert_eq!(tokens(&[1]).verify(token.expose_secret()), Some(id()));
        assert_eq!(tokens(&[2, 1]).verify(token.expose_secret()), Some(id()));
        assert_eq!(tokens(&[2]).verify(token.expose_secret()), None);
    }

    #[test]
    fn a_signature_is_good_for_its_own_request_only() {
        let token = tokens(&[1]).issue(&id()).unwrap();
        let (_, signature) = token.expose_secret().split_once('.').unwrap();
        let other = PasswordResetId::from_bits([6; 12]);
        assert_eq!(tokens(&[1]).verify(&format!("{other}.{signature}")), None);
        assert_eq!(tokens(&[1]).verify(&format!("{}.{}", id(), &signature[..20])), None, "not by its first part");
    }

    #[test]
    fn a_token_needs_no_encoding_in_a_url() {
        let token = tokens(&[1]).issue(&id()).unwrap();
        assert!(token.expose_secret().chars().all(|c| c.is_ascii_alphanumeric() || ".-_".contains(c)));
    }

    #[rstest]
    #[case("")]
    #[case(".")]
    #[case("050505050505050505050505")]
    #[case("050505050505050505050505.")]
    #[case("050505050505050505050505.AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA")]
    #[case("x.AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA")]
    fn other_texts_are_no_token(#[case] text: &str) {
        assert_eq!(tokens(&[1]).verify(text), None);
    }
}
