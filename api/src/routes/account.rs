//! What someone does with their own account over HTTP: change the password, erase it.

use axum::{
    extract::State,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use secrecy::SecretString;
use utoipa::ToSchema;

use super::ProblemBody;
use crate::{
    app::App,
    extract::{Body, CurrentUser, Fields, FromFields, SignIn, expired_cookie},
    problem::Problem,
    service::accounts::NewPassword,
};

/// The password of today, and the one to come.
#[derive(ToSchema)]
#[schema(rename_all = "camelCase")]
pub struct PasswordChange {
    #[schema(value_type = String, format = Password, example = "correct horse")]
    current_password: SecretString,
    #[schema(format = Password, min_length = 6, max_length = 1024, example = "battery staple")]
    new_password: String,
}

impl FromFields for PasswordChange {
    fn from_fields(fields: &mut Fields<'_>) -> Option<Self> {
        let (current, new) = (fields.text("currentPassword"), fields.text("newPassword"));
        Some(Self { current_password: current?.into(), new_password: new? })
    }
}

/// The account's password, once more.
#[derive(ToSchema)]
pub struct Confirmation {
    #[schema(value_type = String, format = Password, example = "correct horse")]
    password: SecretString,
}

impl FromFields for Confirmation {
    fn from_fields(fields: &mut Fields<'_>) -> Option<Self> {
        Some(Self { password: fields.text("password")?.into() })
    }
}

/// Change the password. Ends all other sessions of the account.
#[utoipa::path(post, path = "/auth/password", operation_id = "changePassword", tag = "auth", request_body = PasswordChange, responses(
    (status = 204, description = "Changed; this session goes on, all others have ended"),
    (status = 401, body = ProblemBody, description = "No good token, or a wrong password", content_type = "application/problem+json"),
    (status = 503, body = ProblemBody, description = "busy", content_type = "application/problem+json"),
))]
pub async fn change_password(
    State(app): State<App>,
    CurrentUser(user): CurrentUser,
    sign_in: SignIn,
    Body(body): Body<PasswordChange>,
) -> Result<StatusCode, Problem> {
    let new = NewPassword::parse(body.new_password, app.password_min_length)
        .map_err(|error| Problem::field("/newPassword", &error))?;
    sign_in.count_user(&app, &user.user).await?;
    app.accounts.change_password(&user, body.current_password, new).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Erase the account. Its orders stay, without the address; mails that were still to come are not sent.
#[utoipa::path(delete, path = "/auth/me", operation_id = "eraseAccount", tag = "auth", request_body = Confirmation, responses(
    (status = 204, description = "Erased; all its sessions have ended, and the address is free again", headers(("Set-Cookie", description = "Takes the refresh token away"))),
    (status = 401, body = ProblemBody, description = "No good token, or a wrong password", content_type = "application/problem+json"),
    (status = 503, body = ProblemBody, description = "busy", content_type = "application/problem+json"),
))]
pub async fn erase(
    State(app): State<App>,
    CurrentUser(user): CurrentUser,
    sign_in: SignIn,
    Body(body): Body<Confirmation>,
) -> Result<Response, Problem> {
    sign_in.count_user(&app, &user.user).await?;
    let user = app.accounts.confirmed(&user, body.password).await?;
    app.erasure.erase(&user.id).await?;
    Ok((StatusCode::NO_CONTENT, expired_cookie(&app)).into_response())
}
