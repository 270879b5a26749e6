//! Access tokens that a forger could try, and the change of keys.

use std::{path::PathBuf, sync::atomic::Ordering};

use base64::{
    Engine,
    prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD},
};
use hmac::{Hmac, KeyInit, Mac};
use rstest::rstest;
use serde_json::{Value, json};
use sha2::{Sha256, Sha512};
use shop_runtime::ids;

use crate::shop::{PASSWORD, Shop, eventually, random_name, with_shop};

/// What an access token says, without a look at its signature.
pub fn claims(token: &str) -> Value {
    part(token, 1)
}

fn part(token: &str, number: usize) -> Value {
    let text = BASE64_URL_SAFE_NO_PAD.decode(token.split('.').nth(number).unwrap()).unwrap();
    serde_json::from_slice(&text).unwrap()
}

/// A forger who has what a customer has: a good token, and here the key too, so that only the fault in question is one.
struct Forger {
    token: String,
    cookie: String,
    key: Vec<u8>,
}

impl Forger {
    async fn of(shop: &Shop) -> Self {
        let email = format!("{}@example.com", random_name("f"));
        shop.register(&email).await;
        let login = shop.login(&email, PASSWORD).await;
        let keys: Value = serde_json::from_str(&std::fs::read_to_string(keys_file(shop)).unwrap()).unwrap();
        let key = BASE64_STANDARD.decode(keys["keys"]["k1"].as_str().unwrap()).unwrap();
        Self { token: login.token(), cookie: login.cookie(), key }
    }

    fn header(&self) -> Value {
        part(&self.token, 0)
    }

    fn claims(&self) -> Value {
        part(&self.token, 1)
    }

    /// Header and claims as text, signed as HS256 with `key`.
    fn sign(key: &[u8], header: &str, claims: &str) -> String {
        let signed = format!("{}.{}", encode(header), encode(claims));
        let mac = Hmac::<Sha256>::new_from_slice(key).unwrap().chain_update(&signed).finalize().into_bytes();
        format!("{signed}.{}", BASE64_URL_SAFE_NO_PAD.encode(mac))
    }

    fn with_header(&self, name: &str, value: Value) -> String {
        let mut header = self.header();
        header[name] = value;
        Self::sign(&self.key, &header.to_string(), &self.claims().to_string())
    }

    fn with_claim(&self, name: &str, value: Value) -> String {
        let mut claims = self.claims();
        claims[name] = value;
        Self::sign(&self.key, &self.header().to_string(), &claims.to_string())
    }

    fn unsigned(&self, algorithm: &str) -> String {
        let mut header = self.header();
        header["alg"] = algorithm.into();
        format!("{}.{}.", encode(&header.to_string()), encode(&self.claims().to_string()))
    }

    fn signed_as_hs512(&self) -> String {
        let mut header = self.header();
        header["alg"] = "HS512".into();
        let signed = format!("{}.{}", encode(&header.to_string()), encode(&self.claims().to_string()));
        let mac = Hmac::<Sha512>::new_from_slice(&self.key).unwrap().chain_update(&signed).finalize().into_bytes();
        format!("{signed}.{}", BASE64_URL_SAFE_NO_PAD.encode(mac))
    }

    fn without_kid(&self) -> String {
        let mut header = self.header();
        header.as_object_mut().unwrap().remove("kid");
        Self::sign(&self.key, &header.to_string(), &self.claims().to_string())
    }

    fn twice(&self, claim: &str, value: &Value) -> String {
        let claims = self.claims().to_string();
        let twice = format!("{},\"{claim}\":{value}}}", claims.trim_end_matches('}'));
        Self::sign(&self.key, &self.header().to_string(), &twice)
    }

    fn in_seconds(&self, claim: &str, seconds: i64) -> String {
        self.with_claim(claim, (self.claims()["iat"].as_i64().unwrap() + seconds).into())
    }

    fn cut(&self, bytes: usize) -> String {
        self.token[..self.token.len() - bytes].to_owned()
    }
}

fn encode(text: &str) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(text)
}

fn keys_file(shop: &Shop) -> PathBuf {
    shop.args.config().auth.auth_keys_file
}

#[rstest]
#[case::unsigned(|f: &Forger| f.unsigned("none"))]
#[case::unsigned_in_capitals(|f: &Forger| f.unsigned("None"))]
#[case::none_with_a_good_signature(|f: &Forger| f.with_header("alg", json!("none")))]
#[case::hs512_with_the_same_key(Forger::signed_as_hs512)]
#[case::said_to_be_rs256(|f: &Forger| f.with_header("alg", json!("RS256")))]
#[case::said_to_be_es256(|f: &Forger| f.with_header("alg", json!("ES256")))]
#[case::unknown_algorithm(|f: &Forger| f.with_header("alg", json!("HS1")))]
#[case::wrong_kid(|f: &Forger| f.with_header("kid", json!("k9")))]
#[case::kid_that_is_a_path(|f: &Forger| f.with_header("kid", json!("../../dev/null")))]
#[case::no_kid(Forger::without_kid)]
#[case::foreign_key(|f: &Forger| Forger::sign(&[7; 32], &f.header().to_string(), &f.claims().to_string()))]
#[case::empty_key(|f: &Forger| Forger::sign(b"", &f.header().to_string(), &f.claims().to_string()))]
#[case::key_in_the_header(|f: &Forger| {
    let mut header = f.header();
    header["jwk"] = json!({ "kty": "oct", "k": BASE64_URL_SAFE_NO_PAD.encode([7; 32]) });
    Forger::sign(&[7; 32], &header.to_string(), &f.claims().to_string())
})]
#[case::key_from_somewhere(|f: &Forger| {
    let mut header = f.header();
    header["jku"] = json!("https://evil.example.com/keys.json");
    Forger::sign(&[7; 32], &header.to_string(), &f.claims().to_string())
})]
#[case::expired(|f: &Forger| f.in_seconds("exp", -31))]
#[case::not_yet(|f: &Forger| f.in_seconds("nbf", 600))]
#[case::issued_in_the_future(|f: &Forger| f.in_seconds("iat", 600))]
#[case::wrong_audience(|f: &Forger| f.with_claim("aud", json!("another-api")))]
#[case::wrong_issuer(|f: &Forger| f.with_claim("iss", json!("someone")))]
#[case::wrong_type(|f: &Forger| f.with_claim("typ", json!("refresh")))]
#[case::another_user(|f: &Forger| f.with_claim("sub", json!("0123456789abcdef01234567")))]
#[case::another_session(|f: &Forger| f.with_claim("sid", json!("0123456789abcdef01234567")))]
#[case::unknown_role(|f: &Forger| f.with_claim("role", json!("root")))]
#[case::refresh_token(|f: &Forger| f.cookie.clone())]
#[case::cut_by_a_byte(|f: &Forger| f.cut(1))]
#[case::cut_by_half(|f: &Forger| f.cut(f.token.len() / 2))]
#[case::no_signature(|f: &Forger| f.token.rsplit_once('.').unwrap().0.to_owned())]
#[case::claim_twice(|f: &Forger| f.twice("sub", &json!("0123456789abcdef01234567")))]
#[case::claim_twice_alike(|f: &Forger| f.twice("typ", &json!("access")))]
#[case::extra_segment(|f: &Forger| format!("{}.{}", f.token, encode("{}")))]
#[case::empty_extra_segment(|f: &Forger| format!("{}.", f.token))]
#[case::padded(|f: &Forger| format!("{}=", f.token))]
#[case::huge(|f: &Forger| {
    let mut claims = f.claims();
    claims["x"] = json!("x".repeat(16_000));
    Forger::sign(&[7; 32], &f.header().to_string(), &claims.to_string())
})]
#[case::huge_nonsense(|_: &Forger| "a".repeat(32_000))]
#[tokio::test]
async fn a_forged_token_is_refused(#[case] forge: fn(&Forger) -> String) {
    with_shop(async |shop| {
        let forger = Forger::of(shop).await;
        assert_eq!(shop.get("/auth/me", &forger.token).await.status, 200);
        let untouched = Forger::sign(&forger.key, &forger.header().to_string(), &forger.claims().to_string());
        assert_eq!(shop.get("/auth/me", &untouched).await.status, 200, "the forger signs as the shop does");
        let answer = shop.get("/auth/me", &forge(&forger)).await;
        assert_eq!(answer.problem(), (401, "unauthenticated".into()));
    })
    .await;
}

/// Writes the keys file of all replicas, as a changed Secret would be.
pub fn write_keys(shop: &Shop, signing: &str, keys: &Value) {
    let path = keys_file(shop);
    let fresh = path.with_extension("new");
    std::fs::write(&fresh, json!({ "signing": signing, "keys": keys }).to_string()).unwrap();
    std::fs::rename(fresh, path).unwrap();
}

/// Uses a token at both replicas until the flag is set; says how often, and panics at the first refusal.
async fn use_until(stop: &std::sync::atomic::AtomicBool, replicas: [&Shop; 2], email: &str) -> u32 {
    let (mut used, mut token) = (0, replicas[0].login(email, PASSWORD).await.token());
    let mut cookie = replicas[1].login(email, PASSWORD).await.cookie();
    while !stop.load(Ordering::Relaxed) {
        for replica in replicas {
            let answer = replica.get("/auth/me", &token).await;
            assert_eq!(answer.status, 200, "after {used} calls: {answer:?}");
            let refreshed = replica.refresh(&cookie).await;
            assert_eq!(refreshed.status, 200, "after {used} calls: {refreshed:?}");
            (token, cookie) = (refreshed.token(), refreshed.cookie());
            used += 1;
        }
    }
    used
}

#[tokio::test]
async fn keys_are_changed_without_a_refusal() {
    with_shop(async |shop| {
        let other = shop.beside(|_| {}).await;
        let old = Forger::of(shop).await;
        let email = format!("{}@example.com", random_name("k"));
        shop.register(&email).await;
        let new = ids::random_bytes::<32>().unwrap();
        let (k1, k2) = (BASE64_STANDARD.encode(&old.key), BASE64_STANDARD.encode(new));
        let mut header = old.header();
        header["kid"] = "k2".into();
        let signed_with_new = Forger::sign(&new, &header.to_string(), &old.claims().to_string());
        assert_eq!(shop.get("/auth/me", &signed_with_new).await.status, 401);

        let stop = std::sync::atomic::AtomicBool::new(false);
        let change = async {
            // First the new key is only accepted, until every replica knows it; then it signs.
            write_keys(shop, "k1", &json!({ "k1": k1, "k2": k2 }));
            for replica in [shop, &other] {
                eventually("the new key", || async {
                    (replica.get("/auth/me", &signed_with_new).await.status == 200).then_some(())
                })
                .await;
            }
            write_keys(shop, "k2", &json!({ "k1": k1, "k2": k2 }));
            for replica in [shop, &other] {
                eventually("tokens of the new key", || async {
                    let token = replica.login(&email, PASSWORD).await.token();
                    (part(&token, 0)["kid"] == "k2").then_some(())
                })
                .await;
            }
            assert_eq!(other.get("/auth/me", &old.token).await.status, 200, "the old key is still accepted");
            stop.store(true, Ordering::Relaxed);
        };
        let (used, ()) = tokio::join!(use_until(&stop, [shop, &other], &email), change);
        assert!(used > 10, "{used}");

        // Once the old key is gone its access tokens are refused, but sessions go on.
        write_keys(shop, "k2", &json!({ "k2": k2 }));
        for replica in [shop, &other] {
            eventually("the end of the old key", || async {
                (replica.get("/auth/me", &old.token).await.status == 401).then_some(())
            })
            .await;
        }
        assert_eq!(shop.refresh(&old.cookie).await.status, 200);
    })
    .await;
}
