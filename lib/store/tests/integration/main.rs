//! The store against real servers: what each method promises, also when others are faster.

mod cache;
mod dead_letters;
mod leases;
mod offers;
mod orders;
mod outbox;
mod password_resets;
mod plans;
mod sessions;
mod shared_limits;
mod stock;
mod suppressed_addresses;
mod unfinished;
mod users;
