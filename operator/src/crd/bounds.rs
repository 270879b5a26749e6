//! Upper limits for schemas of Kubernetes that have none: what a shop may hold, and what its rules may cost, is limited.

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde_json::{Map, Value};

/// More than people write: 253 for a name and 63 for a value are the longest of Kubernetes' own.
const TEXT: u64 = 1024;
const ITEMS: u64 = 64;

/// The schema of a type of Kubernetes, with a limit on every list, map and text in it.
pub(super) fn bounded<T: JsonSchema>(generator: &mut SchemaGenerator) -> Schema {
    let mut schema = generator.subschema_for::<T>();
    bound(schema.ensure_object());
    schema
}

fn bound(node: &mut Map<String, Value>) {
    let is = |kind: &str| match node.get("type") {
        Some(Value::String(one)) => one == kind,
        Some(Value::Array(several)) => several.iter().any(|one| one == kind),
        _ => false,
    };
    let limit = if is("array") {
        Some(("maxItems", ITEMS))
    } else if is("object") && node.contains_key("additionalProperties") {
        Some(("maxProperties", ITEMS))
    } else if is("string")
        && !node.contains_key("enum")
        && node.get("format").is_none_or(|format| format != "date-time")
    {
        Some(("maxLength", TEXT))
    } else {
        None
    };
    if let Some((keyword, limit)) = limit {
        node.entry(keyword).or_insert(limit.into());
    }
    for (keyword, child) in node {
        match child {
            Value::Object(fields) if keyword == "properties" => {
                fields.values_mut().filter_map(Value::as_object_mut).for_each(bound);
            }
            Value::Object(child) if matches!(keyword.as_str(), "items" | "additionalProperties") => bound(child),
            _ => {}
        }
    }
}
