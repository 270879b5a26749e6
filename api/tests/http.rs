//! The service as its clients see it: started in this process, on the real servers, called over HTTP.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking, in its helpers too")]

#[path = "http/shop.rs"]
mod shop;

#[path = "senders/ses.rs"]
#[expect(dead_code, reason = "the mail service of the senders' tests, of which these need little")]
mod ses;

#[path = "http/accounts.rs"]
mod accounts;
#[path = "http/auth.rs"]
mod auth;
#[path = "http/cancel.rs"]
mod cancel;
#[path = "http/catalogue.rs"]
mod catalogue;
#[path = "http/catalogue_cache.rs"]
mod catalogue_cache;
#[path = "http/catalogue_changes.rs"]
mod catalogue_changes;
#[path = "http/compatibility.rs"]
mod compatibility;
#[path = "http/currency.rs"]
mod currency;
#[path = "http/dead_letters.rs"]
mod dead_letters;
#[path = "http/degraded.rs"]
mod degraded;
#[path = "http/doctor.rs"]
mod doctor;
#[path = "http/document.rs"]
mod document;
#[path = "http/events.rs"]
mod events;
#[path = "http/idempotency.rs"]
mod idempotency;
#[path = "http/inventory.rs"]
mod inventory;
#[path = "http/limits.rs"]
mod limits;
#[path = "http/logs.rs"]
mod logs;
#[path = "http/mails.rs"]
mod mails;
#[path = "http/monitoring.rs"]
mod monitoring;
#[path = "http/order_events.rs"]
mod order_events;
#[path = "http/orders.rs"]
mod orders;
#[path = "http/original_defects.rs"]
mod original_defects;
#[path = "http/password_reset.rs"]
mod password_reset;
#[path = "http/process.rs"]
mod process;
#[path = "http/protocol.rs"]
mod protocol;
#[path = "http/sessions.rs"]
mod sessions;
#[path = "http/smoke.rs"]
mod smoke;
#[path = "http/staff.rs"]
mod staff;
#[path = "http/tls.rs"]
mod tls;
#[path = "http/tokens.rs"]
mod tokens;
#[path = "http/tour.rs"]
mod tour;
#[path = "http/users.rs"]
mod users;
