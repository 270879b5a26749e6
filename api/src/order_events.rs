//! Brings the news of orders to those who follow them here: heard on Redis, which is quick, and looked up in MongoDB
//! for all watched orders together, which is certain. Knows nothing of HTTP and of what a status means.

use std::time::Duration;

use shop_domain::id::OrderId;
use shop_runtime::{shutdown::Shutdown, telemetry::chain};
use shop_store::{
    StoreError,
    gate::Gate,
    order_events::{EventsError, OrderEvents as News},
    orders::Orders,
};
use tokio::sync::watch;

use crate::service::order_events::OrderEvents;

/// How often the database is asked while nothing can be heard, and while news come by themselves.
const DEAF: Duration = Duration::from_secs(1);
const HEARING: Duration = Duration::from_secs(10);
/// How many orders are asked for in one query.
const BATCH: usize = 1_000;

/// What the watch works with.
pub struct WatchDeps {
    pub orders: Orders,
    pub gate: Gate,
    /// Without Redis there is none.
    pub news: Option<News>,
    pub followers: OrderEvents,
    pub shutdown: Shutdown,
}

/// Starts the watch. It ends with the process: no stream outlives the beginning of the drain.
pub fn spawn(deps: WatchDeps) {
    let WatchDeps { orders, gate, news, followers, shutdown } = deps;
    let hearing = watch::Sender::new(false);
    let look = look((orders, gate), followers.clone(), hearing.subscribe());
    shutdown.spawn_detached(async move {
        tokio::join!(listen(news, followers, hearing), look);
    });
}

async fn listen(news: Option<News>, followers: OrderEvents, hearing: watch::Sender<bool>) {
    let Some(news) = news else { return };
    loop {
        let error = hear(&news, &followers, &hearing).await;
        if hearing.send_replace(false) {
            tracing::warn!(error = chain(&error), "no news of orders from Redis: asking MongoDB every second");
        }
        tokio::time::sleep(DEAF).await;
    }
}

async fn hear(news: &News, followers: &OrderEvents, hearing: &watch::Sender<bool>) -> EventsError {
    let mut subscription = match news.subscribe().await {
        Ok(subscription) => subscription,
        Err(error) => return error,
    };
    hearing.send_replace(true);
    loop {
        match subscription.next().await {
            Ok(changed) => followers.news(&changed.id, changed.version),
            Err(error) => return error,
        }
    }
}

/// Looks at once when the hearing comes or goes: what was said meanwhile was said to nobody.
async fn look((orders, gate): (Orders, Gate), followers: OrderEvents, mut hearing: watch::Receiver<bool>) {
    loop {
        if let Err(error) = gate.guard(look_up(&orders, &followers, followers.watched())).await {
            tracing::debug!(error = chain(&error), "followed orders cannot be read, trying again");
        }
        let pause = if *hearing.borrow_and_update() { HEARING } else { DEAF };
        if let Ok(Err(_)) = tokio::time::timeout(pause, hearing.changed()).await {
            // Nobody listens at all: there is no Redis.
            tokio::time::sleep(DEAF).await;
        }
    }
}

async fn look_up(orders: &Orders, followers: &OrderEvents, watched: Vec<OrderId>) -> Result<(), StoreError> {
    for batch in watched.chunks(BATCH) {
        for (id, version) in orders.versions(batch).await? {
            followers.news(&id, version);
        }
    }
    Ok(())
}
