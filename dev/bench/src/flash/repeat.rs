//! Deliveries that nobody asked for: half of all messages are sent again, one to three times, up to five seconds late.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use anyhow::{Context, Result};
use aws_sdk_sqs::types::SendMessageBatchRequestEntry;
use shop_domain::{id::OrderId, message::Message};
use shop_harness::Shop;
use tokio::sync::watch;

use crate::random::SplitMix;

/// What SQS takes in one request.
const BATCH: usize = 10;
const LATEST_SECONDS: usize = 5;

/// Repeats messages of accepted orders as they come, until all buyers are done; returns how many were sent.
pub async fn all(
    shop: &Shop,
    accepted: watch::Receiver<Vec<OrderId>>,
    done_buying: &AtomicBool,
    random: &mut SplitMix,
) -> Result<usize> {
    let (mut seen, mut sent) = (0, 0);
    loop {
        let last = done_buying.load(Ordering::Acquire);
        let new = accepted.borrow().get(seen..).unwrap_or_default().to_vec();
        seen += new.len();
        let copies: Vec<_> = new.iter().flat_map(|id| vec![id; copies(random)]).collect();
        for batch in copies.chunks(BATCH) {
            send(shop, batch, random).await?;
        }
        sent += copies.len();
        if last {
            return Ok(sent);
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn copies(random: &mut SplitMix) -> usize {
    if random.below(2) == 0 { 0 } else { 1 + random.below(3) }
}

async fn send(shop: &Shop, ids: &[&OrderId], random: &mut SplitMix) -> Result<()> {
    let mut request = shop.queue.client().send_message_batch().queue_url(shop.queue.url().await?);
    for (at, &id) in ids.iter().enumerate() {
        let body = Message::OrderPlaced { order_id: id.clone() }.to_body();
        let delay = i32::try_from(random.below(LATEST_SECONDS + 1))?;
        let entry = SendMessageBatchRequestEntry::builder().id(at.to_string()).message_body(body);
        request = request.entries(entry.delay_seconds(delay).build()?);
    }
    let answer = request.send().await.context("sending messages again")?;
    anyhow::ensure!(answer.failed().is_empty(), "the queue did not take repeated messages");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn about_half_is_repeated_up_to_three_times() {
        let mut random = SplitMix::new(1);
        let mut seen = [0; 4];
        for _ in 0..1000 {
            seen[copies(&mut random)] += 1;
        }
        assert!((400..600).contains(&seen[0]) && seen[1..].iter().all(|times| *times > 100), "{seen:?}");
    }
}
