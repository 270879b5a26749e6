//! One `SendMessageBatch`: what the queue took and what it did not.

use aws_sdk_sqs::types::SendMessageBatchRequestEntry;
use shop_runtime::{
    queue::{Queue, is_fifo},
    telemetry::chain,
};
use shop_store::outbox::PendingSend;

/// What became of a batch.
#[derive(Debug, Default)]
pub struct SendReport {
    pub sent: Vec<PendingSend>,
    pub unsent: Vec<PendingSend>,
    /// The first failure, for the log.
    pub error: Option<String>,
}

/// Sends at most ten entries.
pub async fn send(queue: &Queue, batch: Vec<PendingSend>) -> SendReport {
    match attempt(queue, &batch).await {
        Ok(failed) => {
            let error = failed.first().map(|(_, why)| why.clone());
            let is_failed = |at: usize| failed.iter().any(|(id, _)| *id == at.to_string());
            let (mut sent, mut unsent) = (Vec::new(), Vec::new());
            for (at, entry) in batch.into_iter().enumerate() {
                if is_failed(at) { unsent.push(entry) } else { sent.push(entry) }
            }
            SendReport { sent, unsent, error }
        }
        Err(error) => SendReport { sent: Vec::new(), unsent: batch, error: Some(chain(error.as_ref())) },
    }
}

async fn attempt(
    queue: &Queue,
    batch: &[PendingSend],
) -> Result<Vec<(String, String)>, Box<dyn std::error::Error + Send + Sync>> {
    let url = queue.url().await?;
    let mut request = queue.client().send_message_batch().queue_url(url);
    for (at, send) in batch.iter().enumerate() {
        let mut entry = SendMessageBatchRequestEntry::builder().id(at.to_string()).message_body(send.message.to_body());
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
