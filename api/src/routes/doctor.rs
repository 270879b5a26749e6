//! The shop's self-check over HTTP.

use axum::{Json, extract::State};
use serde::Serialize;
use utoipa::ToSchema;

use super::ProblemBody;
use crate::{app::App, extract::Staff, problem::Problem, service::doctor::Check};

/// What the shop found when it examined itself.
#[derive(Debug, Serialize, ToSchema)]
pub struct Diagnosis {
    status: Health,
    checks: Vec<CheckView>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[schema(as = DiagnosisStatus)]
enum Health {
    Ok,
    /// Some check failed.
    Degraded,
}

/// One thing that was looked at.
#[derive(Debug, Serialize, ToSchema)]
pub struct CheckView {
    /// `mongodb`, `redis`, `sqs`, `ses`, `clock`, `indexes`, `ledger` or `unfinished`.
    #[schema(example = "ledger")]
    name: &'static str,
    status: CheckStatus,
    /// For people.
    detail: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum CheckStatus {
    Ok,
    Failed,
}

impl From<Check> for CheckView {
    fn from(check: Check) -> Self {
        let (status, detail) = match check.finding {
            Ok(detail) => (CheckStatus::Ok, detail),
            Err(detail) => (CheckStatus::Failed, detail),
        };
        Self { name: check.name, status, detail }
    }
}

/// Examine the shop: what it depends on, its indexes, its ledger (the sum of the movements is the stock), its clock.
#[utoipa::path(get, path = "/admin/doctor", operation_id = "examine", tag = "system", responses(
    (status = 200, body = Diagnosis, description = "The findings, also when something is amiss"),
    (status = 403, body = ProblemBody, content_type = "application/problem+json"),
))]
pub async fn examine(State(app): State<App>, _staff: Staff) -> Result<Json<Diagnosis>, Problem> {
    let checks: Vec<CheckView> = app.doctor.examine().await.into_iter().map(CheckView::from).collect();
    let sound = checks.iter().all(|check| check.status == CheckStatus::Ok);
    Ok(Json(Diagnosis { status: if sound { Health::Ok } else { Health::Degraded }, checks }))
}
