//! Scaling workers with the queue: observe (`depth`, `reports`, `pods`) → decide (pure) → act, repeated by `run`.

pub mod act;
pub mod decide;
pub mod depth;
pub mod endings;
mod explain;
mod history;
mod owner;
mod pods;
mod policy;
mod reports;
pub mod run;
mod schedule;
mod sizing;
pub mod view;

pub use decide::{Decision, Limit, Reason, decide};
pub use history::{History, Memory};
pub use policy::{Depth, Pause, Policy, Sample, Scheduled};
pub use schedule::{Opening, Schedule};
