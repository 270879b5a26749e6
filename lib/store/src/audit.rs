//! The books of the shop, read for an audit: what was ordered, moved and mailed must add up.
//! Reads whole collections; for checks and demonstrations, never for a customer's request.

use std::collections::BTreeMap;

use futures::TryStreamExt;
use mongodb::{
    Collection, Database,
    bson::{Document, doc},
};
use serde::Deserialize;
use shop_domain::{
    order::Status,
    stock::{Stock, StockKey},
};

use crate::{
    StoreError,
    mails::{self, MailState},
    orders::{self, BuyerEmail},
    stock::{self, StockRow},
    transaction::Transaction,
};

/// The sums of the books at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Books {
    pub orders: BTreeMap<&'static str, u64>,
    /// Units in stock per row.
    pub stock: Stock,
    /// Sum of the ledger per row.
    pub ledger: Stock,
    /// Units that orders took and have not given back, per row, by the orders themselves.
    pub sold_by_orders: Stock,
    /// The same by the ledger.
    pub sold_by_ledger: Stock,
    /// How often orders came to a state that the buyer is told of by mail, and how often staff asked for a mail again.
    pub mails_owed: u64,
    pub mails_sent: u64,
    /// Mails that were given up or not sent to a suppressed address.
    pub mails_unsent: u64,
    pub mails_waiting: u64,
    /// Mails that staff asked for once more.
    pub mails_asked_again: u64,
    /// Orders whose message was delivered more than once.
    pub redelivered: u64,
}

impl Books {
    /// Everything that does not add up, as sentences; empty when the books are right.
    /// Exact only while nothing is in flight.
    pub fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        compare(&mut faults, ("stock", &self.stock), ("the ledger", &self.ledger));
        compare(
            &mut faults,
            ("sold by the orders", &self.sold_by_orders),
            ("sold by the ledger", &self.sold_by_ledger),
        );
        faults.extend(
            self.stock.iter().filter(|(_, level)| **level < 0).map(|(row, n)| format!("{row} has {n} in stock")),
        );
        let (owed, sent, unsent) = (self.mails_owed, self.mails_sent, self.mails_unsent);
        let waiting = self.mails_waiting;
        if owed != sent + unsent + waiting {
            let why = format!("{sent} were sent, {unsent} given up and {waiting} wait");
            faults.push(format!("{owed} mails are owed, but {why}"));
        }
        faults
    }
}

fn compare(faults: &mut Vec<String>, (left, a): (&str, &Stock), (right, b): (&str, &Stock)) {
    let rows: std::collections::BTreeSet<&StockKey> = a.keys().chain(b.keys()).collect();
    for row in rows {
        let (x, y) = (a.get(row).copied().unwrap_or(0), b.get(row).copied().unwrap_or(0));
        if x != y {
            faults.push(format!("{row}: {x} {left}, but {y} by {right}"));
        }
    }
}

/// Sums movements per row.
fn per_row(sign: i64) -> Document {
    doc! { "$group": {
        "_id": { "productId": "$productId", "location": "$location" },
        "stock": { "$sum": { "$multiply": ["$delta", sign] } },
        "productId": { "$first": "$productId" },
        "location": { "$first": "$location" },
    } }
}

/// Reads the books.
#[derive(Debug, Clone)]
pub struct Audit {
    orders: Collection<Document>,
    rows: Collection<StockRow>,
    movements: Collection<Document>,
}

impl Audit {
    pub(crate) fn new(database: &Database) -> Self {
        Self {
            orders: database.collection(orders::COLLECTION),
            rows: database.collection(stock::COLLECTION),
            movements: database.collection(stock::MOVEMENTS),
        }
    }

    pub async fn read(&self) -> Result<Books, StoreError> {
        let mut books = Books {
            stock: self.rows.find(doc! {}).await?.map_ok(StockRow::into_level).try_collect().await?,
            ledger: self.moved(doc! {}, 1).await?,
            sold_by_ledger: self.moved(doc! { "cause": { "$in": ["Order", "Cancel"] } }, -1).await?,
            sold_by_orders: self.sold().await?,
            ..Books::default()
        };
        for status in Status::ALL {
            let count = self.orders.count_documents(doc! { "status": status.as_str() }).await?;
            books.orders.insert(status.as_str(), count);
        }
        books.redelivered = self.orders.count_documents(doc! { "deliveries": { "$gt": 1 } }).await?;
        self.count_mails(&mut books).await?;
        Ok(books)
    }

    /// The rows whose stock is not the sum of their movements, as sentences; both as of one moment, which `tx` sees.
    pub async fn ledger_faults(&self, mut tx: Transaction) -> Result<Vec<String>, StoreError> {
        let read = self.stock_and_ledger(&mut tx).await;
        tx.abort().await;
        let (stock, ledger) = read?;
        let mut faults = Vec::new();
        compare(&mut faults, ("in stock", &stock), ("the ledger", &ledger));
        Ok(faults)
    }

    async fn stock_and_ledger(&self, tx: &mut Transaction) -> Result<(Stock, Stock), StoreError> {
        let mut rows = self.rows.find(doc! {}).session(tx.session()).await?;
        let stock = rows.stream(tx.session()).map_ok(StockRow::into_level).try_collect().await?;
        let sums = self.movements.aggregate([per_row(1)]).with_type::<StockRow>();
        let mut sums = sums.session(tx.session()).await?;
        let ledger = sums.stream(tx.session()).map_ok(StockRow::into_level).try_collect().await?;
        Ok((stock, ledger))
    }

    /// `sign` · sum of the movements that match, per row.
    async fn moved(&self, filter: Document, sign: i64) -> Result<Stock, StoreError> {
        self.sums(&self.movements, vec![doc! { "$match": filter }, per_row(sign)]).await
    }

    async fn sold(&self) -> Result<Stock, StoreError> {
        let holds = doc! { "$or": [{ "status": "Processed" }, { "restock": "Owed" }] };
        let group = doc! { "$group": {
            "_id": { "productId": "$lines.productId", "location": "$location" },
            "stock": { "$sum": "$lines.quantity" },
            "productId": { "$first": "$lines.productId" },
            "location": { "$first": "$location" },
        } };
        self.sums(&self.orders, vec![doc! { "$match": holds }, doc! { "$unwind": "$lines" }, group]).await
    }

    async fn sums(&self, of: &Collection<Document>, pipeline: Vec<Document>) -> Result<Stock, StoreError> {
        let sums = of.aggregate(pipeline).with_type::<StockRow>().await?;
        Ok(sums.map_ok(StockRow::into_level).try_collect().await?)
    }

    /// An order may owe several mails: processed, then cancelled.
    async fn count_mails(&self, books: &mut Books) -> Result<(), StoreError> {
        #[derive(Deserialize)]
        struct Sums {
            told: i64,
            concluded: i64,
            unsent: i64,
            waiting: i64,
            asked_again: i64,
        }
        let is_mail = doc! { "$filter": {
            "input": { "$ifNull": ["$outbox", []] }, "as": "entry",
            "cond": { "$in": ["$$entry.kind", mails::OF_ORDERS.to_vec()] },
        } };
        let is_told = doc! { "$filter": {
            "input": "$history", "as": "step", "cond": { "$ne": ["$$step.status", "Pending"] },
        } };
        // Records of the first version have no state: they were sent.
        let is_unsent = doc! { "$filter": {
            "input": { "$ifNull": ["$mails", []] }, "as": "mail",
            "cond": { "$in": ["$$mail.state", [MailState::GivenUp.as_str(), MailState::Suppressed.as_str()]] },
        } };
        // A buyer whose account is erased is owed no more than there is of it: what waited went with the address.
        let (concluded, asked_again) =
            (doc! { "$size": { "$ifNull": ["$mails", []] } }, doc! { "$ifNull": ["$mailsAskedAgain", 0] });
        let recorded = doc! { "$add": [&concluded, { "$size": &is_mail }] };
        let told = doc! { "$cond": [
            { "$eq": ["$email", BuyerEmail::erased().expose()] },
            { "$subtract": [recorded, &asked_again] },
            { "$size": is_told },
        ] };
        let group = doc! { "$group": {
            "_id": null,
            "told": { "$sum": told },
            "concluded": { "$sum": concluded },
            "unsent": { "$sum": { "$size": is_unsent } },
            "waiting": { "$sum": { "$size": is_mail } },
            "asked_again": { "$sum": asked_again },
        } };
        let mut sums = self.orders.aggregate([group]).with_type::<Sums>().await?;
        let Some(sums) = sums.try_next().await? else { return Ok(()) };
        let count = |n: i64| u64::try_from(n).unwrap_or(0);
        books.mails_sent = count(sums.concluded - sums.unsent);
        books.mails_unsent = count(sums.unsent);
        books.mails_waiting = count(sums.waiting);
        books.mails_asked_again = count(sums.asked_again);
        books.mails_owed = count(sums.told + sums.asked_again);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(stock: i64) -> Stock {
        Stock::from([(
            StockKey { product: "67c8830b7ef1b848ac52ebec".parse().unwrap(), location: "bangalore".parse().unwrap() },
            stock,
        )])
    }

    #[test]
    fn right_books_have_no_fault_and_every_wrong_one_is_named() {
        let right = Books {
            orders: BTreeMap::from([("Processed", 2), ("Failed", 1), ("Pending", 7)]),
            stock: row(5),
            ledger: row(5),
            sold_by_orders: row(3),
            sold_by_ledger: row(3),
            mails_owed: 4,
            mails_sent: 2,
            mails_unsent: 1,
            mails_waiting: 1,
            mails_asked_again: 1,
            redelivered: 0,
        };
        assert_eq!(right.faults(), Vec::<String>::new());
        let wrong = [
            Books { stock: row(6), ..right.clone() },
            Books { stock: row(-1), ledger: row(-1), ..right.clone() },
            Books { sold_by_ledger: Stock::new(), ..right.clone() },
            Books { mails_sent: 1, ..right.clone() },
        ];
        for books in wrong {
            assert_eq!(books.faults().len(), 1, "{:?}", books.faults());
        }
    }
}
