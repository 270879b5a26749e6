//! Headers and limits that single routes ask for.

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
    service::sessions::Origin,
};

const IDEMPOTENCY_KEY: &str = "idempotency-key";
const MAX_KEY: usize = 255;
/// Characters of a `User-Agent` that tell a device.
const MAX_DEVICE: usize = 200;

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
