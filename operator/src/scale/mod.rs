//! Scaling workers with the queue: observe (`depth`, `reports`, `pods`) → decide (pure) → act, repeated by `run`.

pub mod act;
pub mod decide;
pub mod depth;
mod explain;
mod history;
mod owner;
mod pods;
mod policy;
mod reports;
pub mod run;
mod sizing;
pub mod view;

pub use decide::{Decision, Limit, Reason, decide};
pub use history::History;
pub use policy::{Depth, Pause, Policy, Sample};
