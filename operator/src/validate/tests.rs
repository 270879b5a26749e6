use rstest::rstest;
use serde_json::json;

use super::*;

/// A shop as the API server would hand it over, with what `patch` says on top.
pub(crate) fn shop(patch: serde_json::Value) -> ShopDeployment {
    let mut object = json!({
        "apiVersion": "shop.xhipment.io/v1alpha1",
        "kind": "ShopDeployment",
        "metadata": { "name": "demo", "namespace": "shops", "uid": "11111111-2222", "generation": 1,
                      "creationTimestamp": "2026-01-02T00:00:00Z" },
        "spec": {
            "mongodb": { "uriSecretRef": { "name": "mongodb" } },
            "queue": { "name": "orders" },
            "mail": { "from": "shop@example.com" },
        }
    });
    merge(&mut object, patch);
    serde_json::from_value(object).unwrap()
}

fn merge(target: &mut serde_json::Value, patch: serde_json::Value) {
    match (target, patch) {
        (serde_json::Value::Object(target), serde_json::Value::Object(patch)) => {
            for (key, value) in patch {
                merge(target.entry(key).or_insert(serde_json::Value::Null), value);
            }
        }
        (target, patch) => *target = patch,
    }
}

/// Secrets as (name, keys separated by spaces).
pub(crate) fn world(secrets: &[(&str, &str)]) -> World {
    let found = |keys: &str| FoundSecret {
        keys: keys.split(' ').map(|key| (key.to_owned(), Digest::of(key.as_bytes()))).collect(),
        version: "7".to_owned(),
    };
    World {
        api_image: "registry.example/api:1.2.3".to_owned(),
        worker_image: "registry.example/worker:1.2.3".to_owned(),
        secrets: secrets.iter().map(|(name, keys)| ((*name).to_owned(), found(keys))).collect(),
        others: Vec::new(),
    }
}

pub(crate) fn minimal() -> ValidatedShop {
    validate(&shop(json!({})), &world(&[("mongodb", "uri")])).unwrap()
}

#[test]
fn a_minimal_shop_has_the_documented_defaults() {
    let shop = minimal();
    assert_eq!(shop.api_image, "registry.example/api:1.2.3");
    assert_eq!(shop.keys_secret, "demo-keys");
    assert!(shop.generates_keys() && !shop.is_managed() && !shop.deletes_queue());
    let expected = Scaling {
        mode: Mode::DrainTime,
        replicas: None,
        suspended: false,
        pause: Pause::No,
        target_wait_seconds: 30,
        expected_seconds_per_message: 0.1,
        min: 1,
        max: 20,
        activation: 0,
        to_zero_cooldown_seconds: 300,
        window_seconds: 180,
        max_percent: 25,
        failure_after_seconds: 300,
        fallback: None,
        poll_seconds: 2,
        schedules: Vec::new(),
    };
    assert_eq!((shop.concurrency, shop.scaling), (10, expected));
}

#[rstest]
#[case::no_secret(json!({}), &[], Reason::SecretMissing, "Secret mongodb (spec.mongodb.uriSecretRef) does not exist")]
#[case::no_key(json!({}), &[("mongodb", "url")], Reason::SecretKeyMissing, "has no key uri")]
#[case::other_secret(
    json!({"spec": {"auth": {"staffSecretRef": {"name": "staff"}}}}),
    &[("mongodb", "uri"), ("staff", "email")],
    Reason::SecretKeyMissing,
    "Secret staff (spec.auth.staffSecretRef) has no key password"
)]
#[case::bounds(
    json!({"spec": {"worker": {"autoscaling": {"min": 5, "max": 2}}}}),
    &[("mongodb", "uri")],
    Reason::InvalidSpec,
    "min 5 is above max 2"
)]
#[case::grace(
    json!({"spec": {"worker": {"maxProcessingSeconds": 60}}}),
    &[("mongodb", "uri")],
    Reason::InvalidSpec,
    "which is 90"
)]
#[case::network(
    json!({"spec": {"settings": {"trustedProxies": ["10.0.0.0/33"]}}}),
    &[("mongodb", "uri")],
    Reason::InvalidSpec,
    "is no network such as 10.0.0.0/8"
)]
#[case::reserved(
    json!({"spec": {"api": {"env": [{"name": "SHOP_MONGODB_URI", "value": "x"}]}}}),
    &[("mongodb", "uri")],
    Reason::InvalidSpec,
    "use the typed field"
)]
#[case::of_the_config_map(
    json!({"spec": {"api": {"env": [{"name": "SHOP_MONGODB_DATABASE", "value": "x"}]}}}),
    &[("mongodb", "uri")],
    Reason::InvalidSpec,
    "spec.api.env: SHOP_MONGODB_DATABASE is taken from a Secret or set by the operator"
)]
#[case::of_the_workers_config_map(
    json!({"spec": {"worker": {"env": [{"name": "SHOP_WORKER_CONCURRENCY", "value": "1"}]}}}),
    &[("mongodb", "uri")],
    Reason::InvalidSpec,
    "spec.worker.env: SHOP_WORKER_CONCURRENCY is"
)]
#[case::no_such_zone(
    json!({"spec": {"worker": {"autoscaling": {"schedules": [
        {"name": "day", "cron": "0 8 * * 1-5", "durationMinutes": 60, "min": 2},
        {"name": "sale", "cron": "0 8 * * 1-5", "timeZone": "Europe/Atlantis", "durationMinutes": 60, "min": 2},
    ]}}}}),
    &[("mongodb", "uri")],
    Reason::InvalidSpec,
    "spec.worker.autoscaling.schedules sale: there is no time zone"
)]
#[case::no_such_time(
    json!({"spec": {"worker": {"autoscaling": {"schedules": [
        {"name": "sale", "cron": "0 25 * * *", "durationMinutes": 60, "max": 2},
    ]}}}}),
    &[("mongodb", "uri")],
    Reason::InvalidSpec,
    "spec.worker.autoscaling.schedules sale: cron"
)]
#[case::two_queues(
    json!({"spec": {"queue": {"url": "https://sqs.example/1/orders"}}}),
    &[("mongodb", "uri")],
    Reason::InvalidSpec,
    "exactly one of url and name"
)]
fn faults_say_what_to_do(
    #[case] patch: serde_json::Value,
    #[case] secrets: &[(&str, &str)],
    #[case] reason: Reason,
    #[case] text: &str,
) {
    let faults = validate(&shop(patch), &world(secrets)).unwrap_err();
    assert!(faults.iter().any(|fault| fault.reason == reason && fault.message.contains(text)), "{faults:?}");
}

#[test]
fn all_faults_are_told_at_once() {
    let shop = shop(
        json!({"spec": {"worker": {"autoscaling": {"min": 5, "max": 2}}, "redis": {"urlSecretRef": {"name": "r"}}}}),
    );
    assert_eq!(validate(&shop, &world(&[])).unwrap_err().len(), 3);
}

fn queue(spec: serde_json::Value) -> Queue {
    serde_json::from_value(spec).unwrap()
}

#[rstest]
#[case::same_name(json!({"name": "orders"}), true)]
#[case::other_name(json!({"name": "orders-2"}), false)]
#[case::other_region(json!({"name": "orders", "region": "eu-west-1"}), false)]
#[case::a_stand_in(json!({"name": "orders", "endpoint": "http://sqs:9324"}), false)]
#[case::by_url(json!({"url": "https://sqs.ap-south-1.amazonaws.com/123456789012/orders"}), true)]
fn a_queue_belongs_to_one_shop(#[case] other: serde_json::Value, #[case] refused: bool) {
    let mut world = world(&[("mongodb", "uri")]);
    let older = (Some("2026-01-01T00:00:00Z".to_owned()), "0".to_owned());
    world.others.push(OtherShop { name: "a/first".to_owned(), queue: queue(other), age: older });
    let result = validate(&shop(json!({})), &world);
    assert_eq!(result.is_err(), refused);
    if let Err(faults) = result {
        assert_eq!(faults[0].reason, Reason::QueueInUse);
        assert!(faults[0].message.contains("a/first"));
    }
}

#[rstest]
#[case::url_and_name(
    json!({"url": "http://shop-sqs:9324/000000000000/orders"}),
    json!({"name": "orders", "endpoint": "http://shop-sqs:9324/"}),
    true
)]
#[case::the_endpoint_says_where(
    json!({"url": "http://localhost:9324/queue/orders", "endpoint": "http://shop-sqs:9324"}),
    json!({"name": "orders", "endpoint": "http://SHOP-SQS:9324"}),
    true
)]
#[case::two_stand_ins(
    json!({"name": "orders", "endpoint": "http://one:9324"}),
    json!({"url": "http://two:9324/000000000000/orders"}),
    false
)]
#[case::dead_letters(json!({"name": "orders", "management": "Managed"}), json!({"name": "orders-dlq"}), true)]
#[case::fifo_dead_letters(
    json!({"name": "orders.fifo", "management": "Managed"}),
    json!({"name": "orders-dlq.fifo", "management": "Managed"}),
    true
)]
#[case::nobody_knows_the_dead_letters(json!({"name": "orders"}), json!({"name": "orders-dlq"}), false)]
#[case::the_url_says_which_region(json!({"url": "https://sqs.eu-west-1.amazonaws.com/123456789012/orders"}), json!({"name": "orders"}), false)]
#[case::an_older_name_of_aws(
    json!({"url": "https://ap-south-1.queue.amazonaws.com/123456789012/orders"}),
    json!({"url": "https://sqs.ap-south-1.amazonaws.com:443/123456789012/orders"}),
    true
)]
#[case::two_accounts(
    json!({"url": "https://sqs.ap-south-1.amazonaws.com/123456789012/orders"}),
    json!({"url": "https://sqs.ap-south-1.amazonaws.com/210987654321/orders"}),
    false
)]
fn a_queue_is_known_by_whatever_name(
    #[case] one: serde_json::Value,
    #[case] other: serde_json::Value,
    #[case] same: bool,
) {
    let (one, other) = (queue(one), queue(other));
    assert_eq!((same_queue(&one, &other), same_queue(&other, &one)), (same, same));
}

#[test]
fn the_older_shop_keeps_the_queue() {
    let mut world = world(&[("mongodb", "uri")]);
    let younger = (Some("2026-01-03T00:00:00Z".to_owned()), "0".to_owned());
    world.others.push(OtherShop { name: "a/second".to_owned(), queue: queue(json!({"name": "orders"})), age: younger });
    assert!(validate(&shop(json!({})), &world).is_ok());
}

#[rstest]
#[case(json!({}), Pause::No)]
#[case(json!({"metadata": {"annotations": {"shop.xhipment.io/pause-scaling": "true"}}}), Pause::All)]
#[case(json!({"metadata": {"annotations": {"shop.xhipment.io/pause-scale-down": ""}}}), Pause::Down)]
#[case(json!({"metadata": {"annotations": {"shop.xhipment.io/pause-scaling": "false"}}}), Pause::No)]
#[case(json!({"spec": {"paused": true}}), Pause::All)]
fn scaling_is_paused_by_annotation(#[case] patch: serde_json::Value, #[case] pause: Pause) {
    let valid = validate(&shop(patch), &world(&[("mongodb", "uri")])).unwrap();
    assert_eq!(valid.scaling.pause, pause);
}

#[rstest]
#[case(json!({"suspended": true}), true)]
#[case(json!({"suspended": true, "paused": true}), false)]
fn a_paused_shop_is_not_suspended_any_further(#[case] spec: serde_json::Value, #[case] suspended: bool) {
    let valid = validate(&shop(json!({ "spec": spec })), &world(&[("mongodb", "uri")])).unwrap();
    assert_eq!(valid.scaling.suspended, suspended);
}

#[rstest]
#[case::none(json!({}), &[])]
#[case::pulls(
    json!({ "images": { "pullSecrets": [{ "name": "one" }, { "name": "two" }] } }),
    &["Secret one (spec.images.pullSecrets) does not exist", "Secret two (spec.images.pullSecrets) does not exist"]
)]
#[case::certificate(
    json!({ "api": { "ingress": { "enabled": true, "host": "shop.example", "tls": { "secretName": "tls" } } } }),
    &["Secret tls (spec.api.ingress.tls.secretName) does not exist"]
)]
#[case::certificate_of_no_ingress(
    json!({ "api": { "ingress": { "enabled": false, "host": "shop.example", "tls": { "secretName": "tls" } } } }),
    &[]
)]
fn secrets_that_others_read_are_named_where_they_are_missing(#[case] spec: serde_json::Value, #[case] wanted: &[&str]) {
    let shop = shop(json!({ "spec": spec }));
    assert!(validate(&shop, &world(&[("mongodb", "uri")])).is_ok(), "nothing waits for them");
    let secrets = optional_secrets(&shop.spec);
    let faults: Vec<_> = secrets.iter().map(OptionalSecret::missing).collect();
    assert_eq!(faults.len(), wanted.len(), "{faults:?}");
    for (fault, wanted) in faults.iter().zip(wanted) {
        assert!(fault.reason == Reason::SecretMissing && fault.message.starts_with(wanted), "{fault:?}");
    }
}
