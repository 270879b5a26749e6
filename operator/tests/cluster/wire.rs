//! The wire between an operator and the real API server, as a layer of its client: records every request and every
//! watched event, and fails the ones that a test chooses. Answers nothing by itself that it was not told to.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use futures::{FutureExt, future::BoxFuture, stream};
use http_body_util::{BodyExt, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::{
    Request, Response,
    body::{Body as HttpBody, Bytes, Frame},
};
use kube::client::Body;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tower::{BoxError, Layer, Service};

/// How long an event is late, and how long a watch stays behind before the server ends it.
const LATE: Duration = Duration::from_millis(1500);

/// One request of the operator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    pub method: String,
    /// Kind in the plural, name, subresource: as far as there are any.
    pub target: String,
    pub manager: String,
    /// Length and hash of the body.
    pub body: String,
    /// The version that a watch goes on from.
    pub watches: Option<String>,
}

impl Seen {
    fn of(request: &Request<Body>) -> Self {
        let body = request.body().try_clone().and_then(|body| body.collect_bytes().now_or_never()?.ok());
        let body = body.unwrap_or_default();
        let query = request.uri().query().unwrap_or_default();
        let pairs = || query.split('&').filter_map(|pair| pair.split_once('='));
        let value = |name: &str| pairs().find(|(key, _)| *key == name).map(|(_, value)| value);
        Self {
            method: request.method().to_string(),
            target: target(request.uri().path()),
            manager: value("fieldManager").unwrap_or_default().to_owned(),
            body: format!("{} bytes {}", body.len(), hex::encode(&Sha256::digest(&body)[..4])),
            watches: value("watch").and(value("resourceVersion")).map(str::to_owned),
        }
    }

    pub fn is_lease(&self) -> bool {
        self.target.starts_with("leases")
    }

    /// Whether the API server is asked to change something; the Lease is the leader's sign of life.
    fn is_write(&self) -> bool {
        self.method != "GET" && !self.is_lease()
    }
}

impl std::fmt::Display for Seen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {} {} ({})", self.method, self.target, self.manager, self.body)
    }
}

/// What follows the namespace in a path.
fn target(path: &str) -> String {
    let parts: Vec<_> = path.split('/').collect();
    let start = parts.iter().position(|part| *part == "namespaces").map_or(parts.len() - 1, |at| at + 2);
    parts.get(start..).unwrap_or_default().join(" ")
}

/// One event of a watch.
#[derive(Clone, Debug)]
pub struct Event {
    pub kind: String,
    /// The how many-eth of its kind.
    pub number: usize,
    pub generation: Option<i64>,
    what: String,
}

impl std::fmt::Display for Event {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} #{}: {}", self.kind, self.number, self.what)
    }
}

/// What befalls a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The process ends before the server has it.
    StopBefore,
    /// The process ends before it has the answer.
    StopAfter,
    Answer(u16),
    /// The server never gets it.
    NoAnswer,
    /// The server does it, and the answer is lost.
    AnswerLost,
    /// Neither an answer nor an end of the connection ever comes.
    Hang,
    /// It stays on the wire until [`Wire::let_go`], whatever becomes of the one who sent it.
    Hold,
}

/// What befalls an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Twist {
    /// It never arrives; a while later the server says 410 Gone.
    Drop,
    Delay,
    /// The one before it for the same object comes again, as from a server that is behind; then the watch breaks.
    Stale,
}

type Judge = Box<dyn Fn(&Seen, usize) -> Option<Fault> + Send>;
type Twister = Box<dyn Fn(&Event) -> Option<Twist> + Send>;

#[derive(Default)]
struct State {
    judge: Option<Judge>,
    twister: Option<Twister>,
    /// Writes since the faults were chosen.
    writes: Vec<Seen>,
    events: Vec<Event>,
    struck: Vec<String>,
    lines: HashMap<(String, String), Bytes>,
}

struct Inner {
    state: Mutex<State>,
    stopped: CancellationToken,
    released: CancellationToken,
    connected: watch::Sender<bool>,
    held: watch::Sender<Vec<(Seen, u16)>>,
}

#[derive(Clone)]
pub struct Wire(Arc<Inner>);

impl Default for Wire {
    fn default() -> Self {
        Self(Arc::new(Inner {
            state: Mutex::default(),
            stopped: CancellationToken::new(),
            released: CancellationToken::new(),
            connected: watch::Sender::new(true),
            held: watch::Sender::new(Vec::new()),
        }))
    }
}

impl Wire {
    /// Chooses faults by request and the number of writes before it, from now on.
    pub fn fail(&self, judge: impl Fn(&Seen, usize) -> Option<Fault> + Send + 'static) {
        self.with(|state| {
            state.judge = Some(Box::new(judge));
            state.writes.clear();
            state.struck.clear();
        });
    }

    /// Chooses faults by event, from now on.
    pub fn twist(&self, twister: impl Fn(&Event) -> Option<Twist> + Send + 'static) {
        self.with(|state| {
            state.twister = Some(Box::new(twister));
            state.events.clear();
            state.struck.clear();
        });
    }

    pub fn writes(&self) -> Vec<Seen> {
        self.with(|state| state.writes.clone())
    }

    pub fn events(&self) -> Vec<Event> {
        self.with(|state| state.events.clone())
    }

    /// What a fault befell.
    pub fn struck(&self) -> Vec<String> {
        self.with(|state| state.struck.clone())
    }

    /// Waits until a fault has stopped the process.
    pub async fn stopped(&self) {
        self.0.stopped.cancelled().await;
    }

    /// Cuts the wire, or mends it.
    pub fn connect(&self, connected: bool) {
        self.0.connected.send_replace(connected);
    }

    /// Lets everything go that [`Fault::Hold`] keeps, and waits for the server's answers.
    pub async fn let_go(&self, requests: usize) -> Vec<(Seen, u16)> {
        self.0.released.cancel();
        let mut held = self.0.held.subscribe();
        held.wait_for(|held| held.len() >= requests).await.unwrap().clone()
    }

    fn with<T>(&self, then: impl FnOnce(&mut State) -> T) -> T {
        then(&mut self.0.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Waits while the wire is cut; for ever once the process has stopped.
    async fn reachable(&self) {
        if self.0.stopped.is_cancelled() {
            std::future::pending::<()>().await;
        }
        let mut connected = self.0.connected.subscribe();
        let _ends_with_the_test = connected.wait_for(|connected| *connected).await;
    }

    fn judge(&self, seen: &Seen) -> Option<Fault> {
        self.with(|state| {
            let fault = state.judge.as_ref().and_then(|judge| judge(seen, state.writes.len()));
            if seen.is_write() {
                state.writes.push(seen.clone());
            }
            state.struck.extend(fault.map(|fault| format!("{fault:?}: {seen}")));
            fault
        })
    }

    fn judge_event(&self, kind: &str, line: &Value) -> Option<Twist> {
        self.with(|state| {
            let number = state.events.iter().filter(|event| event.kind == kind).count();
            let name = line["object"]["metadata"]["name"].as_str().unwrap_or_default();
            let what = format!("{} {name}", line["type"].as_str().unwrap_or_default());
            let generation = line["object"]["metadata"]["generation"].as_i64();
            let event = Event { kind: kind.to_owned(), number, generation, what };
            let twist = state.twister.as_ref().and_then(|twister| twister(&event));
            state.struck.extend(twist.map(|twist| format!("{twist:?}: {event}")));
            state.events.push(event);
            twist
        })
    }

    /// The line before this one about the same object.
    fn remember(&self, kind: &str, line: &Value, bytes: Bytes) -> Option<Bytes> {
        let uid = line["object"]["metadata"]["uid"].as_str().unwrap_or_default().to_owned();
        self.with(|state| state.lines.insert((kind.to_owned(), uid), bytes))
    }

    async fn pass<B>(self, seen: Seen, forward: Forward<B>) -> Result<Response<Answer>, BoxError>
    where
        B: HttpBody<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        self.reachable().await;
        if let Some(fault) = self.judge(&seen) {
            return self.befall(fault, seen, forward).await;
        }
        let (head, body) = forward.await?.into_parts();
        self.reachable().await;
        let body = if seen.watches.is_some() {
            self.relay(seen.target, body)
        } else {
            body.map_err(Into::into).boxed_unsync()
        };
        Ok(Response::from_parts(head, body))
    }

    async fn befall<B>(&self, fault: Fault, seen: Seen, forward: Forward<B>) -> Result<Response<Answer>, BoxError>
    where
        B: Send + 'static,
    {
        match fault {
            Fault::Answer(status) => return Ok(refusal(status)),
            Fault::NoAnswer => {}
            Fault::Hang => std::future::pending().await,
            Fault::AnswerLost => drop(forward.await?),
            Fault::StopBefore => self.stop().await,
            Fault::StopAfter => {
                forward.await?;
                self.stop().await;
            }
            Fault::Hold => self.hold(seen, forward).await,
        }
        Err(std::io::Error::from(std::io::ErrorKind::TimedOut).into())
    }

    /// The process sends and gets nothing more.
    async fn stop(&self) {
        self.0.stopped.cancel();
        std::future::pending::<()>().await;
    }

    async fn hold<B: Send + 'static>(&self, seen: Seen, forward: Forward<B>) {
        let wire = self.clone();
        spawn(async move {
            wire.0.released.cancelled().await;
            let status = forward.await.map_or(0, |answer| answer.status().as_u16());
            wire.0.held.send_modify(|held| held.push((seen, status)));
        });
        std::future::pending::<()>().await;
    }

    /// Hands on a watch line by line.
    fn relay<B>(&self, kind: String, body: B) -> Answer
    where
        B: HttpBody<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        let (sender, receiver) = mpsc::channel(1);
        let wire = self.clone();
        spawn(async move {
            let closed = sender.clone();
            tokio::select! {
                () = wire.relay_lines(&kind, Lines { body: Box::pin(body), rest: Vec::new() }, sender) => {}
                () = closed.closed() => {}
            }
        });
        let frames = stream::unfold(receiver, async |mut receiver| {
            let line: Bytes = receiver.recv().await?;
            Some((Ok(Frame::data(line)), receiver))
        });
        StreamBody::new(frames).boxed_unsync()
    }

    async fn relay_lines<B>(&self, kind: &str, mut lines: Lines<B>, to: mpsc::Sender<Bytes>)
    where
        B: HttpBody<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        while let Some(line) = lines.next().await {
            self.reachable().await;
            let event: Value = serde_json::from_slice(&line).unwrap();
            if event["type"] == "BOOKMARK" {
                let _client_is_gone = to.send(line).await;
                continue;
            }
            let twist = self.judge_event(kind, &event);
            let before = self.remember(kind, &event, line.clone());
            if twist == Some(Twist::Delay) {
                tokio::time::sleep(LATE).await;
            }
            let last = match (twist, before) {
                (Some(Twist::Drop), _) => vec![Bytes::new(), gone()],
                // Once what was new has been acted on.
                (Some(Twist::Stale), Some(before)) => vec![line, before, Bytes::new()],
                _ => {
                    let _client_is_gone = to.send(line).await;
                    continue;
                }
            };
            for line in last {
                let _client_is_gone = to.send(line).await;
                tokio::time::sleep(LATE).await;
            }
            return;
        }
    }
}

/// A body that is cut into lines.
struct Lines<B> {
    body: std::pin::Pin<Box<B>>,
    rest: Vec<u8>,
}

impl<B: HttpBody<Data = Bytes>> Lines<B> {
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            if let Some(end) = self.rest.iter().position(|byte| *byte == b'\n') {
                return Some(self.rest.drain(..=end).collect::<Vec<_>>().into());
            }
            let frame = self.body.frame().await?.ok()?;
            self.rest.extend_from_slice(&frame.into_data().ok()?);
        }
    }
}

fn status(code: u16) -> Value {
    let reason = match code {
        409 => "Conflict",
        410 => "Expired",
        429 => "TooManyRequests",
        _ => "InternalError",
    };
    json!({ "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": "chosen by the test",
        "reason": reason, "code": code })
}

fn gone() -> Bytes {
    format!("{}\n", json!({ "type": "ERROR", "object": status(410) })).into()
}

fn refusal(code: u16) -> Response<Answer> {
    if code == 404 {
        // As the server answers for a kind that it does not know.
        let body = Full::new(Bytes::from("404 page not found\n")).map_err(|never| match never {}).boxed_unsync();
        return Response::builder().status(code).header("content-type", "text/plain").body(body).unwrap();
    }
    let body = Full::new(Bytes::from(status(code).to_string())).map_err(|never| match never {}).boxed_unsync();
    let mut response = Response::builder().status(code).header("content-type", "application/json");
    if code == 429 {
        response = response.header("retry-after", "1");
    }
    response.body(body).unwrap()
}

fn spawn(task: impl Future<Output = ()> + Send + 'static) {
    tokio::spawn(task);
}

type Answer = UnsyncBoxBody<Bytes, BoxError>;
type Forward<B> = BoxFuture<'static, Result<Response<B>, BoxError>>;

impl<S> Layer<S> for Wire {
    type Service = Tapped<S>;

    fn layer(&self, inner: S) -> Tapped<S> {
        Tapped { wire: self.clone(), inner }
    }
}

pub struct Tapped<S> {
    wire: Wire,
    inner: S,
}

impl<S, B> Service<Request<Body>> for Tapped<S>
where
    S: Service<Request<Body>, Response = Response<B>, Error = BoxError>,
    S::Future: Send + 'static,
    B: HttpBody<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    type Response = Response<Answer>;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Response<Answer>, BoxError>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let seen = Seen::of(&request);
        // Nothing is sent before it is polled.
        let forward = self.inner.call(request).boxed();
        self.wire.clone().pass(seen, forward).boxed()
    }
}
