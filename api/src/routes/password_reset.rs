//! Replacing a forgotten password over HTTP.

use axum::{Json, extract::State, http::StatusCode};
use serde::Serialize;
use utoipa::ToSchema;

use super::ProblemBody;
use crate::{
    app::App,
    extract::{Body, Fields, FromFields, Id, SignIn},
    problem::Problem,
    service::{accounts::NewPassword, email::Email},
};

/// The address of an account.
#[derive(ToSchema)]
pub struct ResetRequest {
    #[schema(format = Email, max_length = 254, example = "ann@example.com")]
    email: String,
}

impl FromFields for ResetRequest {
    fn from_fields(fields: &mut Fields<'_>) -> Option<Self> {
        Some(Self { email: fields.text("email")? })
    }
}

/// A password of the shop's least length.
#[derive(ToSchema)]
pub struct NewPasswordBody {
    #[schema(format = Password, min_length = 6, max_length = 1024, example = "correct horse")]
    password: String,
}

impl FromFields for NewPasswordBody {
    fn from_fields(fields: &mut Fields<'_>) -> Option<Self> {
        Some(Self { password: fields.text("password")? })
    }
}

#[derive(Debug, Serialize, ToSchema)]
pub struct ResetAnswer {
    #[schema(example = "success")]
    status: &'static str,
    message: &'static str,
}

/// Ask for a token by mail: it sets a new password once, within an hour.
#[utoipa::path(post, path = "/auth/password-reset", operation_id = "requestPasswordReset", tag = "auth", security(()), request_body = ResetRequest, responses(
    (status = 202, body = ResetAnswer, description = "Whether there is an account is not told; only then a mail is sent. The three newest tokens of an account are good"),
))]
pub async fn request(
    State(app): State<App>,
    sign_in: SignIn,
    Body(body): Body<ResetRequest>,
) -> Result<(StatusCode, Json<ResetAnswer>), Problem> {
    let email = Email::parse(&body.email).map_err(|error| Problem::field("/email", &error))?;
    // Counted apart from sign-ins: who has tried too many passwords can still ask for a new one.
    sign_in.count_account(&app, &format!("reset {}", email.as_str())).await?;
    app.password_resets.request(&email).await?;
    let message = "if there is an account with this address, a mail is on its way to it";
    Ok((StatusCode::ACCEPTED, Json(ResetAnswer { status: "success", message })))
}

/// Set a new password with the token of the mail, and end all sessions of the account.
#[utoipa::path(post, path = "/auth/password-reset/{token}", operation_id = "resetPassword", tag = "auth", security(()), request_body = NewPasswordBody,
    params(("token" = String, Path, description = "As it stands in the mail")), responses(
    (status = 200, body = ResetAnswer, description = "The password is set: sign in with it"),
    (status = 400, body = ProblemBody, description = "invalid_reset_token: wrong, used or expired; invalid_request: a password that may not be chosen, and the token stays good", content_type = "application/problem+json"),
    (status = 503, body = ProblemBody, description = "busy", content_type = "application/problem+json"),
))]
pub async fn set(
    State(app): State<App>,
    sign_in: SignIn,
    Id(token): Id<String>,
    Body(body): Body<NewPasswordBody>,
) -> Result<Json<ResetAnswer>, Problem> {
    let password = NewPassword::parse(body.password, app.password_min_length);
    let password = password.map_err(|error| Problem::field("/password", &error))?;
    app.password_resets.set(&token, password, &sign_in.origin).await?;
    Ok(Json(ResetAnswer { status: "success", message: "password changed; sign in with it" }))
}
