//! What the api tells the operator of itself: `GET /report` on the operations port. Ids of token keys, never keys.

use axum::{Json, Router, extract::State, routing::get};
use serde::Serialize;

use crate::keys::Keys;

/// The answer of `/report`. A rotation of the keys goes on when every pod says what it needs.
#[derive(Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// Id of the key that signs.
    pub signing_key: String,
    /// Ids of all keys whose tokens are accepted.
    pub accepted_keys: Vec<String>,
}

impl Report {
    pub fn of(keys: &Keys) -> Self {
        let ring = keys.current();
        Self {
            signing_key: ring.signing_id().to_owned(),
            accepted_keys: ring.ids().into_iter().map(str::to_owned).collect(),
        }
    }
}

/// The route of the report.
pub fn routes(keys: Keys) -> Router {
    Router::new().route("/report", get(show)).with_state(keys)
}

async fn show(State(keys): State<Keys>) -> Json<Report> {
    Json(Report::of(&keys))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::tests::{key_text, ring};

    #[test]
    fn the_report_has_the_names_that_the_operator_reads_and_no_key() {
        let report = serde_json::to_value(Report::of(&Keys::new(ring(&[2, 1])))).unwrap();
        assert_eq!(report, serde_json::json!({ "signingKey": "k2", "acceptedKeys": ["k1", "k2"] }));
        assert!(!report.to_string().contains(&key_text(1)));
    }
}
