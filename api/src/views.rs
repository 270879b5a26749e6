//! What answers and problems both show of an order: its lines, and amounts as exact decimals. Knows no request.

use serde::Serialize;
use shop_domain::{
    money::{self, Currency, Money},
    order::OrderLine,
    stock::Shortage,
};
use utoipa::ToSchema;

/// An amount in major units: an exact decimal number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(transparent)]
#[schema(value_type = f64, example = 29.99)]
pub struct Amount(money::Amount);

impl Amount {
    pub fn new(money: Money, currency: Currency) -> Self {
        Self(money::Amount(money.to_decimal(currency)))
    }
}

/// A line of an order, as it was when the order was placed.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Item {
    product_id: String,
    name: String,
    quantity: u32,
    #[schema(inline)]
    unit_price: Amount,
    #[schema(inline)]
    total: Amount,
}

/// A line that could not be served.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ShortLine {
    product_id: String,
    wanted: u32,
    available: i64,
}

/// The lines of an order with their prices.
pub fn items(lines: &[OrderLine], currency: Currency) -> Vec<Item> {
    let item = |line: &OrderLine| Item {
        product_id: line.product_id.to_string(),
        name: line.name.clone(),
        quantity: line.quantity,
        unit_price: Amount::new(line.unit_price, currency),
        total: Amount::new(line.total, currency),
    };
    lines.iter().map(item).collect()
}

/// The lines that fell short.
pub fn short_lines(shortages: &[Shortage]) -> Vec<ShortLine> {
    let short = |shortage: &Shortage| ShortLine {
        product_id: shortage.product_id.to_string(),
        wanted: shortage.wanted,
        available: shortage.available,
    };
    shortages.iter().map(short).collect()
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case(432_400, "4324")]
    #[case(2_999, "29.99")]
    #[case(10, "0.1")]
    #[case(0, "0")]
    #[case(i64::MAX, "92233720368547758.07")]
    fn amounts_are_written_exactly(#[case] minor: i64, #[case] json: &str) {
        let amount = Amount::new(minor.try_into().unwrap(), "INR".parse().unwrap());
        assert_eq!(serde_json::to_string(&amount).unwrap(), json);
    }
}
