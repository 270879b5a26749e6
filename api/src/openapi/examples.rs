//! Examples of bodies for the document, from one table: `examples.json` has them by operation, under `request` and under
//! the status of each answer.

use std::collections::BTreeMap;

use serde_json::Value;
use utoipa::openapi::{Content, RefOr, path::Operation};

type Table = BTreeMap<String, BTreeMap<String, Value>>;

const JSON: &str = include_str!("examples.json");

/// The table. The tests of the document fail when it cannot be read: nothing would have an example.
pub fn table() -> Table {
    serde_json::from_str(JSON).unwrap_or_default()
}

/// Gives each body of the operation the example that the table has of it.
pub fn add(table: &Table, operation: &mut Operation) {
    let Some(examples) = operation.operation_id.as_ref().and_then(|id| table.get(id)) else { return };
    if let (Some(RefOr::T(body)), Some(example)) = (&mut operation.request_body, examples.get("request")) {
        body.content.values_mut().for_each(|content| set(content, example));
    }
    for (status, response) in &mut operation.responses.responses {
        if let (RefOr::T(response), Some(example)) = (response, examples.get(status)) {
            response.content.values_mut().for_each(|content| set(content, example));
        }
    }
}

fn set(content: &mut RefOr<Content>, example: &Value) {
    if let RefOr::T(content) = content {
        content.example = Some(example.clone());
    }
}
