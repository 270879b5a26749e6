//! How the pods ended that the scaler took away: seen on the watch, as a pod is gone soon after its container.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;

use crate::names::{Component, INSTANCE, is_victim};

/// The pods that left work unfinished, by uid.
#[derive(Debug, Default)]
pub struct Endings(Mutex<HashMap<String, Ending>>);

#[derive(Debug)]
struct Ending {
    /// Namespace and name.
    shop: (String, String),
    counted: bool,
}

impl Endings {
    /// Takes note of a pod as it is now.
    pub fn see(&self, pod: &Pod) {
        let (Some(shop), Some(uid)) = (shop(pod), pod.uid()) else { return };
        if was_cut_off(pod) {
            let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            all.entry(uid).or_insert(Ending { shop, counted: false });
        }
    }

    /// How many of this shop's pods have left work unfinished since the last time. `is_there`: whether a pod still exists.
    pub fn count(&self, (namespace, name): (&str, &str), is_there: impl Fn(&str) -> bool) -> u32 {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut count = 0;
        all.retain(|uid, ending| {
            if (ending.shop.0.as_str(), ending.shop.1.as_str()) != (namespace, name) {
                return true;
            }
            count += u32::from(!std::mem::replace(&mut ending.counted, true));
            is_there(uid)
        });
        count
    }

    pub fn forget(&self, (namespace, name): (&str, &str)) {
        self.count((namespace, name), |_| false);
    }
}

fn shop(pod: &Pod) -> Option<(String, String)> {
    let name = pod.labels().get(INSTANCE)?;
    let is_worker = Component::Worker.selector(name).iter().all(|(key, value)| pod.labels().get(key) == Some(value));
    is_worker.then_some((pod.namespace()?, name.clone()))
}

/// Whether the scaler chose this pod, and it ended otherwise than a worker does that has finished its work. Another code than
/// 0 is a worker's that handed messages back, that ran into its grace, or that was killed.
fn was_cut_off(pod: &Pod) -> bool {
    let containers = pod.status.iter().flat_map(|status| status.container_statuses.iter().flatten());
    let mut ends = containers.filter_map(|container| container.state.as_ref()?.terminated.as_ref());
    pod.metadata.deletion_timestamp.is_some() && is_victim(pod) && ends.any(|end| end.exit_code != 0)
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::{Value, json};

    use super::*;
    use crate::names::{DELETION_COST, VICTIM};

    const MARKED: Option<&str> = Some(VICTIM);

    fn pod(mark: Option<&str>, going: bool, state: &Value) -> Pod {
        let container =
            json!({ "name": "worker", "image": "", "imageID": "", "ready": false, "restartCount": 0, "state": state });
        serde_json::from_value(json!({
            "metadata": {
                "name": "a", "namespace": "shops", "uid": "1", "labels": Component::Worker.selector("demo"),
                "annotations": mark.map(|mark| json!({ DELETION_COST: mark })),
                "deletionTimestamp": going.then_some("2026-01-01T00:00:00Z"),
            },
            "status": { "containerStatuses": [container] },
        }))
        .unwrap()
    }

    fn ended(code: i32) -> Value {
        json!({ "terminated": { "exitCode": code } })
    }

    #[rstest]
    #[case::finished(MARKED, true, ended(0), 0)]
    #[case::handed_back(MARKED, true, ended(1), 1)]
    #[case::killed(MARKED, true, ended(137), 1)]
    #[case::still_at_it(MARKED, true, json!({ "running": {} }), 0)]
    #[case::not_the_scalers_choice(None, true, ended(137), 0)]
    #[case::crashed_by_itself(MARKED, false, ended(1), 0)]
    fn only_the_scalers_victims_count(
        #[case] mark: Option<&str>,
        #[case] going: bool,
        #[case] state: Value,
        #[case] count: u32,
    ) {
        let endings = Endings::default();
        endings.see(&pod(mark, going, &state));
        assert_eq!(endings.count(("shops", "demo"), |_| true), count);
    }

    #[test]
    fn a_pod_counts_once_however_often_it_is_seen() {
        let endings = Endings::default();
        let pod = pod(MARKED, true, &ended(137));
        let seen = |is_there| {
            endings.see(&pod);
            endings.count(("shops", "demo"), |_| is_there)
        };
        assert_eq!([seen(true), seen(true), seen(false)], [1, 0, 0]);
        assert!(endings.0.lock().unwrap().is_empty(), "what is gone and counted is forgotten");
    }

    #[test]
    fn each_shop_has_its_own() {
        let endings = Endings::default();
        endings.see(&pod(MARKED, true, &ended(137)));
        assert_eq!(endings.count(("shops", "other"), |_| true), 0);
        endings.forget(("shops", "demo"));
        assert_eq!(endings.count(("shops", "demo"), |_| true), 0);
    }
}
