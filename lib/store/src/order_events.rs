//! News of orders over Redis: whoever caches a newer version of an order says so on the shop's channel, and each api
//! process listens on one connection. News may get lost with the connection: who listens must also look by itself.

use std::{fmt, time::Duration};

use futures::StreamExt;
use redis::{
    Client, RedisError,
    aio::{PubSubSink, PubSubStream},
};
use shop_domain::id::OrderId;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at, timeout};

use crate::redis_link::RedisLink;

/// How often a silent connection is asked whether it lives, and how long it has to say so.
const PROBE: Duration = Duration::from_secs(1);
const PATIENCE: Duration = Duration::from_millis(500);
const CONNECT: Duration = Duration::from_secs(1);

/// An order has this version now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OrderChanged {
    pub id: OrderId,
    pub version: i64,
}

/// Why there is no subscription (any more).
#[derive(Debug, thiserror::Error)]
pub enum EventsError {
    #[error("Redis did not answer in time")]
    Silent,
    #[error("the connection to Redis is gone")]
    Gone,
    #[error("Redis refused the subscription")]
    Refused(#[source] RedisError),
}

/// Where the news of one shop is to be heard. Cheap to clone.
#[derive(Clone)]
pub struct OrderEvents {
    client: Client,
    channel: String,
}

impl fmt::Debug for OrderEvents {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OrderEvents").field("channel", &self.channel).finish_non_exhaustive()
    }
}

impl OrderEvents {
    /// Asks nothing yet. Listens where `link` leads, on a connection of its own.
    pub fn new(link: &RedisLink) -> Self {
        Self { client: link.client(), channel: channel(link.shop()) }
    }

    /// Begins to listen, in little more than a second or not at all.
    pub async fn subscribe(&self) -> Result<Subscription, EventsError> {
        let connected = timeout(CONNECT, self.client.get_async_pubsub()).await;
        let (mut sink, news) = connected.map_err(|_| EventsError::Silent)?.map_err(EventsError::Refused)?.split();
        let subscribed = timeout(PATIENCE, sink.subscribe(&self.channel)).await;
        subscribed.map_err(|_| EventsError::Silent)?.map_err(EventsError::Refused)?;
        let mut probe = interval_at(Instant::now() + PROBE, PROBE);
        probe.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Ok(Subscription { sink, news, probe })
    }
}

/// A connection that listens.
pub struct Subscription {
    sink: PubSubSink,
    news: PubSubStream,
    probe: Interval,
}

impl Subscription {
    /// The next news. Fails within two seconds of the moment at which nothing can be heard any more.
    pub async fn next(&mut self) -> Result<OrderChanged, EventsError> {
        loop {
            tokio::select! {
                message = self.news.next() => {
                    let message = message.ok_or(EventsError::Gone)?;
                    // What cannot be read was not said by this shop.
                    if let Some(changed) = read(message.get_payload_bytes()) {
                        return Ok(changed);
                    }
                }
                _ = self.probe.tick() => {
                    let alive = timeout(PATIENCE, self.sink.ping::<redis::Value>()).await;
                    alive.map_err(|_| EventsError::Silent)?.map_err(|_| EventsError::Gone)?;
                }
            }
        }
    }
}

/// The channel of a shop.
pub(crate) fn channel(shop: &str) -> String {
    format!("{shop}:order-events")
}

/// `<order id>:<version>`, as the status cache publishes it.
fn read(payload: &[u8]) -> Option<OrderChanged> {
    let (id, version) = std::str::from_utf8(payload).ok()?.split_once(':')?;
    Some(OrderChanged { id: id.parse().ok()?, version: version.parse().ok()? })
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("67c8830b7ef1b848ac52ebec:2", true)]
    #[case("67c8830b7ef1b848ac52ebec:", false)]
    #[case("67c8830b7ef1b848ac52ebec", false)]
    #[case("x:2", false)]
    #[case("", false)]
    fn only_news_of_an_order_is_read(#[case] payload: &str, #[case] is_news: bool) {
        assert_eq!(read(payload.as_bytes()).is_some(), is_news);
    }
}
