//! The requests: random baskets of well-stocked products from many accounts, at a rate or as fast as they are answered.

use std::{
    collections::{BTreeMap, HashSet},
    fmt,
    time::Duration,
};

use anyhow::Result;
use futures::{Stream, StreamExt, stream};
use serde_json::Value;
use shop_domain::id::OrderId;
use tokio::time::{Instant, sleep_until};

use crate::{
    burst::basket,
    client::{Account, Answer, Shop},
    ground::Ground,
    latency::arrivals,
    random::SplitMix,
};

const ACCOUNTS: usize = 200;
const PRODUCTS: usize = 20;
const UNITS: i64 = 100_000_000;
const BASKETS: usize = 1_000;
const SEED: u64 = 1;

/// How requests come.
#[derive(Debug, Clone, Copy)]
pub enum Stimulus {
    /// An open loop: at this rate, whether answers come or not.
    Rate { per_second: u32, over: Duration },
    /// A closed loop: the next when one is answered.
    Most { in_flight: usize, over: Duration },
}

impl Stimulus {
    pub fn per_second(self) -> Option<u32> {
        match self {
            Self::Rate { per_second, .. } => Some(per_second),
            Self::Most { .. } => None,
        }
    }
}

impl fmt::Display for Stimulus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rate { per_second, over } => write!(f, "{per_second} orders/s for {} s", over.as_secs()),
            Self::Most { in_flight, over } => write!(f, "{in_flight} orders at a time for {} s", over.as_secs()),
        }
    }
}

/// What the shop answered.
#[derive(Debug, Default)]
pub struct Answered {
    pub accepted: HashSet<OrderId>,
    pub refused: BTreeMap<String, usize>,
    /// Of accepted orders, each from when its request was due.
    pub latencies: Vec<Duration>,
}

/// Who buys what.
pub struct Load {
    buyers: Vec<Account>,
    baskets: Vec<Value>,
}

impl Load {
    pub async fn prepare(ground: &Ground) -> Result<Self> {
        for _ in 0..PRODUCTS {
            ground.shop.stocked(UNITS).await?;
        }
        let buyers = ground.buyers(ACCOUNTS).await?;
        let products = ground.client.products().await?;
        let offered: Vec<_> = products.iter().collect();
        let mut random = SplitMix::new(SEED);
        let baskets = (0..BASKETS).map(|_| basket(&mut random, &offered, "bangalore")).collect();
        Ok(Self { buyers, baskets })
    }

    /// Sends the requests and waits for all answers.
    pub async fn offer(&self, shop: &Shop, stimulus: Stimulus) -> Answered {
        let begin = Instant::now();
        match stimulus {
            Stimulus::Rate { per_second, over } => {
                let due = arrivals(per_second, over).map(|due| begin + due);
                let requests = stream::iter(due.enumerate()).map(|(n, due)| self.request(shop, n, due));
                gather(requests.buffer_unordered(usize::MAX)).await
            }
            Stimulus::Most { in_flight, over } => {
                let free = stream::iter(0..).map(|n| (n, Instant::now()));
                let free = free.take_while(|(_, now)| std::future::ready(*now < begin + over));
                gather(free.map(|(n, now)| self.request(shop, n, now)).buffer_unordered(in_flight)).await
            }
        }
    }

    async fn request(&self, shop: &Shop, n: usize, due: Instant) -> (Result<Answer>, Duration) {
        sleep_until(due).await;
        let (buyer, basket) = (&self.buyers[n % self.buyers.len()], &self.baskets[n % self.baskets.len()]);
        let answer = shop.order(buyer, basket).await;
        (answer, due.elapsed())
    }
}

async fn gather(answers: impl Stream<Item = (Result<Answer>, Duration)>) -> Answered {
    let note = |mut all: Answered, (answer, latency): (Result<Answer>, Duration)| {
        let refused = match answer {
            Ok(Answer::Accepted { order_id }) => match order_id.parse() {
                Ok(id) => {
                    all.accepted.insert(id);
                    all.latencies.push(latency);
                    None
                }
                Err(_) => Some("an id of no order".to_owned()),
            },
            Ok(Answer::Refused { status, code }) => Some(format!("{status} {code}")),
            Err(error) => Some(format!("no answer: {}", error.root_cause())),
        };
        if let Some(refused) = refused {
            *all.refused.entry(refused).or_default() += 1;
        }
        std::future::ready(all)
    };
    answers.fold(Answered::default(), note).await
}
