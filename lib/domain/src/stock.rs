//! Stock: how a batch of orders shares what there is, and how staff change it. Decides; never moves anything.

use std::{collections::BTreeMap, fmt};

use serde::{Deserialize, Serialize};

use crate::{
    catalogue::Location,
    id::{OrderId, ProductId},
};

/// Most lines that one adjustment may have.
pub const MAX_ADJUSTMENT_LINES: usize = 1_000;

/// One row of stock: a product at a location. Its text form `<product>@<location>` is the row's key in the store.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StockKey {
    pub product: ProductId,
    pub location: Location,
}

impl fmt::Display for StockKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.product, self.location)
    }
}

impl fmt::Debug for StockKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// Units in stock per row; a row that does not exist is absent.
pub type Stock = BTreeMap<StockKey, i64>;

/// What an order needs: units per product, at one location.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Demand {
    pub order_id: OrderId,
    pub location: Location,
    pub lines: BTreeMap<ProductId, u32>,
}

/// A line that could not be served.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Shortage {
    pub product_id: ProductId,
    pub wanted: u32,
    pub available: i64,
}

/// What becomes of one order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    Allocated,
    /// Nothing of the order was taken; the lines that fell short.
    Short(Vec<Shortage>),
}

/// What a batch of orders takes from the stock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Allocation {
    /// One outcome per order, in the order of arrival.
    pub outcomes: Vec<(OrderId, Outcome)>,
    /// Units taken per row, merged over all orders, in key order.
    pub taken: BTreeMap<StockKey, i64>,
}

/// Shares the stock among orders in the order of arrival: each gets all of its lines or nothing,
/// and no row ever goes below zero. Orders must be distinct (the caller merges duplicates).
pub fn allocate(stock: &Stock, orders: &[Demand]) -> Allocation {
    let mut left = stock.clone();
    let mut taken = BTreeMap::new();
    let mut outcomes = Vec::with_capacity(orders.len());
    for order in orders {
        let short = shortages(&left, order);
        let outcome = if short.is_empty() {
            for (key, quantity) in rows(order) {
                *left.entry(key.clone()).or_insert(0) -= i64::from(quantity);
                *taken.entry(key).or_insert(0) += i64::from(quantity);
            }
            Outcome::Allocated
        } else {
            Outcome::Short(short)
        };
        outcomes.push((order.order_id.clone(), outcome));
    }
    Allocation { outcomes, taken }
}

fn rows(order: &Demand) -> impl Iterator<Item = (StockKey, u32)> {
    order
        .lines
        .iter()
        .map(|(product, &quantity)| (StockKey { product: product.clone(), location: order.location.clone() }, quantity))
}

/// The lines of an order that the stock cannot serve; empty when all can be.
pub fn shortages(stock: &Stock, order: &Demand) -> Vec<Shortage> {
    rows(order)
        .filter_map(|(key, wanted)| {
            let available = stock.get(&key).copied().unwrap_or(0);
            (available < i64::from(wanted)).then_some(Shortage { product_id: key.product, wanted, available })
        })
        .collect()
}

/// A line of an adjustment that would take a row below zero, or past what can be counted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RefusedLine {
    pub product_id: ProductId,
    pub delta: i64,
    pub available: i64,
}

/// Checks changes of stock at one location: all of them, or the lines that cannot be applied.
/// A row that does not exist counts as zero, so a first adjustment makes it.
pub fn adjust(stock: &Stock, location: &Location, deltas: &BTreeMap<ProductId, i64>) -> Result<(), Vec<RefusedLine>> {
    let refused: Vec<_> = deltas
        .iter()
        .filter_map(|(product, &delta)| {
            let key = StockKey { product: product.clone(), location: location.clone() };
            let available = stock.get(&key).copied().unwrap_or(0);
            let after = available.checked_add(delta);
            after.is_none_or(|left| left < 0).then_some(RefusedLine { product_id: key.product, delta, available })
        })
        .collect();
    if refused.is_empty() { Ok(()) } else { Err(refused) }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};
    use rstest::rstest;

    use super::*;

    fn product(n: u8) -> ProductId {
        ProductId::from_bits([n; 12])
    }

    fn location() -> Location {
        "bangalore".parse().unwrap()
    }

    fn key(n: u8) -> StockKey {
        StockKey { product: product(n), location: location() }
    }

    fn demand(n: usize, lines: &[(u8, u32)]) -> Demand {
        let mut bits = [0; 12];
        bits[..8].copy_from_slice(&(n as u64).to_be_bytes());
        Demand {
            order_id: OrderId::from_bits(bits),
            location: location(),
            lines: lines.iter().map(|&(p, q)| (product(p), q)).collect(),
        }
    }

    #[rstest]
    #[case(&[(1, 5)], &[vec![(1, 3)], vec![(1, 3)], vec![(1, 2)]], &[true, false, true])]
    #[case(&[(1, 5), (2, 0)], &[vec![(1, 1), (2, 1)]], &[false])]
    #[case(&[], &[vec![(1, 1)]], &[false])]
    #[case(&[(1, 1)], &[vec![(1, 1)], vec![(1, 1)]], &[true, false])]
    fn who_comes_first_is_served_first(
        #[case] stock: &[(u8, i64)],
        #[case] orders: &[Vec<(u8, u32)>],
        #[case] served: &[bool],
    ) {
        let stock: Stock = stock.iter().map(|&(p, n)| (key(p), n)).collect();
        let orders: Vec<_> = orders.iter().enumerate().map(|(n, lines)| demand(n, lines)).collect();
        let outcomes = allocate(&stock, &orders).outcomes;
        assert_eq!(outcomes.iter().map(|(_, o)| *o == Outcome::Allocated).collect::<Vec<_>>(), served);
    }

    #[test]
    fn a_short_line_says_what_there_is() {
        let short = shortages(&Stock::from([(key(1), 2)]), &demand(0, &[(1, 3), (2, 1)]));
        assert_eq!(
            short,
            [
                Shortage { product_id: product(1), wanted: 3, available: 2 },
                Shortage { product_id: product(2), wanted: 1, available: 0 },
            ]
        );
    }

    #[rstest]
    #[case(&[(1, 5)], true)]
    #[case(&[(1, -5)], true)]
    #[case(&[(1, -6)], false)]
    #[case(&[(2, 1)], true)]
    #[case(&[(2, -1)], false)]
    #[case(&[(1, i64::MAX)], false)]
    #[case(&[(1, i64::MIN)], false)]
    #[case(&[(1, 1), (2, -1)], false)]
    fn an_adjustment_is_applied_whole_or_not_at_all(#[case] deltas: &[(u8, i64)], #[case] accepted: bool) {
        let deltas = deltas.iter().map(|&(p, d)| (product(p), d)).collect();
        assert_eq!(adjust(&Stock::from([(key(1), 5)]), &location(), &deltas).is_ok(), accepted);
    }

    prop_compose! {
        fn batch()(lines in vec(vec((0_u8..6, 1_u32..9), 1..5), 0..20)) -> Vec<Demand> {
            lines.iter().enumerate().map(|(n, lines)| demand(n, lines)).collect()
        }
    }

    fn stocked(levels: &[i64]) -> Stock {
        levels.iter().zip(0..).map(|(&level, n)| (key(n), level)).collect()
    }

    proptest! {
        #[test]
        fn no_row_goes_below_zero(levels in vec(0_i64..30, 6), orders in batch()) {
            let stock = stocked(&levels);
            let taken = allocate(&stock, &orders).taken;
            prop_assert!(taken.iter().all(|(row, &units)| 0 < units && units <= stock[row]));
        }

        #[test]
        fn an_order_gets_all_of_its_lines_or_none(levels in vec(0_i64..30, 6), orders in batch()) {
            let mut left = stocked(&levels);
            for order in &orders {
                let Allocation { outcomes, taken } = allocate(&left, std::slice::from_ref(order));
                let all: BTreeMap<_, _> = rows(order).map(|(row, units)| (row, i64::from(units))).collect();
                let served = outcomes[0].1 == Outcome::Allocated;
                prop_assert_eq!(&taken, if served { &all } else { &BTreeMap::new() });
                // Refused only for what is short, served only when nothing is.
                prop_assert_eq!(shortages(&left, order).is_empty(), served);
                for (row, units) in taken {
                    *left.get_mut(&row).unwrap() -= units;
                }
            }
        }

        #[test]
        fn who_comes_later_changes_nothing_for_who_came_before(
            levels in vec(0_i64..30, 6),
            orders in batch(),
            first in 0_usize..20,
        ) {
            let stock = stocked(&levels);
            let first = first.min(orders.len());
            let (alone, together) = (allocate(&stock, &orders[..first]), allocate(&stock, &orders));
            prop_assert_eq!(&together.outcomes[..first], alone.outcomes);
            let ids: Vec<_> = together.outcomes.iter().map(|(id, _)| id).collect();
            prop_assert_eq!(ids, orders.iter().map(|order| &order.order_id).collect::<Vec<_>>());
        }

        #[test]
        fn what_is_taken_is_what_the_served_orders_need(levels in vec(0_i64..30, 6), orders in batch()) {
            let Allocation { outcomes, taken } = allocate(&stocked(&levels), &orders);
            let mut sold: BTreeMap<StockKey, i64> = BTreeMap::new();
            let served = orders.iter().zip(&outcomes).filter(|(_, (_, outcome))| *outcome == Outcome::Allocated);
            for (row, units) in served.flat_map(|(order, _)| rows(order)) {
                *sold.entry(row).or_insert(0) += i64::from(units);
            }
            prop_assert_eq!(taken, sold);
        }
    }
}
