//! Deliveries into jobs: the same message delivered twice is one job with both receipts, in the order of arrival.

use std::collections::HashMap;

use jiff::Timestamp;
use shop_domain::message::Message;
use shop_runtime::trace::{Origin, Role, TraceContext};
use tracing::{Span, field::Empty};

use crate::delivery::{Delivery, Receipt};

/// One thing to do, and every delivery that asks for it.
#[derive(Debug, Clone)]
pub struct Job {
    pub message: Message,
    pub receipts: Vec<Receipt>,
    /// The highest of its deliveries.
    pub receive_count: u32,
    /// The oldest of its deliveries.
    pub sent_at: Option<Timestamp>,
    /// From the delivery of the first message that asks for it until the job is dropped.
    pub span: Span,
    /// The span, as what the job causes is told of it.
    pub context: TraceContext,
}

impl Job {
    pub fn new(message: Message, first: Delivery) -> Self {
        let Delivery { receipt, receive_count, sent_at, traceparent, .. } = first;
        let origin = Origin::read(traceparent.as_deref());
        let span = tracing::error_span!(
            parent: None,
            "job",
            id = message.group(),
            receive_count,
            trace_id = %origin.trace_id,
            messaging.system = "aws_sqs",
            otel.name = Empty,
            otel.kind = Empty,
        );
        let context = origin.join(&span, Role { name: &format!("process {}", message.kind()), kind: "consumer" });
        Self { message, receipts: vec![receipt], receive_count, sent_at, span, context }
    }
}

/// The jobs, and the deliveries that are no message of this shop.
pub fn sort_out(deliveries: Vec<Delivery>) -> (Vec<Job>, Vec<Delivery>) {
    let (mut jobs, mut strangers) = (Vec::<Job>::new(), Vec::new());
    let mut places = HashMap::new();
    for delivery in deliveries {
        let Ok(message) = Message::parse(&delivery.body) else {
            strangers.push(delivery);
            continue;
        };
        let place = *places.entry(message.clone()).or_insert(jobs.len());
        if let Some(job) = jobs.get_mut(place) {
            job.receive_count = job.receive_count.max(delivery.receive_count);
            job.sent_at = job.sent_at.into_iter().chain(delivery.sent_at).min();
            job.receipts.push(delivery.receipt);
        } else {
            jobs.push(Job::new(message, delivery));
        }
    }
    (jobs, strangers)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::delivery::tests::delivery;

    const A: &str = r#"{"kind":"OrderPlaced","orderId":"67c8830b7ef1b848ac52ebec"}"#;
    const B: &str = r#"{"kind":"OrderPlaced","orderId":"67c8830b7ef1b848ac52ebee"}"#;
    const C: &str = r#"{"kind":"OrderCancelled","orderId":"67c8830b7ef1b848ac52ebec"}"#;

    #[test]
    fn a_repeat_is_the_same_job_with_both_receipts() {
        let bodies = [A, B, A, C, "junk"];
        let deliveries = bodies.iter().zip(1..).map(|(body, n)| delivery(body, n)).collect();
        let (jobs, strangers) = sort_out(deliveries);
        let kept: Vec<_> =
            jobs.iter().map(|job| (job.message.to_body(), job.receipts.len(), job.receive_count)).collect();
        assert_eq!(kept, [(A.into(), 2, 3), (B.into(), 1, 2), (C.into(), 1, 4)]);
        assert_eq!(jobs[0].sent_at.unwrap().as_second(), 1);
        assert_eq!(strangers.iter().map(|stranger| stranger.body.as_str()).collect::<Vec<_>>(), ["junk"]);
    }
}
