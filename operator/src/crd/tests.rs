//! The schema as a whole: everything is described, bounded, and defaulted or explained.

use kube::CustomResourceExt;
use serde_json::{Value, json};

use super::*;

/// The schemas of the resource by path, such as `.spec.api.env[].name`; `{}` stands for the values of a map.
fn nodes() -> Vec<(String, Value)> {
    let crd = serde_json::to_value(ShopDeployment::crd()).unwrap();
    let mut found = Vec::new();
    walk(&crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"], String::new(), &mut found);
    assert!(found.len() > 200, "{}", found.len());
    found
}

fn walk(node: &Value, path: String, found: &mut Vec<(String, Value)>) {
    for (name, child) in node["properties"].as_object().into_iter().flatten() {
        walk(child, format!("{path}.{name}"), found);
    }
    for (keyword, sign) in [("items", "[]"), ("additionalProperties", "{}")] {
        if node[keyword].is_object() {
            walk(&node[keyword], format!("{path}{sign}"), found);
        }
    }
    found.push((path, node.clone()));
}

fn failing(is_bad: impl Fn(&str, &Value) -> bool) -> Vec<String> {
    let bad = |(path, node): (String, Value)| is_bad(&path, &node).then_some(path);
    nodes().into_iter().filter_map(bad).collect()
}

#[test]
fn every_list_map_and_text_is_bounded() {
    let unbounded = failing(|_, node| match node["type"].as_str() {
        Some("string") => node["maxLength"].is_null() && node["enum"].is_null() && node["format"] != "date-time",
        Some("array") => node["maxItems"].is_null(),
        Some("object") => node["additionalProperties"].is_object() && node["maxProperties"].is_null(),
        None => node["maxLength"].is_null(),
        _ => false,
    });
    assert_eq!(unbounded, Vec::<String>::new());
}

#[test]
fn every_number_of_the_spec_is_bounded() {
    let unbounded = failing(|path, node| {
        let is_number = matches!(node["type"].as_str(), Some("integer" | "number"));
        let is_ours = path.starts_with(".spec") && !path.contains(".affinity.");
        is_number && is_ours && (node["minimum"].is_null() || node["maximum"].is_null())
    });
    assert_eq!(unbounded, Vec::<String>::new());
}

#[test]
fn every_field_is_described_in_plain_text() {
    let is_field = |path: &str| path.contains('.') && !path.ends_with("[]") && !path.ends_with("{}");
    let bare = failing(|path, node| is_field(path) && node["description"].as_str().is_none_or(str::is_empty));
    assert_eq!(bare, Vec::<String>::new());
    // A terminal shows no markup.
    let marked =
        failing(|_, node| node["description"].as_str().is_some_and(|text| text.contains("](") || text.contains("**")));
    assert_eq!(marked, Vec::<String>::new());
}

#[test]
fn what_may_be_left_out_has_a_default_or_says_what_that_means() {
    let crd = nodes();
    let required = |path: &str| {
        let (parent, name) = path.rsplit_once('.').unwrap_or_default();
        let parent = &crd.iter().find(|(found, _)| found == parent).unwrap().1;
        parent["required"].as_array().is_some_and(|names| names.iter().any(|found| found == name))
    };
    let silent = failing(|path, node| {
        let is_ours =
            path.starts_with(".spec.") && !path.contains(".affinity") && !path.ends_with(']') && !path.ends_with('}');
        let told =
            node["description"].as_str().is_some_and(|text| text.contains("Left out") || text.contains("left out"));
        // A list or a map that is left out is empty.
        let is_scalar = !matches!(node["type"].as_str(), Some("array" | "object"));
        is_ours && is_scalar && node["default"].is_null() && !told && !required(path)
    });
    assert_eq!(silent, Vec::<String>::new());
}

/// Its schema let any text pass.
#[test]
fn tolerations_of_version_0_1_0_are_read() {
    let read = |value| serde_json::from_value::<Toleration>(value).unwrap();
    let empty = read(json!({ "key": "a", "operator": "", "effect": "" }));
    assert_eq!((empty.operator, empty.effect), (TolerationOperator::Equal, None));
    let full = read(json!({ "key": "a", "operator": "Exists", "effect": "NoExecute" }));
    assert_eq!((full.operator, full.effect), (TolerationOperator::Exists, Some(TaintEffect::NoExecute)));
    assert_eq!(serde_json::to_value(&empty).unwrap(), json!({ "key": "a", "operator": "Equal" }));
}
