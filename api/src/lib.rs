//! The HTTP service of the shop, with the relay, the mailer, the sweeper and the eraser that work beside it.

pub mod app;
pub mod config;
pub mod dead_letters;
mod eraser;
mod extract;
pub mod keys;
mod layers;
pub mod limits;
pub mod mailer;
mod openapi;
pub mod order_events;
pub mod passwords;
mod probes;
pub mod problem;
pub mod relay;
mod report;
pub mod reset_tokens;
pub mod router;
mod routes;
mod server;
pub mod service;
pub mod smoke;
pub mod sweeper;
pub mod tokens;
mod views;
