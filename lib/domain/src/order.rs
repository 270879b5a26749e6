//! Orders: what a customer asks for, what it costs, and the states an order passes through (`state`).

use std::collections::BTreeMap;

use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};

use crate::{
    catalogue::Location,
    id::ProductId,
    money::{Currency, Money, MoneyError},
};

mod state;
pub use state::{FailureClass, MOVES, Move, Reason, Status};

/// Most lines that one order may have.
pub const MAX_LINES: usize = 100;
/// Most units of one product in one order.
pub const MAX_QUANTITY: u32 = 1_000_000;

/// One fault of a request's field: where (JSON pointer, RFC 6901) and what is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldFault {
    pub pointer: String,
    pub detail: String,
}

impl FieldFault {
    pub fn new(pointer: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { pointer: pointer.into(), detail: detail.into() }
    }
}

/// An order as it came in: nothing checked yet.
#[derive(Debug, Clone)]
pub struct RawOrder {
    pub location: String,
    pub total: Option<Decimal>,
    pub items: Vec<RawItem>,
}

#[derive(Debug, Clone)]
pub struct RawItem {
    pub product_id: String,
    pub quantity: i64,
}

/// A well-formed order: a location and at least one line, each product once, in product order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewOrder {
    location: Location,
    lines: BTreeMap<ProductId, u32>,
    total: Option<Decimal>,
}

impl NewOrder {
    /// Checks every field and reports all faults at once; lines of the same product are merged.
    pub fn parse(raw: &RawOrder) -> Result<Self, Vec<FieldFault>> {
        let mut faults = Vec::new();
        let location = raw.location.parse::<Location>();
        if let Err(error) = &location {
            faults.push(FieldFault::new("/location", error.to_string()));
        }
        if raw.total.is_some_and(|total| total < Decimal::ZERO) {
            faults.push(FieldFault::new("/totalAmount", "must not be negative"));
        }
        let lines = parse_lines(&raw.items, &mut faults);
        match location {
            Ok(location) if faults.is_empty() => Ok(Self { location, lines, total: raw.total }),
            _ => Err(faults),
        }
    }

    pub fn location(&self) -> &Location {
        &self.location
    }

    /// Quantity per product.
    pub fn lines(&self) -> &BTreeMap<ProductId, u32> {
        &self.lines
    }

    /// The total that the customer expects, in major units.
    pub fn total(&self) -> Option<Decimal> {
        self.total
    }
}

fn parse_lines(items: &[RawItem], faults: &mut Vec<FieldFault>) -> BTreeMap<ProductId, u32> {
    let mut lines = BTreeMap::new();
    if items.is_empty() {
        faults.push(FieldFault::new("/items", "at least one item is required"));
    }
    if items.len() > MAX_LINES {
        faults.push(FieldFault::new("/items", format!("at most {MAX_LINES} items in one order")));
        return lines;
    }
    for (at, item) in items.iter().enumerate() {
        let product = item.product_id.parse::<ProductId>();
        if let Err(error) = &product {
            faults.push(FieldFault::new(format!("/items/{at}/productId"), error.to_string()));
        }
        let quantity = u32::try_from(item.quantity).ok().filter(|q| (1..=MAX_QUANTITY).contains(q));
        if quantity.is_none() {
            let detail = format!("must be a whole number from 1 to {MAX_QUANTITY}");
            faults.push(FieldFault::new(format!("/items/{at}/quantity"), detail));
        }
        if let (Ok(product), Some(quantity)) = (product, quantity) {
            let sum = lines.entry(product).or_insert(0_u32);
            *sum += quantity; // at most MAX_LINES · MAX_QUANTITY = 10^8: fits
        }
    }
    lines
}

/// What the catalogue says of a product at the moment of acceptance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offer {
    pub name: String,
    pub price: Money,
}

/// One line of an accepted order: a snapshot that later price changes do not touch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OrderLine {
    pub product_id: ProductId,
    pub name: String,
    pub quantity: u32,
    pub unit_price: Money,
    pub total: Money,
}

/// The lines of an order with their prices, and their sum.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PricedOrder {
    pub lines: Vec<OrderLine>,
    pub total: Money,
}

/// Why an order cannot be priced.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PricingError {
    #[error("unknown products")]
    UnknownProducts(Vec<ProductId>),
    /// The customer expects another total; the present prices are handed back.
    #[error("the total is not what the customer expects")]
    TotalChanged(PricedOrder),
    #[error(transparent)]
    Money(#[from] MoneyError),
}

/// Prices an order from one reading of the catalogue.
pub fn price(
    order: &NewOrder,
    offers: &BTreeMap<ProductId, Offer>,
    currency: Currency,
) -> Result<PricedOrder, PricingError> {
    let unknown: Vec<_> = order.lines.keys().filter(|id| !offers.contains_key(*id)).cloned().collect();
    if !unknown.is_empty() {
        return Err(PricingError::UnknownProducts(unknown));
    }
    let mut lines = Vec::with_capacity(order.lines.len());
    for (product_id, &quantity) in &order.lines {
        let offer = &offers[product_id];
        let total = offer.price.times(quantity)?;
        let (product_id, name) = (product_id.clone(), offer.name.clone());
        lines.push(OrderLine { product_id, name, quantity, unit_price: offer.price, total });
    }
    let total = Money::sum(lines.iter().map(|line| line.total))?;
    let priced = PricedOrder { lines, total };
    match order.total {
        Some(expected) if expected != total.to_decimal(currency) => Err(PricingError::TotalChanged(priced)),
        _ => Ok(priced),
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    const MOUSE: &str = "67c8830b7ef1b848ac52ebec";
    const LAMP: &str = "67c8830b7ef1b848ac52ebee";

    fn raw(location: &str, total: Option<&str>, items: &[(&str, i64)]) -> RawOrder {
        RawOrder {
            location: location.into(),
            total: total.map(|text| text.parse().unwrap()),
            items: items.iter().map(|&(id, quantity)| RawItem { product_id: id.into(), quantity }).collect(),
        }
    }

    #[test]
    fn lines_of_one_product_are_merged() {
        let order = NewOrder::parse(&raw("bangalore", None, &[(MOUSE, 1), (LAMP, 2), (MOUSE, 3)])).unwrap();
        assert_eq!(order.lines().values().copied().collect::<Vec<_>>(), [4, 2]);
    }

    #[test]
    fn all_faults_are_reported_at_once() {
        let faults = NewOrder::parse(&raw("", Some("-1"), &[("x", 1), (MOUSE, 0)])).unwrap_err();
        let pointers: Vec<_> = faults.iter().map(|fault| fault.pointer.as_str()).collect();
        assert_eq!(pointers, ["/location", "/totalAmount", "/items/0/productId", "/items/1/quantity"]);
    }

    #[rstest]
    #[case(&[], "/items")]
    #[case(&[(MOUSE, -1)], "/items/0/quantity")]
    #[case(&[(MOUSE, 1_000_001)], "/items/0/quantity")]
    #[case(&[(MOUSE, i64::MAX)], "/items/0/quantity")]
    #[case(&[(MOUSE, 1); 101], "/items")]
    fn bad_items_are_refused(#[case] items: &[(&str, i64)], #[case] pointer: &str) {
        let faults = NewOrder::parse(&raw("bangalore", None, items)).unwrap_err();
        assert_eq!(faults[0].pointer, pointer);
    }

    fn offers() -> BTreeMap<ProductId, Offer> {
        let offer = |name: &str, minor: i64| Offer { name: name.into(), price: Money::try_from(minor).unwrap() };
        BTreeMap::from([
            (MOUSE.parse().unwrap(), offer("Mouse", 132_400)),
            (LAMP.parse().unwrap(), offer("Lamp", 150_000)),
        ])
    }

    #[rstest]
    #[case(None, Ok(432_400))]
    #[case(Some("4324"), Ok(432_400))]
    #[case(Some("4324.00"), Ok(432_400))]
    #[case(Some("2824"), Err(432_400))]
    #[case(Some("0"), Err(432_400))]
    fn a_total_must_equal_the_servers(#[case] total: Option<&str>, #[case] expected: Result<i64, i64>) {
        let order = NewOrder::parse(&raw("bangalore", total, &[(MOUSE, 1), (LAMP, 2)])).unwrap();
        let priced = match price(&order, &offers(), "INR".parse().unwrap()) {
            Ok(priced) => Ok(priced.total.minor()),
            Err(PricingError::TotalChanged(priced)) => Err(priced.total.minor()),
            Err(other) => panic!("{other}"),
        };
        assert_eq!(priced, expected);
    }

    #[test]
    fn what_is_free_costs_nothing() {
        let mut offers = offers();
        offers.get_mut(&MOUSE.parse().unwrap()).unwrap().price = Money::ZERO;
        let order = NewOrder::parse(&raw("bangalore", Some("0"), &[(MOUSE, 2)])).unwrap();
        assert_eq!(price(&order, &offers, "INR".parse().unwrap()).unwrap().total, Money::ZERO);
    }

    #[test]
    fn unknown_products_are_named() {
        let order = NewOrder::parse(&raw("bangalore", None, &[("0123456789abcdef01234567", 1)])).unwrap();
        let error = price(&order, &offers(), "INR".parse().unwrap()).unwrap_err();
        assert_eq!(error, PricingError::UnknownProducts(vec!["0123456789abcdef01234567".parse().unwrap()]));
    }

    #[test]
    fn an_overflowing_total_is_refused() {
        let mut offers = offers();
        offers.get_mut(&MOUSE.parse().unwrap()).unwrap().price = Money::try_from(i64::MAX).unwrap();
        let order = NewOrder::parse(&raw("bangalore", None, &[(MOUSE, 2)])).unwrap();
        let error = price(&order, &offers, "INR".parse().unwrap()).unwrap_err();
        assert_eq!(error, PricingError::Money(MoneyError::Overflow));
    }
}
