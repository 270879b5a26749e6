//! How fast messages come, and how long a receive waits so that it finds a full batch. Knows no clock and no queue.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

/// Above so many messages a second, waiting for a full batch pays.
const BUSY_PER_SECOND: usize = 20;
const WINDOW: Duration = Duration::from_secs(1);
/// Longest wait for a batch to fill, and for the room that it needs.
const LINGER: Duration = Duration::from_millis(200);

/// The messages of the last second.
#[derive(Debug, Default)]
pub struct Pace {
    received: VecDeque<(Instant, usize)>,
    messages: usize,
    /// Whether the last receive brought a whole batch.
    full: bool,
}

impl Pace {
    /// A receive brought so many messages of those it asked for, of which `most` make a batch: how long to wait before the
    /// next, lest it brings only the first of a few.
    pub fn after(&mut self, now: Instant, brought: usize, (asked, most): (usize, usize)) -> Duration {
        self.note(now, brought);
        let full_before = std::mem::replace(&mut self.full, brought == most);
        match brought {
            _ if brought < asked => self.filling(now, most),
            // One whole batch may have been all; two in a row say that more are waiting.
            _ if self.full && !full_before && most > 1 => self.filling(now, most) / 2,
            _ => Duration::ZERO,
        }
    }

    fn note(&mut self, now: Instant, messages: usize) {
        self.received.push_back((now, messages));
        self.messages += messages;
        while let Some((_, old)) = self.received.pop_front_if(|(at, _)| now.duration_since(*at) >= WINDOW) {
            self.messages -= old;
        }
    }

    /// How long to wait for room for a whole batch where there is room for a part of it.
    pub fn room(&self) -> Duration {
        if self.is_busy() { LINGER } else { Duration::ZERO }
    }

    fn is_busy(&self) -> bool {
        self.messages >= BUSY_PER_SECOND
    }

    /// How long `most` messages take to come. Nothing while there is little to do: then the first message that comes is
    /// not to wait for others.
    fn filling(&self, now: Instant, most: usize) -> Duration {
        let Some((oldest, _)) = self.received.front().filter(|_| self.is_busy()) else { return Duration::ZERO };
        let (most, messages) = [most, self.messages].map(|n| u32::try_from(n).unwrap_or(u32::MAX)).into();
        (now.duration_since(*oldest) * most / messages).min(LINGER)
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case(19, 50, 0)]
    #[case(20, 60, 0)] // 17 a second
    #[case(40, 40, 200)] // 25 a second
    #[case(200, 10, 99)] // 100 a second
    #[case(2_000, 1, 9)] // 1,000 a second
    #[case(50, 1, 9)] // as fast, and just begun
    fn a_busy_worker_waits_until_a_batch_can_be_full(
        #[case] receives: u32,
        #[case] gap_millis: u64,
        #[case] millis: u64,
    ) {
        let (mut pace, mut now) = (Pace::default(), Instant::now());
        for _ in 0..receives {
            now += Duration::from_millis(gap_millis);
            pace.note(now, 1);
        }
        assert_eq!(pace.filling(now, 10).as_millis(), millis.into());
        assert_eq!(pace.room().is_zero(), millis == 0);
    }

    #[rstest]
    #[case(&[(9, 10)], 200)] // what there was
    #[case(&[(10, 10)], 100)] // perhaps all that there was
    #[case(&[(10, 10), (10, 10)], 0)] // more than can be taken
    #[case(&[(10, 10), (10, 10), (9, 10)], 200)]
    #[case(&[(3, 3)], 0)] // all that there was room for
    fn only_a_receive_that_emptied_the_queue_is_followed_by_a_pause(
        #[case] receives: &[(usize, usize)],
        #[case] millis: u64,
    ) {
        let (mut pace, start) = (Pace::default(), Instant::now());
        // Slow enough for the longest pause.
        pace.note(start, 20);
        let now = start + WINDOW.mul_f64(0.999);
        let pauses = receives.iter().map(|&(brought, asked)| pace.after(now, brought, (asked, 10)));
        assert_eq!(pauses.last(), Some(Duration::from_millis(millis)));
    }

    #[test]
    fn a_quiet_second_ends_the_waiting() {
        let (mut pace, now) = (Pace::default(), Instant::now());
        pace.note(now, 100);
        assert!(!pace.room().is_zero());
        pace.note(now + WINDOW, 1);
        assert!(pace.room().is_zero());
    }
}
