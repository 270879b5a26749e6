//! `kubectl shop pause`, `resume` and `suspend`: the switches of a shop's spec and annotations. What is so already is not written.

use std::fmt::Write as _;

use anyhow::Result;
use kube::{
    ResourceExt,
    api::{Patch, PatchParams},
};
use serde::Serialize;
use serde_json::{Value, json};
use shop_operator::{
    crd::ShopDeployment,
    names::{PAUSE_SCALE_DOWN, PAUSE_SCALING},
};

use crate::{
    cluster::Cluster,
    output::Output,
    status::switches,
    text::{Tone, toned},
};

const MANAGER: &str = "kubectl-shop";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pause {
    Everything,
    Scaling,
    ScaleDown,
}

impl Pause {
    pub fn of(scaling: bool, scale_down: bool) -> Self {
        match (scaling, scale_down) {
            (true, _) => Self::Scaling,
            (false, true) => Self::ScaleDown,
            (false, false) => Self::Everything,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    Pause(Pause),
    Suspend,
    Resume,
}

/// What was done, and what is so now.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Report {
    name: String,
    namespace: String,
    changed: bool,
    switches: Vec<&'static str>,
    #[serde(skip)]
    meaning: String,
}

pub async fn switch(cluster: &Cluster, output: Output, (name, change): (&str, Change)) -> Result<()> {
    let mut shop = cluster.shop(name).await?;
    let patch = change.patch(&shop);
    if let Some(patch) = &patch {
        let params = PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() };
        let patched = cluster.api::<ShopDeployment>().patch(name, &params, &Patch::Merge(patch)).await;
        let doing = format!("change shop {name} in namespace {}", cluster.namespace);
        shop = patched.map_err(|error| cluster.problem(&doing, error))?;
    }
    let report = Report {
        name: name.to_owned(),
        namespace: cluster.namespace.clone(),
        changed: patch.is_some(),
        switches: switches(&shop),
        meaning: change.meaning(&shop),
    };
    output.print(&report, || render(&report, change))
}

impl Change {
    /// The merge patch; none where it is so already.
    fn patch(self, shop: &ShopDeployment) -> Option<Value> {
        let annotation = |key: &str| shop.annotations().get(key).map(String::as_str);
        let annotate = |key: &str| json!({ "metadata": { "annotations": { key: "true" } } });
        let off = |key: &str| annotation(key).is_none_or(|value| value == "false");
        match self {
            Self::Pause(Pause::Everything) => (!shop.spec.paused).then(|| json!({ "spec": { "paused": true } })),
            Self::Suspend => (!shop.spec.suspended).then(|| json!({ "spec": { "suspended": true } })),
            Self::Pause(Pause::Scaling) => off(PAUSE_SCALING).then(|| annotate(PAUSE_SCALING)),
            Self::Pause(Pause::ScaleDown) => off(PAUSE_SCALE_DOWN).then(|| annotate(PAUSE_SCALE_DOWN)),
            // Null takes a field away; the schema's default is no.
            Self::Resume => (!switches(shop).is_empty()).then(|| {
                json!({
                    "metadata": { "annotations": { PAUSE_SCALING: null, PAUSE_SCALE_DOWN: null } },
                    "spec": { "paused": null, "suspended": null },
                })
            }),
        }
    }

    /// What it means, of a shop that it has been done to.
    fn meaning(self, shop: &ShopDeployment) -> String {
        let waits = shop.spec.paused && self != Self::Pause(Pause::Everything);
        let meaning = match self {
            Self::Pause(Pause::Everything) => {
                "the operator reports and changes nothing: no repair, no rollout, no scaling"
            }
            Self::Pause(Pause::Scaling) => "the number of workers stays as it is",
            Self::Pause(Pause::ScaleDown) => "workers are added where needed, none is taken away",
            Self::Suspend if waits => "no api and no worker pods, once the shop is not paused any more",
            Self::Suspend => "no api and no worker pods; queue, data and addresses are kept",
            Self::Resume => "the operator looks after all of it",
        };
        meaning.to_owned()
    }

    fn name(self) -> &'static str {
        match self {
            Self::Pause(Pause::Everything) => "paused",
            Self::Pause(Pause::Scaling) => "scaling paused",
            Self::Pause(Pause::ScaleDown) => "scaling down paused",
            Self::Suspend => "suspended",
            Self::Resume => "resumed",
        }
    }
}

fn render(report: &Report, change: Change) -> String {
    let already = if report.changed { "" } else { " already: nothing was changed" };
    let mut text = format!("{}: {}{already}\n{}\n", toned(Tone::Head, &report.name), change.name(), report.meaning);
    if change != Change::Resume {
        let _ = writeln!(text, "undo it with `kubectl shop resume {} -n {}`", report.name, report.namespace);
    }
    text
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;
    use crate::{status::tests::shop, text::tests::bare};

    const ALL: [Change; 4] = [
        Change::Pause(Pause::Everything),
        Change::Pause(Pause::Scaling),
        Change::Pause(Pause::ScaleDown),
        Change::Suspend,
    ];

    fn patched(shop: &ShopDeployment, patch: &Value) -> ShopDeployment {
        let mut object = serde_json::to_value(shop).unwrap();
        merge(&mut object, patch);
        serde_json::from_value(object).unwrap()
    }

    /// RFC 7386, as the API server does it.
    fn merge(target: &mut Value, patch: &Value) {
        let Value::Object(fields) = patch else { return *target = patch.clone() };
        if !target.is_object() {
            *target = json!({});
        }
        for (key, value) in fields {
            if value.is_null() {
                target.as_object_mut().unwrap().remove(key);
            } else {
                merge(&mut target[key], value);
            }
        }
    }

    #[test]
    fn each_is_done_once_and_all_are_undone_together() {
        let before = shop(|_| {});
        assert_eq!(Change::Resume.patch(&before), None);
        let mut now = before.clone();
        for (count, change) in (1..).zip(ALL) {
            now = patched(&now, &change.patch(&now).unwrap());
            assert_eq!(switches(&now).len(), count, "{change:?}");
            assert_eq!(change.patch(&now), None, "{change:?} once more");
        }
        let after = patched(&now, &Change::Resume.patch(&now).unwrap());
        assert_eq!(switches(&after), Vec::<&str>::new());
        assert_eq!(after.spec, before.spec);
    }

    #[test]
    fn an_annotation_that_says_false_is_off() {
        let shop = shop(|shop| shop["metadata"]["annotations"] = json!({ PAUSE_SCALING: "false" }));
        assert!(Change::Pause(Pause::Scaling).patch(&shop).is_some());
        assert_eq!(Change::Resume.patch(&shop), None);
    }

    #[rstest]
    #[case::suspended(false, "no api and no worker pods; queue, data and addresses are kept")]
    #[case::but_paused(true, "no api and no worker pods, once the shop is not paused any more")]
    fn a_paused_shop_is_not_suspended_yet(#[case] paused: bool, #[case] meaning: &str) {
        assert_eq!(Change::Suspend.meaning(&shop(|shop| shop["spec"]["paused"] = json!(paused))), meaning);
    }

    #[test]
    fn what_was_done_and_how_to_undo_it() {
        let report = |changed| Report {
            name: "demo".to_owned(),
            namespace: "shops".to_owned(),
            changed,
            switches: vec![],
            meaning: "this".to_owned(),
        };
        let undo = "undo it with `kubectl shop resume demo -n shops`\n";
        assert_eq!(bare(&render(&report(true), Change::Suspend)), format!("demo: suspended\nthis\n{undo}"));
        let again = bare(&render(&report(false), Change::Pause(Pause::Scaling)));
        assert_eq!(again, format!("demo: scaling paused already: nothing was changed\nthis\n{undo}"));
        assert_eq!(bare(&render(&report(true), Change::Resume)), "demo: resumed\nthis\n");
    }
}
