//! Generated changes of the spec, by the CRD's own schema: a field that is added there is changed here by itself. What is
//! right is followed, what is wrong harms nothing that runs, and in the end everything is as it was at the start.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::apps::v1::Deployment;
use kube::CustomResourceExt;
use proptest::{
    strategy::{Strategy, ValueTree},
    test_runner::{RngAlgorithm, TestRng, TestRunner},
};
use serde_json::{Value, json};
use shop_operator::{crd::ShopDeployment, rollout};

use crate::{
    harness::WORKER_IMAGE,
    stage::{Picture, Stage, difference, is_long, without_revisions},
    wire::Wire,
};

/// Numbers of pods: their schema allows more than a test should start.
const PODS: [&str; 3] = ["replicas", "min", "max"];

/// A place in the spec that can be changed, and its schema.
#[derive(Clone, Debug)]
struct Place {
    path: Vec<String>,
    schema: Value,
}

fn schema() -> Value {
    let crd = serde_json::to_value(ShopDeployment::crd()).unwrap();
    crd.pointer("/spec/versions/0/schema/openAPIV3Schema/properties/spec").unwrap().clone()
}

/// All places below this one: the single values, and optional groups as a whole.
fn places(path: &[String], schema: &Value, found: &mut Vec<Place>) {
    let Some(properties) = schema["properties"].as_object() else {
        found.push(Place { path: path.to_vec(), schema: schema.clone() });
        return;
    };
    if !path.is_empty() && schema.get("required").is_some() {
        found.push(Place { path: path.to_vec(), schema: schema.clone() });
    }
    for (name, schema) in properties {
        places(&[path, std::slice::from_ref(name)].concat(), schema, found);
    }
}

struct Generator {
    runner: TestRunner,
}

impl Generator {
    /// Always the same changes: a failure can be had again.
    fn new() -> Self {
        let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &[7; 32]);
        Self { runner: TestRunner::new_with_rng(proptest::test_runner::Config::default(), rng) }
    }

    fn draw<T>(&mut self, strategy: impl Strategy<Value = T>) -> T {
        strategy.new_tree(&mut self.runner).unwrap().current()
    }

    fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.draw(0..from.len())]
    }

    fn text(&mut self, pattern: &str) -> String {
        self.draw(proptest::string::string_regex(pattern).unwrap())
    }

    /// A value that the schema allows.
    fn right(&mut self, schema: &Value, name: &str) -> Value {
        if let Some(choices) = schema["enum"].as_array() {
            return self.pick(choices).clone();
        }
        let least = schema["minimum"].as_f64().unwrap_or(0.0);
        let most = schema["maximum"].as_f64().unwrap_or(1000.0);
        match schema["type"].as_str() {
            Some("boolean") => json!(self.draw(proptest::bool::ANY)),
            #[expect(clippy::cast_possible_truncation, reason = "the schema's bounds are whole and small")]
            Some("integer") => json!(self.draw(least as i64..=if PODS.contains(&name) { 4 } else { most as i64 })),
            Some("number") => json!(self.draw(least..=most)),
            Some("array") => (0..self.draw(1..3)).map(|_| self.right(&schema["items"], name)).collect(),
            Some("object") => self.group(schema),
            _ if matches!(name, "cpu" | "memory") => json!(self.pick(&["100m", "1", "0.5", "64Mi", "100M"])),
            _ => json!(self.string(schema, name)),
        }
    }

    fn string(&mut self, schema: &Value, name: &str) -> String {
        // A Secret that is there, half of the time.
        if name == "name" && self.draw(proptest::bool::ANY) {
            return self.pick(&["mongodb", "aws"]).to_string();
        }
        // What the operator follows, and what only it can see is wrong.
        match name {
            "cron" => return self.pick(&["0 8 * * 1-5", "*/5 * * * *", "0 25 * * *"]).to_string(),
            "timeZone" => return self.pick(&["UTC", "Europe/Berlin", "Europe/Atlantis"]).to_string(),
            _ => {}
        }
        let longest = schema["maxLength"].as_u64().unwrap_or(12);
        let fits = |text: &String| (1..=longest).contains(&(text.chars().count() as u64));
        let pattern = schema["pattern"].as_str().unwrap_or("^[a-z]{3,12}$");
        let pattern = pattern.trim_start_matches('^').trim_end_matches('$').replace("\\s", " ");
        // What a pattern excludes leaves all of Unicode; people write plain text.
        (0..50)
            .map(|_| self.text(&pattern))
            .find(|text| text.is_ascii() && fits(text))
            .unwrap_or_else(|| "x".to_owned())
    }

    fn group(&mut self, schema: &Value) -> Value {
        let Some(properties) = schema["properties"].as_object() else {
            let value = self.text("[a-z]{1,8}");
            return json!({ self.text("[a-z]{3,8}"): value });
        };
        let required: Vec<_> = schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        let mut group = serde_json::Map::new();
        for (name, schema) in properties {
            if required.contains(&name.as_str()) || self.draw(proptest::bool::ANY) {
                group.insert(name.clone(), self.right(schema, name));
            }
        }
        group.into()
    }

    /// None removes what is there.
    fn value(&mut self, place: &Place, change: Change) -> Option<Value> {
        match change {
            Change::Right => Some(self.right(&place.schema, place.path.last().unwrap())),
            Change::Wrong => Some(self.wrong(&place.schema)),
            Change::Removed => None,
        }
    }

    /// A value that no schema allows there, or that only the operator can see is wrong.
    fn wrong(&mut self, schema: &Value) -> Value {
        let over = schema["maximum"].as_f64().map(|most| json!(most + 1.0));
        match schema["type"].as_str() {
            Some("boolean" | "object") => json!("text"),
            Some("integer" | "number") => over.filter(|_| self.draw(proptest::bool::ANY)).unwrap_or(json!("text")),
            Some("array") => json!(["not a value", "not a value"]),
            _ => json!(" ".repeat(self.draw(1_usize..600))),
        }
    }
}

/// Sets the value at this place, or removes it.
fn set(spec: &mut Value, path: &[String], value: Option<Value>) {
    let (last, groups) = path.split_last().unwrap();
    let group = groups.iter().fold(spec, |group, name| {
        let group = group.as_object_mut().unwrap();
        group.entry(name.clone()).or_insert_with(|| json!({}))
    });
    let group = group.as_object_mut().unwrap();
    match value {
        Some(value) => drop(group.insert(last.clone(), value)),
        None => drop(group.remove(last)),
    }
}

/// What is done to a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Change {
    Right,
    Wrong,
    Removed,
}

/// Every place has each of them within four rounds over all places.
const CHANGES: [Change; 4] = [Change::Right, Change::Wrong, Change::Right, Change::Removed];
/// From one place to the next, in an order that is not the schema's.
const STRIDE: usize = 37;

/// What became of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Fate {
    Followed,
    RefusedByTheServer,
    RefusedByTheOperator,
    /// The schema allows it, and the API server refuses the object that it leads to: told as a condition.
    NotApplied,
}

async fn try_out(stage: &Stage, spec: &Value) -> Fate {
    let mut manifest = stage.harness.manifest("demo", json!({}));
    manifest["spec"] = spec.clone();
    match stage.harness.try_apply(&manifest).await {
        // A value of another type is the server's own error 500, by its words.
        Err(kube::Error::Api(status)) if status.code < 500 || status.message.contains("typed patch object") => {
            return Fate::RefusedByTheServer;
        }
        answer => answer.unwrap(),
    };
    let fate = |ready: &str, valid: &str| match (ready, valid) {
        (_, "False") => Fate::RefusedByTheOperator,
        ("ApplyFailed", _) => Fate::NotApplied,
        _ => Fate::Followed,
    };
    stage
        .harness
        .eventually(&format!("a word about {spec}"), async || {
            let shop = stage.harness.shop("demo").await;
            let status = shop.status?;
            let current = status.observed_generation == shop.metadata.generation;
            let find = |kind: &str| status.conditions.iter().find(|c| c.type_ == kind && current);
            Some(fate(&find("Ready")?.reason, &find("ConfigValid")?.status))
        })
        .await
}

/// Everything there is of the shop, once it is as `spec` wants it. A new worker image waits for the api's rollout, which may
/// come after the word about the spec; the number of pods is the scaler's, and what becomes of them is the cluster's.
async fn running(stage: &Stage, spec: &Value) -> Picture {
    let image = spec.pointer("/images/worker").and_then(Value::as_str).unwrap_or(WORKER_IMAGE);
    let followed = async || {
        let worker = stage.harness.api::<Deployment>().get_opt("demo-worker").await.unwrap()?;
        (rollout::image(&worker) == Some(image)).then_some(())
    };
    stage.harness.eventually(&format!("workers of {image}"), followed).await;
    let mut picture = without_revisions(stage.picture().await);
    picture.retain(|name, _| !name.starts_with("ShopDeployment "));
    for object in picture.values_mut().filter_map(Value::as_object_mut) {
        object.remove("status");
        object["metadata"].as_object_mut().unwrap().remove("fields");
        object.get_mut("spec").and_then(Value::as_object_mut).and_then(|spec| spec.remove("replicas"));
    }
    picture
}

/// Of what the API server refuses in part the rest is followed, but pods are left alone; all else that is wrong changes nothing.
fn is_unharmed(fate: Fate, (mut before, mut after): (Picture, Picture), what: &str) {
    if fate == Fate::NotApplied {
        for picture in [&mut before, &mut after] {
            picture.retain(|name, _| name.starts_with("Deployment "));
        }
    }
    assert!(before == after, "{what} ({fate:?}) has harmed what runs: {}", difference(&before, &after));
}

/// What many changes have made of a shop is what its spec makes of nothing.
async fn is_as_if_new(stage: &Stage, spec: &Value) {
    assert_eq!(try_out(stage, spec).await, Fate::Followed);
    let changed = running(stage, spec).await;
    stage.clear().await;
    assert_eq!(try_out(stage, spec).await, Fate::Followed);
    let new = running(stage, spec).await;
    assert!(new == changed, "{spec} of a new shop: {}", difference(&new, &changed));
}

/// How often a place met which fate.
type Fates = BTreeMap<Fate, BTreeMap<String, usize>>;

fn every_fate_was_met(fates: &Fates) {
    for (fate, places) in fates {
        println!("{fate:?}: {} times, {places:?}", places.values().sum::<usize>());
    }
    for fate in [Fate::Followed, Fate::RefusedByTheServer, Fate::RefusedByTheOperator] {
        assert!(fates.contains_key(&fate), "no change was {fate:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn generated_changes_converge_and_wrong_ones_harm_nothing() {
    let stage = Stage::new().await;
    let wire = Wire::default();
    let process = stage.start("one", &wire);
    // By hand, so that the number of workers comes back at once.
    let by_hand = json!({ "worker": { "replicas": 1, "autoscaling": { "mode": "Manual" } } });
    let start = stage.harness.manifest("demo", stage.spec(by_hand))["spec"].take();
    assert_eq!(try_out(&stage, &start).await, Fate::Followed);
    stage.ready(&process, &wire).await;
    let wanted = stage.picture().await;

    let (mut generator, mut all) = (Generator::new(), Vec::new());
    places(&[], &schema(), &mut all);
    println!("{} places in the spec", all.len());
    assert!(all.len() > 80, "the schema was not understood");
    assert!(!all.len().is_multiple_of(STRIDE), "not all places are visited");
    let mut tried = BTreeSet::new();
    let mut fates = Fates::new();
    let mut current = start.clone();
    // With how many changes the current spec and the one furthest from the start came about.
    let (mut changes, mut furthest) = (0, (0, start.clone()));
    for number in 0..if is_long() { 2000 } else { 40 } {
        let (round, index) = (number / all.len(), (number * STRIDE) % all.len());
        let (place, change) = (all[index].clone(), CHANGES[(round + index) % CHANGES.len()]);
        tried.insert((index, change));
        let mut candidate = current.clone();
        let value = generator.value(&place, change);
        set(&mut candidate, &place.path, value.clone());
        let before = running(&stage, &current).await;
        let fate = try_out(&stage, &candidate).await;
        *fates.entry(fate).or_default().entry(place.path.join(".")).or_default() += 1;
        if fate == Fate::Followed {
            (changes, current) = (changes + 1, candidate);
        } else {
            let after = running(&stage, &current).await;
            is_unharmed(fate, (before, after), &format!("{} = {value:?}", place.path.join(".")));
        }
        let stands_still = matches!(place.path[0].as_str(), "paused" | "suspended");
        if changes > furthest.0 && !stands_still {
            furthest = (changes, current.clone());
        }
        let reverts = stands_still || generator.draw(0..4) == 0;
        if reverts {
            (changes, current) = (0, start.clone());
        }
        if fate != Fate::Followed && fate != Fate::RefusedByTheServer || reverts {
            try_out(&stage, &current).await;
        }
        if reverts && (!is_long() || number % 10 == 9) {
            stage.same_after_all(&wanted, &format!("the revert of change {number}")).await;
        }
    }
    every_fate_was_met(&fates);
    if is_long() {
        // Four rounds fit.
        assert_eq!(tried.len(), all.len() * 3, "a place was not set right, wrong and removed");
    }
    println!("furthest from the start, by {} changes: {}", furthest.0, furthest.1);
    assert!(furthest.0 > 2, "hardly anything was changed");
    is_as_if_new(&stage, &furthest.1).await;
    assert_eq!(try_out(&stage, &start).await, Fate::Followed);
    stage.same_after_all(&wanted, "the last revert").await;
    stage.at_rest(&process, &wire).await;
    drop(process);
    stage.finish().await;
}
