//! Where the servers are, from the environment that `cargo xtask test integration` sets.

use anyhow::Context;
use secrecy::SecretString;

/// The addresses of the four servers.
#[derive(Debug, Clone)]
pub struct Servers {
    pub mongodb_uri: SecretString,
    pub redis_url: SecretString,
    pub sqs_endpoint: String,
    pub ses_endpoint: String,
}

impl Servers {
    pub fn from_environment() -> anyhow::Result<Self> {
        // The AWS clients of the product take their credentials from the environment; the stand-ins accept any.
        for variable in ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"] {
            read(variable)?;
        }
        Ok(Self {
            mongodb_uri: read("SHOP_TEST_MONGODB_URI")?.into(),
            redis_url: read("SHOP_TEST_REDIS_URL")?.into(),
            sqs_endpoint: read("SHOP_TEST_SQS_ENDPOINT")?,
            ses_endpoint: read("SHOP_TEST_SES_ENDPOINT")?,
        })
    }
}

#[expect(clippy::disallowed_methods, reason = "the tests' own settings, read in this one place")]
fn read(variable: &str) -> anyhow::Result<String> {
    std::env::var(variable).with_context(|| {
        format!(
            "{variable} is not set: run `cargo xtask test integration`, which starts MongoDB, Redis, SQS and SES \
             and says where they are"
        )
    })
}
