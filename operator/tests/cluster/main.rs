//! The operator on a real cluster (`KUBECONFIG`) with a real SQS (`SHOP_TEST_SQS_ENDPOINT`). Fails where one is missing.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test's helpers fail the test")]

mod harness;
mod monitoring;
mod operator;
mod queue;
mod rbac;
mod rules;
mod samples;
mod schema;
mod trust;
