//! Observes the queue: one call per poll, and one more to learn its URL.

use aws_sdk_sqs::Client;

use super::policy::Depth;
use crate::{
    context::Context,
    controller::place,
    queue::{self, Counts, QueueError},
    validate::ValidatedShop,
};

/// Remembers the URL that a queue's name led to.
#[derive(Debug, Default)]
pub struct Gauge {
    url: Option<String>,
    counts: Counts,
}

impl Gauge {
    pub async fn read(&mut self, ctx: &Context, shop: &ValidatedShop) -> Result<Depth, QueueError> {
        let client = ctx.queues.client(ctx, &place(shop)).await?;
        let url = self.url(&client, shop).await?;
        let depth = self.counts.ask(&client, &url).await.map_err(|error| error.of(&url));
        if depth.is_err() {
            self.reset();
        }
        depth
    }

    pub fn known_url(&self) -> Option<&str> {
        self.url.as_deref()
    }

    /// The spec may name another queue now.
    pub fn reset(&mut self) {
        *self = Self::default();
    }

    async fn url(&mut self, client: &Client, shop: &ValidatedShop) -> Result<String, QueueError> {
        if let Some(url) = &self.url {
            return Ok(url.clone());
        }
        let url = queue::url(client, &shop.spec.queue).await?;
        Ok(self.url.insert(url).clone())
    }
}
