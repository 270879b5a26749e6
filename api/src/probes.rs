//! Whether Redis, the queue and the mail service answer, for the shop's self-check. Sends nothing and changes nothing.

use std::collections::BTreeMap;

use aws_sdk_ses::{
    config::{Builder, retry::RetryConfig},
    error::SdkError,
};
use futures::FutureExt;
use shop_runtime::{queue::Queue, telemetry::chain};
use shop_store::redis_link::RedisLink;

use crate::service::doctor::Probe;

const FORBIDDEN: u16 = 403;

/// A probe for each.
pub fn probes(redis: Option<RedisLink>, queue: Queue, ses: aws_sdk_ses::Client) -> BTreeMap<&'static str, Probe> {
    let redis: Probe = Box::new(move || of_redis(redis.clone()).boxed());
    let sqs: Probe = Box::new(move || of_queue(queue.clone()).boxed());
    let ses: Probe = Box::new(move || of_mail(ses.clone()).boxed());
    [("redis", redis), ("sqs", sqs), ("ses", ses)].into()
}

async fn of_redis(redis: Option<RedisLink>) -> Result<String, String> {
    let Some(redis) = redis else { return Ok("none is configured: the shop works without its caches".into()) };
    redis.ping().await.map_err(|error| silent("Redis", &error))?;
    Ok("answers".into())
}

async fn of_queue(queue: Queue) -> Result<String, String> {
    let counts = queue.counts().await.map_err(|error| silent("the queue", &error))?;
    Ok(format!("{} messages wait, {} are in work", counts.visible, counts.in_flight))
}

/// Asks for a mail without addressee and text, which is refused: that needs no right but the one to send, and sends nothing.
async fn of_mail(ses: aws_sdk_ses::Client) -> Result<String, String> {
    // Once: trying again is for those who need the answer.
    let once = Builder::new().retry_config(RetryConfig::disabled());
    match ses.send_email().customize().config_override(once).send().await {
        Err(SdkError::ServiceError(refused)) if refused.raw().status().as_u16() == FORBIDDEN => {
            Err("the mail service refuses the shop: are its AWS credentials right, and may they send?".into())
        }
        Ok(_) | Err(SdkError::ServiceError(_) | SdkError::ResponseError(_)) => Ok("answers".into()),
        Err(error) => Err(silent("the mail service", &error)),
    }
}

/// The cause is for the log: it may name what is nobody's business.
fn silent(what: &str, error: &dyn std::error::Error) -> String {
    tracing::warn!(error = chain(error), "the self-check does not reach {what}");
    format!("{what} cannot be used; the log says why")
}
