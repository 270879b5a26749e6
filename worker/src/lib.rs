//! The queue worker: takes jobs from SQS, decides them in MongoDB transactions, and deletes them after the commit.

mod batch;
pub mod config;
mod consume;
mod decide;
pub mod delivery;
pub mod handle;
mod metrics;
#[cfg(feature = "naive-allocation")]
mod naive;
mod pace;
pub mod report;
mod simulated;
mod start;

pub use config::Config;
pub use consume::deadline;
pub use start::{StartError, start};
