//! What the scaler last saw and decided for each shop: written by its loop, read by the report.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use jiff::Timestamp;

use super::{decide::Decision, history::Memory, policy::Depth};
use crate::assess::QueueHealth;

#[derive(Clone, Debug, Default)]
pub struct View {
    pub queue: QueueHealth,
    pub url: Option<String>,
    pub depth: Option<Depth>,
    pub decision: Option<Decision>,
    pub last_scale: Option<Timestamp>,
    pub memory: Memory,
}

impl View {
    /// Whether the difference is one that the status should show at once.
    pub fn differs(&self, other: &Self) -> bool {
        let decided = |view: &Self| view.decision.as_ref().map(|d| (d.replicas, d.reason, d.limit));
        self.queue != other.queue || self.url != other.url || decided(self) != decided(other)
    }
}

/// The views of all shops, by uid.
#[derive(Debug, Default)]
pub struct Views(Mutex<HashMap<String, View>>);

impl Views {
    pub fn get(&self, uid: &str) -> Option<View> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(uid).cloned()
    }

    pub fn set(&self, uid: &str, view: View) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(uid.to_owned(), view);
    }

    pub fn remove(&self, uid: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(uid);
    }
}
