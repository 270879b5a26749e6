//! Relay, mailer and sweeper against real servers: nothing that is owed gets lost, and nothing newer gets erased.

mod mailer;
mod relay;
mod sweeper;
