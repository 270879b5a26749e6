//! The vocabulary of a shop's conditions: closed lists of types and reasons, and what counts as bad news.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition as ApiCondition, Time};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    Ready,
    Progressing,
    Degraded,
    Paused,
    ConfigValid,
    ApiAvailable,
    WorkerAvailable,
    QueueReadable,
    ScalingActive,
    ScalingLimited,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    AllGood,
    RolloutInProgress,
    RolloutComplete,
    RolloutFailed,
    Available,
    NotAvailable,
    NotBuilt,
    ScaledToZero,
    Suspended,
    Paused,
    NotPaused,
    Valid,
    InvalidSpec,
    SecretMissing,
    SecretKeyMissing,
    QueueInUse,
    ApplyFailed,
    ApplyForbidden,
    NameTaken,
    CrdMissing,
    NotReadYet,
    Readable,
    QueueUnreachable,
    QueueAccessDenied,
    QueueMissing,
    QueueNotOwned,
    QueueNotEmpty,
    Scaling,
    ScalingPaused,
    ManualMode,
    RecommendMode,
    WithinLimits,
    MaxReached,
    TargetUnreachable,
    Deleting,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    True,
    False,
    Unknown,
}

/// One condition, before it has a time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condition {
    pub kind: Kind,
    pub status: Status,
    pub reason: Reason,
    pub message: String,
}

/// The API server takes 32 KiB; nobody reads that.
const LONGEST_MESSAGE: usize = 1000;

impl Condition {
    pub fn new(kind: Kind, status: Status, reason: Reason, message: impl Into<String>) -> Self {
        let message: String = message.into();
        Self { kind, status, reason, message: message.chars().take(LONGEST_MESSAGE).collect() }
    }

    /// Whether a person should look.
    pub fn is_bad(&self) -> bool {
        let good = match self.kind {
            Kind::Progressing | Kind::Paused | Kind::ScalingActive => return false,
            Kind::Degraded | Kind::ScalingLimited => Status::False,
            _ => Status::True,
        };
        let underway = matches!(
            self.reason,
            Reason::RolloutInProgress | Reason::NotReadYet | Reason::Suspended | Reason::Deleting | Reason::NotBuilt
        );
        self.status != good && !underway
    }

    /// The condition as the API has it; the transition time moves only with the status.
    pub fn to_api(&self, generation: Option<i64>, before: Option<&ApiCondition>, now: Time) -> ApiCondition {
        let status = format!("{:?}", self.status);
        let unchanged = before.filter(|before| before.status == status);
        ApiCondition {
            type_: format!("{:?}", self.kind),
            reason: format!("{:?}", self.reason),
            message: self.message.clone(),
            observed_generation: generation,
            last_transition_time: unchanged.map_or(now, |before| before.last_transition_time.clone()),
            status,
        }
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::jiff::Timestamp;

    use super::*;

    #[test]
    fn the_transition_time_moves_only_with_the_status() {
        let (early, late) = (Time(Timestamp::UNIX_EPOCH), Time(Timestamp::from_second(60).unwrap()));
        let yes = Condition::new(Kind::Ready, Status::True, Reason::AllGood, "one");
        let first = yes.to_api(Some(1), None, early.clone());
        let same = Condition { message: "two".to_owned(), ..yes.clone() }.to_api(Some(2), Some(&first), late.clone());
        assert_eq!((same.last_transition_time.clone(), same.observed_generation), (early, Some(2)));
        let no = Condition { status: Status::False, ..yes }.to_api(Some(2), Some(&same), late.clone());
        assert_eq!(no.last_transition_time, late);
    }

    const RUNBOOK: &str = include_str!("../../docs/operating.md");
    const ALERTS: &str = include_str!("../../charts/shop-operator/files/monitoring/alerts.yaml");
    const ALERT_CASES: &str = include_str!("../../dev/monitoring/alerts_test.yaml");

    /// The variants of an enum of this file, as they are written.
    fn variants(name: &str) -> Vec<&'static str> {
        let (_, rest) = include_str!("conditions.rs").split_once(&format!("pub enum {name} {{\n")).unwrap();
        let (body, _) = rest.split_once("}\n").unwrap();
        body.lines().filter_map(|line| line.trim().strip_suffix(',')).collect()
    }

    #[test]
    fn the_runbook_has_a_row_for_every_condition_and_reason() {
        let (kinds, reasons) = (variants("Kind"), variants("Reason"));
        assert!(kinds.len() >= 10 && reasons.len() >= 34 && reasons.contains(&"Deleting"), "{kinds:?} {reasons:?}");
        let rows = |word: &str| RUNBOOK.matches(&format!("\n| `{word}` | ")).count();
        // `Paused` is both.
        let missing = kinds.iter().chain(&reasons).filter(|word| rows(word) < 1 + usize::from(**word == "Paused"));
        assert_eq!(missing.collect::<Vec<_>>(), Vec::<&&str>::new(), "docs/operating.md, Conditions");
    }

    #[test]
    fn the_runbook_has_a_section_for_every_alert_and_each_is_seen_firing() {
        let alerts: Vec<_> = ALERTS.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect();
        assert!(alerts.len() > 10, "{alerts:?}");
        for alert in &alerts {
            assert!(RUNBOOK.contains(&format!("\n### {alert}\n")), "docs/operating.md has no section {alert}");
            let anchor = format!("runbook: docs/operating.md#{}", alert.to_lowercase());
            assert!(ALERTS.contains(&format!("{anchor}\n")), "{alert} does not lead to its section");
            assert!(ALERT_CASES.contains(&anchor), "dev/monitoring/alerts_test.yaml never sees {alert} fire");
        }
        let sections = RUNBOOK.lines().filter(|line| line.starts_with("### Shop")).count();
        assert_eq!(sections, alerts.len(), "a section of an alert that is gone");
    }
}
