//! The vocabulary of the shop: ids, money, orders, stock and queue messages.
//! Pure: no IO, no clock, no random source, no async. Everything here is decided from its arguments.

pub mod account;
pub mod catalogue;
pub mod id;
pub mod message;
pub mod money;
pub mod order;
pub mod stock;
