//! The shop examines itself: what it depends on, its indexes, its ledger, its clock. Changes nothing, and takes a bounded time.
//! What is outside MongoDB is asked by the probes it is given.

use std::{collections::BTreeMap, time::Duration};

use futures::future::{BoxFuture, join_all};
use jiff::SignedDuration;
use shop_runtime::{clock::Clock, telemetry::chain};
use shop_store::{Store, StoreError};

/// An answer that takes longer is none.
const REACH: Duration = Duration::from_secs(2);
/// Counting takes as long as there is much to count.
const COUNT: Duration = Duration::from_secs(15);
/// Leases and tokens bear clocks that differ, but not for no reason.
const CLOCKS_DIFFER: SignedDuration = SignedDuration::from_secs(2);
/// Rows that are named; the others are counted.
const NAMED: usize = 10;

/// Asks something outside MongoDB; the finding in words, also of a failure.
pub type Probe = Box<dyn Fn() -> BoxFuture<'static, Finding> + Send + Sync>;
type Finding = Result<String, String>;

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    pub name: &'static str,
    pub finding: Finding,
}

/// Looks at everything.
pub struct Doctor {
    store: Store,
    clock: Clock,
    probes: BTreeMap<&'static str, Probe>,
}

impl Doctor {
    pub fn new(store: Store, clock: Clock, probes: BTreeMap<&'static str, Probe>) -> Self {
        Self { store, clock, probes }
    }

    /// All checks, at the same time.
    pub async fn examine(&self) -> Vec<Check> {
        let mut checks: Vec<BoxFuture<'_, Check>> = vec![
            Box::pin(check("mongodb", REACH, self.mongodb())),
            Box::pin(check("clock", REACH, self.clock())),
            Box::pin(check("indexes", REACH, self.indexes())),
            Box::pin(check("ledger", COUNT, self.ledger())),
            Box::pin(check("unfinished", COUNT, self.unfinished())),
        ];
        for (name, probe) in &self.probes {
            checks.push(Box::pin(check(name, REACH, probe())));
        }
        join_all(checks).await
    }

    async fn mongodb(&self) -> Finding {
        self.store.ping().await.map_err(|error| unread(&error))?;
        Ok("answers".into())
    }

    async fn clock(&self) -> Finding {
        let before = self.clock.now();
        let theirs = self.store.server_time().await.map_err(|error| unread(&error))?;
        let took = self.clock.now().duration_since(before);
        let ahead = before.duration_since(theirs) + took / 2;
        let finding = format!("{} ms ahead of MongoDB's", ahead.as_millis());
        if ahead.abs() <= CLOCKS_DIFFER {
            Ok(finding)
        } else {
            Err(finding + ": set this machine's clock, or MongoDB's")
        }
    }

    async fn indexes(&self) -> Finding {
        let missing = self.store.missing_indexes().await.map_err(|error| unread(&error))?;
        if missing.is_empty() {
            return Ok("all are there".into());
        }
        Err(format!("{} are missing: run `api migrate`", missing.join(", ")))
    }

    async fn ledger(&self) -> Finding {
        let read = async { self.store.audit.ledger_faults(self.store.begin().await?).await };
        let faults = read.await.map_err(|error| unread(&error))?;
        match faults.len() {
            0 => Ok("the movements of every row add up to its stock".into()),
            count => {
                let named = faults.iter().take(NAMED).map(String::as_str).collect::<Vec<_>>().join("; ");
                Err(format!("{count} rows differ from the sum of their movements: {named}"))
            }
        }
    }

    async fn unfinished(&self) -> Finding {
        match self.store.unfinished.stuck().await.map_err(|error| unread(&error))? {
            0 => Ok("nothing was given up".into()),
            stuck => Err(format!(
                "{stuck} orders or adjustments were given up: GET /api/v1/admin/dead-letters shows them, POST \
                 /api/v1/admin/dead-letters/redrive takes them up again"
            )),
        }
    }
}

async fn check(name: &'static str, patience: Duration, finding: impl Future<Output = Finding>) -> Check {
    let finding = tokio::time::timeout(patience, finding).await;
    Check { name, finding: finding.unwrap_or_else(|_| Err(format!("no answer within {} s", patience.as_secs()))) }
}

/// The cause is for the log: it may name what is nobody's business.
fn unread(error: &StoreError) -> String {
    tracing::warn!(error = chain(error), "the self-check cannot read MongoDB");
    "MongoDB cannot be read; the log says why".into()
}
