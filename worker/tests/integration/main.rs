//! The worker against real servers: from a message on the queue to a settled order, and everything that may go wrong.

mod adjustments;
mod decisions;
mod failures;
mod late;
mod leaving;
mod log;
mod orders;
mod sigkill;
mod support;
mod tls;
