//! When the mailer sends the next mail, and when it tries again. Pure.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::refusal::Verdict;

/// A throttled mailer is at most 2^6 times as slow as it may be.
const SLOWEST: u32 = 6;

/// How much slower than allowed the mailer sends: half as fast after each throttled round, twice as fast again after a
/// second's worth of mails without.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Pace {
    slowness: u32,
    calm: u32,
}

impl Pace {
    /// Turns of the limit that one mail waits for.
    pub fn turns(self) -> u32 {
        1 << self.slowness
    }

    pub fn throttled(&mut self) {
        *self = Self { slowness: (self.slowness + 1).min(SLOWEST), calm: 0 };
    }

    pub fn sent(&mut self, per_second: u32) {
        self.calm += 1;
        if self.calm >= per_second {
            *self = Self { slowness: self.slowness.saturating_sub(1), calm: 0 };
        }
    }
}

/// How long the mailer rests after so many rounds in which nothing could be sent: 1 s, doubled up to 4 s, so that it is
/// soon at work when the mail service is back; up to 32 s while the shop's own set-up is at fault.
pub fn pause_after(failures: u32, fault: Verdict) -> Duration {
    let doublings = if fault == Verdict::ShopFault { 5 } else { 2 };
    Duration::from_secs(1 << failures.min(doublings))
}

/// When a mail that waits for no fault of its own is due again. What the shop is at fault with may be about a few
/// addresses only (a sandbox): others go first.
pub fn due_again_at(now: Timestamp, fault: Verdict) -> Timestamp {
    let wait = if fault == Verdict::ShopFault { SignedDuration::from_secs(30) } else { SignedDuration::ZERO };
    now.saturating_add(wait).unwrap_or(now)
}

/// When a mail that was refused `attempts` times is tried again: 1 s, doubled up to an hour.
pub fn retry_at(now: Timestamp, attempts: u32) -> Timestamp {
    let seconds = (1_i64 << attempts.clamp(1, 13).saturating_sub(1)).min(3_600);
    now.saturating_add(SignedDuration::from_secs(seconds)).unwrap_or(now)
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[test]
    fn a_throttled_mailer_slows_down_step_by_step_and_comes_back() {
        let mut pace = Pace::default();
        assert_eq!(pace.turns(), 1);
        for turns in [2, 4, 8, 16, 32, 64, 64] {
            pace.throttled();
            assert_eq!(pace.turns(), turns);
        }
        for turns in [32, 16, 8, 4, 2, 1, 1] {
            for _ in 0..14 {
                pace.sent(14);
            }
            assert_eq!(pace.turns(), turns);
        }
        pace.throttled();
        for _ in 0..13 {
            pace.sent(14);
        }
        pace.throttled();
        pace.sent(14);
        assert_eq!(pace.turns(), 4, "calm is counted anew");
    }

    #[rstest]
    #[case(0, 1)]
    #[case(1, 1)]
    #[case(2, 2)]
    #[case(5, 16)]
    #[case(12, 2_048)]
    #[case(13, 3_600)]
    #[case(u32::MAX, 3_600)]
    fn a_refused_mail_waits_longer_each_time(#[case] attempts: u32, #[case] seconds: i64) {
        assert_eq!(retry_at(Timestamp::UNIX_EPOCH, attempts).as_second(), seconds);
    }

    #[rstest]
    #[case(0, Verdict::ServiceFault, 1)]
    #[case(u32::MAX, Verdict::ServiceFault, 4)]
    #[case(u32::MAX, Verdict::Throttled, 4)]
    #[case(4, Verdict::ShopFault, 16)]
    #[case(u32::MAX, Verdict::ShopFault, 32)]
    fn the_mailer_rests_while_nothing_can_be_sent(#[case] failures: u32, #[case] fault: Verdict, #[case] seconds: u64) {
        assert_eq!(pause_after(failures, fault), Duration::from_secs(seconds));
    }

    #[test]
    fn only_what_the_shop_must_mend_lets_others_go_first() {
        let due = |fault| due_again_at(Timestamp::UNIX_EPOCH, fault).as_second();
        assert_eq!((due(Verdict::ServiceFault), due(Verdict::Throttled), due(Verdict::ShopFault)), (0, 0, 30));
    }
}
