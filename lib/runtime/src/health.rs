//! Readiness by name: each part that must be there opens its gate; `/readyz` lists the closed ones.

use std::{
    collections::BTreeMap,
    sync::{Arc, PoisonError, RwLock},
};

/// All gates of a process. Ready when every one is open.
#[derive(Debug, Clone, Default)]
pub struct Readiness(Arc<RwLock<BTreeMap<&'static str, String>>>);

impl Readiness {
    /// Closes the gate `name` and says why; the process is not ready while it is closed.
    pub fn close(&self, name: &'static str, why: impl Into<String>) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).insert(name, why.into());
    }

    pub fn open(&self, name: &'static str) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).remove(name);
    }

    /// The closed gates, `name: why`; empty when ready.
    pub fn missing(&self) -> Vec<String> {
        let gates = self.0.read().unwrap_or_else(PoisonError::into_inner);
        gates.iter().map(|(name, why)| format!("{name}: {why}")).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_is_when_nothing_is_missing() {
        let readiness = Readiness::default();
        assert!(readiness.missing().is_empty());
        readiness.close("mongodb", "no answer yet");
        readiness.close("draining", "SIGTERM");
        assert_eq!(readiness.missing(), ["draining: SIGTERM", "mongodb: no answer yet"]);
        readiness.open("mongodb");
        assert_eq!(readiness.missing(), ["draining: SIGTERM"]);
    }
}
