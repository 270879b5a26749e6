//! The door to MongoDB: connection options and the collections. Knows no query but the ping.

use std::{convert::Infallible, fmt, io, path::Path, time::Duration};

use jiff::Timestamp;
use mongodb::{
    Client, Database,
    bson::doc,
    error::Error,
    options::{Acknowledgment, ClientOptions, ReadConcern, ReadConcernLevel, Tls, WriteConcern},
};
use secrecy::{ExposeSecret, SecretString};

use crate::{
    StoreError, adjustments::Adjustments, audit::Audit, dead_letters::DeadLetters, erasures::Erasures, gate::Gate,
    leases::Leases, mails::Mails, migrate, movements::Ledger, offers::Offers, orders::Orders, outbox::Outbox,
    password_resets::PasswordResets, products::Products, sessions::Sessions, stock::StockRows,
    suppressed_addresses::SuppressedAddresses, transaction::Transaction, unfinished::Unfinished, users::Users,
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
    pub dead_letters: DeadLetters,
    pub products: Products,
    pub ledger: Ledger,
    pub users: Users,
    pub sessions: Sessions,
    /// Whether MongoDB answers, as long as somebody runs [`Store::watch`].
    pub gate: Gate,
    pub erasures: Erasures,
    pub mails: Mails,
    pub suppressed_addresses: SuppressedAddresses,
    pub password_resets: PasswordResets,
    database: Database,
    /// On a connection of its own: a ping must not wait for those who wait for one.
    pings: Database,
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store").field("database", &self.database.name()).finish_non_exhaustive()
    }
}

impl Store {
    /// Prepares the client without waiting for the server. Writes are acknowledged by the majority, from its journal.
    pub async fn connect(uri: &SecretString, database: &str) -> Result<Self, StoreError> {
        Self::connect_trusting(uri, database, None).await
    }

    /// The same, where a server that is asked for TLS must show a certificate of the CA in `ca_file` (PEM) instead of a
    /// public one. The connection string's own `tlsCAFile` wins.
    pub async fn connect_trusting(
        uri: &SecretString,
        database: &str,
        ca_file: Option<&Path>,
    ) -> Result<Self, StoreError> {
        let mut options = ClientOptions::parse(uri.expose_secret()).await.map_err(|_| StoreError::InvalidUri)?;
        options.app_name.get_or_insert_with(|| "xhipment".to_owned());
        options.server_selection_timeout.get_or_insert(SERVER_SELECTION);
        options.connect_timeout.get_or_insert(CONNECT);
        if let (Some(Tls::Enabled(tls)), Some(ca_file)) = (&mut options.tls, ca_file) {
            tls.ca_file_path.get_or_insert_with(|| ca_file.to_owned());
        }
        options.write_concern = Some(durable());
        options.read_concern = Some(ReadConcernLevel::Majority.into());
        let mut pings = options.clone();
        (pings.min_pool_size, pings.max_pool_size) = (None, Some(1));
        let client = |options| Client::with_options(options).map_err(|_| StoreError::InvalidUri);
        Ok(Self::new(&client(options)?.database(database), client(pings)?.database(database)))
    }

    fn new(database: &Database, pings: Database) -> Self {
        Self {
            orders: Orders::new(database),
            outbox: Outbox::new(database),
            unfinished: Unfinished::new(database),
            stock: StockRows::new(database),
            offers: Offers::new(database),
            adjustments: Adjustments::new(database),
            leases: Leases::new(database),
            audit: Audit::new(database),
            dead_letters: DeadLetters::new(database),
            products: Products::new(database),
            ledger: Ledger::new(database),
            users: Users::new(database),
            sessions: Sessions::new(database),
            gate: Gate::new(),
            erasures: Erasures::new(database),
            mails: Mails::new(database),
            suppressed_addresses: SuppressedAddresses::new(database),
            password_resets: PasswordResets::new(database),
            database: database.clone(),
            pings,
        }
    }

    /// Keeps [`Store::gate`] for as long as it is polled: run it once in each process that asks the gate.
    pub async fn watch(&self) -> Infallible {
        self.gate.watch(self).await
    }

    /// One round trip to the primary, in at most 5 s: a server that hangs is as good as away.
    pub async fn ping(&self) -> Result<(), StoreError> {
        ping(&self.pings).await
    }

    /// The same on the way that all other requests take: that one finds by itself, and later, that the server is back.
    pub(crate) async fn reach(&self) -> Result<(), StoreError> {
        ping(&self.database).await
    }

    /// What time it is for MongoDB.
    pub async fn server_time(&self) -> Result<Timestamp, StoreError> {
        let hello = self.pings.run_command(doc! { "hello": 1 }).await?;
        let time = hello.get_datetime("localTime").map_err(|error| StoreError::Unreadable(Error::custom(error)))?;
        Timestamp::from_millisecond(time.timestamp_millis())
            .map_err(|error| StoreError::Unreadable(Error::custom(error)))
    }

    /// The indexes that [`Store::migrate`] makes and that are not there, as `collection: keys`.
    pub async fn missing_indexes(&self) -> Result<Vec<String>, StoreError> {
        migrate::missing(&self.database).await
    }

    /// Makes every index that the queries rely on. Idempotent; run before the first request of a new version.
    pub async fn migrate(&self) -> Result<(), StoreError> {
        migrate::run(&self.database).await
    }

    /// Starts a transaction that reads one snapshot and commits to the majority's journal.
    pub async fn begin(&self) -> Result<Transaction, StoreError> {
        let mut session = self.database.client().start_session().await?;
        session.start_transaction().read_concern(ReadConcern::snapshot()).write_concern(durable()).await?;
        Ok(Transaction::new(session, self.gate.clone()))
    }

    /// Removes the whole database. For tests, each of which has a database of its own.
    pub async fn drop_database(&self) -> Result<(), StoreError> {
        Ok(self.database.drop().await?)
    }
}

async fn ping(database: &Database) -> Result<(), StoreError> {
    let answer = tokio::time::timeout(PING, database.run_command(doc! { "ping": 1 })).await;
    answer.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))?;
    Ok(())
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
