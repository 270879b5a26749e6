//! Everything done with SQS: receiving, keeping messages hidden while they are in work, deleting and giving back.
//! Knows receipts, not orders.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use aws_sdk_sqs::{
    error::BuildError,
    types::{
        ChangeMessageVisibilityBatchRequestEntry, DeleteMessageBatchRequestEntry, Message, MessageSystemAttributeName,
    },
};
use jiff::Timestamp;
use shop_runtime::{
    aws, ids,
    queue::{Queue, QueueError},
    telemetry::chain,
    trace::TRACEPARENT,
};

use crate::config::LONG_POLL;

/// What SQS takes in one request.
const BATCH: usize = 10;
const DELETE_ATTEMPTS: u32 = 3;

/// How long a received message stays hidden until it is first extended. Short, because nobody extends what a receive
/// brought that was cut off, or what a worker held that was killed at once: others get it this much later. Most work
/// ends before it would be extended.
pub const CLAIM: Duration = Duration::from_secs(3);
/// An SQS that takes longer to answer might delete or extend too late for that.
const SLOW: Duration = Duration::from_millis(500);

/// The right to delete or give back one delivery of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receipt(String);

/// One delivery of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    pub id: String,
    pub body: String,
    pub receipt: Receipt,
    /// 1 on the first delivery.
    pub receive_count: u32,
    pub sent_at: Option<Timestamp>,
    /// The span that sent it (W3C Trace Context).
    pub traceparent: Option<String>,
}

#[derive(Debug, thiserror::Error)]
pub enum DeliveryError {
    #[error(transparent)]
    Queue(#[from] QueueError),
    #[error("a request to the queue cannot be built")]
    Build(#[from] BuildError),
    #[error("the queue did not answer")]
    Request(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// The worker's side of the queue.
#[derive(Debug, Clone)]
pub struct Inbox {
    queue: Queue,
    visibility: Duration,
    /// Whether the latest answer to a request that waits for no message was slow.
    slow: Arc<AtomicBool>,
}

impl Inbox {
    pub fn new(queue: Queue, visibility: Duration) -> Self {
        Self { queue, visibility, slow: Arc::default() }
    }

    pub fn queue(&self) -> &Queue {
        &self.queue
    }

    /// Waits up to 20 s for messages. Let it answer: dropping it strands the messages that it was about to bring.
    /// One attempt only: a drain waits for it, and a second one may take as long again.
    pub async fn receive(&self, max: usize) -> Result<Vec<Delivery>, DeliveryError> {
        let request = self.queue.client().receive_message().queue_url(self.queue.url().await?);
        let answer = request
            .max_number_of_messages(i32::try_from(max.min(BATCH)).unwrap_or(1))
            .wait_time_seconds(seconds(LONG_POLL))
            .visibility_timeout(seconds(self.claim()))
            .message_system_attribute_names(MessageSystemAttributeName::ApproximateReceiveCount)
            .message_system_attribute_names(MessageSystemAttributeName::SentTimestamp)
            .message_attribute_names(TRACEPARENT)
            .customize()
            .config_override(aws::long_poll())
            .send()
            .await
            .map_err(|error| DeliveryError::Request(error.into()))?;
        Ok(answer.messages.unwrap_or_default().into_iter().filter_map(delivery).collect())
    }

    /// How long a message stays hidden after it was extended.
    pub fn visibility(&self) -> Duration {
        self.visibility
    }

    /// How long a message stays hidden after it was received.
    fn claim(&self) -> Duration {
        if self.slow.load(Ordering::Relaxed) { self.visibility } else { CLAIM.min(self.visibility) }
    }

    fn answered_since(&self, asked: Instant) {
        self.slow.store(asked.elapsed() >= SLOW, Ordering::Relaxed);
    }

    /// Hides messages anew. Returns those that are no longer ours: their receipts are good for nothing any more.
    pub async fn extend(&self, receipts: &[Receipt]) -> Result<Vec<Receipt>, DeliveryError> {
        self.hide(receipts, self.visibility).await
    }

    /// Deletes finished messages. What cannot be deleted comes again and is found finished.
    pub async fn delete(&self, receipts: &[Receipt]) {
        for batch in receipts.chunks(BATCH) {
            let (mut left, mut attempt) = (batch.to_vec(), 1);
            while let Err(error) = self.delete_batch(&mut left).await {
                if attempt == DELETE_ATTEMPTS {
                    tracing::warn!(error = chain(&error), messages = left.len(), "finished messages stay in the queue");
                    break;
                }
                attempt += 1;
            }
        }
    }

    /// Makes messages visible again after `delay`.
    pub async fn give_back(&self, receipts: &[Receipt], delay: Duration) {
        if let Err(error) = self.hide(receipts, delay).await {
            tracing::warn!(
                error = chain(&error),
                messages = receipts.len(),
                "cannot give messages back; they come later"
            );
        }
    }

    async fn hide(&self, receipts: &[Receipt], delay: Duration) -> Result<Vec<Receipt>, DeliveryError> {
        let (url, mut lost) = (self.queue.url().await?, Vec::new());
        for batch in receipts.chunks(BATCH) {
            let mut request = self.queue.client().change_message_visibility_batch().queue_url(url);
            for (at, receipt) in batch.iter().enumerate() {
                let entry = ChangeMessageVisibilityBatchRequestEntry::builder();
                let entry = entry.id(at.to_string()).receipt_handle(&receipt.0).visibility_timeout(seconds(delay));
                request = request.entries(entry.build()?);
            }
            let asked = Instant::now();
            let answer = request.send().await.map_err(|error| DeliveryError::Request(error.into()))?;
            self.answered_since(asked);
            let gone = answer.failed().iter().filter(|failed| is_lost(failed.code()));
            lost.extend(gone.filter_map(|failed| batch.get(failed.id().parse::<usize>().ok()?)).cloned());
        }
        Ok(lost)
    }

    /// Leaves in `receipts` what may be tried again.
    async fn delete_batch(&self, receipts: &mut Vec<Receipt>) -> Result<(), DeliveryError> {
        let mut request = self.queue.client().delete_message_batch().queue_url(self.queue.url().await?);
        for (at, receipt) in receipts.iter().enumerate() {
            let entry = DeleteMessageBatchRequestEntry::builder().id(at.to_string()).receipt_handle(&receipt.0);
            request = request.entries(entry.build()?);
        }
        let asked = Instant::now();
        let answer = request.send().await.map_err(|error| DeliveryError::Request(error.into()))?;
        self.answered_since(asked);
        let failed: Vec<_> = answer.failed().iter().filter(|failed| !is_lost(failed.code())).collect();
        let Some(first) = failed.first() else { return Ok(()) };
        let left = failed.iter().filter_map(|failed| receipts.get(failed.id().parse::<usize>().ok()?)).cloned();
        *receipts = left.collect();
        Err(DeliveryError::Request(first.code().to_owned().into()))
    }
}

/// Whether an entry failed because its receipt is no longer good: the message was delivered again, or deleted.
/// Source: SQS API reference, errors of `ChangeMessageVisibility` and `DeleteMessage`; in batches a receipt that is
/// stale is an `InvalidParameterValue`. All else is worth another attempt.
fn is_lost(code: &str) -> bool {
    ["ReceiptHandleIsInvalid", "MessageNotInflight", "InvalidParameterValue"].iter().any(|lost| code.ends_with(lost))
}

fn delivery(message: Message) -> Option<Delivery> {
    let attribute = |name| message.attributes.as_ref().and_then(|all| all.get(&name)).cloned();
    let receive_count = attribute(MessageSystemAttributeName::ApproximateReceiveCount);
    let sent_at = attribute(MessageSystemAttributeName::SentTimestamp).and_then(|text| text.parse().ok());
    let traceparent = message.message_attributes.as_ref().and_then(|all| all.get(TRACEPARENT)?.string_value.clone());
    Some(Delivery {
        traceparent,
        receive_count: receive_count.and_then(|text| text.parse().ok()).unwrap_or(1),
        sent_at: sent_at.and_then(|millis| Timestamp::from_millisecond(millis).ok()),
        id: message.message_id.unwrap_or_default(),
        body: message.body.unwrap_or_default(),
        receipt: Receipt(message.receipt_handle?),
    })
}

fn seconds(duration: Duration) -> i32 {
    i32::try_from(duration.as_secs()).unwrap_or(i32::MAX)
}

/// How long a message that failed waits for its next delivery: 2 s, doubled up to 5 min, of which the second half is
/// random, so that what failed together does not come back together.
pub fn back_off(receive_count: u32) -> Duration {
    let jitter = ids::random_bytes::<1>().map_or(128, |[byte]| byte);
    let full = 2_000_u64.saturating_mul(1 << receive_count.clamp(1, 9).saturating_sub(1)).min(300_000);
    Duration::from_millis(full / 2 + full / 2 * u64::from(jitter) / 255)
}

#[cfg(test)]
pub(crate) mod tests {
    use rstest::rstest;
    use shop_runtime::{
        aws::{self, Access, Service},
        queue::QueueAddress,
    };

    use super::*;

    /// The `n`th delivery, sent `n` seconds after the epoch.
    pub fn delivery(body: &str, n: u32) -> Delivery {
        Delivery {
            id: n.to_string(),
            body: body.into(),
            receipt: Receipt(n.to_string()),
            receive_count: n,
            sent_at: Timestamp::from_second(n.into()).ok(),
            traceparent: None,
        }
    }

    async fn inbox(endpoint: String, visibility: Duration) -> Inbox {
        let service = Service { region: "x".into(), endpoint: Some(endpoint.clone()) };
        let access = Access { key: Some((&"id".into(), &"key".into())), ..Access::default() };
        let client = aws::sqs_as(&service, &access).await;
        Inbox::new(Queue::new(client, QueueAddress::Url(endpoint)), visibility)
    }

    #[rstest]
    #[case(0, 1, 2)]
    #[case(1, 1, 2)]
    #[case(2, 2, 4)]
    #[case(5, 16, 32)]
    #[case(9, 150, 300)]
    #[case(u32::MAX, 150, 300)]
    fn failed_messages_wait_longer_each_time(#[case] count: u32, #[case] least: u64, #[case] most: u64) {
        for _ in 0..50 {
            let delay = back_off(count);
            assert!((Duration::from_secs(least)..=Duration::from_secs(most)).contains(&delay), "{delay:?}");
        }
    }

    #[rstest]
    #[case::short_at_first(60, 0, 3)]
    #[case::never_above_the_visibility(2, 0, 2)]
    #[case::an_answer_takes_long(60, 500, 60)]
    #[tokio::test]
    async fn what_is_received_is_hidden_shortly(
        #[case] visibility: u64,
        #[case] answer_millis: u64,
        #[case] hidden: u64,
    ) {
        let inbox = inbox("http://127.0.0.1:9".into(), Duration::from_secs(visibility)).await;
        inbox.answered_since(Instant::now().checked_sub(Duration::from_millis(answer_millis)).unwrap());
        assert_eq!(inbox.claim(), Duration::from_secs(hidden));
        inbox.answered_since(Instant::now());
        assert_eq!(inbox.claim(), CLAIM.min(Duration::from_secs(visibility)), "it forgets");
    }

    #[rstest]
    #[case("ReceiptHandleIsInvalid", true)]
    #[case("AWS.SimpleQueueService.MessageNotInflight", true)]
    #[case("InvalidParameterValue", true)]
    #[case("InternalError", false)]
    #[case("RequestThrottled", false)]
    fn only_a_receipt_that_is_no_longer_good_is_given_up(#[case] code: &str, #[case] lost: bool) {
        assert_eq!(is_lost(code), lost);
    }

    #[tokio::test]
    async fn a_receive_that_fails_is_not_repeated_by_the_client() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let hang_up = async {
            let mut attempts = 0;
            while let Ok(Ok(_)) = tokio::time::timeout(Duration::from_secs(2), listener.accept()).await {
                attempts += 1;
            }
            attempts
        };
        let inbox = inbox(endpoint, Duration::from_secs(30)).await;
        let (received, attempts) = tokio::join!(inbox.receive(1), hang_up);
        assert!(matches!(received, Err(DeliveryError::Request(_))), "{received:?}");
        assert_eq!(attempts, 1);
    }

    #[test]
    fn a_message_without_receipt_is_no_delivery() {
        assert_eq!(super::delivery(Message::builder().body("x").build()), None);
    }
}
