//! Where the servers of the tests are, as `cargo xtask test e2e` says in the environment.

use anyhow::{Context, Result};

/// For the tests and for the pods.
#[derive(Debug, Clone)]
pub(crate) struct Servers {
    pub(crate) ingress: String,
    pub(crate) ses: String,
    pub(crate) sqs: String,
    pub(crate) mongodb: String,
    pub(crate) pods_mongodb: String,
    pub(crate) pods_redis: String,
    pub(crate) pods_sqs: String,
    pub(crate) pods_ses: String,
}

impl Servers {
    pub(crate) fn from_env() -> Result<Self> {
        Ok(Self {
            ingress: variable("SHOP_TEST_INGRESS_URL")?,
            ses: variable("SHOP_TEST_SES_ENDPOINT")?,
            sqs: variable("SHOP_TEST_SQS_ENDPOINT")?,
            mongodb: variable("SHOP_TEST_MONGODB_URI")?,
            pods_mongodb: variable("SHOP_TEST_CLUSTER_MONGODB_URI")?,
            pods_redis: variable("SHOP_TEST_CLUSTER_REDIS_URL")?,
            pods_sqs: variable("SHOP_TEST_CLUSTER_SQS_ENDPOINT")?,
            pods_ses: variable("SHOP_TEST_CLUSTER_SES_ENDPOINT")?,
        })
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "the harness has no config.rs; this is the one place that reads the environment"
)]
fn variable(name: &str) -> Result<String> {
    std::env::var(name)
        .with_context(|| format!("{name} is not set: run `cargo xtask test e2e`, which starts what the tests need"))
}
