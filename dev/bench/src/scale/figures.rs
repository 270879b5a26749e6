//! What the records of a run come to. Pure; times are seconds since the record began.

use serde::Serialize;

/// One value of `spec.replicas`, from then on.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Replicas {
    pub at: f64,
    pub count: i32,
}

/// A pod's life as the API server told it; None: not yet.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Life {
    pub created: f64,
    pub ready: Option<f64>,
    pub gone: Option<f64>,
}

/// What one depth step brought about.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Reaction {
    /// From the first order of the burst to the first rise; None where there was none.
    pub seconds: Option<f64>,
    /// Rises.
    pub patches: usize,
    pub first: i32,
    pub highest: i32,
}

/// Of the changes since `since`.
pub fn reaction(replicas: &[Replicas], since: f64) -> Reaction {
    let before = replicas.iter().rev().find(|value| value.at < since).map_or(0, |value| value.count);
    let after = replicas.iter().filter(|value| value.at >= since);
    let mut reaction = Reaction { seconds: None, patches: 0, first: before, highest: before };
    let mut last = before;
    for value in after {
        if value.count > last {
            reaction.patches += 1;
            if reaction.seconds.is_none() {
                (reaction.seconds, reaction.first) = (Some(value.at - since), value.count);
            }
        }
        reaction.highest = reaction.highest.max(value.count);
        last = value.count;
    }
    reaction
}

/// When the number of pods began to go the other way than before.
pub fn turns(replicas: &[Replicas]) -> Vec<f64> {
    let mut way = 0;
    let mut turns = Vec::new();
    for pair in replicas.windows(2) {
        let now = (pair[1].count - pair[0].count).signum();
        if now != 0 {
            if way != 0 && now != way {
                turns.push(pair[1].at);
            }
            way = now;
        }
    }
    turns
}

/// The most of these moments that lie within one window.
pub fn most_within(moments: &[f64], window: f64) -> usize {
    let within = |from: &f64| moments.iter().filter(|at| **at >= *from && **at < from + window).count();
    moments.iter().map(within).max().unwrap_or(0)
}

/// Actions that took pods away.
pub fn falls(replicas: &[Replicas]) -> usize {
    replicas.windows(2).filter(|pair| pair[1].count < pair[0].count).count()
}

/// Seconds that pods were there for, between two moments.
pub fn pod_seconds<'a>(lives: impl IntoIterator<Item = &'a Life>, from: f64, to: f64) -> f64 {
    let share = |life: &Life| (life.gone.unwrap_or(to).min(to) - life.created.max(from)).max(0.0);
    // Not `sum`, which is -0 of nothing.
    lives.into_iter().map(share).fold(0.0, |sum, one| sum + one)
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn counts(counts: &[i32]) -> Vec<Replicas> {
        (0_u32..).zip(counts).map(|(at, count)| Replicas { at: f64::from(at), count: *count }).collect()
    }

    #[rstest]
    #[case::straight(&[1, 1, 7, 7, 5], (Some(1.0), 1, 7, 7))]
    #[case::in_two(&[1, 1, 4, 7], (Some(1.0), 2, 4, 7))]
    #[case::not_at_all(&[2, 2, 1], (None, 0, 2, 2))]
    fn a_step_is_followed(#[case] seen: &[i32], #[case] expected: (Option<f64>, usize, i32, i32)) {
        let Reaction { seconds, patches, first, highest } = reaction(&counts(seen), 1.0);
        assert_eq!((seconds, patches, first, highest), expected);
    }

    #[rstest]
    #[case::up(&[1, 3, 3, 5], &[], 0)]
    #[case::up_and_down(&[1, 3, 2, 1], &[2.0], 2)]
    #[case::to_and_fro(&[1, 3, 2, 2, 4], &[2.0, 4.0], 1)]
    fn turns_and_falls_are_counted(#[case] seen: &[i32], #[case] at: &[f64], #[case] fallen: usize) {
        assert_eq!(turns(&counts(seen)), at);
        assert_eq!(falls(&counts(seen)), fallen);
    }

    #[rstest]
    #[case(&[], 0)]
    #[case(&[1.0, 70.0], 1)]
    #[case(&[1.0, 60.0, 62.0], 2)]
    fn the_fullest_window_counts(#[case] moments: &[f64], #[case] most: usize) {
        assert_eq!(most_within(moments, 60.0), most);
    }

    #[test]
    fn pods_count_while_they_are_there() {
        let life = |created, gone| Life { created, ready: None, gone };
        let lives = [life(0.0, Some(5.0)), life(8.0, None), life(1.0, Some(20.0)), life(30.0, None)];
        assert!((pod_seconds(&lives, 2.0, 10.0) - (3.0 + 2.0 + 8.0)).abs() < 1e-9);
    }
}
