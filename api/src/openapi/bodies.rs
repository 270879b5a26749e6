//! What the document says of bodies as a whole: requests have no other fields than those it names, and a problem's code is
//! one of the table.

use std::collections::BTreeSet;

use serde_json::Value;
use utoipa::openapi::{OpenApi, RefOr, path::Operation, schema::AdditionalProperties, schema::Schema};

use crate::problem::codes::CODES;

const SCHEMAS: &str = "#/components/schemas/";

/// Closes the schemas of the bodies of requests: unknown fields are refused.
pub fn close(document: &mut OpenApi, operations: &[Operation]) {
    let bodies = operations.iter().filter_map(|operation| serde_json::to_value(&operation.request_body).ok());
    let mut open: Vec<String> = bodies.flat_map(|body| referred(&body)).collect();
    let mut closed = BTreeSet::new();
    let Some(components) = &mut document.components else { return };
    while let Some(name) = open.pop() {
        let Some(schema) = components.schemas.get_mut(&name) else { continue };
        if !closed.insert(name) {
            continue;
        }
        open.extend(serde_json::to_value(&*schema).iter().flat_map(referred));
        if let RefOr::T(Schema::Object(object)) = schema
            && !object.properties.is_empty()
        {
            object.additional_properties = Some(Box::new(AdditionalProperties::FreeForm(false)));
        }
    }
}

/// The names of the schemas that a part of the document refers to.
fn referred(part: &Value) -> Vec<String> {
    match part {
        Value::Object(members) => {
            let own = members.get("$ref").and_then(Value::as_str).and_then(|to| to.strip_prefix(SCHEMAS));
            own.map(str::to_owned).into_iter().chain(members.values().flat_map(referred)).collect()
        }
        Value::Array(parts) => parts.iter().flat_map(referred).collect(),
        _ => Vec::new(),
    }
}

/// Names the codes in the schema of a problem.
pub fn name_codes(document: &mut OpenApi) {
    let components = document.components.as_mut();
    let Some(RefOr::T(Schema::Object(problem))) = components.and_then(|all| all.schemas.get_mut("ProblemBody")) else {
        return;
    };
    if let Some(RefOr::T(Schema::Object(code))) = problem.properties.get_mut("code") {
        code.enum_values = Some(CODES.iter().map(|code| code.name.into()).collect());
    }
}
