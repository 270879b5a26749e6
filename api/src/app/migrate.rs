//! Makes the indexes: what `api migrate` does before the service of a new version starts.

use std::time::Duration;

use backon::Retryable;
use shop_runtime::{telemetry, trust::TrustError};
use shop_store::StoreError;
use tokio::time::Instant;

use super::{until_it_answers, wiring::connect};
use crate::config::{ConfigError, StoreConfig};

/// How long [`migrate`] is meant to wait for MongoDB.
pub const MIGRATE_PATIENCE: Duration = Duration::from_mins(1);

/// Why the indexes were not made.
#[derive(Debug, thiserror::Error)]
pub enum MigrateError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Trust(#[from] TrustError),
    #[error("cannot use SHOP_MONGODB_URI")]
    Uri(#[source] StoreError),
    #[error("MongoDB did not answer within {seconds} s; is SHOP_MONGODB_URI right and the server up?")]
    NoAnswer { seconds: u64, source: StoreError },
    #[error("MongoDB refused to make the indexes")]
    Refused(#[source] StoreError),
}

/// Makes the indexes; asks until MongoDB answers, but no longer than `patience`.
pub async fn migrate(config: &StoreConfig, patience: Duration) -> Result<(), MigrateError> {
    config.validate()?;
    let store = connect(config, config.ca()?.as_ref()).await.map_err(MigrateError::Uri)?;
    let started = Instant::now();
    let log = |error: &StoreError, _| {
        tracing::warn!(error = telemetry::chain(error), "MongoDB does not answer, trying again");
    };
    let migrated = (|| store.migrate())
        .retry(until_it_answers())
        .when(|error| error.is_transient() && started.elapsed() < patience)
        .notify(log)
        .await;
    migrated.map_err(|error| {
        let seconds = patience.as_secs();
        if error.is_transient() {
            MigrateError::NoAnswer { seconds, source: error }
        } else {
            MigrateError::Refused(error)
        }
    })?;
    tracing::info!(database = config.mongodb_database, "indexes are there");
    Ok(())
}
