//! What a flash sale counted, and what of it is wrong. Pure.

use serde::Serialize;

pub use super::buy::Answers;

/// What one run counted.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Counts {
    pub seed: u64,
    pub units: i64,
    pub buyers: usize,
    /// What the buyers were told.
    pub bought: Answers,
    /// What became of it.
    pub stored: Stored,
    /// Workers that were killed.
    pub killed: usize,
    /// Messages that were sent again.
    pub repeated: usize,
    /// From the first order until the queue was empty.
    pub seconds: f64,
}

/// What the store says after the sale.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Stored {
    pub processed: usize,
    /// Failed for want of stock.
    pub out_of_stock: usize,
    /// Failed for any other reason.
    pub otherwise: usize,
    pub undecided: usize,
    /// Accepted, says the buyer, but not stored.
    pub lost: usize,
    /// Stored, but its buyer was not told so.
    pub untold: usize,
    /// Orders beyond the first of a buyer.
    pub doubled: usize,
    pub decided_twice: usize,
    /// The longest time from an acceptance to its decision: until what a killed worker held was free again.
    pub slowest_seconds: f64,
    /// Orders whose message the queue itself delivered more than once.
    pub redelivered: u64,
    pub stock: i64,
    /// Sum of the ledger.
    pub ledger: i64,
    pub sold_by_ledger: i64,
    /// What else does not add up in the books.
    pub faults: Vec<String>,
}

impl Counts {
    /// Units that were sold and were not there.
    pub fn oversold(&self) -> i64 {
        (self.sold() - self.units).max(0)
    }

    fn sold(&self) -> i64 {
        i64::try_from(self.stored.processed).unwrap_or(i64::MAX)
    }

    /// Everything that a sale must not do; empty after a right one.
    pub fn faults(&self) -> Vec<String> {
        let (bought, stored) = (&self.bought, &self.stored);
        let other: usize = bought.other.values().sum();
        let decided = stored.processed + stored.out_of_stock;
        let wrong = [
            (self.oversold() > 0, format!("{} units were sold that were not there", self.oversold())),
            (self.sold() < self.units, format!("{} of {} units were sold", self.sold(), self.units)),
            (stored.stock != self.units - self.sold(), format!("the stock is {}", stored.stock)),
            (stored.stock != stored.ledger, format!("the ledger says {}, the stock {}", stored.ledger, stored.stock)),
            (stored.sold_by_ledger != self.sold(), format!("the ledger says that {} were sold", stored.sold_by_ledger)),
            (other > 0, format!("{other} buyers got no clean answer: {:?}", bought.other)),
            (bought.accepted + bought.out_of_stock + other != self.buyers, "not every buyer is counted".to_owned()),
            (decided != bought.accepted, format!("{decided} orders of {} accepted are decided", bought.accepted)),
            (stored.lost > 0, format!("{} accepted orders are lost", stored.lost)),
            (stored.untold > 0, format!("{} orders are stored that no buyer knows of", stored.untold)),
            (stored.doubled > 0, format!("{} buyers' orders are doubled", stored.doubled)),
            (stored.decided_twice > 0, format!("{} orders are decided twice", stored.decided_twice)),
            (stored.otherwise > 0, format!("{} orders failed for no want of stock", stored.otherwise)),
            (stored.undecided > 0, format!("{} orders are undecided", stored.undecided)),
        ];
        let wrong = wrong.into_iter().filter_map(|(is, text)| is.then_some(text));
        wrong.chain(stored.faults.iter().cloned()).map(|fault| format!("seed {}: {fault}", self.seed)).collect()
    }
}

/// Why the bench fails: a real run that is wrong, or a naive one that did not oversell: then the bench shows nothing.
pub fn judge(real: &[Counts], naive: &Counts) -> Vec<String> {
    let mut faults: Vec<String> = real.iter().flat_map(Counts::faults).collect();
    if real.is_empty() {
        faults.push("there was no run".to_owned());
    }
    if naive.oversold() == 0 {
        faults.push(
            "the naive worker did not oversell, so that the right one proves nothing: let more be accepted".to_owned(),
        );
    }
    faults
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn right() -> Counts {
        let stored =
            Stored { processed: 100, out_of_stock: 900, sold_by_ledger: 100, redelivered: 12, ..Stored::default() };
        let bought = Answers { accepted: 1000, out_of_stock: 9000, ..Answers::default() };
        Counts { seed: 1, units: 100, buyers: 10_000, bought, stored, killed: 25, repeated: 900, seconds: 1.0 }
    }

    fn naive() -> Counts {
        let stored = Stored { processed: 140, out_of_stock: 860, sold_by_ledger: 140, ledger: -40, ..right().stored };
        Counts { stored, ..right() }
    }

    #[test]
    fn a_right_sale_beside_a_naive_one_that_oversells_passes() {
        assert_eq!(judge(&[right(), right()], &naive()), Vec::<String>::new());
    }

    #[test]
    fn a_naive_sale_that_does_not_oversell_fails() {
        let faults = judge(&[right()], &right());
        assert_eq!(faults.len(), 1);
        assert!(faults[0].contains("did not oversell"), "{faults:?}");
    }

    #[test]
    fn no_run_proves_nothing() {
        assert_eq!(judge(&[], &naive()), ["there was no run"]);
    }

    #[test]
    fn what_the_naive_worker_does_is_a_fault_of_the_real_one() {
        let faults = judge(&[naive()], &naive());
        assert!(faults.iter().any(|fault| fault == "seed 1: 40 units were sold that were not there"), "{faults:?}");
    }

    #[rstest]
    #[case("undersold", |c: &mut Counts| { c.stored.processed = 99; c.stored.out_of_stock = 901; c.stored.stock = 1; c.stored.ledger = 1; c.stored.sold_by_ledger = 99; })]
    #[case("stock left", |c: &mut Counts| { c.stored.stock = 1; c.stored.ledger = 1; })]
    #[case("ledger", |c: &mut Counts| c.stored.ledger = 1)]
    #[case("sold by ledger", |c: &mut Counts| c.stored.sold_by_ledger = 101)]
    #[case("no clean answer", |c: &mut Counts| { c.bought.out_of_stock = 8999; c.bought.other.insert("500 internal".into(), 1); })]
    #[case("a buyer is missing", |c: &mut Counts| c.bought.out_of_stock = 8999)]
    #[case("undecided", |c: &mut Counts| { c.stored.out_of_stock = 899; c.stored.undecided = 1; })]
    #[case("lost", |c: &mut Counts| c.stored.lost = 1)]
    #[case("untold", |c: &mut Counts| c.stored.untold = 1)]
    #[case("doubled", |c: &mut Counts| c.stored.doubled = 1)]
    #[case("decided twice", |c: &mut Counts| c.stored.decided_twice = 1)]
    #[case("failed otherwise", |c: &mut Counts| { c.stored.out_of_stock = 899; c.stored.otherwise = 1; })]
    #[case("mails", |c: &mut Counts| c.stored.faults.push("10 mails are owed".into()))]
    fn every_wrong_count_fails(#[case] what: &str, #[case] spoil: fn(&mut Counts)) {
        let mut wrong = right();
        spoil(&mut wrong);
        assert!(!judge(&[right(), wrong], &naive()).is_empty(), "{what}");
    }
}
