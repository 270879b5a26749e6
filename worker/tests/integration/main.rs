//! The worker against real servers: from a message on the queue to a settled order, and everything that may go wrong.

mod adjustments;
mod failures;
mod late;
mod leaving;
mod orders;
mod support;
mod tls;
