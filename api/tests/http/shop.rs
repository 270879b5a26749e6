//! The harness's shop of its own for each test, with a service on free ports.

use std::{collections::BTreeMap, panic::AssertUnwindSafe, sync::Arc, time::Duration};

use clap::Parser;
use futures::FutureExt;
use jiff::Timestamp;
use reqwest::{
    Method, RequestBuilder, StatusCode,
    header::{HeaderMap, HeaderValue},
};
use secrecy::ExposeSecret;
use serde_json::{Value, json};
use shop_api::{
    app::{self, Running, Surroundings},
    config::{Cli, Command, Config},
};
use shop_domain::{id::ProductId, order::Status, stock::StockKey};
use shop_harness::QueueRules;
use shop_runtime::{clock::Clock, ids, queue::Queue, shutdown::Shutdown};
use shop_store::{
    Store,
    orders::{OrderDocument, Viewer},
    stock::{Cause, Crossing, Movement},
};

pub const MOUSE: &str = "67c8830b7ef1b848ac52ebec";
pub const LAMP: &str = "67c8830b7ef1b848ac52ebee";
pub const STAFF: (&str, &str) = ("staff@example.com", "staff password");
pub const PASSWORD: &str = "correct horse";
/// The order of the original's documentation, byte by byte.
pub const DOCUMENTED_ORDER: &str = r#"{"location":"bangalore","totalAmount":4324,"items":[{"productId":"67c8830b7ef1b848ac52ebec","quantity":1},{"productId":"67c8830b7ef1b848ac52ebee","quantity":2}]}"#;

#[derive(Clone)]
pub struct Shop {
    pub ground: shop_harness::Shop,
    pub base: String,
    pub ops: String,
    pub store: Store,
    pub queue: Queue,
    pub client: reqwest::Client,
    pub shutdown: Shutdown,
    pub clock: Clock,
    pub args: Args,
    _keys: Arc<tempfile::TempDir>,
}

/// Flags of the service; a later value replaces an earlier one.
#[derive(Clone)]
pub struct Args(pub BTreeMap<&'static str, String>);

impl Args {
    pub fn set(&mut self, flag: &'static str, value: impl Into<String>) -> &mut Self {
        self.0.insert(flag, value.into());
        self
    }

    pub fn unset(&mut self, flag: &'static str) -> &mut Self {
        self.0.remove(flag);
        self
    }

    /// The flags and their values, one after the other.
    pub fn flags(&self) -> impl Iterator<Item = String> {
        self.0.iter().flat_map(|(flag, value)| [(*flag).to_owned(), value.clone()])
    }

    pub fn config(&self) -> Config {
        let args = ["shop-api".to_owned(), "serve".to_owned()].into_iter().chain(self.flags());
        match Cli::try_parse_from(args).unwrap().command {
            Command::Serve(config) => *config,
            Command::Migrate(_) | Command::Smoke(_) => unreachable!("the arguments say serve"),
        }
    }
}

/// An answer, read to its end.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub text: String,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|_| panic!("no JSON: {self:?}"))
    }

    /// Where the request is at fault, as a problem tells it.
    pub fn pointers(&self) -> Vec<String> {
        let faults = self.json()["errors"].as_array().cloned().unwrap_or_default();
        faults.iter().filter_map(|fault| fault["pointer"].as_str().map(str::to_owned)).collect()
    }

    /// Status and code of a problem; its form is checked.
    #[track_caller]
    pub fn problem(&self) -> (u16, String) {
        assert_eq!(self.headers["content-type"], "application/problem+json", "{self:?}");
        assert_eq!(self.headers["cache-control"], "no-store");
        let body = self.json();
        for member in ["type", "title", "status", "detail", "instance", "code", "message", "requestId", "errors"] {
            assert!(!body[member].is_null(), "no {member} in {body}");
        }
        assert_eq!(body["status"], self.status.as_u16());
        assert_eq!(body["message"], body["detail"]);
        assert_eq!(self.headers["x-request-id"], body["requestId"].as_str().unwrap());
        (self.status.as_u16(), body["code"].as_str().unwrap().to_owned())
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    /// The access token that the answer brings.
    #[track_caller]
    pub fn token(&self) -> String {
        self.json()["accessToken"].as_str().unwrap_or_else(|| panic!("no token: {self:?}")).to_owned()
    }

    /// The value of the refresh cookie that the answer sets.
    pub fn cookie(&self) -> String {
        let cookie = self.header("set-cookie").split(';').next().unwrap();
        cookie.strip_prefix("refreshToken=").unwrap_or_else(|| panic!("no cookie: {self:?}")).to_owned()
    }
}

pub fn random_name(prefix: &str) -> String {
    format!("{prefix}{}", ids::random_hex::<6>().unwrap())
}

fn keys_file() -> tempfile::TempDir {
    use base64::{Engine, prelude::BASE64_STANDARD};
    let folder = tempfile::tempdir().unwrap();
    let key = BASE64_STANDARD.encode(ids::random_bytes::<32>().unwrap());
    let json = json!({ "signing": "k1", "keys": { "k1": key } });
    std::fs::write(folder.path().join("keys.json"), json.to_string()).unwrap();
    folder
}

/// Runs a test in a shop with the documentation's two products in stock at "bangalore" (10 each), and a staff account.
pub async fn with_shop(test: impl AsyncFnOnce(&Shop)) {
    with_shop_of(|_| {}, test).await;
}

/// Runs a test in such a shop whose service has other flags. The service ends with the test, whatever happens.
pub async fn with_shop_of(change: impl FnOnce(&mut Args), test: impl AsyncFnOnce(&Shop)) {
    with_shop_as(QueueRules::default(), Clock::system(), change, test).await;
}

/// The same with a clock that stands still until the test moves it.
pub async fn with_still_shop(test: impl AsyncFnOnce(&Shop)) {
    // Whole seconds: the database keeps milliseconds, and ten seconds are to be ten seconds.
    let now = Timestamp::from_second(Clock::system().now().as_second()).unwrap();
    with_shop_as(QueueRules::default(), Clock::manual(now), |_| {}, test).await;
}

/// The same with a queue of these rules.
pub async fn with_shop_and_queue(rules: QueueRules, test: impl AsyncFnOnce(&Shop)) {
    with_shop_as(rules, Clock::system(), |_| {}, test).await;
}

async fn with_shop_as(rules: QueueRules, clock: Clock, change: impl FnOnce(&mut Args), test: impl AsyncFnOnce(&Shop)) {
    let ran = shop_harness::with_shop_of(rules, async |ground| {
        let shop = Box::pin(Shop::open(&ground, clock, change)).await;
        let outcome = AssertUnwindSafe(test(&shop)).catch_unwind().await;
        shop.shutdown.drain();
        let ended = shop.shutdown.wait(Duration::from_secs(20)).await;
        if let Err(panic) = outcome {
            std::panic::resume_unwind(panic);
        }
        assert!(ended, "the service did not end");
        Ok(())
    });
    ran.await.unwrap();
}

impl Shop {
    async fn open(ground: &shop_harness::Shop, clock: Clock, change: impl FnOnce(&mut Args)) -> Self {
        let (keys, servers) = (keys_file(), &ground.servers);
        let mut args = Args(BTreeMap::new());
        args.set("--mongodb-uri", servers.mongodb_uri.expose_secret())
            .set("--mongodb-database", &ground.name)
            .set("--redis-url", servers.redis_url.expose_secret())
            .set("--queue-name", &ground.queue_name)
            .set("--sqs-endpoint", &servers.sqs_endpoint)
            .set("--ses-endpoint", &servers.ses_endpoint)
            .set("--mail-from", "shop@example.com")
            .set("--http-addr", "127.0.0.1:0")
            .set("--metrics-addr", "127.0.0.1:0")
            .set("--auth-keys-file", keys.path().join("keys.json").to_string_lossy())
            .set("--staff-email", STAFF.0)
            .set("--staff-password", STAFF.1)
            .set("--limit-auth-per-15-minutes", "10000")
            .set("--limit-writes-per-minute", "10000")
            .set("--drain-seconds", "0")
            .set("--log-level", "warn");
        change(&mut args);
        let shutdown = Shutdown::manual();
        let surroundings = Surroundings { clock: clock.clone(), shutdown: shutdown.clone() };
        let running = app::start(args.config(), surroundings).await.unwrap();
        let client = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).build().unwrap();
        let Running { http_addr, ops_addr, .. } = running;
        let (base, ops) = (format!("http://{http_addr}"), format!("http://{ops_addr}"));
        let (store, queue) = (ground.store.clone(), ground.queue.clone());
        let (ground, keys) = (ground.clone(), Arc::new(keys));
        let shop = Self { ground, base, ops, store, queue, client, shutdown, clock, args, _keys: keys };
        shop.fill().await;
        shop
    }

    /// Starts another replica of the same shop.
    pub async fn replica(&self, change: impl FnOnce(&mut Args)) -> Running {
        let mut args = self.args.clone();
        change(&mut args);
        let surroundings = Surroundings { clock: self.clock.clone(), shutdown: self.shutdown.clone() };
        Box::pin(app::start(args.config(), surroundings)).await.unwrap()
    }

    /// The shop as its clients see it through another replica.
    pub async fn beside(&self, change: impl FnOnce(&mut Args)) -> Self {
        let Running { http_addr, ops_addr, .. } = self.replica(change).await;
        Self { base: format!("http://{http_addr}"), ops: format!("http://{ops_addr}"), ..self.clone() }
    }

    async fn fill(&self) {
        for (id, name, price) in [(MOUSE, "Travel Mouse", 132_400), (LAMP, "Desk Lamp", 150_000)] {
            let facts = shop_store::products::ProductFacts {
                name: name.into(),
                description: "For the desk".into(),
                price: price.try_into().unwrap(),
            };
            self.store.products.put(&id.parse().unwrap(), &facts, self.clock.now()).await.unwrap();
        }
        self.stock(&[(MOUSE, "bangalore", 10), (LAMP, "bangalore", 10)]).await;
    }

    /// Starts a worker of this shop, with these flags in place of its own; it ends with the test. Where its metrics are.
    pub async fn worker(&self, flags: &[&str]) -> String {
        let servers = &self.ground.servers;
        let base = [
            ("--mongodb-uri", servers.mongodb_uri.expose_secret()),
            ("--mongodb-database", &self.ground.name),
            ("--redis-url", servers.redis_url.expose_secret()),
            ("--sqs-endpoint", &servers.sqs_endpoint),
            ("--queue-name", &self.ground.queue_name),
            ("--metrics-addr", "127.0.0.1:0"),
        ];
        let base = base.iter().filter(|(flag, _)| !flags.contains(flag)).flat_map(|(flag, value)| [*flag, *value]);
        let config =
            shop_worker::Config::try_parse_from(["shop-worker"].into_iter().chain(base).chain(flags.iter().copied()));
        let (config, shutdown) = (config.unwrap(), Shutdown::manual());
        let deadline = shop_worker::deadline(&shutdown, config.hand_back_after());
        let ops = shop_worker::start(&config, self.clock.clone(), &shutdown, deadline).await.unwrap();
        format!("http://{ops}")
    }

    /// Places an order; its id.
    pub async fn placed(&self, token: &str, body: &str) -> String {
        let answer = self.order(token, None, body).await;
        assert_eq!(answer.status, 201, "{answer:?}");
        answer.json()["orderId"].as_str().unwrap().to_owned()
    }

    /// The stored order as soon as it has this status.
    pub async fn becomes(&self, id: &str, status: Status) -> OrderDocument {
        let id = id.parse().unwrap();
        eventually(&format!("order {id} is {}", status.as_str()), || async {
            let order = self.store.orders.find(&id, &Viewer::Staff).await.unwrap();
            order.filter(|order| order.status == status)
        })
        .await
    }

    /// Units in stock at "bangalore".
    pub async fn units(&self, product: &str) -> i64 {
        self.ground.units(&product.parse().unwrap()).await.unwrap()
    }

    /// Waits until nothing is in the queue, seen or unseen.
    pub async fn quiet(&self) {
        eventually("the queue is empty", || async {
            let counts = self.queue.counts().await.unwrap();
            (counts.visible + counts.in_flight + counts.delayed == 0).then_some(())
        })
        .await;
    }

    /// What in the shop's books does not add up.
    pub async fn faults(&self) -> Vec<String> {
        self.store.audit.read().await.unwrap().faults()
    }

    /// Moves stock as the worker would.
    pub async fn stock(&self, deltas: &[(&str, &str, i64)]) {
        let deltas: BTreeMap<_, _> = deltas
            .iter()
            .map(|&(product, location, delta)| {
                let key =
                    StockKey { product: product.parse::<ProductId>().unwrap(), location: location.parse().unwrap() };
                (key, delta)
            })
            .collect();
        let (cause, cause_id, at) = (Cause::Adjustment, ids::random_hex::<12>().unwrap(), self.clock.now());
        let movement = |(row, delta): (&StockKey, &i64)| Movement {
            row: row.clone(),
            delta: *delta,
            cause,
            cause_id: cause_id.clone(),
            at,
        };
        let movements: Vec<_> = deltas.iter().map(movement).collect();
        let crossings: Vec<_> = deltas.keys().cloned().map(Crossing::Came).collect();
        let mut tx = self.store.begin().await.unwrap();
        self.store.stock.move_in(&mut tx, &deltas).await.unwrap();
        self.store.stock.record_in(&mut tx, &movements).await.unwrap();
        self.store.stock.mark_in(&mut tx, &crossings).await.unwrap();
        tx.commit().await.unwrap();
    }

    /// A request under /api/v1, or from the root with a path that begins with two slashes.
    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let path =
            path.strip_prefix('/').filter(|path| path.starts_with('/')).map_or(format!("/api/v1{path}"), str::to_owned);
        self.client.request(method, format!("{}{path}", self.base))
    }

    pub async fn get(&self, path: &str, token: &str) -> Answer {
        send(bearer(self.request(Method::GET, path), token)).await
    }

    pub async fn post(&self, path: &str, token: &str, body: &Value) -> Answer {
        send(bearer(self.request(Method::POST, path), token).json(body)).await
    }

    pub async fn put(&self, path: &str, token: &str, body: &Value) -> Answer {
        send(bearer(self.request(Method::PUT, path), token).json(body)).await
    }

    pub async fn delete(&self, path: &str, token: &str) -> Answer {
        send(bearer(self.request(Method::DELETE, path), token)).await
    }

    /// Registers a customer; the access token.
    pub async fn customer(&self) -> String {
        self.register(&format!("{}@example.com", random_name("c"))).await
    }

    pub async fn register(&self, email: &str) -> String {
        let answer = self.post("/auth/register", "", &json!({ "email": email, "password": PASSWORD })).await;
        assert_eq!(answer.status, 201, "{answer:?}");
        answer.token()
    }

    pub async fn login(&self, email: &str, password: &str) -> Answer {
        self.post("/auth/login", "", &json!({ "email": email, "password": password })).await
    }

    /// Signs the configured staff in, waiting for the account to be made.
    pub async fn staff(&self) -> String {
        let answer = eventually("the staff account", || async {
            Some(self.login(STAFF.0, STAFF.1).await).filter(|answer| answer.status == 200)
        });
        answer.await.token()
    }

    /// Presents a refresh token.
    pub async fn refresh(&self, cookie: &str) -> Answer {
        send(self.request(Method::POST, "/auth/refresh-token").header("cookie", format!("refreshToken={cookie}"))).await
    }

    pub async fn order(&self, token: &str, key: Option<&str>, body: &str) -> Answer {
        let request = bearer(self.request(Method::POST, "/orders"), token);
        let request = request.header("content-type", "application/json").body(body.to_owned());
        let key = key.map(|key| HeaderValue::from_bytes(key.as_bytes()).unwrap());
        send(if let Some(key) = key { request.header("Idempotency-Key", key) } else { request }).await
    }
}

pub fn bearer(request: RequestBuilder, token: &str) -> RequestBuilder {
    if token.is_empty() { request } else { request.bearer_auth(token) }
}

pub async fn send(request: RequestBuilder) -> Answer {
    let response = request.send().await.unwrap();
    let (status, headers) = (response.status(), response.headers().clone());
    Answer { status, headers, text: response.text().await.unwrap() }
}

/// Asks until there is an answer, with the harness's patience.
pub async fn eventually<T, F: Future<Output = Option<T>>>(what: &str, ask: impl Fn() -> F) -> T {
    shop_harness::eventually(what, async || Ok(ask().await)).await.unwrap()
}
