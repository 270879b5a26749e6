//! The process's metric registry, shared by all parts that count something.

use std::sync::{Arc, Mutex, PoisonError};

use prometheus_client::{encoding::text, registry::Registry};

/// A shared registry; names are `shop_<part>_<thing>_<unit>`.
#[derive(Debug, Clone, Default)]
pub struct Metrics(Arc<Mutex<Registry>>);

impl Metrics {
    /// Registers metrics, once, at start-up.
    pub fn register<T>(&self, with: impl FnOnce(&mut Registry) -> T) -> T {
        with(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The `OpenMetrics` text of all metrics.
    pub fn encode(&self) -> Result<String, std::fmt::Error> {
        let mut out = String::new();
        text::encode(&mut out, &self.0.lock().unwrap_or_else(PoisonError::into_inner))?;
        Ok(out)
    }
}
