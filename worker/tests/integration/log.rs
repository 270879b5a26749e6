//! What the process logs.

use std::{
    io::{BufRead, BufReader},
    process::Stdio,
};

use anyhow::Context;
use aws_sdk_sqs::types::MessageAttributeValue;
use serde_json::Value;
use shop_domain::{id::OrderId, message::Message};
use shop_harness::{bits, with_shop};

use crate::support::Process;

#[tokio::test]
async fn a_line_about_a_job_has_its_id_and_its_trace() -> anyhow::Result<()> {
    with_shop(async |shop| {
        let (order_id, trace_id) = (OrderId::from_bits(bits()?), "4bf92f3577b34da6a3ce929d0e0e4736");
        let traceparent = format!("00-{trace_id}-00f067aa0ba902b7-00");
        let traceparent = MessageAttributeValue::builder().data_type("String").string_value(traceparent).build()?;
        let send = shop.queue.client().send_message().queue_url(shop.queue.url().await?);
        let body = Message::OrderPlaced { order_id: order_id.clone() }.to_body();
        send.message_body(body).message_attributes("traceparent", traceparent).send().await?;

        // Whatever level is logged.
        let mut process = Process::start(&shop, &["--log-level", "error"], Stdio::piped())?;
        let stdout = process.0.stdout.take().context("no output")?;
        let line = tokio::task::spawn_blocking(move || BufReader::new(stdout).lines().next());
        let line = line.await?.context("the process said nothing")??;
        let line: Value = serde_json::from_str(&line)?;
        assert_eq!(line["message"], "a message names a document that is not there");
        assert_eq!((&line["span"]["trace_id"], &line["span"]["id"]), (&trace_id.into(), &order_id.as_str().into()));
        Ok(())
    })
    .await
}
