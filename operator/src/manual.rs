//! docs/shopdeployment.md, written from the CRD: what `kubectl explain` says, to be read where there is no cluster.

use kube::CustomResourceExt;
use serde_json::Value;

use crate::crd::ShopDeployment;

const INTRODUCTION: &str = "# ShopDeployment

<!-- Generated: change the descriptions in operator/src/crd, then run `cargo run --bin crdgen`. -->

`shop.xhipment.io/v1alpha1`, namespaced, short name `shop`. One object is one shop; the operator makes everything else and keeps it
so. `kubectl explain shop.spec --recursive` says the same as this page. What is left out has the default; a field that has neither
a default nor **required** may be absent. The API server refuses unknown fields, what is out of bounds, and what breaks a rule.

Examples, each applied by a test: [minimal](../dev/sample/minimal.yaml), [production on AWS](../dev/sample/production-aws.yaml),
[a FIFO queue](../dev/sample/fifo.yaml), [suspended](../dev/sample/suspended.yaml),
[scaling to zero](../dev/sample/scale-to-zero.yaml), and [the demo shop](../dev/sample/shop.yaml) with most fields.";

/// What Kubernetes describes itself.
const KUBERNETES_OWN: &str = "affinity";

pub fn manual() -> Result<String, serde_json::Error> {
    let crd = serde_json::to_value(ShopDeployment::crd())?;
    let version = &crd["spec"]["versions"][0];
    let root = &version["schema"]["openAPIV3Schema"];
    let mut page = vec![INTRODUCTION.to_owned()];
    let spec = &root["properties"]["spec"];
    section(&mut page, "spec", spec, Depth::Own);
    rules(&mut page, root, Depth::Own);
    for (name, part) in fields(spec) {
        if part["properties"].is_object() {
            section(&mut page, &format!("spec.{name}"), part, Depth::All);
            rules(&mut page, part, Depth::All);
        }
    }
    section(&mut page, "status", &root["properties"]["status"], Depth::All);
    columns(&mut page, &version["additionalPrinterColumns"]);
    page.push(String::new());
    Ok(page.join("\n"))
}

/// How far down a section goes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Depth {
    Own,
    All,
}

fn section(page: &mut Vec<String>, title: &str, node: &Value, depth: Depth) {
    let about = node["description"].as_str().unwrap_or_default();
    page.push(format!(
        "\n## {title}\n\n{about}\n\n| Field | Type | Default | Bounds | Meaning |\n|---|---|---|---|---|"
    ));
    rows(page, "", node, depth);
}

fn rows(page: &mut Vec<String>, prefix: &str, node: &Value, depth: Depth) {
    for (name, field) in fields(node) {
        let path = format!("{prefix}{name}");
        let (kind, below) = kind(field);
        let default = if is_required(node, name) { "**required**".to_owned() } else { default(field) };
        let about = field["description"].as_str().unwrap_or_default();
        let cells = [format!("`{path}`"), kind, default, bounds(field), about.to_owned()];
        let cells = cells.map(|cell| cell.replace('|', "\\|").replace('\n', " ").replace('<', "&lt;"));
        page.push(format!("| {} |", cells.join(" | ")));
        if let (Depth::All, Some((below, sign))) = (depth, below.filter(|_| name != KUBERNETES_OWN)) {
            rows(page, &format!("{path}{sign}."), below, depth);
        }
    }
}

/// A field's type, and the object whose fields are described below it, with what stands between their names.
fn kind(field: &Value) -> (String, Option<(&Value, &'static str)>) {
    let object = |node: &Value| node["properties"].is_object();
    match field["type"].as_str() {
        Some("array") => {
            let (item, _) = kind(&field["items"]);
            (format!("list of {item}"), object(&field["items"]).then(|| (&field["items"], "[]")))
        }
        Some("object") if object(field) => ("object".to_owned(), Some((field, ""))),
        Some("object") => ("map".to_owned(), None),
        Some(other) => (other.to_owned(), None),
        None => ("quantity".to_owned(), None),
    }
}

fn default(field: &Value) -> String {
    // An object's default is what its fields say.
    if field["default"].is_null() || field["default"].is_object() {
        String::new()
    } else {
        format!("`{}`", field["default"])
    }
}

fn bounds(field: &Value) -> String {
    let mut bounds = Vec::new();
    if let Some(values) = field["enum"].as_array() {
        bounds.extend(values.iter().filter_map(Value::as_str).map(|value| format!("`{value}`")));
    }
    // A schema's limits are all floating; written as such only where they are fractions.
    if let (Some(least), Some(most)) = (field["minimum"].as_f64(), field["maximum"].as_f64()) {
        bounds.push(format!("{least} to {most}"));
    }
    for (keyword, what) in [("maxLength", "characters"), ("maxItems", "items"), ("maxProperties", "entries")] {
        bounds.extend(field[keyword].as_u64().map(|most| format!("at most {most} {what}")));
    }
    bounds.extend(field["pattern"].as_str().map(|pattern| format!("`{pattern}`")));
    bounds.join(", ")
}

/// What the API server checks beyond single fields, once each.
fn rules(page: &mut Vec<String>, node: &Value, depth: Depth) {
    let mut found = Vec::new();
    collect_rules(node, depth, &mut found);
    if depth == Depth::Own {
        collect_rules(&node["properties"]["spec"], depth, &mut found);
    }
    if !found.is_empty() {
        page.push("\nRules:\n".to_owned());
        page.extend(found.iter().map(|rule| format!("- {rule}")));
    }
}

fn collect_rules(node: &Value, depth: Depth, found: &mut Vec<String>) {
    for rule in node["x-kubernetes-validations"].as_array().into_iter().flatten() {
        let message = rule["message"].as_str().unwrap_or_default().to_owned();
        if !found.contains(&message) {
            found.push(message);
        }
    }
    if depth == Depth::All {
        fields(node).for_each(|(_, field)| collect_rules(field, depth, found));
        if node["items"].is_object() {
            collect_rules(&node["items"], depth, found);
        }
    }
}

fn columns(page: &mut Vec<String>, columns: &Value) {
    page.push("\n## Columns of `kubectl get shop`\n\n| Column | From | |\n|---|---|---|".to_owned());
    for column in columns.as_array().into_iter().flatten() {
        let text = |key: &str| column[key].as_str().unwrap_or_default();
        let wide = if column["priority"].is_null() { "" } else { " (`-o wide`)" };
        let (name, from) = (text("name").to_uppercase(), text("jsonPath"));
        page.push(format!("| {name}{wide} | `{from}` | {} |", text("description")));
    }
}

fn fields(node: &Value) -> impl Iterator<Item = (&String, &Value)> {
    node["properties"].as_object().into_iter().flatten()
}

fn is_required(node: &Value, name: &str) -> bool {
    node["required"].as_array().is_some_and(|names| names.iter().any(|found| found == name))
}
