//! How busy the relay is, and when it looks or tries again.

use std::{collections::VecDeque, time::Duration};

use jiff::{SignedDuration, Timestamp};
use shop_runtime::ids;

/// Above so many entries a second, waiting for a full batch pays.
const BUSY_PER_SECOND: usize = 20;

/// The times of the latest offers.
#[derive(Debug, Default)]
pub struct Pace(VecDeque<Timestamp>);

impl Pace {
    pub fn note(&mut self, now: Timestamp) {
        self.0.push_back(now);
        if self.0.len() > BUSY_PER_SECOND {
            self.0.pop_front();
        }
    }

    /// Whether the last `BUSY_PER_SECOND` offers came within one second.
    pub fn is_busy(&self, now: Timestamp) -> bool {
        let oldest = self.0.front().filter(|_| self.0.len() >= BUSY_PER_SECOND);
        oldest.is_some_and(|oldest| now.duration_since(*oldest) < SignedDuration::from_secs(1))
    }
}

/// About a second, different on each replica so that they do not meet.
pub fn poll_interval() -> Duration {
    let jitter = ids::random_bytes::<1>().map_or(128, |[byte]| byte);
    Duration::from_millis(800 + u64::from(jitter) * 400 / 256)
}

/// When entries that found no queue are tried again: with the next poll, however long the outage is.
pub fn away_until(now: Timestamp) -> Timestamp {
    now.saturating_add(SignedDuration::from_millis(500)).unwrap_or(now)
}

/// When an entry that the queue refused after it was taken `attempts` times is tried again: 1 s, doubled up to a minute.
pub fn retry_at(now: Timestamp, attempts: u32) -> Timestamp {
    let seconds = (1_i64 << attempts.clamp(1, 7).saturating_sub(1)).min(60);
    now.saturating_add(SignedDuration::from_secs(seconds)).unwrap_or(now)
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case(19, 0, false)]
    #[case(20, 0, true)]
    #[case(40, 0, true)]
    #[case(20, 50, true)]
    #[case(20, 60, false)]
    #[case(40, 60, false)]
    fn more_than_twenty_a_second_is_busy(#[case] offers: u32, #[case] gap_millis: i64, #[case] busy: bool) {
        let mut pace = Pace::default();
        let mut now = Timestamp::UNIX_EPOCH;
        for _ in 0..offers {
            now += SignedDuration::from_millis(gap_millis);
            pace.note(now);
        }
        assert_eq!(pace.is_busy(now), busy);
    }

    #[rstest]
    #[case(0, 1)]
    #[case(1, 1)]
    #[case(2, 2)]
    #[case(6, 32)]
    #[case(7, 60)]
    #[case(u32::MAX, 60)]
    fn retries_back_off_to_a_minute(#[case] attempts: u32, #[case] seconds: i64) {
        assert_eq!(retry_at(Timestamp::UNIX_EPOCH, attempts).as_second(), seconds);
    }

    #[test]
    fn the_poller_waits_about_a_second() {
        assert!((800..=1_200).contains(&poll_interval().as_millis()));
    }
}
