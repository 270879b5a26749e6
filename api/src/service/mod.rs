//! What the shop does, without HTTP: parse → decide → act on the store.

pub mod accounts;
pub mod catalogue;
pub mod email;
pub mod inventory;
pub mod mails;
pub mod orders;
pub mod password_reset;
pub mod sessions;
