//! Access tokens (signed, short-lived) and refresh tokens (random, kept only as a hash). No store, no HTTP.

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use hmac::{Hmac, KeyInit, Mac};
use jiff::{SignedDuration, Timestamp};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use shop_domain::{
    account::Role,
    id::{SessionId, UserId},
};
use shop_runtime::ids::{self, NoRandomness};

use crate::keys::{KeyRing, Keys};

const ISSUER: &str = "xhipment";
const AUDIENCE: &str = "xhipment-api";
const ACCESS: &str = "access";
/// Clocks of replicas may differ by this much.
const LEEWAY_SECONDS: i64 = 30;
/// Keep what is made for refresh tokens apart from everything else that the key signs.
const SUCCESSOR: &[u8] = b"refresh-successor\0";
const MARK: &[u8] = b"refresh-mark\0";
/// Bytes of a refresh token that are secret; as many more mark it as ours.
const SECRET: usize = 16;

/// What an access token says; every field is required.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Claims {
    iss: String,
    aud: String,
    sub: UserId,
    sid: SessionId,
    role: Role,
    exp: i64,
    iat: i64,
    nbf: i64,
    typ: String,
}

/// Who a valid access token belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bearer {
    pub user: UserId,
    pub session: SessionId,
}

/// The token is not ours, not valid now, or not an access token. Which of these is nobody's business.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the access token is not valid")]
pub struct InvalidToken;

#[derive(Debug, thiserror::Error)]
#[error("cannot sign an access token")]
pub struct SigningError(#[source] jsonwebtoken::errors::Error);

/// Makes and checks tokens with the keys in use; clones share them.
#[derive(Debug, Clone)]
pub struct Tokens {
    keys: Keys,
    lifetime: SignedDuration,
}

impl Tokens {
    pub fn new(keys: Keys, lifetime: SignedDuration) -> Self {
        Self { keys, lifetime }
    }

    /// An access token for a session.
    pub fn issue(&self, bearer: &Bearer, role: Role, now: Timestamp) -> Result<String, SigningError> {
        let ring = self.keys.current();
        let iat = now.as_second();
        let claims = Claims {
            iss: ISSUER.to_owned(),
            aud: AUDIENCE.to_owned(),
            sub: bearer.user.clone(),
            sid: bearer.session.clone(),
            role,
            exp: iat + self.lifetime.as_secs(),
            iat,
            nbf: iat,
            typ: ACCESS.to_owned(),
        };
        let header = Header { kid: Some(ring.signing_id().to_owned()), ..Header::new(Algorithm::HS256) };
        jsonwebtoken::encode(&header, &claims, &EncodingKey::from_secret(ring.signing_key())).map_err(SigningError)
    }

    /// Checks signature, key, algorithm, times, issuer, audience and kind.
    pub fn verify(&self, token: &str, now: Timestamp) -> Result<Bearer, InvalidToken> {
        let claims = signed_claims(&self.keys.current(), token)?;
        let now = now.as_second();
        let in_time = claims.exp > now - LEEWAY_SECONDS
            && claims.nbf <= now + LEEWAY_SECONDS
            && claims.iat <= now + LEEWAY_SECONDS;
        if in_time && claims.iss == ISSUER && claims.aud == AUDIENCE && claims.typ == ACCESS {
            Ok(Bearer { user: claims.sub, session: claims.sid })
        } else {
            Err(InvalidToken)
        }
    }

    /// The first refresh token of a session: the successor of a random one that nobody gets.
    pub fn first(&self, session: SessionId) -> Result<RefreshToken, NoRandomness> {
        let seed = RefreshToken::of(session, &ids::random_bytes::<32>()?);
        Ok(seed.successor(self.keys.current().signing_key()).unwrap_or(seed))
    }

    /// Whether a key that is accepted made this token. A guess is not ours, whatever session it names.
    pub fn is_ours(&self, presented: &RefreshToken) -> bool {
        self.keys.current().all().any(|key| presented.is_marked_by(key))
    }

    /// The successors that this token may have, one per accepted key, the signing key's first:
    /// a presentation repeated across a change of keys still finds the one that was handed out.
    pub fn successors(&self, presented: &RefreshToken) -> Vec<RefreshToken> {
        self.keys.current().all().filter_map(|key| presented.successor(key)).collect()
    }
}

fn signed_claims(ring: &KeyRing, token: &str) -> Result<Claims, InvalidToken> {
    let header = jsonwebtoken::decode_header(token).map_err(|_| InvalidToken)?;
    let key = header.kid.as_deref().and_then(|kid| ring.key(kid)).ok_or(InvalidToken)?;
    // Times are checked against the injected clock, the other claims by the caller.
    let mut validation = Validation::new(Algorithm::HS256);
    validation.required_spec_claims.clear();
    validation.validate_exp = false;
    validation.validate_aud = false;
    let data = jsonwebtoken::decode::<Claims>(token, &DecodingKey::from_secret(key), &validation);
    data.map(|data| data.claims).map_err(|_| InvalidToken)
}

/// A refresh token: the session it belongs to, 128 secret bits, and a mark that only our keys make.
#[derive(Clone, PartialEq, Eq)]
pub struct RefreshToken {
    pub session: SessionId,
    text: String,
}

impl RefreshToken {
    /// Reads what a client presents; None when it has not the form of a token.
    pub fn parse(text: &str) -> Option<Self> {
        let (session, secret) = text.split_once('.')?;
        let session = session.parse().ok()?;
        let fits = secret.len() == 43 && secret.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
        fits.then(|| Self { session, text: text.to_owned() })
    }

    /// The text for the cookie. Never log it.
    pub fn expose(&self) -> &str {
        &self.text
    }

    /// What the store keeps of it.
    pub fn hash(&self) -> String {
        hex::encode(Sha256::digest(self.text.as_bytes()))
    }

    fn successor(&self, key: &[u8]) -> Option<Self> {
        let secret = mac(key, SUCCESSOR)?.chain_update(&self.text).finalize().into_bytes();
        let secret = &secret[..SECRET];
        let mark = self.mark(key, secret)?.finalize().into_bytes();
        Some(Self::of(self.session.clone(), &[secret, &mark[..SECRET]].concat()))
    }

    fn is_marked_by(&self, key: &[u8]) -> bool {
        let text = self.text.split_once('.').map_or("", |(_, text)| text);
        let bytes = BASE64_URL_SAFE_NO_PAD.decode(text).unwrap_or_default();
        let Some((secret, mark)) = bytes.split_at_checked(SECRET) else { return false };
        self.mark(key, secret).is_some_and(|expected| expected.verify_truncated_left(mark).is_ok())
    }

    fn mark(&self, key: &[u8], secret: &[u8]) -> Option<Hmac<Sha256>> {
        Some(mac(key, MARK)?.chain_update(self.session.as_str()).chain_update(secret))
    }

    fn of(session: SessionId, bytes: &[u8]) -> Self {
        let text = format!("{session}.{}", BASE64_URL_SAFE_NO_PAD.encode(bytes));
        Self { session, text }
    }
}

fn mac(key: &[u8], purpose: &[u8]) -> Option<Hmac<Sha256>> {
    Some(Hmac::<Sha256>::new_from_slice(key).ok()?.chain_update(purpose))
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::{Value, json};

    use super::*;
    use crate::keys::tests::ring;

    fn now() -> Timestamp {
        Timestamp::from_second(1_750_000_000).unwrap()
    }

    fn tokens() -> Tokens {
        Tokens::new(Keys::new(ring(&[1, 2])), SignedDuration::from_mins(15))
    }

    fn bearer() -> Bearer {
        Bearer { user: UserId::from_bits([1; 12]), session: SessionId::from_bits([2; 12]) }
    }

    fn claims() -> Value {
        let iat = now().as_second();
        json!({
            "iss": ISSUER, "aud": AUDIENCE, "sub": bearer().user, "sid": bearer().session, "role": "customer",
            "exp": iat + 900, "iat": iat, "nbf": iat, "typ": ACCESS,
        })
    }

    /// Signs anything with any header, as a forger would who has the key.
    fn sign(header: &Header, claims: &Value, seed: u8) -> String {
        let ring = ring(&[seed]);
        jsonwebtoken::encode(header, claims, &EncodingKey::from_secret(ring.signing_key())).unwrap()
    }

    fn header(alg: Algorithm, kid: Option<&str>) -> Header {
        Header { kid: kid.map(str::to_owned), ..Header::new(alg) }
    }

    fn good_header() -> Header {
        header(Algorithm::HS256, Some("k1"))
    }

    #[test]
    fn what_is_issued_is_accepted_until_it_expires() {
        let (tokens, at) = (tokens(), |seconds: i64| now().saturating_add(SignedDuration::from_secs(seconds)).unwrap());
        let token = tokens.issue(&bearer(), Role::Customer, now()).unwrap();
        for (seconds, accepted) in [(0, true), (929, true), (931, false), (-29, true), (-31, false)] {
            assert_eq!(tokens.verify(&token, at(seconds)), accepted.then(bearer).ok_or(InvalidToken), "{seconds} s");
        }
    }

    #[test]
    fn every_accepted_key_verifies() {
        let token = sign(&header(Algorithm::HS256, Some("k2")), &claims(), 2);
        assert_eq!(tokens().verify(&token, now()), Ok(bearer()));
    }

    #[rstest]
    #[case::other_algorithm(header(Algorithm::HS384, Some("k1")), 1)]
    #[case::longest_algorithm(header(Algorithm::HS512, Some("k1")), 1)]
    #[case::unknown_key(header(Algorithm::HS256, Some("k9")), 1)]
    #[case::no_key_named(header(Algorithm::HS256, None), 1)]
    #[case::signed_with_a_foreign_key(good_header(), 3)]
    #[case::signed_with_another_of_our_keys(good_header(), 2)]
    fn forged_headers_are_refused(#[case] header: Header, #[case] seed: u8) {
        assert_eq!(tokens().verify(&sign(&header, &claims(), seed), now()), Err(InvalidToken));
    }

    #[rstest]
    #[case("iss", json!("someone"))]
    #[case("aud", json!("another-api"))]
    #[case("aud", json!([AUDIENCE]))]
    #[case("typ", json!("refresh"))]
    #[case("exp", json!(1_749_999_000))]
    #[case("exp", json!("never"))]
    #[case("nbf", json!(1_750_000_100))]
    #[case("iat", json!(1_750_000_100))]
    #[case("sub", json!("root"))]
    #[case("role", json!("admin"))]
    fn wrong_claims_are_refused(#[case] claim: &str, #[case] value: Value) {
        let mut claims = claims();
        claims[claim] = value;
        assert_eq!(tokens().verify(&sign(&good_header(), &claims, 1), now()), Err(InvalidToken));
    }

    #[rstest]
    fn missing_claims_are_refused(
        #[values("iss", "aud", "sub", "sid", "role", "exp", "iat", "nbf", "typ")] claim: &str,
    ) {
        let mut claims = claims();
        claims.as_object_mut().unwrap().remove(claim);
        assert_eq!(tokens().verify(&sign(&good_header(), &claims, 1), now()), Err(InvalidToken));
    }

    #[rstest]
    #[case("")]
    #[case("a.b.c")]
    #[case("....")]
    #[case(r#"{"alg":"none"}"#)]
    fn nonsense_is_refused(#[case] token: &str) {
        assert_eq!(tokens().verify(token, now()), Err(InvalidToken));
    }

    #[test]
    fn an_unsigned_token_is_refused() {
        let part = |value: &Value| BASE64_URL_SAFE_NO_PAD.encode(value.to_string());
        for alg in ["none", "None", "NONE", ""] {
            let token = format!("{}.{}.", part(&json!({"alg": alg, "typ": "JWT", "kid": "k1"})), part(&claims()));
            assert_eq!(tokens().verify(&token, now()), Err(InvalidToken));
        }
    }

    #[test]
    fn a_changed_token_is_refused() {
        let token = tokens().issue(&bearer(), Role::Customer, now()).unwrap();
        let (signed, signature) = token.rsplit_once('.').unwrap();
        let (head, _) = signed.split_once('.').unwrap();
        let mut staff = claims();
        staff["role"] = json!("staff");
        let forged = format!("{head}.{}.{signature}", BASE64_URL_SAFE_NO_PAD.encode(staff.to_string()));
        assert_eq!(tokens().verify(&forged, now()), Err(InvalidToken));
    }

    #[test]
    fn a_successor_is_always_the_same_and_always_another() {
        let first = tokens().first(SessionId::from_bits([2; 12])).unwrap();
        let (one, two) = (tokens().successors(&first), tokens().successors(&first));
        assert!(one == two && one.len() == 2 && one[0] != one[1] && one[0] != first);
        assert!(RefreshToken::parse(one[0].expose()) == Some(one[0].clone()));
        assert_ne!(one[0].hash(), first.hash());
    }

    #[test]
    fn our_tokens_are_told_from_guesses() {
        let (session, other) = (SessionId::from_bits([2; 12]), SessionId::from_bits([3; 12]));
        let first = tokens().first(session.clone()).unwrap();
        assert!(tokens().is_ours(&first) && tokens().successors(&first).iter().all(|token| tokens().is_ours(token)));
        let (_, secret) = first.expose().split_once('.').unwrap();
        let moved = RefreshToken::parse(&format!("{other}.{secret}")).unwrap();
        let guess = RefreshToken::of(session.clone(), &[7; 32]);
        let foreign = Tokens::new(Keys::new(ring(&[3])), SignedDuration::from_mins(15)).first(session).unwrap();
        assert!([moved, guess, foreign].iter().all(|token| !tokens().is_ours(token)));
    }

    #[rstest]
    #[case("")]
    #[case("67c8830b7ef1b848ac52ebec")]
    #[case("67c8830b7ef1b848ac52ebec.")]
    #[case("67c8830b7ef1b848ac52ebec.short")]
    #[case("x.AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA")]
    fn other_texts_are_no_refresh_token(#[case] text: &str) {
        assert!(RefreshToken::parse(text).is_none());
    }
}
