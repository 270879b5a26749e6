//! Counts the worker's pods: which are of the newest template, which are ready, which have work in hand. Pure.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use jiff::Timestamp;
use k8s_openapi::api::{apps::v1::Deployment, core::v1::Pod};
use kube::ResourceExt;

use super::reports::Report;
use crate::rollout;

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Counts {
    pub current: u32,
    pub ready: u32,
    pub pending: u32,
    pub rolling: bool,
    pub busy_pods: u32,
    pub busy: u64,
    pub reporting: u32,
    pub startup_seconds: Option<f64>,
}

/// Remembers which pods' start has been measured.
#[derive(Debug)]
pub struct Census {
    started: Timestamp,
    measured: HashSet<String>,
}

impl Census {
    pub fn new(started: Timestamp) -> Self {
        Self { started, measured: HashSet::new() }
    }

    pub fn count(&mut self, worker: &Deployment, pods: &[Arc<Pod>], reports: &HashMap<String, Report>) -> Counts {
        let current = worker.spec.replicas.unwrap_or(1);
        let mut counts = Counts { current: u32::try_from(current).unwrap_or(0), ..Counts::default() };
        let mut startups = Vec::new();
        for pod in pods.iter().filter(|pod| pod.metadata.deletion_timestamp.is_none()) {
            let ready = rollout::is_ready(pod);
            let newest = rollout::is_current(pod, worker);
            match (newest, ready) {
                (true, true) => counts.ready += 1,
                (true, false) => counts.pending += 1,
                (false, _) => counts.rolling = true,
            }
            let report = reports.get(&pod.uid().unwrap_or_default());
            // Before it is ready a pod has taken nothing, and cannot be asked.
            counts.busy_pods += u32::from(ready && is_busy(report));
            counts.busy = counts.busy.saturating_add(report.map_or(0, |report| report.busy));
            counts.reporting += u32::from(report.is_some());
            startups.extend(self.startup(pod).filter(|_| ready));
        }
        let present: HashSet<_> = pods.iter().filter_map(|pod| pod.uid()).collect();
        self.measured.retain(|uid| present.contains(uid));
        counts.rolling |= rollout::of(worker).updated < rollout::of(worker).total;
        #[expect(clippy::cast_precision_loss, reason = "a handful of pods")]
        let mean = startups.iter().sum::<f64>() / startups.len().max(1) as f64;
        counts.startup_seconds = (!startups.is_empty()).then_some(mean);
        counts
    }

    /// Create → Ready, once per pod that was created under our eyes.
    fn startup(&mut self, pod: &Pod) -> Option<f64> {
        let created = pod.creation_timestamp().filter(|created| created.0 >= self.started)?;
        let conditions = pod.status.as_ref()?.conditions.as_deref()?;
        let ready = conditions.iter().find(|c| c.type_ == "Ready" && c.status == "True")?;
        let seconds = ready.last_transition_time.as_ref()?.0.duration_since(created.0).as_secs_f64();
        self.measured.insert(pod.uid()?).then_some(seconds.max(0.0))
    }
}

/// A pod that does not answer is taken to be busy.
pub fn is_busy(report: Option<&Report>) -> bool {
    report.is_none_or(|report| report.busy > 0 || report.in_flight > 0)
}

/// The pods to go when `count` of them must: idle ones, then those with the least in hand, then the newest.
pub fn victims(pods: &[Arc<Pod>], reports: &HashMap<String, Report>, count: usize) -> Vec<Arc<Pod>> {
    let mut candidates: Vec<_> = pods.iter().filter(|pod| pod.metadata.deletion_timestamp.is_none()).cloned().collect();
    candidates.sort_by_key(|pod| {
        let held =
            reports.get(&pod.uid().unwrap_or_default()).map_or(u64::MAX, |report| report.busy.max(report.in_flight));
        let age = pod.creation_timestamp().map(|created| created.0);
        (held, std::cmp::Reverse(age), pod.name_any())
    });
    candidates.truncate(count);
    candidates
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
    use kube::api::ObjectMeta;

    use super::*;

    fn pod(name: &str, created: i64) -> Arc<Pod> {
        let metadata = ObjectMeta {
            name: Some(name.to_owned()),
            uid: Some(name.to_owned()),
            creation_timestamp: Some(Time(Timestamp::from_second(created).unwrap())),
            ..ObjectMeta::default()
        };
        Arc::new(Pod { metadata, ..Pod::default() })
    }

    #[test]
    fn idle_pods_go_first_then_the_newest_and_silent_ones_last() {
        let pods = [pod("silent", 40), pod("busy", 30), pod("idle-old", 10), pod("idle-new", 20)];
        let report = |busy| Report { busy, ..Report::default() };
        let reports = [("busy", 2), ("idle-old", 0), ("idle-new", 0)];
        let reports = reports.into_iter().map(|(uid, busy)| (uid.to_owned(), report(busy))).collect();
        let order: Vec<_> = victims(&pods, &reports, 4).iter().map(|pod| pod.name_any()).collect();
        assert_eq!(order, ["idle-new", "idle-old", "busy", "silent"]);
        assert_eq!(victims(&pods, &reports, 1).len(), 1);
    }

    #[test]
    fn silence_is_taken_for_work() {
        assert!(is_busy(None));
        assert!(!is_busy(Some(&Report::default())));
        assert!(is_busy(Some(&Report { in_flight: 1, ..Report::default() })));
    }
}
