//! The service as its clients see it: started in this process, on the real servers, called over HTTP.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking, in its helpers too")]

#[path = "http/shop.rs"]
mod shop;

#[path = "http/auth.rs"]
mod auth;
#[path = "http/catalogue.rs"]
mod catalogue;
#[path = "http/degraded.rs"]
mod degraded;
#[path = "http/inventory.rs"]
mod inventory;
#[path = "http/limits.rs"]
mod limits;
#[path = "http/mails.rs"]
mod mails;
#[path = "http/orders.rs"]
mod orders;
#[path = "http/password_reset.rs"]
mod password_reset;
#[path = "http/protocol.rs"]
mod protocol;
#[path = "http/staff.rs"]
mod staff;
