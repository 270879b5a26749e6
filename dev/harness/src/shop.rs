//! A shop of its own for one test: a database and a queue with dead letters, removed at the end, whatever happens.

use std::{panic::AssertUnwindSafe, time::Duration};

use anyhow::Context;
use aws_sdk_sqs::types::QueueAttributeName;
use futures::FutureExt;
use shop_domain::message::Message;
use shop_runtime::{
    aws::{self, Service},
    ids,
    queue::{Queue, QueueAddress, is_fifo},
};
use shop_store::Store;

use crate::Servers;

/// How the shop's queue behaves.
#[derive(Debug, Clone, Copy)]
pub struct QueueRules {
    pub visibility: Duration,
    pub max_receive_count: u32,
    pub kind: QueueKind,
}

/// Whether the queue keeps the order within message groups.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QueueKind {
    Standard,
    Fifo,
}

impl QueueKind {
    fn name(self, name: &str) -> String {
        match self {
            Self::Standard => name.to_owned(),
            Self::Fifo => format!("{name}.fifo"),
        }
    }

    fn attributes(self) -> Vec<(QueueAttributeName, String)> {
        match self {
            Self::Standard => Vec::new(),
            Self::Fifo => vec![(QueueAttributeName::FifoQueue, "true".into())],
        }
    }
}

impl Default for QueueRules {
    fn default() -> Self {
        Self { visibility: Duration::from_secs(30), max_receive_count: 10, kind: QueueKind::Standard }
    }
}

/// One test's shop.
#[derive(Debug, Clone)]
pub struct Shop {
    /// Random; the name of its database and of its queue (which ends in `.fifo` where it is one).
    pub name: String,
    pub queue_name: String,
    pub servers: Servers,
    pub store: Store,
    pub queue: Queue,
    pub dead_letters: Queue,
}

/// Runs a test in a shop of its own.
pub async fn with_shop(test: impl AsyncFnOnce(Shop) -> anyhow::Result<()>) -> anyhow::Result<()> {
    with_shop_of(QueueRules::default(), test).await
}

/// Runs a test in a shop of its own, with a queue of these rules.
pub async fn with_shop_of(rules: QueueRules, test: impl AsyncFnOnce(Shop) -> anyhow::Result<()>) -> anyhow::Result<()> {
    let shop = Shop::open(rules).await?;
    let outcome = AssertUnwindSafe(test(shop.clone())).catch_unwind().await;
    let closed = shop.close().await;
    match outcome {
        Ok(result) => result.and(closed),
        Err(panic) => std::panic::resume_unwind(panic),
    }
}

impl Shop {
    async fn open(rules: QueueRules) -> anyhow::Result<Self> {
        let servers = Servers::from_environment()?;
        let name = format!("test-{}", ids::random_hex::<8>()?);
        let store = Store::connect(&servers.mongodb_uri, &name).await?;
        store.migrate().await.context("cannot make the indexes")?;
        let client = aws::sqs(&Self::sqs_of(&servers)).await;
        let (queue_name, dead_name) = (rules.kind.name(&name), rules.kind.name(&format!("{name}-dead")));
        let dead_letters = create(&client, &dead_name, rules.kind.attributes()).await?;
        let arn = arn(&client, &dead_letters).await?;
        let redrive = format!(r#"{{"deadLetterTargetArn":"{arn}","maxReceiveCount":"{}"}}"#, rules.max_receive_count);
        let mut attributes = rules.kind.attributes();
        attributes.push((QueueAttributeName::VisibilityTimeout, rules.visibility.as_secs().to_string()));
        attributes.push((QueueAttributeName::RedrivePolicy, redrive));
        create(&client, &queue_name, attributes).await?;
        Ok(Self {
            queue: Queue::new(client.clone(), QueueAddress::Name(queue_name.clone())),
            dead_letters: Queue::new(client, QueueAddress::Name(dead_name)),
            name,
            queue_name,
            servers,
            store,
        })
    }

    async fn close(self) -> anyhow::Result<()> {
        for queue in [&self.queue, &self.dead_letters] {
            queue.client().delete_queue().queue_url(queue.url().await?).send().await?;
        }
        Ok(self.store.drop_database().await?)
    }

    /// How the shop's SQS is reached.
    pub fn sqs(&self) -> Service {
        Self::sqs_of(&self.servers)
    }

    /// How the shop's mail service is reached.
    pub fn ses(&self) -> Service {
        Service { region: "ap-south-1".into(), endpoint: Some(self.servers.ses_endpoint.clone()) }
    }

    fn sqs_of(servers: &Servers) -> Service {
        Service { region: "ap-south-1".into(), endpoint: Some(servers.sqs_endpoint.clone()) }
    }

    /// Puts a message on the shop's queue.
    pub async fn send(&self, body: &str) -> anyhow::Result<()> {
        let mut request = self.queue.client().send_message().queue_url(self.queue.url().await?).message_body(body);
        if is_fifo(self.queue.url().await?) {
            let group = Message::parse(body).map_or_else(|_| "none".into(), |message| message.group().to_owned());
            // Each is a message of its own: the queue is not to drop what a test sends twice.
            request = request.message_group_id(group).message_deduplication_id(ids::random_hex::<12>()?);
        }
        request.send().await?;
        Ok(())
    }

    /// Takes messages from the shop's queue as a worker would, waiting up to `wait` for the first.
    pub async fn receive(&self, wait: Duration) -> anyhow::Result<Vec<String>> {
        let request = self.queue.client().receive_message().queue_url(self.queue.url().await?);
        let wait = i32::try_from(wait.as_secs())?;
        let request = request.max_number_of_messages(10).wait_time_seconds(wait);
        let answer = request.customize().config_override(aws::long_poll()).send().await?;
        Ok(answer.messages.unwrap_or_default().into_iter().filter_map(|message| message.body).collect())
    }
}

async fn create(
    client: &aws_sdk_sqs::Client,
    name: &str,
    attributes: Vec<(QueueAttributeName, String)>,
) -> anyhow::Result<String> {
    let attributes = attributes.into_iter().collect();
    let made = client.create_queue().queue_name(name).set_attributes(Some(attributes)).send().await?;
    made.queue_url.context("a new queue has no URL")
}

async fn arn(client: &aws_sdk_sqs::Client, url: &str) -> anyhow::Result<String> {
    let name = QueueAttributeName::QueueArn;
    let answer = client.get_queue_attributes().queue_url(url).attribute_names(name.clone()).send().await?;
    answer.attributes().and_then(|all| all.get(&name)).cloned().context("a queue has no ARN")
}
