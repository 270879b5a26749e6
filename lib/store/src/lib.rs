//! MongoDB and Redis: one file per collection, methods named by intent, every query of the shop.
//! Decides nothing: time, ids and decisions come in as arguments.

pub mod adjustments;
pub mod audit;
mod bulk;
pub mod catalogue_cache;
pub mod client;
mod dates;
pub mod dead_letters;
pub mod erasures;
pub mod error;
pub mod gate;
pub mod leases;
pub mod mails;
mod migrate;
pub mod movements;
pub mod offers;
pub mod order_cache;
pub mod order_events;
pub mod orders;
pub mod outbox;
pub mod password_resets;
pub mod products;
pub mod redis_link;
pub mod session_cache;
pub mod sessions;
pub mod shared_limits;
pub mod stock;
pub mod suppressed_addresses;
pub mod transaction;
pub mod unfinished;
pub mod users;

pub use client::Store;
pub use error::StoreError;
