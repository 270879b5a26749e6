//! The charts with the pinned helm: what they render and refuse, and releases on the whole cluster from the packaged ones of
//! version 0.1.0 to those of this checkout. `cargo xtask test e2e` starts what it needs.

mod helm;
mod refused;
mod rendered;
mod upgraded;
