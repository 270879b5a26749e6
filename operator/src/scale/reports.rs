//! What the workers say of themselves: `GET :9090/report` of every pod, by pod address. A pod that does not answer is busy.
//! One that has nothing to do is asked once, and answers when it has.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use futures::stream::{FuturesUnordered, StreamExt};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use serde::Deserialize;
use tokio::time::Instant;

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
    /// Pods of an older image, which answer at once.
    hasty: HashSet<String>,
}

impl Report {
    fn is_idle(&self) -> bool {
        self.busy == 0 && self.in_flight == 0
    }
}

impl Reporters {
    pub fn new(asker: Asker, started: Timestamp) -> Self {
        Self { asker, started, last: HashMap::new(), hasty: HashSet::new() }
    }

    /// The reports of the pods that answered, by uid.
    pub async fn ask(&self, pods: &[Arc<Pod>]) -> HashMap<String, Report> {
        let ask = async |pod: &Arc<Pod>| Some((pod.uid()?, self.asker.report(pod).await?));
        let answers = futures::future::join_all(pods.iter().map(ask)).await;
        answers.into_iter().flatten().collect()
    }

    /// Whether every pod has said that it has nothing to do, and will say so when it has.
    pub fn are_idle(&self, pods: &[Arc<Pod>], reports: &HashMap<String, Report>) -> bool {
        let idle = |pod: &Arc<Pod>| {
            let uid = pod.uid().unwrap_or_default();
            !self.hasty.contains(&uid) && reports.get(&uid).is_some_and(Report::is_idle)
        };
        !pods.is_empty() && pods.iter().all(idle)
    }

    /// Waits until one of these idle pods has news or cannot be reached any more, at most so long. Whether there was any.
    pub async fn news(&mut self, pods: &[Arc<Pod>], most: Duration) -> bool {
        let begun = Instant::now();
        let ask = async |pod: &Arc<Pod>| {
            let uid = pod.uid().unwrap_or_default();
            let seen = self.last.get(&uid).map_or(0, |report| report.completed_total);
            let answer = self.asker.news::<Report>(pod, seen, most).await;
            (uid, answer.filter(|report| report.is_idle() && report.completed_total == seen))
        };
        let mut answers: FuturesUnordered<_> = pods.iter().map(ask).collect();
        while let Some((uid, nothing_new)) = answers.next().await {
            if nothing_new.is_none() {
                return true;
            }
            if begun.elapsed() < most / 2 {
                drop(answers);
                self.hasty.insert(uid);
                return false;
            }
        }
        false
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
        self.hasty.retain(|uid| present.contains(uid));
        progress
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::PodStatus;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
    use kube::api::ObjectMeta;
    use rstest::rstest;
    use shop_runtime::{ops, shutdown::Shutdown};
    use shop_worker::report::Activity;

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

    /// A pod at an address of its own, where a worker with this activity answers.
    async fn working(address: &str, activity: &Activity) -> Arc<Pod> {
        let listens = format!("{address}:9090").parse().unwrap();
        ops::serve(listens, activity.routes(), &Shutdown::manual()).await.unwrap();
        at(address)
    }

    fn at(address: &str) -> Arc<Pod> {
        let status = PodStatus { pod_ip: Some(address.to_owned()), ..PodStatus::default() };
        let metadata = ObjectMeta { uid: Some(address.to_owned()), ..ObjectMeta::default() };
        Arc::new(Pod { metadata, status: Some(status), ..Pod::default() })
    }

    /// Seconds until there was an answer, whether it was news, and whether the pods may be waited for after it.
    async fn waited(reporters: &mut Reporters, pods: &[Arc<Pod>]) -> (u64, bool, bool) {
        let reports = reporters.ask(pods).await;
        reporters.progress(pods, &reports);
        let (begun, idle) = (Instant::now(), reporters.are_idle(pods, &reports));
        let news = idle && reporters.news(pods, Duration::from_secs(4)).await;
        let seconds = begun.elapsed().as_secs();
        let reports = reporters.ask(pods).await;
        (seconds, news, reporters.are_idle(pods, &reports))
    }

    #[tokio::test]
    async fn idle_workers_tell_when_they_take_up_work() {
        let activity = [Activity::default(), Activity::default()];
        let pods = [working("127.77.0.1", &activity[0]).await, working("127.77.0.2", &activity[1]).await];
        let mut reporters = Reporters::new(Asker::default(), Timestamp::UNIX_EPOCH);
        let later = async || {
            tokio::time::sleep(Duration::from_millis(1100)).await;
            activity[1].hold(1)
        };
        let (told, held) = tokio::join!(waited(&mut reporters, &pods), later());
        assert_eq!(told, (1, true, false), "one has work");
        assert_eq!(waited(&mut reporters, &pods).await, (0, false, false), "who has work is not waited for");
        activity[1].complete(1, Duration::ZERO);
        drop(held);
        assert_eq!(waited(&mut reporters, &pods).await, (4, false, true), "nothing new");
    }

    #[rstest]
    #[case::nobody_there("127.77.0.3")]
    #[case::no_address("")]
    #[tokio::test]
    async fn a_worker_that_says_nothing_is_not_idle(#[case] address: &str) {
        let mut reporters = Reporters::new(Asker::default(), Timestamp::UNIX_EPOCH);
        assert_eq!(waited(&mut reporters, &[at(address)]).await, (0, false, false));
        assert_eq!(waited(&mut reporters, &[]).await, (0, false, false));
    }

    #[tokio::test]
    async fn a_worker_that_answers_at_once_is_not_waited_for_again() {
        let old = axum::Router::new().route("/report", axum::routing::get(async || "{}"));
        let listens = "127.77.0.4:9090".parse().unwrap();
        ops::serve(listens, old, &Shutdown::manual()).await.unwrap();
        let mut reporters = Reporters::new(Asker::default(), Timestamp::UNIX_EPOCH);
        assert_eq!(waited(&mut reporters, &[at("127.77.0.4")]).await, (0, false, false));
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
