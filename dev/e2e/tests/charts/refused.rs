//! What the charts' schemas refuse, before anything reaches a cluster.

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::helm::render;

/// Each with a word of the message that tells where the fault is.
fn refused() -> Vec<(&'static str, Value, &'static str)> {
    let shop = json!({ "mongodb": { "uriSecretRef": { "name": "m" } } });
    vec![
        ("shop-operator", json!({ "replica": 2 }), "replica"),
        ("shop-operator", json!({ "replicas": 9 }), "replicas"),
        ("shop-operator", json!({ "replicas": "2" }), "replicas"),
        ("shop-operator", json!({ "images": { "repository": "x" } }), "repository"),
        ("shop-operator", json!({ "images": { "registry": "r.example/" } }), "registry"),
        ("shop-operator", json!({ "images": { "pullPolicy": "Sometimes" } }), "pullPolicy"),
        ("shop-operator", json!({ "images": { "pullSecrets": [{ "name": "x" }] } }), "pullSecrets"),
        ("shop-operator", json!({ "watchNamespace": "Two Words" }), "watchNamespace"),
        ("shop-operator", json!({ "crds": { "enabled": false } }), "enabled"),
        ("shop-operator", json!({ "logLevel": "" }), "logLevel"),
        ("shop-operator", json!({ "serviceAccount": { "create": true } }), "create"),
        ("shop-operator", json!({ "env": [{ "name": "A", "value": 1 }] }), "env"),
        ("shop-operator", json!({ "env": [{ "name": "A", "value": "1", "valueFrom": {} }] }), "env"),
        ("shop-operator", json!({ "resources": { "limit": {} } }), "limit"),
        ("shop-operator", json!({ "tolerations": [{ "operator": "Equals" }] }), "tolerations"),
        ("shop-operator", json!({ "affinity": { "podAntiaffinity": {} } }), "podAntiaffinity"),
        ("shop-operator", json!({ "podDisruptionBudget": { "minAvailable": 1 } }), "minAvailable"),
        ("shop-operator", json!({ "monitoring": { "rules": { "kind": "Prometheus" } } }), "kind"),
        ("shop-operator", json!({ "monitoring": { "dashboards": {} } }), "dashboards"),
        ("shop-operator", json!({ "fullnameOverride": "Not_a_name" }), "fullnameOverride"),
        ("shop", json!({}), "values.shop is empty"),
        ("shop", json!({ "spec": shop }), "spec"),
        ("shop", json!({ "shop": shop, "name": "1shop" }), "name"),
        ("shop", json!({ "shop": shop, "labels": { "a": 1 } }), "labels"),
        ("shop", json!({ "shop": shop, "secrets": { "mongodb": {} } }), "mongodb"),
        ("shop", json!({ "shop": shop, "secrets": { "Mongo_DB": { "uri": "x" } } }), "Mongo_DB"),
        ("shop", json!({ "shop": shop, "secrets": { "mongodb": { "uri": "" } } }), "uri"),
        ("shop", json!({ "shop": shop, "test": { "enable": true } }), "enable"),
        ("shop", json!({ "shop": shop, "test": { "image": "two words" } }), "image"),
    ]
}

#[test]
fn values_with_a_fault_are_refused_and_the_fault_is_named() -> Result<()> {
    for (chart, values, word) in refused() {
        let error = render(chart, &values).err().with_context(|| format!("{chart} takes {values}"))?;
        let message = format!("{error:#}");
        anyhow::ensure!(message.contains(word), "{chart} with {values} does not name {word}: {message}");
    }
    Ok(())
}

/// Every value of values.yaml is in the schema, and the schema leaves no object open whose members are known.
#[test]
fn the_schemas_are_complete() -> Result<()> {
    for chart in ["shop-operator", "shop"] {
        let folder = crate::helm::chart(chart);
        let schema: Value = serde_json::from_str(&std::fs::read_to_string(folder.join("values.schema.json"))?)?;
        let values: Value = serde_yaml::from_str(&std::fs::read_to_string(folder.join("values.yaml"))?)?;
        let mut open = Vec::new();
        missing(&schema, &schema, &values, chart, &mut open);
        anyhow::ensure!(open.is_empty(), "not described by the schema: {open:?}");
    }
    Ok(())
}

/// Paths of values without a schema of their own, below objects that the schema lists the members of.
fn missing(root: &Value, schema: &Value, values: &Value, path: &str, found: &mut Vec<String>) {
    let definition = schema["$ref"].as_str().and_then(|name| root.pointer(name.trim_start_matches('#')));
    let schema = definition.unwrap_or(schema);
    let Some(properties) = schema["properties"].as_object() else { return };
    if schema["additionalProperties"] != json!(false) {
        found.push(format!("{path}: additionalProperties"));
    }
    for (name, value) in values.as_object().into_iter().flatten() {
        match properties.get(name) {
            Some(schema) => missing(root, schema, value, &format!("{path}.{name}"), found),
            None => found.push(format!("{path}.{name}")),
        }
    }
}
