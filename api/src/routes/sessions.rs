//! A user's own sessions over HTTP.

use axum::{Json, extract::State, http::StatusCode};
use jiff::Timestamp;
use serde::Serialize;
use shop_domain::id::SessionId;
use utoipa::ToSchema;

use super::ProblemBody;
use crate::{
    app::App,
    extract::{CurrentUser, Id},
    problem::Problem,
    service::sessions::Session,
};

/// A place where the account is signed in.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct SessionView {
    #[schema(example = "67c8830b7ef1b848ac52ebec")]
    id: String,
    /// The `User-Agent` that signed in.
    #[schema(example = "Mozilla/5.0 (X11; Linux x86_64)")]
    device: Option<String>,
    /// The address that signed in.
    #[schema(example = "198.51.100.7")]
    address: Option<String>,
    #[schema(value_type = String, format = DateTime)]
    created_at: Timestamp,
    /// When its access token was last renewed.
    #[schema(value_type = String, format = DateTime)]
    last_used_at: Timestamp,
    /// Whether it is the session of this request.
    current: bool,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct SessionList {
    data: Vec<SessionView>,
}

/// Where the account is signed in, newest first.
#[utoipa::path(get, path = "/auth/sessions", operation_id = "listSessions", tag = "auth", responses(
    (status = 200, body = SessionList),
))]
pub async fn list(State(app): State<App>, CurrentUser(user): CurrentUser) -> Result<Json<SessionList>, Problem> {
    let sessions = app.sessions.list(&user.user).await?;
    let data = sessions.into_iter().map(|session| view(session, &user.session)).collect();
    Ok(Json(SessionList { data }))
}

/// Sign out somewhere else. Known everywhere within five seconds.
#[utoipa::path(delete, path = "/auth/sessions/{id}", operation_id = "revokeSession", tag = "auth", params(("id" = String, Path, pattern = "^[0-9a-f]{24}$")), responses(
    (status = 204, description = "Ended"),
    (status = 404, body = ProblemBody, description = "Not there, not yours, or over already", content_type = "application/problem+json"),
))]
pub async fn revoke(
    State(app): State<App>,
    CurrentUser(user): CurrentUser,
    Id(id): Id<SessionId>,
) -> Result<StatusCode, Problem> {
    let revoked = app.sessions.revoke_of(&user.user, id).await?;
    if revoked { Ok(StatusCode::NO_CONTENT) } else { Err(Problem::not_found()) }
}

fn view(session: Session, current: &SessionId) -> SessionView {
    SessionView {
        current: session.id == *current,
        id: session.id.to_string(),
        device: session.device,
        address: session.address,
        created_at: session.created_at,
        last_used_at: session.last_used_at,
    }
}
