//! Headers and limits that single routes ask for.

use std::convert::Infallible;

use axum::{
    extract::FromRequestParts,
    http::{HeaderMap, header, request::Parts},
};
use shop_domain::{id::UserId, order::FieldFault};

use crate::{
    app::App,
    layers::{address::ClientAddress, limit},
    limits::Standings,
    problem::Problem,
    service::catalogue::Precondition,
    service::sessions::Origin,
};

const IDEMPOTENCY_KEY: &str = "idempotency-key";
const MAX_KEY: usize = 255;
/// Characters of a `User-Agent` that tell a device.
const MAX_DEVICE: usize = 200;
const LAST_EVENT_ID: &str = "last-event-id";

/// The key under which this request may be repeated, if the client gave one.
#[derive(Debug)]
pub struct IdempotencyKey(pub Option<String>);

impl<S: Send + Sync> FromRequestParts<S> for IdempotencyKey {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let Some(value) = parts.headers.get(IDEMPOTENCY_KEY) else { return Ok(Self(None)) };
        let key = value.to_str().unwrap_or_default();
        if (1..=MAX_KEY).contains(&key.len()) && key.bytes().all(|b| matches!(b, b' '..=b'~')) {
            return Ok(Self(Some(key.to_owned())));
        }
        let detail = "Idempotency-Key must have 1 to 255 printable ASCII characters";
        Err(Problem::invalid(vec![FieldFault::new("", detail)]))
    }
}

/// The id of the last event that a client of a stream has seen. What is no id of ours counts as none.
#[derive(Debug)]
pub struct LastEventId(pub Option<i64>);

impl<S: Send + Sync> FromRequestParts<S> for LastEventId {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        let value = parts.headers.get(LAST_EVENT_ID).and_then(|value| value.to_str().ok());
        Ok(Self(value.and_then(|id| id.trim().parse().ok())))
    }
}

/// The versions for which a change is meant, if the client named any.
#[derive(Debug)]
pub struct IfMatch(pub Option<Precondition>);

impl<S: Send + Sync> FromRequestParts<S> for IfMatch {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let malformed = || {
            let detail = "If-Match must be an ETag, such as \"3\", several with commas between them, or *";
            Problem::invalid(vec![FieldFault::new("", detail)])
        };
        precondition(&parts.headers).map(Self).ok_or_else(malformed)
    }
}

/// Reads `If-Match` (RFC 9110, 13.1.1); None when it is malformed. An entity tag begins with the version it is of, which is
/// what counts: a sale changes the availability in the tag's digest, and must not stand in the way of a change. Weak tags
/// and tags of something else match nothing.
#[expect(clippy::option_option, reason = "malformed, absent, or there")]
fn precondition(headers: &HeaderMap) -> Option<Option<Precondition>> {
    if !headers.contains_key(header::IF_MATCH) {
        return Some(None);
    }
    let (mut versions, mut any) = (Vec::new(), false);
    for value in headers.get_all(header::IF_MATCH) {
        for tag in value.to_str().ok()?.split(',').map(str::trim) {
            any |= tag == "*";
            let opaque = tag.trim_start_matches("W/").strip_prefix('"').and_then(|tag| tag.strip_suffix('"'));
            if tag == "*" || tag.starts_with("W/") && opaque.is_some() {
                continue;
            }
            versions.extend(opaque?.split('-').next().and_then(|version| version.parse::<i64>().ok()));
        }
    }
    Some(Some(if any { Precondition::Any } else { Precondition::Versions(versions) }))
}

/// Counts an attempt to prove a password against its address; the account is counted when the body is known.
pub struct SignIn {
    standings: Standings,
    pub origin: Origin,
}

impl FromRequestParts<App> for SignIn {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Problem> {
        let standings = parts.extensions.get::<Standings>().cloned().unwrap_or_default();
        let address = parts.extensions.get::<ClientAddress>().copied();
        if let Some(address) = address {
            limit::note(&standings, app.limits.sign_in_from(address.bucket()).await)?;
        }
        let origin = Origin {
            device: device(&parts.headers),
            address: address.map(ClientAddress::ip),
            network: address.map(ClientAddress::bucket),
        };
        Ok(Self { standings, origin })
    }
}

impl SignIn {
    /// Counts the attempt against the account, whether there is one or not. Strangers who use this limit up do not lock
    /// the owner out: an address from which the account was signed in to before is held by its own limit alone.
    pub async fn count_account(&self, app: &App, email: &str) -> Result<(), Problem> {
        let counted = app.limits.sign_in_as(email).await;
        if counted.is_err() && app.accounts.knows(email, &self.origin).await {
            return Ok(());
        }
        limit::note(&self.standings, counted)
    }

    /// Counts the attempt against someone who is signed in and gives the password once more.
    pub async fn count_user(&self, app: &App, user: &UserId) -> Result<(), Problem> {
        limit::note(&self.standings, app.limits.confirm_as(user).await)
    }
}

fn device(headers: &HeaderMap) -> Option<String> {
    let text = headers.get(header::USER_AGENT)?.to_str().ok()?.trim();
    (!text.is_empty()).then(|| text.chars().take(MAX_DEVICE).collect())
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("*", Some(Precondition::Any))]
    #[case("\"3\"", Some(Precondition::Versions(vec![3])))]
    #[case("\"3-0123ab\"", Some(Precondition::Versions(vec![3])))]
    #[case("\"3\", \"12-ab\"", Some(Precondition::Versions(vec![3, 12])))]
    #[case("W/\"3\"", Some(Precondition::Versions(vec![])))]
    #[case("\"0123ab\"", Some(Precondition::Versions(vec![])))]
    #[case("\"\"", Some(Precondition::Versions(vec![])))]
    #[case("3", None)]
    #[case("\"3", None)]
    #[case("W/3", None)]
    #[case("", None)]
    fn if_match_is_read(#[case] value: &'static str, #[case] expected: Option<Precondition>) {
        let headers = HeaderMap::from_iter([(header::IF_MATCH, HeaderValue::from_static(value))]);
        assert_eq!(precondition(&headers), expected.map(Some));
        assert_eq!(precondition(&HeaderMap::new()), Some(None));
    }
}
