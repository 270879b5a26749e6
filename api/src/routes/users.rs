//! Accounts and roles over HTTP, for staff.

use axum::{Json, extract::State};
use serde::Serialize;
use shop_domain::{account::Role, id::UserId};
use utoipa::{IntoParams, ToSchema};

use super::{ProblemBody, auth::Profile};
use crate::{
    app::App,
    extract::{Body, Fields, FromFields, Id, Limit, Query, Staff, to_cursor},
    problem::Problem,
    service::users::{UserCursor, UserQuery},
};

#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct UserPageBody {
    data: Vec<Profile>,
    has_more: bool,
    next_cursor: Option<String>,
}

/// Which accounts to list, in the order of their addresses.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct UserParameters {
    /// What the address begins with.
    #[param(value_type = Option<String>)]
    q: Option<String>,
    /// The `nextCursor` of the page before.
    #[param(value_type = Option<String>)]
    cursor: Option<UserCursor>,
    #[param(value_type = Option<u8>, minimum = 1, maximum = 100)]
    limit: Limit,
}

impl FromFields for UserParameters {
    fn from_fields(fields: &mut Fields<'_>) -> Option<Self> {
        Some(Self { q: fields.optional_text("q"), cursor: fields.cursor(), limit: fields.limit() })
    }
}

/// A role to give.
#[derive(Debug, ToSchema)]
pub struct RoleChange {
    #[schema(value_type = String, example = "staff", pattern = "^(customer|staff)$")]
    role: Role,
}

impl FromFields for RoleChange {
    fn from_fields(fields: &mut Fields<'_>) -> Option<Self> {
        let name = fields.text("role")?;
        let role = [Role::Customer, Role::Staff].into_iter().find(|role| role.as_str() == name);
        if role.is_none() {
            fields.fault("role", "must be customer or staff");
        }
        role.map(|role| Self { role })
    }
}

/// The accounts of the shop.
#[utoipa::path(get, path = "/admin/users", operation_id = "listUsers", tag = "users", params(UserParameters), responses(
    (status = 200, body = UserPageBody),
    (status = 403, body = ProblemBody, content_type = "application/problem+json"),
))]
pub async fn list(
    State(app): State<App>,
    _staff: Staff,
    Query(parameters): Query<UserParameters>,
) -> Result<Json<UserPageBody>, Problem> {
    let UserParameters { q, cursor, limit } = parameters;
    let page = app.users.list(UserQuery { prefix: q, cursor, limit: limit.0 }).await?;
    Ok(Json(UserPageBody {
        has_more: page.next.is_some(),
        next_cursor: page.next.as_ref().and_then(to_cursor),
        data: page.users.into_iter().map(Profile::of).collect(),
    }))
}

/// Give an account a role. Known everywhere within five seconds.
#[utoipa::path(patch, path = "/admin/users/{id}", operation_id = "changeUser", tag = "users", request_body = RoleChange, params(("id" = String, Path, pattern = "^[0-9a-f]{24}$")), responses(
    (status = 200, body = Profile),
    (status = 403, body = ProblemBody, content_type = "application/problem+json"),
    (status = 404, body = ProblemBody, content_type = "application/problem+json"),
    (status = 409, body = ProblemBody, description = "own_role", content_type = "application/problem+json"),
))]
pub async fn change(
    State(app): State<App>,
    Staff(staff): Staff,
    Id(id): Id<UserId>,
    Body(body): Body<RoleChange>,
) -> Result<Json<Profile>, Problem> {
    Ok(Json(Profile::of(app.users.set_role(&staff, &id, body.role).await?)))
}
