//! The store against real servers: what each method promises, also when others are faster.

mod cache;
mod leases;
mod offers;
mod orders;
mod outbox;
mod password_resets;
mod stock;
mod suppressed_addresses;
mod unfinished;
mod users;
