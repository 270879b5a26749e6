//! The queues that the operator makes: creation, tags, repair of attributes, and an end only when they are empty.

use std::collections::HashMap;

use aws_sdk_sqs::{Client, types::QueueAttributeName};
use serde_json::{Value, json};

use super::{Counts, Problem, QueueError, url_of, within};
use crate::{
    crd::Queue,
    names::{FIFO, QUEUE_TAG, dead_letter_queue},
};

/// Failed messages are kept as long as SQS allows.
const DEAD_LETTER_RETENTION_SECONDS: u32 = 1_209_600;

type Attributes = HashMap<QueueAttributeName, String>;

/// A queue and its dead-letter queue that belong to one shop.
#[derive(Debug)]
pub struct Managed<'a> {
    pub client: &'a Client,
    pub name: &'a str,
    /// Whose it is, as namespace/name: the tag's value.
    pub owner: &'a str,
}

/// What keeps a queue from being deleted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Left {
    pub queue: String,
    pub messages: u64,
    pub is_dead_letter: bool,
}

impl Managed<'_> {
    /// Creates both queues or repairs what differs, and gives the queue's URL.
    pub async fn ensure(&self, spec: &Queue) -> Result<String, QueueError> {
        let retention = (QueueAttributeName::MessageRetentionPeriod, DEAD_LETTER_RETENTION_SECONDS.to_string());
        let dead = self.ensure_one(&dead_letter_queue(self.name), [retention].into()).await?;
        let arn = self.attributes(&dead).await?.remove(&QueueAttributeName::QueueArn).unwrap_or_default();
        let redrive = json!({ "deadLetterTargetArn": arn, "maxReceiveCount": spec.dead_letter.max_receive_count });
        let mut wanted = Attributes::from([
            (QueueAttributeName::VisibilityTimeout, spec.visibility_timeout_seconds.to_string()),
            (QueueAttributeName::RedrivePolicy, redrive.to_string()),
        ]);
        if spec.fifo {
            // The api names each message itself: two orders with the same content are two.
            wanted.insert(QueueAttributeName::ContentBasedDeduplication, false.to_string());
        }
        self.ensure_one(self.name, wanted).await
    }

    /// What is still in the queues, the dead letters last. `None`: the queues are gone, or were never this shop's.
    pub async fn left(&self) -> Result<Option<Vec<Left>>, QueueError> {
        let mut left = Vec::new();
        let mut found = false;
        for (name, is_dead_letter) in [(self.name.to_owned(), false), (dead_letter_queue(self.name), true)] {
            let Some(url) = self.own(&name).await? else { continue };
            found = true;
            let depth = Counts::default().ask(self.client, &url).await?;
            let messages = depth.visible.saturating_add(depth.in_flight).saturating_add(depth.delayed);
            if messages > 0 {
                left.push(Left { queue: name, messages, is_dead_letter });
            }
        }
        Ok(found.then_some(left))
    }

    /// Deletes both queues, those that carry this shop's tag. Only after [`Managed::left`] has found nothing.
    pub async fn delete(&self) -> Result<(), QueueError> {
        for name in [self.name.to_owned(), dead_letter_queue(self.name)] {
            if let Some(url) = self.own(&name).await? {
                within(self.client.delete_queue().queue_url(url).send()).await?;
            }
        }
        Ok(())
    }

    /// The URL of a queue that carries this shop's tag.
    async fn own(&self, name: &str) -> Result<Option<String>, QueueError> {
        let url = match url_of(self.client, name).await {
            Err(error) if error.problem == Problem::Missing => return Ok(None),
            url => url?,
        };
        Ok((self.tag(&url).await?.as_deref() == Some(self.owner)).then_some(url))
    }

    async fn ensure_one(&self, name: &str, wanted: Attributes) -> Result<String, QueueError> {
        let url = match url_of(self.client, name).await {
            Err(error) if error.problem == Problem::Missing => return self.create(name, wanted).await,
            url => url?,
        };
        match self.tag(&url).await?.as_deref() {
            Some(owner) if owner == self.owner => {}
            other => {
                let whose =
                    other.map_or_else(|| "carries no tag of a shop".to_owned(), |o| format!("belongs to shop {o}"));
                return Err(QueueError::new(Problem::NotOwned, format!("queue {name} exists and {whose}")));
            }
        }
        let found = self.attributes(&url).await?;
        let drifted: Attributes =
            wanted.into_iter().filter(|(key, value)| differs(key, found.get(key), value)).collect();
        if !drifted.is_empty() {
            tracing::info!(queue = name, attributes = ?drifted.keys(), "repairing the queue");
            within(self.client.set_queue_attributes().queue_url(&url).set_attributes(Some(drifted)).send()).await?;
        }
        Ok(url)
    }

    async fn create(&self, name: &str, mut attributes: Attributes) -> Result<String, QueueError> {
        if name.ends_with(FIFO) {
            // Only a new queue takes it: no drift is possible.
            attributes.insert(QueueAttributeName::FifoQueue, true.to_string());
        }
        let request = self.client.create_queue().queue_name(name).set_attributes(Some(attributes));
        let answer = within(request.tags(QUEUE_TAG, self.owner).send()).await?;
        tracing::info!(queue = name, "queue created");
        answer.queue_url.ok_or_else(|| QueueError::new(Problem::Other, format!("SQS gave no URL for queue {name}")))
    }

    async fn tag(&self, url: &str) -> Result<Option<String>, QueueError> {
        let tags = within(self.client.list_queue_tags().queue_url(url).send()).await?.tags.unwrap_or_default();
        Ok(tags.get(QUEUE_TAG).cloned())
    }

    async fn attributes(&self, url: &str) -> Result<Attributes, QueueError> {
        let request = self.client.get_queue_attributes().queue_url(url).attribute_names(QueueAttributeName::All);
        Ok(within(request.send()).await?.attributes.unwrap_or_default())
    }
}

/// Whether an attribute is to be set. SQS answers with every attribute but a redrive policy that is not set; a server that
/// leaves out another one does not know it, and would be told the same again and again.
fn differs(key: &QueueAttributeName, found: Option<&String>, wanted: &str) -> bool {
    found.map_or(*key == QueueAttributeName::RedrivePolicy, |found| !same(found, wanted))
}

/// Equal as text, or as JSON: servers write a redrive policy in their own order, some with its count as text.
fn same(found: &str, wanted: &str) -> bool {
    let parse = |text: &str| serde_json::from_str::<Value>(text).ok();
    found == wanted
        || matches!((parse(found), parse(wanted)), (Some(Value::Object(a)), Some(Value::Object(b))) if {
            let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            b.iter().all(|(key, value)| a.get(key).is_some_and(|other| text(other) == text(value)))
        })
}

#[cfg(test)]
mod tests {
    use aws_sdk_sqs::types::QueueAttributeName::{self, MessageRetentionPeriod, RedrivePolicy, VisibilityTimeout};
    use rstest::rstest;

    use super::differs;

    #[rstest]
    #[case::as_wanted(VisibilityTimeout, Some("60"), "60", false)]
    #[case::drifted(VisibilityTimeout, Some("30"), "60", true)]
    #[case::not_known_to_the_server(MessageRetentionPeriod, None, "1209600", false)]
    #[case::removed(RedrivePolicy, None, "{}", true)]
    #[case::written_otherwise(
        RedrivePolicy,
        Some(r#"{"maxReceiveCount":"10","deadLetterTargetArn":"a"}"#),
        r#"{"deadLetterTargetArn":"a","maxReceiveCount":10}"#,
        false
    )]
    #[case::other_policy(
        RedrivePolicy,
        Some(r#"{"maxReceiveCount":"3","deadLetterTargetArn":"a"}"#),
        r#"{"deadLetterTargetArn":"a","maxReceiveCount":10}"#,
        true
    )]
    fn attributes_are_compared_by_meaning(
        #[case] key: QueueAttributeName,
        #[case] found: Option<&str>,
        #[case] wanted: &str,
        #[case] expected: bool,
    ) {
        assert_eq!(differs(&key, found.map(str::to_owned).as_ref(), wanted), expected);
    }
}
