//! The door to MongoDB: connection options and the collections. Knows no query but the ping.

use std::{fmt, io, time::Duration};

use mongodb::{
    Client, Database,
    bson::doc,
    options::{Acknowledgment, ClientOptions, ReadConcern, ReadConcernLevel, WriteConcern},
};
use secrecy::{ExposeSecret, SecretString};

use crate::{
    StoreError, adjustments::Adjustments, audit::Audit, leases::Leases, mails::Mails, migrate, movements::Ledger,
    offers::Offers, orders::Orders, outbox::Outbox, password_resets::PasswordResets, products::Products,
    sessions::Sessions, stock::StockRows, suppressed_addresses::SuppressedAddresses, transaction::Transaction,
    unfinished::Unfinished, users::Users,
};

/// How long a request waits for a usable server before it fails.
const SERVER_SELECTION: Duration = Duration::from_secs(2);
const CONNECT: Duration = Duration::from_secs(2);
const PING: Duration = Duration::from_secs(5);

/// All collections of one shop. Cheap to clone; clones share one connection pool.
#[derive(Clone)]
pub struct Store {
    pub orders: Orders,
    pub outbox: Outbox,
    pub unfinished: Unfinished,
    pub stock: StockRows,
    pub offers: Offers,
    pub adjustments: Adjustments,
    pub leases: Leases,
    pub audit: Audit,
    pub products: Products,
    pub ledger: Ledger,
    pub users: Users,
    pub sessions: Sessions,
    pub mails: Mails,
    pub suppressed_addresses: SuppressedAddresses,
    pub password_resets: PasswordResets,
    database: Database,
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store").field("database", &self.database.name()).finish_non_exhaustive()
    }
}

impl Store {
    /// Prepares the client without waiting for the server. Writes are acknowledged by the majority, from its journal.
    pub async fn connect(uri: &SecretString, database: &str) -> Result<Self, StoreError> {
        let mut options = ClientOptions::parse(uri.expose_secret()).await.map_err(|_| StoreError::InvalidUri)?;
        options.app_name.get_or_insert_with(|| "xhipment".to_owned());
        options.server_selection_timeout.get_or_insert(SERVER_SELECTION);
        options.connect_timeout.get_or_insert(CONNECT);
        options.write_concern = Some(durable());
        options.read_concern = Some(ReadConcernLevel::Majority.into());
        let client = Client::with_options(options).map_err(|_| StoreError::InvalidUri)?;
        Ok(Self::new(&client.database(database)))
    }

    fn new(database: &Database) -> Self {
        Self {
            orders: Orders::new(database),
            outbox: Outbox::new(database),
            unfinished: Unfinished::new(database),
            stock: StockRows::new(database),
            offers: Offers::new(database),
            adjustments: Adjustments::new(database),
            leases: Leases::new(database),
            audit: Audit::new(database),
            products: Products::new(database),
            ledger: Ledger::new(database),
            users: Users::new(database),
            sessions: Sessions::new(database),
            mails: Mails::new(database),
            suppressed_addresses: SuppressedAddresses::new(database),
            password_resets: PasswordResets::new(database),
            database: database.clone(),
        }
    }

    /// One round trip to the primary, in at most 5 s: a server that hangs is as good as away.
    pub async fn ping(&self) -> Result<(), StoreError> {
        let answer = tokio::time::timeout(PING, self.database.run_command(doc! { "ping": 1 })).await;
        answer.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))?;
        Ok(())
    }

    /// Makes every index that the queries rely on. Idempotent; run before the first request of a new version.
    pub async fn migrate(&self) -> Result<(), StoreError> {
        migrate::run(&self.database).await
    }

    /// Starts a transaction that reads one snapshot and commits to the majority's journal.
    pub async fn begin(&self) -> Result<Transaction, StoreError> {
        let mut session = self.database.client().start_session().await?;
        session.start_transaction().read_concern(ReadConcern::snapshot()).write_concern(durable()).await?;
        Ok(Transaction::new(session))
    }

    /// Removes the whole database. For tests, each of which has a database of its own.
    pub async fn drop_database(&self) -> Result<(), StoreError> {
        Ok(self.database.drop().await?)
    }
}

fn durable() -> WriteConcern {
    WriteConcern::builder().w(Acknowledgment::Majority).journal(true).w_timeout(Duration::from_secs(10)).build()
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("mongodb://shop:hu/sh@host/")]
    #[case("mongodb://shop:hu@sh:hush@host/")]
    #[case("mongodb://shop:100%hush@host/")]
    #[case("mongodb://shop@host:hush/")]
    #[case("hush")]
    #[tokio::test]
    async fn a_wrong_connection_string_is_not_repeated(#[case] uri: &str) {
        let error = Store::connect(&uri.to_owned().into(), "x").await.unwrap_err();
        assert!(matches!(error, StoreError::InvalidUri), "{error:?}");
        let shown = format!("{error} {error:?} {}", shop_runtime::telemetry::chain(&error));
        assert!(shown.contains("SHOP_MONGODB_URI") && !shown.contains("hu"), "{shown}");
    }
}
