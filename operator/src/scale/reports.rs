//! What the workers say of themselves: `GET :9090/report` of every pod, by pod address. A pod that does not answer is busy.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use serde::Deserialize;

use crate::ask::Asker;

#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct Report {
    pub busy: u64,
    pub in_flight: u64,
    pub completed_total: u64,
    pub service_seconds_total: f64,
}

/// What was completed since the last time.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Progress {
    pub completed: u64,
    pub service_seconds: f64,
}

/// Asks the pods and remembers what they said last: pods come and go, so their sum is not monotone.
#[derive(Debug)]
pub struct Reporters {
    asker: Asker,
    /// Pods older than this have a past that is not this process's business.
    started: Timestamp,
    last: HashMap<String, Report>,
}

impl Reporters {
    pub fn new(asker: Asker, started: Timestamp) -> Self {
        Self { asker, started, last: HashMap::new() }
    }

    /// The reports of the pods that answered, by uid.
    pub async fn ask(&self, pods: &[Arc<Pod>]) -> HashMap<String, Report> {
        let ask = async |pod: &Arc<Pod>| Some((pod.uid()?, self.asker.report(pod).await?));
        let answers = futures::future::join_all(pods.iter().map(ask)).await;
        answers.into_iter().flatten().collect()
    }

    /// Folds new reports in.
    pub fn progress(&mut self, pods: &[Arc<Pod>], reports: &HashMap<String, Report>) -> Progress {
        let mut progress = Progress::default();
        for pod in pods {
            let uid = pod.uid().unwrap_or_default();
            let Some(report) = reports.get(&uid) else { continue };
            let is_new = pod.creation_timestamp().is_some_and(|created| created.0 >= self.started);
            let before = self.last.insert(uid, *report).unwrap_or(if is_new { Report::default() } else { *report });
            // A container that was started anew counts from zero.
            let before = if report.completed_total < before.completed_total { Report::default() } else { before };
            progress.completed += report.completed_total - before.completed_total;
            progress.service_seconds += (report.service_seconds_total - before.service_seconds_total).max(0.0);
        }
        let present: HashSet<_> = pods.iter().filter_map(|pod| pod.uid()).collect();
        self.last.retain(|uid, _| present.contains(uid));
        progress
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
    use kube::api::ObjectMeta;

    use super::*;

    fn pod(uid: &str, created: i64) -> Arc<Pod> {
        let created = Time(Timestamp::from_second(created).unwrap());
        let metadata =
            ObjectMeta { uid: Some(uid.to_owned()), creation_timestamp: Some(created), ..ObjectMeta::default() };
        Arc::new(Pod { metadata, ..Pod::default() })
    }

    fn report(completed_total: u64) -> Report {
        #[expect(clippy::cast_precision_loss, reason = "small numbers")]
        Report { completed_total, service_seconds_total: completed_total as f64 * 0.5, ..Report::default() }
    }

    #[test]
    fn progress_is_per_pod() {
        let mut reporters = Reporters::new(Asker::default(), Timestamp::from_second(100).unwrap());
        let (old, new) = (pod("old", 50), pod("new", 150));
        let mut step = |pods: &[Arc<Pod>], reports: &[(&str, u64)]| {
            let reports = reports.iter().map(|(uid, n)| ((*uid).to_owned(), report(*n))).collect();
            reporters.progress(pods, &reports).completed
        };
        // What an old pod did before this process started is unknown; a new one started from nothing.
        assert_eq!(step(&[old.clone(), new.clone()], &[("old", 1000), ("new", 4)]), 4);
        assert_eq!(step(&[old.clone(), new.clone()], &[("old", 1003), ("new", 10)]), 9);
        // One is gone, one was restarted.
        assert_eq!(step(std::slice::from_ref(&new), &[("new", 2)]), 2);
        // One poll without an answer loses nothing.
        assert_eq!(step(std::slice::from_ref(&new), &[]), 0);
        assert_eq!(step(&[new], &[("new", 7)]), 5);
    }
}
