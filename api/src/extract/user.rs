//! Who calls, by bearer token: checks the token, then the role, then the caller's limit.

use axum::{
    extract::FromRequestParts,
    http::{HeaderMap, Method, header, request::Parts},
};
use shop_domain::account::Role;

use crate::{app::App, layers::limit, limits::Standings, problem::Problem, service::sessions::Principal};

/// Anyone who is signed in.
#[derive(Debug, Clone)]
pub struct CurrentUser(pub Principal);

/// A member of the staff.
#[derive(Debug, Clone)]
pub struct Staff(pub Principal);

/// The access token itself, for calls that go on for longer than it was checked. Never log it.
pub struct AccessToken(pub String);

impl<S: Send + Sync> FromRequestParts<S> for AccessToken {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        required_token(&parts.headers).map(|token| Self(token.to_owned()))
    }
}

impl FromRequestParts<App> for CurrentUser {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Problem> {
        let principal = authenticate(parts, app).await?;
        count(parts, app, &principal).await?;
        Ok(Self(principal))
    }
}

impl FromRequestParts<App> for Staff {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Problem> {
        let principal = authenticate(parts, app).await?;
        if principal.role != Role::Staff {
            return Err(Problem::forbidden());
        }
        count(parts, app, &principal).await?;
        Ok(Self(principal))
    }
}

async fn authenticate(parts: &Parts, app: &App) -> Result<Principal, Problem> {
    Ok(app.sessions.authenticate(required_token(&parts.headers)?).await?)
}

fn required_token(headers: &HeaderMap) -> Result<&str, Problem> {
    bearer_token(headers)
        .ok_or_else(|| Problem::unauthenticated("sign in and send the access token as Authorization: Bearer"))
}

/// The token of the `Authorization` header (RFC 6750, 2.1).
pub(super) fn bearer_token(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(header::AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

async fn count(parts: &Parts, app: &App, principal: &Principal) -> Result<(), Problem> {
    let standings = parts.extensions.get::<Standings>().cloned().unwrap_or_default();
    let reads = matches!(parts.method, Method::GET | Method::HEAD);
    let outcome = if reads { app.limits.read(&principal.user) } else { app.limits.write(&principal.user).await };
    limit::note(&standings, outcome)
}
