//! AWS clients: SQS and SES with the ambient credential chain, or a local endpoint where one is set.

use std::time::Duration;

use aws_config::{BehaviorVersion, Region, SdkConfig, retry::RetryConfig, timeout::TimeoutConfig};

/// Where one AWS service is found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    pub region: String,
    /// Another address than AWS's own, such as a local stand-in.
    pub endpoint: Option<String>,
}

/// An SQS client. Reads may take as long as a long poll (20 s), so there is no read timeout below 25 s.
pub async fn sqs(service: &Service) -> aws_sdk_sqs::Client {
    aws_sdk_sqs::Client::new(&load(service, Duration::from_secs(25)).await)
}

/// An SES client.
pub async fn ses(service: &Service) -> aws_sdk_ses::Client {
    aws_sdk_ses::Client::new(&load(service, Duration::from_secs(10)).await)
}

async fn load(service: &Service, attempt: Duration) -> SdkConfig {
    let timeouts = TimeoutConfig::builder()
        .connect_timeout(Duration::from_secs(2))
        .operation_attempt_timeout(attempt)
        .build();
    let mut loader = aws_config::defaults(BehaviorVersion::latest())
        .region(Region::new(service.region.clone()))
        .retry_config(RetryConfig::standard().with_max_attempts(2))
        .timeout_config(timeouts);
    if let Some(endpoint) = &service.endpoint {
        loader = loader.endpoint_url(endpoint);
    }
    loader.load().await
}
