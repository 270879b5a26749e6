//! How fast messages come, and how long a receive waits so that it finds a full batch. Knows no clock and no queue.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

/// Above so many messages a second, waiting for a full batch pays.
const BUSY_PER_SECOND: usize = 20;
const WINDOW: Duration = Duration::from_secs(1);
/// Longest wait for a batch to fill.
const LINGER: Duration = Duration::from_millis(200);

/// The messages of the last second.
#[derive(Debug, Default)]
pub struct Pace {
    received: VecDeque<(Instant, usize)>,
    messages: usize,
}

impl Pace {
    /// A receive brought so many messages.
    pub fn note(&mut self, now: Instant, messages: usize) {
        self.received.push_back((now, messages));
        self.messages += messages;
        while let Some((_, old)) = self.received.pop_front_if(|(at, _)| now.duration_since(*at) >= WINDOW) {
            self.messages -= old;
        }
    }

    /// How long to wait after a receive that emptied the queue: as long as `most` messages take to come. None while
    /// there is little to do: then the first message that comes is not to wait for others.
    pub fn linger(&self, most: usize) -> Option<Duration> {
        let messages = u32::try_from(self.messages).unwrap_or(u32::MAX);
        let filling = WINDOW * u32::try_from(most).unwrap_or(u32::MAX) / messages.max(1);
        (self.messages >= BUSY_PER_SECOND).then(|| filling.min(LINGER))
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case(19, 50, None)]
    #[case(20, 60, None)] // 17 a second
    #[case(40, 40, Some(200))] // 25 a second
    #[case(200, 10, Some(100))] // 100 a second
    #[case(2_000, 1, Some(10))] // 1,000 a second
    fn a_busy_worker_waits_until_a_batch_can_be_full(
        #[case] receives: u32,
        #[case] gap_millis: u64,
        #[case] millis: Option<u64>,
    ) {
        let (mut pace, mut now) = (Pace::default(), Instant::now());
        for _ in 0..receives {
            now += Duration::from_millis(gap_millis);
            pace.note(now, 1);
        }
        assert_eq!(pace.linger(10), millis.map(Duration::from_millis));
    }

    #[test]
    fn a_quiet_second_ends_the_waiting() {
        let (mut pace, now) = (Pace::default(), Instant::now());
        pace.note(now, 100);
        assert!(pace.linger(10).is_some());
        pace.note(now + WINDOW, 1);
        assert_eq!(pace.linger(10), None);
    }
}
