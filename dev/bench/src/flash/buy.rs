//! The buyers: each asks for one unit under a key of its own, and asks again after a failure, as a shop's app would.

use std::collections::BTreeMap;

use futures::{StreamExt, stream};
use serde::Serialize;
use serde_json::{Value, json};
use shop_domain::id::{OrderId, ProductId};
use tokio::sync::watch;

use super::Sale;
use crate::{
    client::{Account, Answer, Shop},
    ground::Ground,
};

/// What one buyer got in the end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Bought {
    Accepted(OrderId),
    OutOfStock,
    /// Anything else, after all attempts.
    Other(String),
}

/// What all buyers got.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Answers {
    pub accepted: usize,
    pub out_of_stock: usize,
    /// Neither accepted nor cleanly refused, by what was said instead.
    pub other: BTreeMap<String, usize>,
}

impl Bought {
    pub fn sums(all: &[Self]) -> Answers {
        let mut answers = Answers::default();
        for bought in all {
            match bought {
                Self::Accepted(_) => answers.accepted += 1,
                Self::OutOfStock => answers.out_of_stock += 1,
                Self::Other(said) => *answers.other.entry(said.clone()).or_default() += 1,
            }
        }
        answers
    }
}

/// Lets all buyers buy; the ids of accepted orders are added to `accepted` as they come.
pub async fn all(
    sale: Sale,
    ground: &Ground,
    (buyers, product): (&[Account], &ProductId),
    accepted: &watch::Sender<Vec<OrderId>>,
) -> Vec<Bought> {
    let body = json!({"location": "bangalore", "items": [{"productId": product.as_str(), "quantity": 1}]});
    let bought = stream::iter(buyers)
        .map(|buyer| one(&ground.client, buyer, &body))
        .buffer_unordered(sale.in_flight)
        .inspect(|bought| {
            if let Bought::Accepted(id) = bought {
                accepted.send_modify(|ids| ids.push(id.clone()));
            }
        });
    bought.collect().await
}

async fn one(shop: &Shop, buyer: &Account, body: &Value) -> Bought {
    match shop.order_persistently(buyer, body, "the one order").await {
        Ok(Answer::Accepted { order_id }) => {
            order_id.parse().map_or_else(|_| Bought::Other("an id of no order".into()), Bought::Accepted)
        }
        Ok(Answer::Refused { status, code }) if status == 409 && code == "out_of_stock" => Bought::OutOfStock,
        Ok(Answer::Refused { status, code }) => Bought::Other(format!("{status} {code}")),
        Err(error) => Bought::Other(format!("no answer: {}", error.root_cause())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_summed() {
        let id = OrderId::from_bits([1; 12]);
        let other = || Bought::Other("503 unavailable".into());
        let sums = Bought::sums(&[Bought::Accepted(id), Bought::OutOfStock, other(), other()]);
        let expected = [("503 unavailable".to_owned(), 2)];
        assert_eq!(sums, Answers { accepted: 1, out_of_stock: 1, other: expected.into() });
    }
}
