//! AWS clients: SQS and SES with the ambient credential chain, or a local endpoint where one is set.

use std::time::Duration;

use aws_config::{BehaviorVersion, ConfigLoader, Region, retry::RetryConfig, timeout::TimeoutConfig};
use aws_sdk_sqs::config::{Credentials, SharedHttpClient};
use aws_smithy_http_client::{
    Builder,
    tls::{Provider, TlsContext, TrustStore, rustls_provider::CryptoMode},
};
use secrecy::{ExposeSecret, SecretString};

use crate::trust::{Certificates, PrivateCa};

/// Where one AWS service is found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    pub region: String,
    /// Another address than AWS's own, such as a local stand-in.
    pub endpoint: Option<String>,
}

/// Longer than SQS takes for anything but a long poll: a queue that hangs must not hold its callers up.
const SQS_ATTEMPT: Duration = Duration::from_secs(5);
/// A burst of calls makes more, each with 16 KiB of buffers.
const IDLE_CONNECTIONS: usize = 4;
/// Longer than a long poll.
const LONG_POLL_ATTEMPT: Duration = Duration::from_secs(25);

/// An SQS client. A receive that waits needs [`long_poll`] besides.
pub async fn sqs(service: &Service) -> aws_sdk_sqs::Client {
    aws_sdk_sqs::Client::new(&loader(service, SQS_ATTEMPT).load().await)
}

/// An SQS client that trusts a private CA as well as the public ones.
pub async fn sqs_trusting(service: &Service, ca: Option<&PrivateCa>) -> aws_sdk_sqs::Client {
    sqs_as(service, &Access { ca: ca.map(PrivateCa::certificates), ..Access::default() }).await
}

/// How a client shows itself, whom it trusts and by whose connections it goes, where that is not the process's own way.
#[derive(Debug, Default)]
pub struct Access<'a> {
    /// Key id and key, in place of the process's ambient credentials.
    pub key: Option<(&'a SecretString, &'a SecretString)>,
    /// A private CA, besides the public ones. Such a client has connections of its own.
    pub ca: Option<&'a Certificates>,
    /// Connections and public certificates that several clients share. They belong to the runtime they were first used in.
    pub shared: Option<SharedHttpClient>,
}

/// Connections for [`Access::shared`], of which few are kept when they have nothing to do.
pub fn connections() -> SharedHttpClient {
    let builder = Builder::new().pool_max_idle_per_host(IDLE_CONNECTIONS);
    builder.tls_provider(Provider::Rustls(CryptoMode::AwsLc)).build_https()
}

/// An SQS client with an access of its own.
pub async fn sqs_as(service: &Service, access: &Access<'_>) -> aws_sdk_sqs::Client {
    // All of it before loading: what is not needed then, such as the chain of ambient credentials, is not made.
    let mut loader = loader(service, SQS_ATTEMPT);
    if let Some((id, key)) = access.key {
        let key = Credentials::new(id.expose_secret(), key.expose_secret(), None, None, "secret");
        loader = loader.credentials_provider(key);
    }
    if let Some(tls) = access.ca.and_then(trusting) {
        let client = Builder::new().tls_provider(Provider::Rustls(CryptoMode::AwsLc)).tls_context(tls).build_https();
        loader = loader.http_client(client);
    } else if let Some(shared) = &access.shared {
        loader = loader.http_client(shared.clone());
    }
    aws_sdk_sqs::Client::new(&loader.load().await)
}

/// What a receive of up to 20 s changes in its client: one attempt, which may take that long.
pub fn long_poll() -> aws_sdk_sqs::config::Builder {
    let patience = TimeoutConfig::builder().operation_attempt_timeout(LONG_POLL_ATTEMPT).build();
    aws_sdk_sqs::config::Builder::new().timeout_config(patience).retry_config(RetryConfig::disabled())
}

/// An SES client. It tries once: a repetition here would escape the sender's limit, and could send a mail twice.
pub async fn ses(service: &Service) -> aws_sdk_ses::Client {
    let config = loader(service, Duration::from_secs(10)).load().await;
    let once = aws_sdk_ses::config::Builder::from(&config).retry_config(RetryConfig::disabled());
    aws_sdk_ses::Client::from_conf(once.build())
}

/// None only if the context cannot be built, which the certificates' check has ruled out.
fn trusting(ca: &Certificates) -> Option<TlsContext> {
    let trusted = TrustStore::default().with_pem_certificate(ca.pem());
    TlsContext::builder().with_trust_store(trusted).build().ok()
}

fn loader(service: &Service, attempt: Duration) -> ConfigLoader {
    let timeouts =
        TimeoutConfig::builder().connect_timeout(Duration::from_secs(2)).operation_attempt_timeout(attempt).build();
    let loader = aws_config::defaults(BehaviorVersion::latest())
        .region(Region::new(service.region.clone()))
        .retry_config(RetryConfig::standard().with_max_attempts(2))
        .timeout_config(timeouts);
    match &service.endpoint {
        Some(endpoint) => loader.endpoint_url(endpoint),
        None => loader,
    }
}
