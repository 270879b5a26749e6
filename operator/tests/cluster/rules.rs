//! The CRD's rules, evaluated by a real API server: for each a passing and a failing object, and none without.

use crate::harness::{Harness, merge};
use kube::{
    CustomResourceExt,
    api::{Patch, PatchParams},
};
use serde_json::{Value, json};
use shop_operator::crd::ShopDeployment;

/// A rule, by what it says, and what is merged over a minimal spec.
struct Row {
    says: &'static str,
    /// The object that is there already, for rules about changes.
    before: Option<Value>,
    passing: Value,
    failing: Vec<Value>,
}

fn row(says: &'static str, passing: Value, failing: Vec<Value>) -> Row {
    Row { says, before: None, passing, failing }
}

/// A rule about changes: the same again passes.
fn change(says: &'static str, before: Value, failing: Value) -> Row {
    Row { says, passing: before.clone(), before: Some(before), failing: vec![failing] }
}

fn rows() -> Vec<Row> {
    [queue_rows(), worker_rows(), pod_rows(), changes()].into_iter().flatten().collect()
}

fn queue_rows() -> Vec<Row> {
    let by_url = |url: &str, fifo: bool| json!({ "queue": { "name": null, "url": url, "fifo": fifo } });
    let by_name = |name: &str, fifo: bool| json!({ "queue": { "name": name, "fifo": fifo } });
    vec![
        row(
            "queue: set exactly one of url and name",
            by_url("http://sqs/1/q", false),
            vec![json!({ "queue": { "url": "http://sqs/1/q" } }), json!({ "queue": { "name": null } })],
        ),
        row(
            "queue: a Managed queue is created by its name",
            json!({ "queue": { "management": "Managed" } }),
            vec![json!({ "queue": { "management": "Managed", "name": null, "url": "http://sqs/1/q" } })],
        ),
        row(
            "queue: deletionPolicy Delete needs management Managed",
            json!({ "queue": { "management": "Managed", "deletionPolicy": "Delete" } }),
            vec![json!({ "queue": { "deletionPolicy": "Delete" } })],
        ),
        row(
            "queue: fifo must be true where the queue's name or url ends in .fifo",
            by_url("http://sqs/1/q.fifo", true),
            vec![
                by_name("q.fifo", false),
                by_name("q", true),
                by_url("http://sqs/1/q.fifo", false),
                by_url("http://sqs/1/q", true),
            ],
        ),
        row(
            "aws: set at most one of credentialsSecretRef",
            json!({ "aws": { "serviceAccountAnnotations": { "a": "b" }, "credentialsSecretRef": null } }),
            vec![
                json!({ "aws": { "serviceAccountAnnotations": { "a": "b" }, "credentialsSecretRef": { "name": "x" } } }),
            ],
        ),
    ]
}

fn worker_rows() -> Vec<Row> {
    let autoscaling = |value: Value| json!({ "worker": { "autoscaling": value } });
    let schedule = |value: Value| {
        let mut schedule = json!({ "name": "sale", "cron": "0 8 * * *", "durationMinutes": 60 });
        merge(&mut schedule, value);
        autoscaling(json!({ "schedules": [schedule] }))
    };
    vec![
        row(
            "worker: terminationGracePeriodSeconds must be at least maxProcessingSeconds + 30",
            json!({ "worker": { "maxProcessingSeconds": 60, "terminationGracePeriodSeconds": 90 } }),
            vec![json!({ "worker": { "maxProcessingSeconds": 60, "terminationGracePeriodSeconds": 89 } })],
        ),
        row(
            "worker: replicas (and kubectl scale) needs autoscaling.mode Manual",
            json!({ "worker": { "replicas": 2, "autoscaling": { "mode": "Manual" } } }),
            vec![json!({ "worker": { "replicas": 2 } })],
        ),
        row(
            "worker.autoscaling: min must not be above max",
            autoscaling(json!({ "min": 3, "max": 3 })),
            vec![autoscaling(json!({ "min": 4, "max": 3 }))],
        ),
        row(
            "worker.autoscaling.failure: policy Static needs replicas between min and max",
            autoscaling(json!({ "failure": { "policy": "Static", "replicas": 3 } })),
            vec![
                autoscaling(json!({ "failure": { "policy": "Static", "replicas": 30 } })),
                autoscaling(json!({ "failure": { "policy": "Static" } })),
            ],
        ),
        row(
            "worker.autoscaling.schedules: set at least one of min, max and targetWaitSeconds",
            schedule(json!({ "targetWaitSeconds": 5 })),
            vec![schedule(json!({}))],
        ),
        row(
            "worker.autoscaling.schedules: a schedule's min must not be above its max",
            schedule(json!({ "min": 3, "max": 3 })),
            vec![schedule(json!({ "min": 4, "max": 3 }))],
        ),
        row(
            "worker.resources: requests must not be above limits",
            json!({ "worker": { "resources": { "requests": { "cpu": "1500m" }, "limits": { "cpu": 2 } } } }),
            vec![
                json!({ "worker": { "resources": { "requests": { "cpu": 2 } } } }),
                json!({ "worker": { "resources": { "requests": { "memory": "1Gi" }, "limits": { "memory": "1023Mi" } } } }),
            ],
        ),
    ]
}

fn pod_rows() -> Vec<Row> {
    let tolerating = |toleration: Value| json!({ "worker": { "pod": { "tolerations": [toleration] } } });
    vec![
        row(
            "api.resources: requests must not be above limits",
            json!({ "api": { "resources": { "requests": { "memory": "256Mi" } } } }),
            vec![
                json!({ "api": { "resources": { "requests": { "memory": "257Mi" } } } }),
                json!({ "api": { "resources": { "limits": { "cpu": "49m" } } } }),
            ],
        ),
        row(
            "api.ingress: tls needs host",
            json!({ "api": { "ingress": { "host": "a.example", "tls": { "secretName": "t" } } } }),
            vec![json!({ "api": { "ingress": { "tls": { "secretName": "t" } } } })],
        ),
        row(
            "pod.tolerations: operator Equal needs key, operator Exists takes no value",
            tolerating(json!({ "operator": "Exists" })),
            vec![
                tolerating(json!({ "value": "x" })),
                tolerating(json!({ "operator": "Exists", "key": "k", "value": "x" })),
            ],
        ),
        row(
            "pod.tolerations: tolerationSeconds needs effect NoExecute",
            tolerating(json!({ "key": "k", "effect": "NoExecute", "tolerationSeconds": 60 })),
            vec![tolerating(json!({ "key": "k", "tolerationSeconds": 60 }))],
        ),
    ]
}

fn changes() -> Vec<Row> {
    let by_url = |url: &str| json!({ "queue": { "name": null, "url": url } });
    vec![
        change(
            "mongodb.database cannot be changed",
            json!({ "mongodb": { "database": "mine" } }),
            json!({ "mongodb": { "database": "other" } }),
        ),
        change("queue: name cannot be replaced by url", json!({}), by_url("http://sqs/1/orders")),
        change("queue.name cannot be changed", json!({}), json!({ "queue": { "name": "other" } })),
        change("queue.url cannot be changed", by_url("http://sqs/1/q"), by_url("http://sqs/1/other")),
        change("queue.fifo cannot be changed", json!({}), json!({ "queue": { "name": "other.fifo", "fifo": true } })),
    ]
}

/// The rule about names, which is no matter of a spec: see `names_must_fit_the_objects_named_after_them`.
const OF_NAMES: &str = "metadata.name: at most 40 lower-case letters";

#[tokio::test(flavor = "multi_thread")]
async fn each_rule_lets_one_object_pass_and_stops_another() {
    let harness = Harness::new().await;
    for (at, row) in rows().into_iter().enumerate() {
        let name = format!("shop-{at}");
        if let Some(before) = row.before {
            harness.apply(&name, before).await;
        }
        let passing = dry_run(&harness, &harness.manifest(&name, row.passing)).await;
        passing.unwrap_or_else(|error| panic!("{}: the passing object is refused: {error}", row.says));
        for failing in row.failing {
            let refused = dry_run(&harness, &harness.manifest(&name, failing.clone())).await;
            let error = refused.expect_err(&format!("{}: {failing} passes", row.says)).to_string();
            assert!(error.contains(row.says), "{failing} must break the rule {:?}: {error}", row.says);
        }
    }
    harness.finish().await;
}

async fn dry_run(harness: &Harness, manifest: &Value) -> Result<ShopDeployment, kube::Error> {
    let name = manifest["metadata"]["name"].as_str().unwrap();
    harness.api().patch(name, &PatchParams::apply("test").force().dry_run(), &Patch::Apply(manifest)).await
}

#[test]
fn every_rule_has_a_passing_and_a_failing_object() {
    let mut rules = Vec::new();
    collect(&serde_json::to_value(ShopDeployment::crd()).unwrap(), &mut rules);
    let mut rows: Vec<_> = rows().into_iter().map(|row| row.says).collect();
    rows.push(OF_NAMES);
    for rule in &rules {
        let matching = rows.iter().filter(|says| rule.starts_with(**says)).count();
        assert_eq!(matching, 1, "the rule {rule:?} has {matching} rows");
    }
    for says in rows {
        assert!(rules.iter().any(|rule| rule.starts_with(says)), "no rule says {says:?}");
    }
}

fn collect(node: &Value, rules: &mut Vec<String>) {
    for rule in node["x-kubernetes-validations"].as_array().into_iter().flatten() {
        rules.push(rule["message"].as_str().expect("a rule without a message").to_owned());
    }
    match node {
        Value::Object(fields) => fields.values().for_each(|child| collect(child, rules)),
        Value::Array(items) => items.iter().for_each(|child| collect(child, rules)),
        _ => {}
    }
}
