//! The shop of a bench: the harness's database and queue, an api as a process, buyers with accounts, and plans of workers.

use std::{
    net::TcpListener,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use base64::{Engine, prelude::BASE64_STANDARD};
use futures::{StreamExt, TryStreamExt, stream};
use jiff::SignedDuration;
use secrecy::ExposeSecret;
use shop_api::{
    keys::Keys,
    service::sessions::{Origin, Sessions},
    tokens::Tokens,
};
use shop_domain::order::Status;
use shop_harness::{QueueRules, customer, eventually};
use shop_runtime::{clock::Clock, ids, queue::Queue};
use shop_store::{
    Store,
    orders::{Listing, Viewer},
    session_cache::SessionCache,
};

use crate::{
    client::{Account, Shop},
    process::{Plan, Process},
};

/// What is compiled of the shop, and where the processes' output goes.
#[derive(Debug, Clone, clap::Args)]
pub struct Binaries {
    #[arg(long)]
    pub api: PathBuf,
    #[arg(long)]
    pub worker: PathBuf,
    /// The worker that oversells.
    #[arg(long)]
    pub naive: Option<PathBuf>,
    #[arg(long)]
    pub logs: PathBuf,
}

/// A running shop without workers.
pub struct Ground {
    pub shop: shop_harness::Shop,
    pub client: Shop,
    pub api: Process,
    /// Where the api tells its metrics.
    pub api_ops: String,
    logs: PathBuf,
    rules: QueueRules,
    keys: tempfile::TempDir,
}

/// Accounts and sessions are stored so many at once.
const ENROLLING: usize = 64;
const TOKEN_MINUTES: i64 = 60;
/// How long a bench waits for what was accepted to be decided. A transaction of a killed worker holds its rows until the
/// server ends it, after a minute by default.
const SETTLING: Duration = Duration::from_mins(3);
/// A limit that nobody reaches: all buyers have one address.
const UNLIMITED: &str = "100000000";

impl Ground {
    /// Starts the api in `shop`, and waits until it is ready.
    pub async fn open(shop: shop_harness::Shop, rules: QueueRules, binaries: &Binaries) -> Result<Self> {
        std::fs::create_dir_all(&binaries.logs).with_context(|| format!("making {}", binaries.logs.display()))?;
        let keys = tempfile::tempdir().context("making a folder for the keys")?;
        let key = BASE64_STANDARD.encode(ids::random_bytes::<32>()?);
        let text = serde_json::json!({ "signing": "bench", "keys": { "bench": key } }).to_string();
        std::fs::write(keys.path().join("keys.json"), text).context("writing the keys")?;
        let (plan, http, api_ops) = api(&shop, binaries, keys.path())?;
        let mut api = Process::start(&plan)?;
        ready(&mut api, &api_ops).await.with_context(|| format!("the api; its log is {}", plan.log.display()))?;
        let client = Shop::new(&http, None)?;
        Ok(Self { shop, client, api, api_ops, logs: binaries.logs.clone(), rules, keys })
    }

    /// From the start of one more api until it is ready; it is ended then.
    pub async fn start_of_api(&self, binaries: &Binaries) -> Result<Duration> {
        let (plan, _, ops) = api(&self.shop, binaries, self.keys.path())?;
        let client = reqwest::Client::new();
        let begun = Instant::now();
        let mut api = Process::start(&plan)?;
        while !is_ready(&client, &ops).await {
            api.ensure_runs().with_context(|| format!("the api; its log is {}", plan.log.display()))?;
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        Ok(begun.elapsed())
    }

    /// How to start a worker of this shop, and where it tells its metrics.
    pub fn worker(&self, binary: &Path) -> Result<(Plan, String)> {
        let ops = free_address()?;
        let mut plan = plan(&self.shop, binary, &self.logs);
        plan.env.extend([
            ("SHOP_METRICS_ADDR", ops.clone()),
            ("SHOP_SQS_VISIBILITY_SECONDS", self.rules.visibility.as_secs().to_string()),
            ("SHOP_SQS_MAX_RECEIVE_COUNT", self.rules.max_receive_count.to_string()),
            ("SHOP_TEST_NAIVE_ALLOCATION", "oversell".to_owned()),
        ]);
        Ok((plan, format!("http://{ops}")))
    }

    /// So many customers, signed in. Their accounts are put into the store and their sessions opened by the api's own
    /// code with the run's keys: hashing a password for each would take minutes and is not what is measured.
    pub async fn buyers(&self, count: usize) -> Result<Vec<Account>> {
        let keys = Keys::load(&self.keys.path().join("keys.json")).await?;
        let tokens = Tokens::new(keys, SignedDuration::from_mins(TOKEN_MINUTES));
        let sessions = Sessions::new(self.shop.store.clone(), tokens, SessionCache::disabled(), Clock::system());
        let enrol = |n: usize| self.enrol(&sessions, n);
        stream::iter(0..count).map(enrol).buffered(ENROLLING).try_collect().await.context("making the buyers")
    }

    async fn enrol(&self, sessions: &Sessions, n: usize) -> Result<Account> {
        let user = customer(format!("buyer-{n}@example.com"), Clock::system().now())?;
        self.shop.store.users.create(&user).await?;
        Ok(Account::with_token(sessions.open(&user, &Origin::default()).await?.access))
    }
}

/// Waits until a process is ready, or has ended.
pub async fn ready(process: &mut Process, ops: &str) -> Result<()> {
    let client = reqwest::Client::new();
    eventually("it is ready", async || {
        process.ensure_runs()?;
        Ok(is_ready(&client, ops).await.then_some(()))
    })
    .await
}

async fn is_ready(client: &reqwest::Client, ops: &str) -> bool {
    let answer = client.get(format!("{ops}/readyz")).send().await;
    answer.is_ok_and(|answer| answer.status().is_success())
}

/// How to start an api of the shop, where it listens, and where it tells its metrics.
fn api(shop: &shop_harness::Shop, binaries: &Binaries, keys: &Path) -> Result<(Plan, String, String)> {
    let (http, ops) = (free_address()?, free_address()?);
    let mut plan = plan(shop, &binaries.api, &binaries.logs);
    plan.env.extend(api_env(shop, &keys.join("keys.json")));
    plan.env.extend([("SHOP_HTTP_ADDR", http.clone()), ("SHOP_METRICS_ADDR", ops.clone())]);
    Ok((plan, format!("http://{http}"), format!("http://{ops}")))
}

/// Runs `work`, unless somebody interrupts it: the shop is removed either way.
pub async fn until_interrupted<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    let mut term = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    tokio::select! {
        result = work => result,
        _ = tokio::signal::ctrl_c() => bail!("interrupted"),
        _ = term.recv() => bail!("told to end"),
    }
}

/// What both binaries are told. The local SQS and SES take any credentials; the SDK wants some.
fn plan(shop: &shop_harness::Shop, binary: &Path, logs: &Path) -> Plan {
    let servers = &shop.servers;
    let name = binary.file_name().unwrap_or_default().to_string_lossy();
    Plan {
        binary: binary.to_owned(),
        args: Vec::new(),
        env: vec![
            ("SHOP_MONGODB_URI", servers.mongodb_uri.expose_secret().to_owned()),
            ("SHOP_MONGODB_DATABASE", shop.name.clone()),
            ("SHOP_REDIS_URL", servers.redis_url.expose_secret().to_owned()),
            ("SHOP_SQS_QUEUE_NAME", shop.name.clone()),
            ("SHOP_SQS_ENDPOINT", servers.sqs_endpoint.clone()),
            ("SHOP_LOG_LEVEL", "warn".to_owned()),
            ("AWS_ACCESS_KEY_ID", "local".to_owned()),
            ("AWS_SECRET_ACCESS_KEY", "local".to_owned()),
            // As in the images: no huge pages, and the certificates of one file.
            ("MIMALLOC_ALLOW_THP", "0".to_owned()),
            ("SSL_CERT_FILE", "/etc/ssl/certs/ca-certificates.crt".to_owned()),
        ],
        log: logs.join(format!("{name}.log")),
    }
}

fn api_env(shop: &shop_harness::Shop, keys: &Path) -> Vec<(&'static str, String)> {
    vec![
        ("SHOP_AUTH_KEYS_FILE", keys.to_string_lossy().into_owned()),
        ("SHOP_SES_ENDPOINT", shop.servers.ses_endpoint.clone()),
        ("SHOP_MAIL_FROM", "shop@example.com".to_owned()),
        ("SHOP_LIMIT_ADDRESS_PER_MINUTE", UNLIMITED.to_owned()),
        ("SHOP_LIMIT_WRITES_PER_MINUTE", UNLIMITED.to_owned()),
    ]
}

/// An address that nobody listens on now.
pub fn free_address() -> Result<String> {
    let address = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
    Ok(address.context("looking for a free port")?.to_string())
}

/// Whether any order is not decided yet.
pub async fn has_pending(store: &Store) -> Result<bool> {
    let pending = Listing { viewer: Viewer::Staff, status: Some(Status::Pending), after: None, limit: 1 };
    Ok(!store.orders.list(&pending).await?.is_empty())
}

/// Waits until every order is decided.
pub async fn settled(store: &Store) -> Result<()> {
    within("every accepted order is decided", async || Ok(!has_pending(store).await?)).await
}

/// Waits until nothing is on its way to a worker or back.
pub async fn emptied(queue: &Queue) -> Result<()> {
    let empty = async || {
        let counts = queue.counts().await?;
        Ok(counts.visible + counts.in_flight + counts.delayed == 0)
    };
    within("the queue is empty", empty).await
}

async fn within(what: &str, is_so: impl AsyncFn() -> Result<bool>) -> Result<()> {
    let deadline = Instant::now() + SETTLING;
    while !is_so().await? {
        ensure!(Instant::now() < deadline, "not within {} s: {what}", SETTLING.as_secs());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Ok(())
}
