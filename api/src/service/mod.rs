//! What the shop does, without HTTP: parse → decide → act on the store.

pub mod accounts;
pub mod catalogue;
pub mod doctor;
pub mod email;
pub mod erasure;
pub mod inventory;
pub mod mails;
pub mod order_events;
pub mod orders;
pub mod page;
pub mod password_reset;
pub mod sessions;
pub mod users;
