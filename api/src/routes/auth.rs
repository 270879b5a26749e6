//! Accounts and sessions over HTTP.

use axum::{
    Json,
    extract::State,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use secrecy::SecretString;
use serde::Serialize;
use shop_domain::account::Role;
use utoipa::ToSchema;

use super::ProblemBody;
use crate::{
    app::App,
    extract::{
        Body, CurrentUser, Fields, FromFields, RefreshCookie, SessionProofs, SignIn, expired_cookie, refresh_cookie,
    },
    problem::Problem,
    service::{accounts::NewPassword, email::Email, users::User},
};

/// An address and a password.
#[derive(ToSchema)]
pub struct Credentials {
    #[schema(example = "ann@example.com")]
    email: String,
    #[schema(value_type = String, format = Password, example = "correct horse")]
    password: SecretString,
}

impl FromFields for Credentials {
    fn from_fields(fields: &mut Fields<'_>) -> Option<Self> {
        let (email, password) = (fields.text("email"), fields.text("password"));
        Some(Self { email: email?, password: password?.into() })
    }
}

/// An address that can receive mail, and a password of the shop's least length.
#[derive(ToSchema)]
pub struct Registration {
    #[schema(format = Email, max_length = 254, example = "ann@example.com")]
    email: String,
    #[schema(format = Password, min_length = 6, max_length = 1024, example = "correct horse")]
    password: String,
}

impl FromFields for Registration {
    fn from_fields(fields: &mut Fields<'_>) -> Option<Self> {
        let (email, password) = (fields.text("email"), fields.text("password"));
        Some(Self { email: email?, password: password? })
    }
}

/// An account as its owner sees it.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Profile {
    id: String,
    email: String,
    #[schema(value_type = String, example = "customer", pattern = "^(customer|staff)$")]
    role: Role,
    #[schema(value_type = String, format = DateTime)]
    created_at: jiff::Timestamp,
}

impl Profile {
    pub fn of(user: User) -> Self {
        Self { id: user.id.to_string(), email: user.email, role: user.role, created_at: user.created_at }
    }
}

#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Registered {
    #[schema(example = "success")]
    status: &'static str,
    message: &'static str,
    /// Send it as `Authorization: Bearer`.
    access_token: String,
    user: Profile,
}

#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct SignedIn {
    #[schema(example = "success")]
    status: &'static str,
    message: &'static str,
    /// Send it as `Authorization: Bearer`.
    access_token: String,
}

#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Refreshed {
    #[schema(example = "success")]
    status: &'static str,
    /// Send it as `Authorization: Bearer`.
    access_token: String,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct SignedOut {
    #[schema(example = "success")]
    status: &'static str,
    message: &'static str,
}

/// Make an account and sign in.
#[utoipa::path(post, path = "/auth/register", operation_id = "register", tag = "auth", security(()), request_body = Registration, responses(
    (status = 201, body = Registered, description = "Account made; the refresh token is in a cookie", headers(("Set-Cookie", description = "`refreshToken`, to be sent to refresh-token and logout"))),
    (status = 409, body = ProblemBody, description = "email_taken", content_type = "application/problem+json"),
    (status = 503, body = ProblemBody, description = "busy", content_type = "application/problem+json"),
))]
pub async fn register(
    State(app): State<App>,
    sign_in: SignIn,
    Body(body): Body<Registration>,
) -> Result<Response, Problem> {
    let mut faults = Vec::new();
    let email = Email::parse(&body.email).map_err(|error| faults.push(fault("/email", &error)));
    let password = NewPassword::parse(body.password, app.password_min_length);
    let password = password.map_err(|error| faults.push(fault("/password", &error)));
    let (Ok(email), Ok(password)) = (email, password) else { return Err(Problem::invalid(faults)) };
    sign_in.count_account(&app, email.as_str()).await?;
    let (user, grant) = app.accounts.register(&email, password, &sign_in.origin).await?;
    let message = "User created successfully";
    let body = Registered { status: "success", message, access_token: grant.access, user: Profile::of(user) };
    Ok((StatusCode::CREATED, refresh_cookie(&app, &grant.refresh), Json(body)).into_response())
}

/// Sign in.
#[utoipa::path(post, path = "/auth/login", operation_id = "login", tag = "auth", security(()), request_body = Credentials, responses(
    (status = 200, body = SignedIn, description = "The refresh token is in a cookie", headers(("Set-Cookie", description = "`refreshToken`, to be sent to refresh-token and logout"))),
    (status = 401, body = ProblemBody, content_type = "application/problem+json"),
    (status = 503, body = ProblemBody, description = "busy", content_type = "application/problem+json"),
))]
pub async fn login(
    State(app): State<App>,
    sign_in: SignIn,
    Body(body): Body<Credentials>,
) -> Result<Response, Problem> {
    sign_in.count_account(&app, &Email::normalise(&body.email)).await?;
    let grant = app.accounts.login(&body.email, body.password, &sign_in.origin).await?;
    let body = SignedIn { status: "success", message: "Login successful", access_token: grant.access };
    Ok((refresh_cookie(&app, &grant.refresh), Json(body)).into_response())
}

/// Exchange the refresh cookie for a new access token and a new cookie.
#[utoipa::path(post, path = "/auth/refresh-token", operation_id = "refreshToken", tag = "auth", security(("refreshCookie" = [])), responses(
    (status = 200, body = Refreshed, description = "Both tokens are new", headers(("Set-Cookie", description = "`refreshToken`, to be sent to refresh-token and logout"))),
    (status = 401, body = ProblemBody, content_type = "application/problem+json"),
))]
pub async fn refresh(State(app): State<App>, RefreshCookie(token): RefreshCookie) -> Result<Response, Problem> {
    let Some(token) = token else {
        return Err(Problem::unauthenticated("no refresh token: sign in"));
    };
    let grant = app.sessions.refresh(&token).await?;
    let body = Refreshed { status: "success", access_token: grant.access };
    Ok((refresh_cookie(&app, &grant.refresh), Json(body)).into_response())
}

/// End the session of the cookie, and that of the access token.
#[utoipa::path(post, path = "/auth/logout", operation_id = "logout", tag = "auth",
    security(("refreshCookie" = []), ("bearer" = []), ()), responses(
    (status = 200, body = SignedOut, description = "Signed out, also when nobody was signed in", headers(("Set-Cookie", description = "Takes the refresh token away"))),
))]
pub async fn logout(State(app): State<App>, SessionProofs(proofs): SessionProofs) -> Result<Response, Problem> {
    for proof in &proofs {
        app.sessions.close(proof).await?;
    }
    let body = SignedOut { status: "success", message: "Successfully logged out" };
    Ok((expired_cookie(&app), Json(body)).into_response())
}

/// The same by GET, as the first version of this API had it.
#[utoipa::path(get, path = "/auth/logout", operation_id = "logoutByGet", tag = "auth",
    security(("refreshCookie" = []), ("bearer" = []), ()), responses(
    (status = 200, body = SignedOut, description = "Signed out, also when nobody was signed in", headers(("Set-Cookie", description = "Takes the refresh token away"))),
))]
pub async fn logout_by_get(app: State<App>, proofs: SessionProofs) -> Result<Response, Problem> {
    logout(app, proofs).await
}

/// The account of the access token.
#[utoipa::path(get, path = "/auth/me", operation_id = "getProfile", tag = "auth", responses(
    (status = 200, body = Profile),
))]
pub async fn me(CurrentUser(user): CurrentUser) -> Json<Profile> {
    Json(Profile { id: user.user.to_string(), email: user.email, role: user.role, created_at: user.created_at })
}

fn fault(pointer: &str, error: &dyn std::error::Error) -> shop_domain::order::FieldFault {
    shop_domain::order::FieldFault::new(pointer, error.to_string())
}
