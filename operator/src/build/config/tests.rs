//! Every setting of the binaries is a field: docs/configuration.md, which their own tests hold to be complete, against what
//! is built.

use serde_json::{Value, json};

use crate::{
    build::{Live, Prepared, Resources, build},
    names::Component,
    validate::{
        tests::{shop, world},
        validate,
    },
};

const DOCS: &str = include_str!("../../../../docs/configuration.md");

/// Variables that no typed field sets, and why.
const EXCEPTIONS: [(&str, &str); 3] = [
    ("SHOP_HTTP_ADDR", "fixed: the Service and the NetworkPolicy name its port"),
    ("SHOP_METRICS_ADDR", "fixed: probes, Services and NetworkPolicies name its port"),
    ("SHOP_SIMULATED_WORK_MS", "for demonstrations only: worker.env"),
];

/// What each field is set to, besides its default.
fn sample() -> Value {
    json!({
        "mongodb": { "uriSecretRef": { "name": "other" }, "database": "other" },
        "redis": { "urlSecretRef": { "name": "redis" } },
        "queue": { "url": "http://sqs/1/other", "name": "other", "region": "eu-west-1", "endpoint": "http://sqs",
                   "visibilityTimeoutSeconds": 61, "deadLetter": { "maxReceiveCount": 3 } },
        "mail": { "from": "other@example.com", "region": "eu-west-1", "endpoint": "http://ses", "perSecond": 1, "maxAttempts": 3 },
        "aws": { "credentialsSecretRef": { "name": "aws" } },
        "caSecretRef": { "name": "ca" },
        "auth": { "keysSecretRef": { "name": "keys" }, "staffSecretRef": { "name": "staff" }, "accessTokenMinutes": 1,
                  "passwordResetUrl": "https://shop.example.com/?token={token}",
                  "argon2": { "memoryKib": 8192, "passes": 3, "lanes": 2, "workers": 4 } },
        "worker": { "concurrency": 3, "prefetch": 3, "batchSize": 3, "maxProcessingSeconds": 3 },
        "settings": { "displayName": "Other", "currency": "EUR", "passwordMinLength": 9, "cookieSecure": false,
                      "logLevel": "warn", "cancelWindowMinutes": 3, "maxEventStreams": 3, "requestTimeoutSeconds": 3,
                      "drainSeconds": 3, "trustedProxies": ["10.0.0.0/8"], "corsOrigins": ["https://a.example"],
                      "tracing": { "otlpEndpoint": "http://collector:4318", "sampleRatio": 0.5 },
                      "limits": { "authPer15Minutes": 3, "writesPerMinute": 3, "readsPerMinute": 3, "addressPerMinute": 3 } },
    })
}

/// A setting's variable, the fields that its row names, and the components that read it.
struct Row {
    variable: String,
    fields: Vec<String>,
    components: &'static [Component],
}

fn rows() -> Vec<Row> {
    let mut components: &[Component] = &[];
    let mut rows = Vec::new();
    for line in DOCS.lines() {
        // A section below is about something else than the services' settings.
        components = match line.strip_prefix("## ").or_else(|| line.strip_prefix("### ")) {
            Some("Both, api and worker") => &[Component::Api, Component::Worker],
            Some("api") => &[Component::Api],
            Some("worker") => &[Component::Worker],
            Some(_) => &[],
            None => components,
        };
        if components.is_empty() || !line.starts_with("| `") {
            continue;
        }
        let cells: Vec<_> = line.split(" | ").map(quoted).collect();
        for (at, variable) in cells[0].iter().enumerate() {
            // One field for all variables of a row, or one for each.
            let fields = if cells[2].len() == cells[0].len() { vec![cells[2][at].clone()] } else { cells[2].clone() };
            rows.push(Row { variable: variable.clone(), fields, components });
        }
    }
    assert!(rows.len() > 40, "{}", rows.len());
    rows
}

fn quoted(cell: &str) -> Vec<String> {
    cell.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

fn built(spec: &Value) -> Resources<Prepared> {
    let world = world(&[
        ("mongodb", "uri"),
        ("other", "uri"),
        ("redis", "url"),
        ("aws", "accessKeyId secretAccessKey"),
        ("ca", "ca.crt"),
        ("keys", "keys.json"),
        ("staff", "email password"),
    ]);
    build(&validate(&shop(json!({ "spec": spec })), &world).unwrap(), &Live::default())
}

/// The field alone, as the sample sets it.
fn with(field: &str) -> Value {
    let names: Vec<_> = field.split('.').collect();
    let value = names.iter().fold(&sample(), |value, name| &value[*name]).clone();
    assert!(!value.is_null(), "{field} is not in the sample");
    let mut spec = names.iter().rev().fold(value, |value, name| json!({ *name: value }));
    if field == "queue.url" {
        spec["queue"]["name"] = Value::Null;
    }
    spec
}

/// What a component reads a variable from: its `ConfigMap`, its environment, and the volume where it is a file.
fn setting(built: &Resources<Prepared>, component: Component, variable: &str) -> Value {
    let (deployment, map) = match component {
        Component::Api => (&built.api, &built.config_maps[0]),
        Component::Worker => (&built.worker, &built.config_maps[1]),
    };
    let pod = deployment.spec.template.spec.as_ref().unwrap();
    let env = pod.containers[0].env.iter().flatten().find(|env| env.name == variable);
    let file = env.and_then(|env| env.value.as_deref()).filter(|value| value.starts_with('/'));
    let mounts = pod.containers[0].volume_mounts.iter().flatten();
    let mount = mounts.into_iter().find(|mount| file.is_some_and(|file| file.starts_with(&mount.mount_path)));
    let volume = pod.volumes.iter().flatten().find(|volume| mount.is_some_and(|mount| mount.name == volume.name));
    json!([map.data.as_ref().unwrap().get(variable), env, volume])
}

#[test]
fn every_setting_is_made_by_the_field_that_the_documentation_names() {
    let before = built(&json!({}));
    for Row { variable, fields, components } in rows() {
        if EXCEPTIONS.iter().any(|(exception, _)| *exception == variable) {
            continue;
        }
        assert!(!fields.is_empty(), "{variable} has no field, and no reason in EXCEPTIONS");
        for field in fields {
            let after = built(&with(&field));
            for component in components {
                let (before, after) = (setting(&before, *component, &variable), setting(&after, *component, &variable));
                assert_ne!(before, after, "{field} does not set {variable} of the {}", component.as_str());
            }
        }
    }
}

#[test]
fn an_exception_is_a_setting_and_no_typed_field_is_named_for_it() {
    let rows = rows();
    for (exception, reason) in EXCEPTIONS {
        let row = rows.iter().find(|row| row.variable == exception).unwrap();
        assert!(row.fields.iter().all(|field| reason.contains(field.as_str())), "{exception}: {:?}", row.fields);
    }
}

#[test]
fn every_variable_that_is_set_is_documented() {
    let mut spec = sample();
    spec["queue"]["url"] = Value::Null;
    spec["worker"]["terminationGracePeriodSeconds"] = json!(60);
    let (built, rows) = (built(&spec), rows());
    let mut set: Vec<_> =
        built.config_maps.iter().flat_map(|map| map.data.iter().flatten()).map(|(key, _)| key).collect();
    for deployment in [&built.api, &built.worker] {
        let containers = &deployment.spec.template.spec.as_ref().unwrap().containers;
        set.extend(containers[0].env.iter().flatten().map(|env| &env.name));
    }
    let unknown: Vec<_> = set.into_iter().filter(|name| rows.iter().all(|row| row.variable != **name)).collect();
    assert_eq!(unknown, Vec::<&String>::new());
}
