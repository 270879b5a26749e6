//! The operator on a real cluster (`KUBECONFIG`) with a real SQS (`SHOP_TEST_SQS_ENDPOINT`). Fails where one is missing.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test's helpers fail the test")]

mod audit;
mod crashes;
mod events;
mod goldens;
mod harness;
mod ingress;
mod kubelet;
mod leaders;
mod lifecycle;
mod monitoring;
mod mutations;
mod operator;
mod planted;
mod queue;
mod rbac;
mod rest;
mod rollouts;
mod rotation;
mod rules;
mod samples;
mod scaling;
mod schema;
mod security;
mod sharing;
mod stage;
mod trust;
mod watches;
mod wire;
