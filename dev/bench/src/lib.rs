//! Real traffic for a running shop: a client of its HTTP API, bursts of orders, and a view of what becomes of them.
//! Load goes to the local ingress only, bounded in count and time.

pub mod burst;
pub mod client;
pub mod view;
