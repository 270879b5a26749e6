//! What the worker is doing right now, for the scaler: `GET /report` on the operations port, at once or when there is news.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use axum::{
    Json, Router,
    extract::{Query, State},
    routing::get,
};
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

/// No question is held for longer.
const LONGEST_WAIT: Duration = Duration::from_mins(1);

/// The worker's counters. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Activity(Arc<Counters>);

#[derive(Debug, Default)]
struct Counters {
    busy: AtomicU64,
    in_flight: AtomicU64,
    completed: AtomicU64,
    service_micros: AtomicU64,
    /// Messages were received.
    received: Notify,
}

/// The answer of `/report`.
#[derive(Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// Messages being worked on.
    pub busy: u64,
    /// Messages received and neither deleted nor given back.
    pub in_flight: u64,
    pub completed_total: u64,
    /// Seconds of work, summed over all completed messages.
    pub service_seconds_total: f64,
}

/// `GET /report?wait=20&seen=7`: answered when the worker has a message in hand or has completed others than the 7 that are
/// known, at the latest after 20 seconds.
#[derive(Debug, Deserialize)]
struct Wait {
    wait: Option<u64>,
    #[serde(default)]
    seen: u64,
}

/// Messages that are held; dropping it lets them go.
#[derive(Debug)]
pub struct Held {
    activity: Activity,
    messages: u64,
    working: bool,
}

impl Activity {
    /// Messages were received.
    pub fn hold(&self, messages: usize) -> Held {
        let messages = messages as u64;
        self.0.in_flight.fetch_add(messages, Ordering::Relaxed);
        self.0.received.notify_waiters();
        Held { activity: self.clone(), messages, working: false }
    }

    /// Some messages are finished, each after `service` of work.
    pub fn complete(&self, messages: usize, service: Duration) {
        let messages = messages as u64;
        let micros = u64::try_from(service.as_micros()).unwrap_or(u64::MAX).saturating_mul(messages);
        self.0.completed.fetch_add(messages, Ordering::Relaxed);
        self.0.service_micros.fetch_add(micros, Ordering::Relaxed);
    }

    pub fn report(&self) -> Report {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Report {
            busy: load(&self.0.busy),
            in_flight: load(&self.0.in_flight),
            completed_total: load(&self.0.completed),
            service_seconds_total: Duration::from_micros(load(&self.0.service_micros)).as_secs_f64(),
        }
    }

    /// Until there is a message in hand, or more are completed than were `seen`.
    async fn news(&self, seen: u64) {
        loop {
            // Before the look: what is received after it wakes this up.
            let received = self.0.received.notified();
            let report = self.report();
            if report.in_flight > 0 || report.completed_total != seen {
                return;
            }
            received.await;
        }
    }

    /// The route of the report.
    pub fn routes(&self) -> Router {
        Router::new().route("/report", get(show)).with_state(self.clone())
    }
}

async fn show(State(activity): State<Activity>, Query(wait): Query<Wait>) -> Json<Report> {
    if let Some(seconds) = wait.wait {
        let most = Duration::from_secs(seconds).min(LONGEST_WAIT);
        // In time or not: the report says what there is.
        let _in_time = tokio::time::timeout(most, activity.news(wait.seen)).await;
    }
    Json(activity.report())
}

impl Held {
    pub fn messages(&self) -> u32 {
        u32::try_from(self.messages).unwrap_or(u32::MAX)
    }

    /// They are worked on from now.
    pub fn work(&mut self) {
        if !std::mem::replace(&mut self.working, true) {
            self.activity.0.busy.fetch_add(self.messages, Ordering::Relaxed);
        }
    }

    /// The work is over; what remains is deleting or giving back.
    pub fn worked(&mut self) {
        if std::mem::take(&mut self.working) {
            self.activity.0.busy.fetch_sub(self.messages, Ordering::Relaxed);
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.worked();
        self.activity.0.in_flight.fetch_sub(self.messages, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;

    #[test]
    fn the_report_follows_a_batch() {
        let activity = Activity::default();
        let mut held = activity.hold(3);
        assert_eq!((activity.report().busy, activity.report().in_flight), (0, 3));
        held.work();
        assert_eq!((activity.report().busy, activity.report().in_flight), (3, 3));
        held.worked();
        assert_eq!((activity.report().busy, activity.report().in_flight), (0, 3));
        activity.complete(2, Duration::from_millis(250));
        drop(held);
        let expected = Report { busy: 0, in_flight: 0, completed_total: 2, service_seconds_total: 0.5 };
        assert_eq!(activity.report(), expected);
    }

    #[tokio::test]
    async fn a_question_waits_for_news() {
        let activity = Activity::default();
        let ask = async |wait, seen| {
            let asked = Instant::now();
            let Json(report) = show(State(activity.clone()), Query(Wait { wait, seen })).await;
            (asked.elapsed().as_secs(), report.in_flight, report.completed_total)
        };
        let later = async || {
            tokio::time::sleep(Duration::from_millis(1100)).await;
            activity.hold(2)
        };
        assert_eq!(ask(None, 0).await, (0, 0, 0), "who does not wait is answered at once");
        assert_eq!(ask(Some(1), 0).await, (1, 0, 0), "no news");
        let (answer, held) = tokio::join!(ask(Some(20), 0), later());
        assert_eq!(answer, (1, 2, 0), "messages have come");
        assert_eq!(ask(Some(20), 0).await, (0, 2, 0), "they are still there");
        activity.complete(2, Duration::from_secs(1));
        drop(held);
        assert_eq!(ask(Some(20), 0).await, (0, 0, 2), "work that is done is news to who has not seen it");
        assert_eq!(ask(Some(1), 2).await, (1, 0, 2));
    }

    #[test]
    fn the_report_has_the_names_that_the_scaler_reads() {
        let json = serde_json::to_value(Activity::default().report()).unwrap();
        let expected = serde_json::json!({ "busy": 0, "inFlight": 0, "completedTotal": 0, "serviceSecondsTotal": 0.0 });
        assert_eq!(json, expected);
    }
}
