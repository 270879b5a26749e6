//! A burst of real orders: several buyers, random baskets from the catalogue, a bounded number in flight. Each is repeated
//! under its Idempotency-Key when the shop fails, so that what was accepted is known.

use anyhow::{Context, Result, ensure};
use futures::{StreamExt, TryStreamExt, stream};
use serde_json::{Value, json};
use shop_runtime::ids::random_hex;

use crate::{
    client::{Account, Answer, Product, Shop},
    random::SplitMix,
};

/// What to place.
#[derive(Debug, Clone)]
pub struct Burst {
    pub orders: usize,
    /// Requests in flight at once.
    pub concurrency: usize,
    pub location: String,
    /// The baskets are drawn from this seed: the same seed gives the same baskets.
    pub seed: u64,
}

/// What the shop answered.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Placed {
    pub accepted: Vec<String>,
    pub refused: Vec<String>,
}

/// Customers that do the buying; made if they are not there yet.
pub async fn buyers(shop: &Shop, count: usize, password: &str) -> Result<Vec<Account>> {
    stream::iter(0..count)
        .then(|n| async move { shop.customer(&format!("buyer-{n}@example.com"), password).await })
        .try_collect()
        .await
        .context("cannot make the buyers' accounts")
}

/// Places the orders, reporting each answer to `seen`.
pub async fn place(shop: &Shop, buyers: &[Account], burst: &Burst, seen: impl Fn(&Answer)) -> Result<Placed> {
    let products = shop.products().await?;
    let offered: Vec<_> = products.iter().filter(|p| p.available_at(&burst.location) > 0).collect();
    ensure!(
        !offered.is_empty(),
        "nothing is in stock at {}; seed the catalogue with `cargo xtask seed`",
        burst.location
    );
    let mut random = SplitMix::new(burst.seed);
    let baskets: Vec<_> = (0..burst.orders).map(|_| basket(&mut random, &offered, &burst.location)).collect();
    let this = random_hex::<8>()?;
    let keys: Vec<_> = (0..burst.orders).map(|number| format!("{this}-{number}")).collect();

    let answers: Vec<Answer> = stream::iter(baskets.iter().zip(&keys).zip(buyers.iter().cycle()))
        .map(|((basket, key), buyer)| shop.order_persistently(buyer, basket, key))
        .buffer_unordered(burst.concurrency)
        .inspect_ok(&seen)
        .try_collect()
        .await?;
    let mut placed = Placed::default();
    for answer in answers {
        match answer {
            Answer::Accepted { order_id } => placed.accepted.push(order_id),
            Answer::Refused { status, code } => placed.refused.push(format!("{status} {code}")),
        }
    }
    Ok(placed)
}

/// One to three products, one to three units each.
pub fn basket(random: &mut SplitMix, offered: &[&Product], location: &str) -> Value {
    let lines = 1 + random.below(3);
    let items: Vec<_> = (0..lines)
        .map(|_| {
            let product = &offered[random.below(offered.len())];
            json!({"productId": product.id, "quantity": 1 + random.below(3)})
        })
        .collect();
    json!({"location": location, "items": items})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_draws_the_same_baskets() {
        let product = |id: &str| Product { id: id.into(), name: String::new(), availability: Vec::new() };
        let (a, b) = (product("a"), product("b"));
        let draw = |seed| {
            let mut random = SplitMix::new(seed);
            (0..20).map(|_| basket(&mut random, &[&a, &b], "x")).collect::<Vec<_>>()
        };
        assert_eq!(draw(7), draw(7));
        assert_ne!(draw(7), draw(8));
        for basket in draw(7) {
            let items = basket["items"].as_array().unwrap();
            assert!((1..=3).contains(&items.len()));
            assert!(items.iter().all(|item| (1..=3).contains(&item["quantity"].as_u64().unwrap())));
        }
    }
}
