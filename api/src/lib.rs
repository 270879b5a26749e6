//! The HTTP service of the shop, with the relay, the mailer and the sweeper that work beside it.

pub mod app;
pub mod config;
mod extract;
pub mod keys;
mod layers;
pub mod limits;
pub mod mailer;
mod openapi;
pub mod passwords;
mod problem;
pub mod relay;
pub mod reset_tokens;
pub mod router;
mod routes;
mod server;
pub mod service;
pub mod sweeper;
pub mod tokens;
