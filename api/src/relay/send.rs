//! One `SendMessageBatch`: what the queue took and what it did not. Each message is a span in the trace of its cause.

use aws_sdk_sqs::{
    error::BuildError,
    types::{MessageAttributeValue, SendMessageBatchRequestEntry},
};
use shop_runtime::{
    queue::{Queue, is_fifo},
    telemetry::chain,
    trace::{self, Origin, Role, TRACEPARENT, TraceContext},
};
use shop_store::outbox::PendingSend;
use tracing::{Span, field::Empty};

/// What became of a batch.
#[derive(Debug, Default)]
pub struct SendReport {
    pub sent: Vec<PendingSend>,
    pub unsent: Vec<PendingSend>,
    /// The queue did not answer at all: no fault of the entries.
    pub is_away: bool,
    /// The first failure, for the log.
    pub error: Option<String>,
}

/// Sends at most ten entries.
pub async fn send(queue: &Queue, batch: Vec<PendingSend>) -> SendReport {
    let spans: Vec<_> = batch.iter().map(span).collect();
    match attempt(queue, &batch, &spans).await {
        Ok(failed) => {
            let error = failed.first().map(|(_, why)| why.clone());
            let is_failed = |at: usize| failed.iter().any(|(id, _)| *id == at.to_string());
            let (mut sent, mut unsent) = (Vec::new(), Vec::new());
            for ((at, entry), (span, _)) in batch.into_iter().enumerate().zip(&spans) {
                if is_failed(at) {
                    trace::failed(span);
                    unsent.push(entry);
                } else {
                    sent.push(entry);
                }
            }
            SendReport { sent, unsent, error, is_away: false }
        }
        Err(error) => {
            for (span, _) in &spans {
                trace::failed(span);
            }
            SendReport { sent: Vec::new(), unsent: batch, error: Some(chain(error.as_ref())), is_away: true }
        }
    }
}

async fn attempt(
    queue: &Queue,
    batch: &[PendingSend],
    spans: &[(Span, TraceContext)],
) -> Result<Vec<(String, String)>, Box<dyn std::error::Error + Send + Sync>> {
    let url = queue.url().await?;
    let mut request = queue.client().send_message_batch().queue_url(url);
    for ((at, send), (_, context)) in batch.iter().enumerate().zip(spans) {
        let mut entry = SendMessageBatchRequestEntry::builder().id(at.to_string()).message_body(send.message.to_body());
        entry = entry.message_attributes(TRACEPARENT, text(&context.to_string())?);
        if is_fifo(url) {
            // The entry's id: the queue drops a retry of this entry, but not the same order's next entry.
            entry = entry.message_group_id(send.message.group()).message_deduplication_id(send.entry.as_str());
        }
        request = request.entries(entry.build()?);
    }
    let answer = request.send().await?;
    let failed = answer.failed().iter();
    Ok(failed.map(|entry| (entry.id().to_owned(), entry.message().unwrap_or(entry.code()).to_owned())).collect())
}

fn span(send: &PendingSend) -> (Span, TraceContext) {
    let origin = Origin::read(send.traceparent.as_deref());
    let span = tracing::error_span!(
        parent: None,
        "send",
        id = send.message.group(),
        trace_id = %origin.trace_id,
        messaging.system = "aws_sqs",
        otel.name = Empty,
        otel.kind = Empty,
    );
    let context = origin.join(&span, Role { name: &format!("send {}", send.message.kind()), kind: "producer" });
    (span, context)
}

fn text(value: &str) -> Result<MessageAttributeValue, BuildError> {
    MessageAttributeValue::builder().data_type("String").string_value(value).build()
}
