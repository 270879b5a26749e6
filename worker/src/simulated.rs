//! A stand-in for a slow downstream: how long each message is held before it is decided. Pure.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    str::FromStr,
    time::Duration,
};

use shop_domain::message::Message;

/// The shortest and the longest time; zero where nothing is simulated.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SimulatedWork {
    least: Duration,
    most: Duration,
}

/// The text is neither a number of milliseconds nor a range of them.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("give milliseconds, such as 400, or a range of them, such as 100..20000")]
pub struct NoWork;

impl SimulatedWork {
    pub fn longest(self) -> Duration {
        self.most
    }

    /// How long messages that are decided together are held: as long as the longest of them. The same message is always
    /// held equally long, whoever has it, and different ones are spread evenly over the range.
    pub fn of<'a>(self, messages: impl IntoIterator<Item = &'a Message>) -> Duration {
        messages.into_iter().map(|message| self.of_one(message)).max().unwrap_or_default()
    }

    fn of_one(self, message: &Message) -> Duration {
        let mut hasher = DefaultHasher::new();
        message.hash(&mut hasher);
        let share = f64::from(u32::try_from(hasher.finish() >> 32).unwrap_or(u32::MAX)) / f64::from(u32::MAX);
        self.least + self.most.saturating_sub(self.least).mul_f64(share)
    }
}

impl FromStr for SimulatedWork {
    type Err = NoWork;

    fn from_str(text: &str) -> Result<Self, NoWork> {
        let millis = |text: &str| text.parse::<u32>().map(|millis| Duration::from_millis(millis.into())).ok();
        let (least, most) = text.split_once("..").unwrap_or((text, text));
        let work = millis(least).zip(millis(most)).map(|(least, most)| Self { least, most });
        work.filter(|work| work.least <= work.most).ok_or(NoWork)
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use shop_domain::id::OrderId;

    use super::*;

    fn message(n: u8) -> Message {
        Message::OrderPlaced { order_id: OrderId::from_bits([n; 12]) }
    }

    #[rstest]
    #[case::none("0", 0, 0)]
    #[case::fixed("400", 400, 400)]
    #[case::range("100..20000", 100, 20_000)]
    fn work_stays_in_its_bounds(#[case] text: &str, #[case] least: u64, #[case] most: u64) {
        let work: SimulatedWork = text.parse().unwrap();
        let (least, most) = (Duration::from_millis(least), Duration::from_millis(most));
        assert_eq!(work.longest(), most);
        let held: Vec<_> = (0..=255).map(|n| work.of([&message(n)])).collect();
        assert!(held.iter().all(|held| (least..=most).contains(held)), "{held:?}");
        assert_eq!(held[7], work.of([&message(7)]));
        // Over a range some are short, some are long.
        let middle = (least + most) / 2;
        assert_eq!(held.iter().any(|held| *held < middle), least < most);
        assert_eq!(work.of([&message(1), &message(2)]), held[1].max(held[2]));
        assert_eq!(work.of([]), Duration::ZERO);
    }

    #[rstest]
    #[case("")]
    #[case("-1")]
    #[case("1s")]
    #[case("5..1")]
    #[case("1..")]
    fn other_texts_are_refused(#[case] text: &str) {
        assert_eq!(text.parse::<SimulatedWork>(), Err(NoWork));
    }
}
