//! Real traffic for a running shop: a client of its HTTP API, bursts of orders, and a view of what becomes of them; and
//! benches, which run the real binaries in a shop of their own. Load goes to 127.0.0.1 only, bounded in count and time.

pub mod burst;
pub mod client;
pub mod command;
pub mod control;
pub mod flash;
pub mod ground;
pub mod latency;
pub mod process;
pub mod random;
pub mod rates;
pub mod record;
pub mod scale;
pub mod view;
