//! What the handler decides, against a model that knows nothing of transactions: whatever comes in whatever order.

use std::collections::BTreeMap;

use jiff::Timestamp;
use shop_domain::{
    id::{OrderId, ProductId},
    order::Status,
};
use shop_harness::{Shop, bits, with_shop};
use shop_runtime::clock::Clock;
use shop_store::stock::{Cause, Movement};
use shop_worker::handle::{HandleError, Handler, Placed, Verdict};

const SCHEDULES: u64 = 6;
const STEPS: usize = 40;

/// Random numbers that are the same for the same seed (xorshift64*, Vigna 2016).
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let bits = self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33;
        usize::try_from(bits).unwrap_or(usize::MAX) % sides
    }
}

type Lines = Vec<(ProductId, u32)>;

/// The shop as one clerk would keep it.
#[derive(Default)]
struct Model {
    stock: BTreeMap<ProductId, i64>,
    orders: Vec<(OrderId, Lines, Status)>,
    owed: Vec<usize>,
}

impl Model {
    fn decide(&mut self, at: usize) {
        let (_, lines, status) = &mut self.orders[at];
        if *status != Status::Pending {
            return;
        }
        let served = lines.iter().all(|(product, quantity)| self.stock[product] >= i64::from(*quantity));
        *status = if served { Status::Processed } else { Status::Failed };
        for (product, quantity) in lines.iter().filter(|_| served) {
            *self.stock.entry(product.clone()).or_default() -= i64::from(*quantity);
        }
    }

    fn restock(&mut self, at: usize) {
        if let Some(place) = self.owed.iter().position(|owed| *owed == at) {
            self.owed.swap_remove(place);
            for (product, quantity) in &self.orders[at].1 {
                *self.stock.entry(product.clone()).or_default() += i64::from(*quantity);
            }
        }
    }
}

/// The real shop and its model, under the same schedule.
struct Trial<'a> {
    shop: &'a Shop,
    handler: Handler,
    products: Vec<ProductId>,
    model: Model,
    dice: Dice,
}

impl<'a> Trial<'a> {
    async fn begin(shop: &'a Shop, seed: u64) -> anyhow::Result<Self> {
        let mut dice = Dice(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
        let (mut products, mut model) = (Vec::new(), Model::default());
        for _ in 0..4 {
            let units = i64::try_from(dice.roll(12))?;
            let product = shop.stocked(units).await?;
            model.stock.insert(product.clone(), units);
            products.push(product);
        }
        let handler = Handler::new(shop.store.clone(), Clock::system());
        Ok(Self { shop, handler, products, model, dice })
    }

    async fn step(&mut self) -> anyhow::Result<()> {
        match self.dice.roll(10) {
            0..=3 => self.place().await,
            4..=7 => {
                let batch: Vec<usize> = (0..=self.dice.roll(6)).map(|_| self.any()).collect();
                self.deliver(&batch).await
            }
            8 => self.cancel().await,
            _ => {
                let at = self.any();
                self.put_back(at).await
            }
        }
    }

    fn any(&mut self) -> usize {
        self.dice.roll(self.model.orders.len().max(1))
    }

    async fn place(&mut self) -> anyhow::Result<()> {
        let mut lines = BTreeMap::new();
        for _ in 0..=self.dice.roll(3) {
            let (product, quantity) = (self.dice.roll(self.products.len()), self.dice.roll(3));
            lines.insert(self.products[product].clone(), u32::try_from(quantity)? + 1);
        }
        let lines: Vec<_> = lines.into_iter().collect();
        let wanted: Vec<_> = lines.iter().map(|(product, quantity)| (product, *quantity)).collect();
        let new = self.shop.new_order(&wanted, Timestamp::UNIX_EPOCH)?;
        self.shop.store.orders.accept(&new).await?;
        self.model.orders.push((new.id, lines, Status::Pending));
        Ok(())
    }

    /// As the batch does: each order once, in the order of its first delivery.
    async fn deliver(&mut self, batch: &[usize]) -> anyhow::Result<()> {
        let mut distinct = Vec::new();
        for &at in batch.iter().filter(|at| **at < self.model.orders.len()) {
            if !distinct.contains(&at) {
                distinct.push(at);
            }
        }
        let placed: Vec<Placed> = distinct.iter().map(|&at| placed(&self.model.orders[at].0)).collect();
        if !placed.is_empty() {
            self.handler.orders(&placed).await?;
        }
        for at in distinct {
            self.model.decide(at);
        }
        Ok(())
    }

    async fn cancel(&mut self) -> anyhow::Result<()> {
        let at = self.any();
        let Some((id, _, status)) = self.model.orders.get_mut(at) else { return Ok(()) };
        let pending = self.shop.cancel_pending(id, Timestamp::UNIX_EPOCH).await?;
        let processed = !pending && self.shop.cancel_processed(id).await?;
        assert_eq!((pending, processed), (*status == Status::Pending, *status == Status::Processed));
        if processed {
            self.model.owed.push(at);
        }
        if pending || processed {
            *status = Status::Cancelled;
        }
        Ok(())
    }

    async fn put_back(&mut self, at: usize) -> anyhow::Result<()> {
        if let Some((id, ..)) = self.model.orders.get(at) {
            self.handler.restock(id).await?;
            self.model.restock(at);
        }
        Ok(())
    }

    async fn compare(&self, seed: u64) -> anyhow::Result<()> {
        for (id, _, status) in &self.model.orders {
            assert_eq!(self.shop.order(id).await?.status, *status, "order {id} with seed {seed}");
        }
        for (product, units) in &self.model.stock {
            assert_eq!(self.shop.units(product).await?, *units, "product {product} with seed {seed}");
        }
        Ok(())
    }
}

fn placed(id: &OrderId) -> Placed {
    Placed { id: id.clone(), traceparent: None }
}

#[tokio::test]
async fn repeats_and_any_order_of_arrival_end_as_in_the_model() -> anyhow::Result<()> {
    with_shop(async |shop| {
        for seed in 1..=SCHEDULES {
            let mut trial = Trial::begin(&shop, seed).await?;
            for _ in 0..STEPS {
                trial.step().await?;
            }
            trial.compare(seed).await?;
            // Everything comes once more: what is open is decided, and nothing else changes.
            let all: Vec<usize> = (0..trial.model.orders.len()).collect();
            for at in all.iter().rev() {
                trial.deliver(&[*at, *at]).await?;
                trial.put_back(*at).await?;
            }
            trial.deliver(&all).await?;
            trial.compare(seed).await?;
        }
        let books = shop.store.audit.read().await?;
        let faults: Vec<_> = books.faults().into_iter().filter(|fault| !fault.contains("mails")).collect();
        assert_eq!((faults, books.orders["Pending"]), (Vec::new(), 0));
        Ok(())
    })
    .await
}

/// Two orders that are decided together, and the product of the first.
async fn pair(shop: &Shop) -> anyhow::Result<(ProductId, [Placed; 2])> {
    let (contested, free) = (shop.stocked(5).await?, shop.stocked(5).await?);
    let one = shop.place(&[(&contested, 1)], Timestamp::UNIX_EPOCH).await?;
    let other = shop.place(&[(&free, 1)], Timestamp::UNIX_EPOCH).await?;
    Ok((contested, [placed(&one), placed(&other)]))
}

#[tokio::test]
async fn another_writer_between_read_and_commit_makes_the_batch_decide_again() -> anyhow::Result<()> {
    with_shop(async |shop| {
        let (contested, batch) = pair(&shop).await?;
        let handler = Handler::new(shop.store.clone(), Clock::system());
        let row = shop.row(&contested)?;
        let mut writer = shop.store.begin().await?;
        shop.store.stock.move_in(&mut writer, &[(row.clone(), -5)].into()).await?;
        let met = handler.orders(&batch).await.unwrap_err();
        assert!(met.is_conflict() && !met.is_outage(), "{met:?}");
        for order in &batch {
            assert_eq!(shop.order(&order.id).await?.status, Status::Pending, "all or nothing");
        }
        let sold =
            Movement { row, delta: -5, cause: Cause::Adjustment, cause_id: "writer".into(), at: Timestamp::UNIX_EPOCH };
        shop.store.stock.record_in(&mut writer, &[sold]).await?;
        writer.commit().await?;

        let decided = handler.orders(&batch).await?;
        let verdicts: Vec<_> = decided.iter().map(|handled| handled.verdict).collect();
        assert_eq!(verdicts, [Verdict::OutOfStock, Verdict::Processed], "by what the other left");
        assert_eq!(shop.store.audit.read().await?.faults(), Vec::<String>::new());
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_batch_whose_stock_was_moved_before_changes_nothing_and_its_other_orders_go_one_by_one() -> anyhow::Result<()>
{
    with_shop(async |shop| {
        let (contested, batch) = pair(&shop).await?;
        let handler = Handler::new(shop.store.clone(), Clock::system());
        // The ledger says that the first order has its units already: the batch cannot be decided as it is.
        let (row, cause_id) = (shop.row(&contested)?, batch[0].id.to_string());
        let line = Movement { row, delta: -1, cause: Cause::Order, cause_id, at: Timestamp::UNIX_EPOCH };
        let mut tx = shop.store.begin().await?;
        shop.store.stock.record_in(&mut tx, &[line]).await?;
        tx.commit().await?;

        let met: HandleError = handler.orders(&batch).await.unwrap_err();
        assert!(met.is_conflict(), "{met:?}");
        assert_eq!(shop.units(&contested).await?, 5);
        let worker = crate::support::Worker::start(&shop, &["--max-processing-seconds", "2"]).await?;
        assert_eq!(shop.settled(&batch[1].id).await?.status, Status::Processed);
        assert_eq!(shop.order(&batch[0].id).await?.status, Status::Pending);
        assert_eq!(shop.units(&contested).await?, 5);
        assert!(worker.stop().await);
        Ok(())
    })
    .await
}

#[tokio::test]
async fn an_order_that_is_not_there_is_said_to_be_unknown() -> anyhow::Result<()> {
    with_shop(async |shop| {
        let handler = Handler::new(shop.store.clone(), Clock::system());
        let decided = handler.orders(&[placed(&OrderId::from_bits(bits()?))]).await?;
        assert_eq!(decided[0].verdict, Verdict::Unknown);
        Ok(())
    })
    .await
}
