//! The cookie that holds the refresh token: read and written here only.

use std::convert::Infallible;

use axum::{
    extract::FromRequestParts,
    http::{HeaderMap, HeaderName, HeaderValue, header, request::Parts},
};
use axum_extra::extract::CookieJar;

use super::user::bearer_token;
use crate::{
    app::App,
    service::sessions::{REFRESH_LIFETIME, SessionProof},
    tokens::RefreshToken,
};

const NAME: &str = "refreshToken";

/// The refresh token that a request brings, if its cookie has the form of one.
pub struct RefreshCookie(pub Option<RefreshToken>);

/// All that a request brings to name sessions: the cookie, an access token, or both, which may be of different ones.
#[derive(Debug)]
pub struct SessionProofs(pub Vec<SessionProof>);

impl FromRequestParts<App> for RefreshCookie {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &App) -> Result<Self, Infallible> {
        Ok(Self(refresh_token(&parts.headers)))
    }
}

impl FromRequestParts<App> for SessionProofs {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &App) -> Result<Self, Infallible> {
        let cookie = refresh_token(&parts.headers).map(SessionProof::Refresh);
        let bearer = bearer_token(&parts.headers).map(|token| SessionProof::Access(token.to_owned()));
        Ok(Self(cookie.into_iter().chain(bearer).collect()))
    }
}

fn refresh_token(headers: &HeaderMap) -> Option<RefreshToken> {
    RefreshToken::parse(CookieJar::from_headers(headers).get(NAME)?.value())
}

/// Header that gives the browser a token to keep for as long as it is good.
pub fn refresh_cookie(app: &App, token: &RefreshToken) -> [(HeaderName, HeaderValue); 1] {
    set_cookie(app, token.expose(), REFRESH_LIFETIME.as_secs())
}

/// Header that makes the browser forget the token.
pub fn expired_cookie(app: &App) -> [(HeaderName, HeaderValue); 1] {
    set_cookie(app, "", 0)
}

fn set_cookie(app: &App, value: &str, max_age: i64) -> [(HeaderName, HeaderValue); 1] {
    let secure = if app.cookie_secure { "; Secure" } else { "" };
    let cookie = format!("{NAME}={value}; Max-Age={max_age}; Path=/; HttpOnly; SameSite=Strict{secure}");
    // A token is base64url and dots: always a valid header.
    [(header::SET_COOKIE, HeaderValue::from_str(&cookie).unwrap_or(HeaderValue::from_static("")))]
}
