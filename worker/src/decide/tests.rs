//! Tables for the decisions of a batch.

use rstest::rstest;
use shop_domain::{id::ProductId, money::Money, order::OrderLine, stock::Shortage};
use shop_store::{
    adjustments::{AdjustmentLine, AdjustmentStatus},
    orders::BuyerEmail,
};

use super::*;

fn product(n: u8) -> ProductId {
    ProductId::from_bits([n; 12])
}

fn row(n: u8) -> StockKey {
    StockKey { product: product(n), location: "bangalore".parse().unwrap() }
}

fn order(n: u8, lines: &[(u8, u32)]) -> OrderDocument {
    let line = |&(p, quantity): &(u8, u32)| OrderLine {
        product_id: product(p),
        name: format!("product {p}"),
        quantity,
        unit_price: Money::ZERO,
        total: Money::ZERO,
    };
    OrderDocument {
        id: OrderId::from_bits([n; 12]),
        user_id: "67c8830b7ef1b848ac52ebec".parse().unwrap(),
        email: BuyerEmail::new("buyer@example.org"),
        location: "bangalore".parse().unwrap(),
        lines: lines.iter().map(line).collect(),
        total: Money::ZERO,
        currency: "INR".parse().unwrap(),
        status: Status::Pending,
        reason: None,
        shortages: Vec::new(),
        history: Vec::new(),
        idempotency: None,
        version: 1,
        outbox: Vec::new(),
        mails: Vec::new(),
        created_at: Timestamp::UNIX_EPOCH,
        updated_at: Timestamp::UNIX_EPOCH,
        sweeps: None,
        stuck: false,
        restock: None,
        deliveries: None,
        failure: None,
    }
}

fn entries(count: usize) -> Vec<OutboxId> {
    (0..count).map(|n| OutboxId::from_bits([u8::try_from(n).unwrap(); 12])).collect()
}

fn stock(levels: &[(u8, i64)]) -> Stock {
    levels.iter().map(|&(p, level)| (row(p), level)).collect()
}

fn plan(levels: &[(u8, i64)], pending: &[OrderDocument]) -> OrderPlan {
    orders(pending, &stock(levels), &entries(pending.len()), Timestamp::UNIX_EPOCH)
}

#[test]
fn served_orders_are_merged_per_row_and_recorded_per_line() {
    let plan = plan(&[(1, 10), (2, 10)], &[order(1, &[(1, 2), (2, 1)]), order(2, &[(1, 3)])]);
    assert_eq!(plan.stock.deltas, BTreeMap::from([(row(1), -5), (row(2), -1)]));
    let ledger: Vec<_> = plan.stock.movements.iter().map(|m| (m.row.clone(), m.delta, m.cause_id.clone())).collect();
    let [first, second] = [1, 2].map(|n| OrderId::from_bits([n; 12]).to_string());
    assert_eq!(ledger, [(row(1), -2, first.clone()), (row(2), -1, first), (row(1), -3, second)]);
    for settlement in &plan.settlements {
        assert_eq!((settlement.from, settlement.to, settlement.reason), (Status::Pending, Status::Processed, None));
        assert_eq!(settlement.outbox[0].kind, OutboxKind::ConfirmationMail);
    }
}

#[test]
fn a_short_order_takes_nothing_and_says_what_is_short() {
    let plan = plan(&[(1, 10), (2, 1)], &[order(1, &[(1, 2), (2, 2)]), order(2, &[(2, 1)])]);
    assert_eq!(plan.stock.deltas, BTreeMap::from([(row(2), -1)]));
    let [short, served] = plan.settlements.as_slice() else { panic!("two settlements") };
    assert_eq!((short.to, short.reason), (Status::Failed, Some(Reason::OutOfStock)));
    assert_eq!(short.shortages, [Shortage { product_id: product(2), wanted: 2, available: 1 }]);
    assert_eq!(short.outbox[0].kind, OutboxKind::FailureMail);
    assert_eq!(served.to, Status::Processed);
}

#[rstest]
#[case::emptied(&[(1, 2)], &[(1, 2)], &[Crossing::Went(row(1))])]
#[case::left_over(&[(1, 3)], &[(1, 2)], &[])]
#[case::short(&[(1, 1)], &[(1, 2)], &[])]
fn a_sale_to_the_last_unit_is_a_crossing(
    #[case] levels: &[(u8, i64)],
    #[case] lines: &[(u8, u32)],
    #[case] crossings: &[Crossing],
) {
    assert_eq!(plan(levels, &[order(1, lines)]).stock.crossings, crossings);
}

fn adjustment_of(lines: &[(u8, i64)]) -> AdjustmentDocument {
    let line = |&(p, delta): &(u8, i64)| AdjustmentLine { product_id: product(p), delta };
    AdjustmentDocument {
        id: "67c8830b7ef1b848ac52ebec".parse().unwrap(),
        location: "bangalore".parse().unwrap(),
        reason: "delivery".into(),
        lines: lines.iter().map(line).collect(),
        status: AdjustmentStatus::Pending,
        refused: Vec::new(),
        by: "67c8830b7ef1b848ac52ebec".parse().unwrap(),
        outbox: Vec::new(),
        created_at: Timestamp::UNIX_EPOCH,
        settled_at: None,
        sweeps: None,
        stuck: false,
        failure: None,
    }
}

#[rstest]
#[case::first_row(&[], &[(1, 5)], &[(1, 5)], &[Crossing::Came(row(1))])]
#[case::new_row_without_units(&[], &[(1, 0)], &[(1, 0)], &[])]
#[case::more(&[(1, 5)], &[(1, 1)], &[(1, 1)], &[])]
#[case::emptied(&[(1, 5)], &[(1, -5), (2, 1)], &[(1, -5), (2, 1)], &[Crossing::Went(row(1)), Crossing::Came(row(2))])]
fn an_adjustment_that_fits_is_applied(
    #[case] levels: &[(u8, i64)],
    #[case] lines: &[(u8, i64)],
    #[case] deltas: &[(u8, i64)],
    #[case] crossings: &[Crossing],
) {
    let (outcome, change) = adjustment(&adjustment_of(lines), &stock(levels), Timestamp::UNIX_EPOCH);
    assert_eq!(outcome, AdjustmentOutcome::Applied);
    assert_eq!(change.deltas, stock(deltas));
    assert_eq!(change.movements.len(), lines.len());
    assert_eq!(change.crossings, crossings);
}

#[test]
fn an_adjustment_below_zero_moves_nothing() {
    let (outcome, change) = adjustment(&adjustment_of(&[(1, 1), (2, -1)]), &stock(&[(1, 5)]), Timestamp::UNIX_EPOCH);
    assert!(matches!(outcome, AdjustmentOutcome::Refused(lines) if lines[0].product_id == product(2)));
    assert_eq!(change, StockChange::default());
}

#[test]
fn a_cancelled_order_gives_back_all_of_its_lines() {
    let change = restock(&order(1, &[(1, 2), (2, 3)]), &stock(&[(1, 0), (2, 4)]), Timestamp::UNIX_EPOCH);
    assert_eq!(change.deltas, stock(&[(1, 2), (2, 3)]));
    assert!(change.movements.iter().all(|movement| movement.cause == Cause::Cancel));
    assert_eq!(change.crossings, [Crossing::Came(row(1))]);
}

#[test]
fn a_failure_at_the_last_delivery_is_told_to_the_buyer() {
    let id = OrderId::from_bits([1; 12]);
    let settlement = gave_up(id, entries(1).remove(0), Timestamp::UNIX_EPOCH);
    assert_eq!((settlement.to, settlement.reason), (Status::Failed, Some(Reason::ProcessingFailed)));
    assert_eq!(settlement.outbox[0].kind, OutboxKind::FailureMail);
}
