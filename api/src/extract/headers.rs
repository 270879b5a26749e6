//! Headers and limits that single routes ask for.

use axum::{extract::FromRequestParts, http::request::Parts};
use shop_domain::order::FieldFault;

use crate::{
    app::App,
    layers::{address::ClientAddress, limit},
    limits::Standings,
    problem::Problem,
};

const IDEMPOTENCY_KEY: &str = "idempotency-key";
const MAX_KEY: usize = 255;

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

/// Counts an attempt to sign in or register against its address; the account is counted when the body is known.
#[derive(Debug)]
pub struct SignIn {
    standings: Standings,
}

impl FromRequestParts<App> for SignIn {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Problem> {
        let standings = parts.extensions.get::<Standings>().cloned().unwrap_or_default();
        if let Some(address) = parts.extensions.get::<ClientAddress>() {
            limit::note(&standings, app.limits.sign_in_from(address.bucket()))?;
        }
        Ok(Self { standings })
    }
}

impl SignIn {
    /// Counts the attempt against the account, whether there is one or not.
    pub fn count_account(&self, app: &App, email: &str) -> Result<(), Problem> {
        limit::note(&self.standings, app.limits.sign_in_as(email))
    }
}
