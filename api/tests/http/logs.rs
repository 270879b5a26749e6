//! What api and worker log when they say all they can, over a whole life of a shop: ids, and nothing secret.

use std::path::Path;

use base64::{Engine, prelude::BASE64_STANDARD};
use reqwest::{Method, RequestBuilder};
use secrecy::ExposeSecret;
use serde_json::{Value, json};
use shop_domain::{id::OrderId, message::Message, order::Status};
use shop_harness::Link;
use shop_runtime::ids;
use shop_store::mails::{MailKind, MailState};
use tokio::process::{Child, Command};

use crate::{
    password_reset::{mails_to, token_in},
    process::{Log, Process, spawn},
    ses::{self, Ses},
    shop::{Answer, DOCUMENTED_ORDER, PASSWORD, STAFF, Shop, bearer, eventually, random_name, send, with_shop},
    tokens::write_keys,
};

const PASSWORDS: [&str; 6] =
    [PASSWORD, "second horse", "third horse", "wrong horse battery", "horse in a broken body", "horse in a query"];

/// What must not be in a log, each with what it is.
struct Secrets(Vec<(String, String)>);

impl Secrets {
    fn add(&mut self, what: &str, secret: &str) {
        assert!(secret.len() > 8, "{what} is too short to be told from other text");
        self.0.push((what.to_owned(), secret.to_owned()));
    }

    /// An address, also as it stands in a query.
    fn add_address(&mut self, address: &str) {
        self.add("an address", address);
        self.add("an address", &address.replace('@', "%40"));
    }

    /// The login of a connection string, and the whole of it.
    fn add_connection(&mut self, url: &str) {
        let (_, rest) = url.split_once("://").unwrap();
        let (login, server) = rest.rsplit_once('@').expect("the tests' servers have passwords");
        let (_, password) = login.split_once(':').unwrap();
        self.add("a connection string", url);
        self.add("a connection string", &format!("{login}@{server}"));
        self.add("a server's password", password);
    }

    /// Adds the tokens that an answer brings.
    fn note(&mut self, answer: Answer) -> Answer {
        if let Some(token) = serde_json::from_str::<Value>(&answer.text).unwrap_or_default()["accessToken"].as_str() {
            self.add("an access token", token);
        }
        let cookie = answer.headers.get("set-cookie").map(|_| answer.cookie()).unwrap_or_default();
        if !cookie.is_empty() {
            self.add("a refresh token", &cookie);
        }
        answer
    }

    fn found_in<'a>(&'a self, lines: &'a [String]) -> Vec<(&'a str, &'a str)> {
        let found = |(what, secret): &'a (String, String)| {
            lines.iter().filter(move |line| line.contains(secret)).map(move |line| (what.as_str(), line.as_str()))
        };
        self.0.iter().flat_map(found).collect()
    }
}

/// The way to each server, and the processes that go it.
struct Life {
    shop: Shop,
    secrets: Secrets,
    links: [Link; 3],
    ses: Ses,
    api: Process,
    worker: (Child, Log),
    email: String,
    /// The id of a request of which something is logged.
    planted: String,
}

impl Life {
    /// Api and worker as processes that log all that our crates say. The service of the test itself leaves.
    async fn begin(shop: &Shop) -> Self {
        shop.shutdown.drain();
        let servers = &shop.ground.servers;
        let (mongodb, uri) = Link::to_mongodb(&servers.mongodb_uri).await.unwrap();
        let (redis, url) = Link::to_redis(&servers.redis_url).await.unwrap();
        let (sqs, sqs_endpoint) = Link::to_http(&servers.sqs_endpoint).await.unwrap();
        let ses = Ses::to(&shop.args.config().mail.service()).await.unwrap();
        let api = Process::start(shop, |args| {
            args.set("--log-level", "trace").set("--mongodb-uri", &uri).set("--redis-url", &url);
            args.set("--sqs-endpoint", &sqs_endpoint).set("--ses-endpoint", ses.service.endpoint.clone().unwrap());
        })
        .await;
        let flags = [
            ("--log-level", "trace"),
            ("--metrics-addr", "127.0.0.1:0"),
            ("--mongodb-uri", &uri),
            ("--mongodb-database", &shop.ground.name),
            ("--redis-url", &url),
            ("--sqs-endpoint", &sqs_endpoint),
            ("--queue-name", &shop.ground.queue_name),
        ];
        let mut secrets = Secrets(Vec::new());
        for url in [&uri, &url, servers.mongodb_uri.expose_secret(), servers.redis_url.expose_secret()] {
            secrets.add_connection(url);
        }
        let email = format!("{}@example.com", random_name("log"));
        for address in [&email, STAFF.0, "leak@example.com"] {
            secrets.add_address(address);
        }
        for password in PASSWORDS.iter().chain([&STAFF.1]) {
            secrets.add("a password", password);
        }
        let (mut shop, planted) = (shop.clone(), random_name("planted-"));
        shop.base.clone_from(&api.base);
        Self { shop, secrets, links: [mongodb, redis, sqs], ses, api, worker: worker(&flags), email, planted }
    }

    async fn post(&mut self, path: &str, token: &str, body: Value) -> Answer {
        let answer = self.shop.post(path, token, &body).await;
        self.secrets.note(answer)
    }

    /// Signs up, in and out in every way. The access token of a session that goes on.
    async fn sign_in(&mut self) -> String {
        let email = self.email.clone();
        let body = json!({ "email": email, "password": PASSWORD });
        let request = self.shop.request(Method::POST, "/auth/register").header("x-request-id", &self.planted);
        let registered = self.secrets.note(send(request.json(&body)).await);
        assert_eq!(registered.status, 201, "{registered:?}");
        let wrong = json!({ "email": email, "password": "wrong horse battery" });
        assert_eq!(self.post("/auth/login", "", wrong).await.status, 401);
        let first = self.post("/auth/login", "", json!({ "email": email, "password": PASSWORD })).await.cookie();
        let mut cookie = first.clone();
        for _ in 0..2 {
            let refreshed = self.shop.refresh(&cookie).await;
            cookie = self.secrets.note(refreshed).cookie();
        }
        assert_eq!(self.shop.refresh(&first).await.status, 401, "stolen");
        let change = json!({ "currentPassword": PASSWORD, "newPassword": "second horse" });
        assert_eq!(self.post("/auth/password", &registered.token(), change).await.status, 204);
        assert_eq!(self.post("/auth/password-reset", "", json!({ "email": email })).await.status, 202);
        let reset = token_in(&mails_to(&self.shop, &email, 1).await[0]);
        self.secrets.add("a reset token", &reset);
        for status in [200, 400] {
            let set = json!({ "password": "third horse" });
            assert_eq!(self.post(&format!("/auth/password-reset/{reset}"), "", set).await.status, status);
        }
        self.post("/auth/login", "", json!({ "email": email, "password": "third horse" })).await.token()
    }

    /// Orders, of which one is cancelled, one has its mail sent and one has it refused.
    async fn order(&mut self, token: &str) {
        let shop = &self.shop;
        let first = shop.order(token, Some("once"), DOCUMENTED_ORDER).await;
        assert_eq!(first.status, 201, "{first:?}");
        assert_eq!(shop.order(token, Some("once"), DOCUMENTED_ORDER).await.json(), first.json());
        let id = first.json()["orderId"].as_str().unwrap().to_owned();
        shop.becomes(&id, Status::Processed).await;
        self.mail(&id, (MailKind::Confirmation, MailState::Sent)).await;
        let shop = &self.shop;
        assert_eq!(shop.post(&format!("/orders/{id}/cancel"), token, &json!({})).await.status, 202);
        self.mail(&id, (MailKind::Cancellation, MailState::Sent)).await;
        self.ses.refuse(ses::BLACKLISTED);
        let id = self.shop.placed(token, DOCUMENTED_ORDER).await;
        self.mail(&id, (MailKind::Confirmation, MailState::GivenUp)).await;
        self.ses.relent();
        // A job of which the worker says something.
        let absent = OrderId::from_bits(ids::random_bytes().unwrap());
        self.shop.ground.send(&Message::OrderPlaced { order_id: absent }.to_body()).await.unwrap();
    }

    async fn mail(&self, id: &str, (kind, state): (MailKind, MailState)) {
        let id = id.parse().unwrap();
        eventually(&format!("{} {}", kind.as_str(), state.as_str()), || async {
            let order = self.shop.ground.order(&id).await.unwrap();
            order.mails.iter().any(|mail| mail.kind == kind && mail.state == state).then_some(())
        })
        .await;
    }

    async fn staff(&mut self) {
        let (email, password) = STAFF;
        let answer = self.post("/auth/login", "", json!({ "email": email, "password": password })).await;
        let token = answer.token();
        let search = format!("/admin/users?q={}", self.email.replace('@', "%40"));
        assert_eq!(self.shop.get(&search, &token).await.status, 200);
        for path in ["/admin/users", "/admin/dead-letters", "/admin/doctor", "/orders", "/products"] {
            assert_eq!(self.shop.get(path, &token).await.status, 200, "{path}");
        }
    }

    /// Requests that are wrong, with secrets where none belong.
    async fn mistakes(&mut self) {
        let leak = "horse in a broken body";
        for body in [
            format!(r#"{{"email":"leak@example.com","password":"{leak}""#),
            format!(r#"{{"email":["leak@example.com"],"password":{{"is":"{leak}"}}}}"#),
            format!(r#"{{"email":"leak@example.com","{leak}":1,"password":"x","leak@example.com":2}}"#),
            format!(r#""{leak} leak@example.com""#),
        ] {
            for path in ["/auth/login", "/auth/register", "/auth/password-reset", "/orders"] {
                let request = self.shop.request(Method::POST, path).header("content-type", "application/json");
                let status = send(request.body(body.clone())).await.status;
                assert!(status.is_client_error() || status == 202, "{path} {status} {body}");
            }
        }
        let forged = format!("{}.{}.{}", random_name("forged"), random_name("x"), random_name("y"));
        self.secrets.add("a forged token", &forged);
        assert_eq!(self.shop.get("/auth/me", &forged).await.status, 401);
        assert_eq!(self.shop.refresh(&forged).await.status, 401);
        assert_eq!(
            self.post(&format!("/auth/password-reset/{forged}"), "", json!({ "password": leak })).await.status,
            400
        );
        let query = "/products?search=horse%20in%20a%20query&email=leak%40example.com&token=horse%20in%20a%20query";
        self.secrets.add("a query", "horse%20in%20a%20query");
        send(bearer(self.shop.request(Method::GET, query), &forged)).await;
        send(self.shop.request(Method::GET, &format!("//{forged}"))).await;
    }

    async fn rotate_keys(&mut self) {
        let path = self.shop.args.config().auth.auth_keys_file;
        let old: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
        let mut keys = old["keys"].clone();
        keys["next"] = BASE64_STANDARD.encode(ids::random_bytes::<32>().unwrap()).into();
        for key in keys.as_object().unwrap().values() {
            self.secrets.add("a signing key", key.as_str().unwrap());
        }
        write_keys(&self.shop, "next", &keys);
        self.api.log.find("the new keys", |line| line["message"].as_str()?.contains("keys").then_some(())).await;
    }

    /// Each server is away for a moment, in which it is asked for.
    async fn outages(&mut self, token: &str) {
        for link in 0..self.links.len() {
            self.links[link].cut();
            let login = json!({ "email": self.email, "password": "third horse" });
            let answers = [
                self.post("/auth/login", "", login.clone()).await,
                self.shop.order(token, None, DOCUMENTED_ORDER).await,
                self.shop.get("/auth/me", token).await,
            ];
            assert!(answers.iter().all(|answer| answer.status.as_u16() < 500 || answer.status == 503), "{answers:?}");
            self.links[link].mend();
            let back = eventually("it is back", || async {
                Some(self.shop.post("/auth/login", "", &login).await).filter(|answer| answer.status == 200)
            });
            let back = back.await;
            self.secrets.note(back);
        }
    }

    async fn erase(&self, token: &str) {
        let request = bearer(self.shop.request(Method::DELETE, "/auth/me"), token);
        let erased = send(request.json(&json!({ "password": "third horse" }))).await;
        assert_eq!(erased.status, 204, "{erased:?}");
    }
}

/// The worker of the same build: `cargo test --workspace` makes it beside the api.
fn worker(flags: &[(&str, &str)]) -> (Child, Log) {
    let program = Path::new(env!("CARGO_BIN_EXE_shop-api")).with_file_name("shop-worker");
    assert!(program.exists(), "no {}: run cargo build --workspace --bins", program.display());
    let mut command = Command::new(program);
    command.args(flags.iter().flat_map(|(flag, value)| [flag, value]));
    spawn(command)
}

/// Spans are work: each line within one says which, and in which trace.
fn without_ids(lines: &[Value]) -> Vec<&Value> {
    let is_known = |span: &Value| {
        let names = ["request_id", "id", "about"];
        let is_id = |id: &Value| id.as_str().is_some_and(|id| !id.is_empty());
        span["trace_id"].as_str().is_some_and(|id| id.len() == 32) && names.iter().any(|name| is_id(&span[name]))
    };
    lines.iter().filter(|line| line["span"].is_object() && !is_known(&line["span"])).collect()
}

#[tokio::test]
async fn a_whole_life_is_logged_with_ids_and_without_secrets() {
    with_shop(async |shop| {
        let mut life = Life::begin(shop).await;
        let token = life.sign_in().await;
        life.order(&token).await;
        life.staff().await;
        life.mistakes().await;
        life.rotate_keys().await;
        life.outages(&token).await;
        life.erase(&token).await;
        life.worker.1.find("a job's line", |line| line["span"]["trace_id"].is_string().then_some(())).await;

        let lines = [life.api.log.lines(), life.worker.1.lines()].concat();
        let found = life.secrets.found_in(&lines);
        assert!(found.is_empty(), "{found:#?}");
        let mut proof = Secrets(Vec::new());
        proof.add("what is in the log", &life.planted);
        assert!(!proof.found_in(&lines).is_empty(), "the search finds nothing at all");

        let parsed: Vec<Value> =
            lines.iter().map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("{line}"))).collect();
        assert_eq!(without_ids(&parsed), Vec::<&Value>::new());
        for name in ["request", "mail", "job"] {
            assert!(parsed.iter().any(|line| line["span"]["name"] == name), "nothing is said of any {name}");
        }
    })
    .await;
}

/// Makes a request twice, which must be answered with this problem; what is logged of the first as amiss. Lines keep
/// their order: with the second's all of the first's are there.
async fn amiss(process: &Process, request: impl Fn() -> RequestBuilder, (status, code): (u16, &str)) -> Vec<Value> {
    for id in ["first", "second"] {
        let answer = send(request().header("x-request-id", id)).await;
        assert_eq!(answer.problem(), (status, code.to_owned()));
    }
    process.log.find("the second's line", |line| (line["request_id"] == "second").then_some(())).await;
    let lines = process.log.lines();
    let parsed = lines.iter().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let of_first = parsed.filter(|line| line["span"]["request_id"] == "first");
    of_first.filter(|line| line["level"] == "WARN" || line["level"] == "ERROR").collect()
}

#[tokio::test]
async fn a_server_error_is_logged_once_with_what_caused_it() {
    with_shop(async |shop| {
        // A Redis that is slow for a moment would be logged as well.
        let process = Process::start(shop, |args| {
            args.unset("--redis-url");
        })
        .await;
        let token = shop.customer().await;
        let id = shop.placed(&token, DOCUMENTED_ORDER).await;
        shop.ground.spoil(&id.parse().unwrap()).await.unwrap();
        let url = format!("{}/api/v1/orders/{id}", process.base);
        let lines = amiss(&process, || bearer(shop.client.get(&url), &token), (500, "internal")).await;
        let [only] = lines.as_slice() else { panic!("not one line: {lines:#?}") };
        assert_eq!((&only["level"], &only["code"]), (&json!("ERROR"), &json!("internal")));
        assert_eq!(only["route"], "/api/v1/orders/{orderId}");
        let cause = only["cause"].as_str().unwrap();
        let (told, why) = cause.split_once(": ").unwrap();
        assert_eq!((told, why.is_empty()), ("a stored document cannot be read", false), "{cause}");
    })
    .await;
}

/// What is away and why is logged with the outage.
#[tokio::test]
async fn a_request_that_an_outage_refuses_is_logged_once() {
    with_shop(async |shop| {
        let (link, uri) = Link::to_mongodb(&shop.ground.servers.mongodb_uri).await.unwrap();
        let process = Process::start(shop, |args| {
            args.set("--mongodb-uri", &uri).unset("--redis-url");
        })
        .await;
        link.cut();
        let url = format!("{}/api/v1/orders", process.base);
        eventually("the outage is noticed", || async {
            (send(shop.client.post(&url)).await.status == 503).then_some(())
        })
        .await;
        let lines = amiss(&process, || shop.client.post(&url), (503, "unavailable")).await;
        let [only] = lines.as_slice() else { panic!("not one line: {lines:#?}") };
        let told = (&only["level"], &only["code"], &only["cause"]);
        assert_eq!(told, (&json!("WARN"), &json!("unavailable"), &Value::Null));
    })
    .await;
}
