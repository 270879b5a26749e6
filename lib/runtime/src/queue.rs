//! The shop's queue: its client and its address, looked up when first needed. Knows nothing of what is in the messages.

use std::{fmt, sync::Arc};

use aws_sdk_sqs::{Client, types::QueueAttributeName};
use clap::Args;
use tokio::sync::OnceCell;

use crate::{
    aws::Service,
    parsers::{filled, trimmed},
};

/// Where the queue is. For the configuration of a binary to flatten in.
#[derive(Debug, Clone, Args)]
pub struct QueueConfig {
    #[arg(long, env = "SHOP_SQS_QUEUE_URL", value_name = "SHOP_SQS_QUEUE_URL", value_parser = trimmed)]
    queue_url: Option<String>,
    #[arg(long, env = "SHOP_SQS_QUEUE_NAME", value_name = "SHOP_SQS_QUEUE_NAME", value_parser = trimmed)]
    queue_name: Option<String>,
    #[arg(long, env = "SHOP_SQS_REGION", value_name = "SHOP_SQS_REGION", default_value = "ap-south-1")]
    sqs_region: String,
    #[arg(long, env = "SHOP_SQS_ENDPOINT", value_name = "SHOP_SQS_ENDPOINT", value_parser = trimmed)]
    sqs_endpoint: Option<String>,
}

impl QueueConfig {
    /// The queue's address; an empty variable counts as unset.
    pub fn address(&self) -> Result<QueueAddress, QueueNotNamed> {
        match (filled(self.queue_url.as_ref()), filled(self.queue_name.as_ref())) {
            (Some(url), None) => Ok(QueueAddress::Url(url)),
            (None, Some(name)) => Ok(QueueAddress::Name(name)),
            _ => Err(QueueNotNamed),
        }
    }

    /// The SQS that has the queue.
    pub fn service(&self) -> Service {
        Service { region: self.sqs_region.clone(), endpoint: filled(self.sqs_endpoint.as_ref()) }
    }
}

/// The queue has no name, or more than one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("set exactly one of SHOP_SQS_QUEUE_URL and SHOP_SQS_QUEUE_NAME")]
pub struct QueueNotNamed;

/// How the queue is named in the settings: exactly one of `SHOP_SQS_QUEUE_URL` and `SHOP_SQS_QUEUE_NAME`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum QueueAddress {
    Url(String),
    Name(String),
}

impl fmt::Display for QueueAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Url(text) | Self::Name(text) => f.write_str(text),
        }
    }
}

#[derive(Debug, thiserror::Error)]
#[error("queue {address} cannot be used")]
pub struct QueueError {
    address: QueueAddress,
    #[source]
    source: Box<dyn std::error::Error + Send + Sync>,
}

/// Approximate numbers of messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueueCounts {
    pub visible: u64,
    pub in_flight: u64,
    pub delayed: u64,
}

/// A queue of SQS. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Queue {
    client: Client,
    address: QueueAddress,
    url: Arc<OnceCell<String>>,
}

impl Queue {
    /// Asks nothing yet: the queue may be made later.
    pub fn new(client: Client, address: QueueAddress) -> Self {
        Self { client, address, url: Arc::default() }
    }

    pub fn client(&self) -> &Client {
        &self.client
    }

    /// The queue's URL; a name is looked up once, as soon as the queue exists.
    pub async fn url(&self) -> Result<&str, QueueError> {
        let look_up = || async {
            match &self.address {
                QueueAddress::Url(url) => Ok(url.clone()),
                QueueAddress::Name(name) => {
                    let answer = self.client.get_queue_url().queue_name(name).send().await;
                    let answer = answer.map_err(|error| self.error(error.into()))?;
                    answer.queue_url.ok_or_else(|| self.error("the answer has no URL".into()))
                }
            }
        };
        self.url.get_or_try_init(look_up).await.map(String::as_str)
    }

    /// How many messages there are; also tells whether the queue can be used at all.
    pub async fn counts(&self) -> Result<QueueCounts, QueueError> {
        let (visible, in_flight, delayed) = (
            QueueAttributeName::ApproximateNumberOfMessages,
            QueueAttributeName::ApproximateNumberOfMessagesNotVisible,
            QueueAttributeName::ApproximateNumberOfMessagesDelayed,
        );
        let request = self.client.get_queue_attributes().queue_url(self.url().await?);
        let request = request
            .attribute_names(visible.clone())
            .attribute_names(in_flight.clone())
            .attribute_names(delayed.clone());
        let answer = request.send().await.map_err(|error| self.error(error.into()))?;
        let count = |name: &QueueAttributeName| {
            let text = answer.attributes().and_then(|attributes| attributes.get(name));
            text.and_then(|text| text.parse().ok()).ok_or_else(|| self.error(format!("no {name} in the answer").into()))
        };
        Ok(QueueCounts { visible: count(&visible)?, in_flight: count(&in_flight)?, delayed: count(&delayed)? })
    }

    fn error(&self, source: Box<dyn std::error::Error + Send + Sync>) -> QueueError {
        QueueError { address: self.address.clone(), source }
    }
}

/// Whether the queue at this URL keeps the order within message groups.
pub fn is_fifo(url: &str) -> bool {
    // SQS names are case-sensitive: `.FIFO` is no FIFO queue.
    url.strip_suffix(".fifo").is_some()
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use rstest::rstest;

    use super::*;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        queue: QueueConfig,
    }

    #[rstest]
    #[case(&["--queue-url", "http://sqs/q\n"], Ok(QueueAddress::Url("http://sqs/q".into())))]
    #[case(&["--queue-name", "orders"], Ok(QueueAddress::Name("orders".into())))]
    #[case(&["--queue-name", "orders", "--queue-url", ""], Ok(QueueAddress::Name("orders".into())))]
    #[case(&["--queue-name", "orders", "--queue-url", "http://sqs/q"], Err(QueueNotNamed))]
    #[case(&[], Err(QueueNotNamed))]
    fn a_queue_has_one_address(#[case] args: &[&str], #[case] expected: Result<QueueAddress, QueueNotNamed>) {
        assert_eq!(Cli::try_parse_from(["x"].iter().chain(args)).unwrap().queue.address(), expected);
    }
}
