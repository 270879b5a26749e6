//! The token keys: read from a file, checked, and read again when the file changes. Keys never leave this module's users.

use std::{
    collections::HashMap,
    fmt,
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use base64::{
    Engine, alphabet,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use secrecy::{ExposeSecret, SecretSlice};
use serde::Deserialize;
use shop_runtime::{shutdown::Shutdown, telemetry};

/// Shortest key: HS256's hash has 32 bytes (RFC 7518, 3.2).
const MIN_KEY_BYTES: usize = 32;
/// Fewest different byte values; 32 random bytes have fewer than 16 once in 10^13 tries.
const MIN_DISTINCT_BYTES: usize = 16;
const POLL: Duration = Duration::from_secs(3);
const WELL_KNOWN_WORDS: [&str; 6] = ["secret", "changeme", "change-me", "password", "example", "0123456789"];
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Why the keys cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeysError {
    #[error("cannot read the token keys from {path}; SHOP_AUTH_KEYS_FILE must name a readable file")]
    Read { path: PathBuf, source: std::io::Error },
    /// Without the parser's own words: they may repeat a key.
    #[error(
        "the token keys file must look like {{\"signing\":\"k1\",\"keys\":{{\"k1\":\"<base64 of 32 random bytes>\"}}}}; \
         it does not at line {line}, column {column}"
    )]
    Format { line: usize, column: usize },
    #[error("token key {kid:?} {fault}; make a new one with `openssl rand -base64 32`")]
    WeakKey { kid: String, fault: &'static str },
    #[error("the token keys file signs with {signing:?}, which is not among its keys")]
    NoSigningKey { signing: String },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct KeysFile {
    signing: String,
    keys: HashMap<String, String>,
}

/// One key for signing and any number that are accepted.
pub struct KeyRing {
    signing: String,
    keys: HashMap<String, SecretSlice<u8>>,
}

impl fmt::Debug for KeyRing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyRing(signing with {:?} of {})", self.signing, self.keys.len())
    }
}

impl KeyRing {
    /// Reads and checks the content of a keys file.
    pub fn parse(json: &str) -> Result<Self, KeysError> {
        let file: KeysFile = serde_json::from_str(json)
            .map_err(|error| KeysError::Format { line: error.line(), column: error.column() })?;
        let keys = file.keys.into_iter().map(|(kid, text)| {
            let key = parse_key(&text).map_err(|fault| KeysError::WeakKey { kid: kid.clone(), fault })?;
            Ok((kid, key))
        });
        let keys: HashMap<_, _> = keys.collect::<Result<_, KeysError>>()?;
        if !keys.contains_key(&file.signing) {
            return Err(KeysError::NoSigningKey { signing: file.signing });
        }
        Ok(Self { signing: file.signing, keys })
    }

    /// The id of the key that signs.
    pub fn signing_id(&self) -> &str {
        &self.signing
    }

    /// The key that signs.
    pub fn signing_key(&self) -> &[u8] {
        self.key(&self.signing).unwrap_or_default()
    }

    /// An accepted key.
    pub fn key(&self, kid: &str) -> Option<&[u8]> {
        self.keys.get(kid).map(ExposeSecret::expose_secret)
    }

    fn is_same(&self, other: &Self) -> bool {
        let kept = |(kid, key): (&String, &SecretSlice<u8>)| other.key(kid) == Some(key.expose_secret());
        self.signing == other.signing && self.keys.len() == other.keys.len() && self.keys.iter().all(kept)
    }

    /// The ids of all accepted keys.
    pub fn ids(&self) -> Vec<&str> {
        let mut ids: Vec<_> = self.keys.keys().map(String::as_str).collect();
        ids.sort_unstable();
        ids
    }

    /// All accepted keys, the signing one first.
    pub fn all(&self) -> impl Iterator<Item = &[u8]> {
        let others = self.keys.iter().filter(|(kid, _)| **kid != self.signing).map(|(_, key)| key.expose_secret());
        std::iter::once(self.signing_key()).chain(others)
    }
}

fn parse_key(text: &str) -> Result<SecretSlice<u8>, &'static str> {
    let bytes = BASE64.decode(text.trim()).map_err(|_| "is not base64")?;
    if bytes.len() < MIN_KEY_BYTES {
        return Err("is shorter than 32 bytes");
    }
    let steady = bytes.windows(3).all(|w| w[1].wrapping_sub(w[0]) == w[2].wrapping_sub(w[1]));
    let mut distinct = bytes.clone();
    distinct.sort_unstable();
    distinct.dedup();
    let words = std::str::from_utf8(&bytes).unwrap_or_default().to_ascii_lowercase();
    if steady || distinct.len() < MIN_DISTINCT_BYTES || WELL_KNOWN_WORDS.iter().any(|word| words.contains(word)) {
        return Err("is not random (all zero, repeated or well-known)");
    }
    Ok(bytes.into())
}

/// The keys in use now; clones share them.
#[derive(Debug, Clone)]
pub struct Keys(Arc<RwLock<Arc<KeyRing>>>);

impl Keys {
    pub fn new(ring: KeyRing) -> Self {
        Self(Arc::new(RwLock::new(Arc::new(ring))))
    }

    pub async fn load(path: &Path) -> Result<Self, KeysError> {
        KeyRing::parse(&read(path).await?).map(Self::new)
    }

    pub fn current(&self) -> Arc<KeyRing> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Takes over a changed file within seconds; a bad file is logged and the known keys stay in use.
    pub fn follow(&self, path: PathBuf, shutdown: &Shutdown) {
        let (keys, draining) = (self.clone(), shutdown.draining());
        shutdown.spawn_detached(async move {
            // Nothing is taken for seen: the file may have changed since it was loaded.
            let mut seen = None;
            while tokio::time::timeout(POLL, draining.cancelled()).await.is_err() {
                let content = read(&path).await.ok();
                if content.is_some() && content != seen {
                    keys.replace(content.as_deref().unwrap_or_default());
                    seen = content;
                }
            }
        });
    }

    fn replace(&self, json: &str) {
        match KeyRing::parse(json) {
            Ok(ring) if ring.is_same(&self.current()) => {}
            Ok(ring) => {
                tracing::info!(signing = ring.signing_id(), keys = ring.keys.len(), "token keys changed");
                *self.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(ring);
            }
            Err(error) => {
                let cause = telemetry::chain(&error);
                tracing::error!(%cause, "the changed token keys file is not used; the known keys stay");
            }
        }
    }
}

async fn read(path: &Path) -> Result<String, KeysError> {
    let content = tokio::fs::read_to_string(path).await;
    content.map_err(|source| KeysError::Read { path: path.to_owned(), source })
}

#[cfg(test)]
pub mod tests {
    use rstest::rstest;

    use super::*;

    pub fn key_text(seed: u8) -> String {
        use sha2::Digest;
        BASE64.encode(sha2::Sha256::digest([seed]))
    }

    /// A ring of the keys `k<seed>`, signing with the first.
    pub fn ring(seeds: &[u8]) -> KeyRing {
        let keys: HashMap<_, _> = seeds.iter().map(|&seed| (format!("k{seed}"), key_text(seed))).collect();
        let json = serde_json::json!({ "signing": format!("k{}", seeds[0]), "keys": keys });
        KeyRing::parse(&json.to_string()).unwrap()
    }

    fn file(key: &[u8]) -> String {
        serde_json::json!({ "signing": "k1", "keys": { "k1": BASE64.encode(key) } }).to_string()
    }

    #[rstest]
    #[case(&[0; 32], "not random")]
    #[case(&[7; 64], "not random")]
    #[case(b"secret", "shorter than 32")]
    #[case(b"your-256-bit-secret-your-256-bit-secret", "not random")]
    #[case(b"0123456789abcdef0123456789abcdef", "not random")]
    #[case(b"\x00\x01\x02\x03\x04\x05\x06\x07\x08\x09\x0a\x0b\x0c\x0d\x0e\x0f\x10\x11\x12\x13\x14\x15\x16\x17\x18\x19\x1a\x1b\x1c\x1d\x1e\x1f", "not random")]
    fn weak_keys_are_refused(#[case] key: &[u8], #[case] message: &str) {
        let error = KeyRing::parse(&file(key)).unwrap_err().to_string();
        assert!(error.contains(message) && error.contains("k1") && error.contains("openssl"), "{error}");
    }

    #[rstest]
    #[case("", "must look like")]
    #[case("{}", "must look like")]
    #[case(r#"{"signing":"k2","keys":{}}"#, "k2")]
    #[case(r#"{"signing":"k1","keys":{"k1":"!"}}"#, "base64")]
    fn a_bad_file_says_what_is_wrong(#[case] json: &str, #[case] message: &str) {
        let error = KeyRing::parse(json).unwrap_err().to_string();
        assert!(error.contains(message), "{error}");
    }

    #[rstest]
    #[case(r#"{"signing":"k1","keys":"hush"}"#, "line 1, column 29")]
    #[case("{\n\"signing\":\"k1\",\"hush\":1}", "line 2, column 21")]
    #[case(r#"{"signing":"k1","keys":{"k1":["hush"]}}"#, "line 1, column 29")]
    fn a_misplaced_key_is_not_repeated(#[case] json: &str, #[case] place: &str) {
        let error = KeyRing::parse(json).unwrap_err();
        let shown = format!("{} {error:?}", telemetry::chain(&error));
        assert!(shown.contains(place) && !shown.contains("hush"), "{shown}");
    }

    #[test]
    fn a_ring_signs_with_one_and_accepts_all() {
        let ring = ring(&[2, 1]);
        assert_eq!(ring.signing_id(), "k2");
        assert_eq!(ring.all().count(), 2);
        assert_eq!(ring.all().next(), ring.key("k2"));
        assert!(ring.key("k3").is_none());
        assert!(!format!("{ring:?}").contains(&key_text(1)));
    }

    #[tokio::test]
    async fn a_changed_file_is_taken_over_and_a_broken_one_is_not() {
        let keys = Keys::new(ring(&[1]));
        keys.replace(&file(&[0; 32]));
        assert_eq!(keys.current().signing_id(), "k1");
        assert!(keys.current().key("k1").is_some_and(|key| key != [0; 32]));
        let next = serde_json::json!({ "signing": "k2", "keys": { "k1": key_text(1), "k2": key_text(2) } });
        keys.replace(&next.to_string());
        assert_eq!(keys.current().signing_id(), "k2");
        assert!(keys.current().key("k1").is_some());
    }

    #[tokio::test]
    async fn a_change_between_loading_and_following_is_not_missed() {
        let path = std::env::temp_dir().join(format!("keys-{}.json", shop_runtime::ids::random_hex::<8>().unwrap()));
        std::fs::write(&path, file_of(1)).unwrap();
        let keys = Keys::load(&path).await.unwrap();
        std::fs::write(&path, file_of(2)).unwrap();
        let shutdown = Shutdown::manual();
        keys.follow(path.clone(), &shutdown);
        let taken_over = async {
            while keys.current().signing_id() != "k2" {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        tokio::time::timeout(POLL * 3, taken_over).await.unwrap();
        std::fs::remove_file(path).unwrap();
    }

    fn file_of(seed: u8) -> String {
        serde_json::json!({ "signing": format!("k{seed}"), "keys": { format!("k{seed}"): key_text(seed) } }).to_string()
    }

    #[tokio::test]
    async fn a_missing_file_is_named() {
        let error = Keys::load(Path::new("/no/such/keys.json")).await.unwrap_err().to_string();
        assert!(error.contains("/no/such/keys.json") && error.contains("SHOP_AUTH_KEYS_FILE"), "{error}");
    }
}
