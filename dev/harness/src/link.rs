//! A connection to a server that a test can cut, stall and mend, also at a chosen request.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::Context;
use secrecy::{ExposeSecret, SecretString};
use shop_runtime::shutdown::Shutdown;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
};

use crate::eventually;

/// A way to a server through this process. Dropping it cuts it for good.
#[derive(Debug)]
pub struct Link {
    address: SocketAddr,
    state: watch::Sender<State>,
    trap: Trap,
}

/// A request at which the link stalls by itself.
#[derive(Debug, Clone, Copy)]
pub enum Step {
    /// It does not reach the server.
    Before(&'static str),
    /// The server carries it out, but its answer does not arrive.
    After(&'static str),
}

type Trap = Arc<Mutex<Option<Step>>>;

#[derive(Debug, Clone)]
enum State {
    Whole,
    /// Connections stay, but nothing passes.
    Stalled,
    /// Each piece of an answer comes this much later.
    Slow(Duration),
    /// What is connected now passes nothing any more, whatever comes next.
    Stranded,
    /// From the moment at which a connection has carried these bytes to the server, it brings no answer back.
    MuteAfter(Arc<[u8]>),
    Cut,
}

impl Link {
    /// A link to `server` (`host:port`), whole at first.
    pub async fn to(server: &str) -> anyhow::Result<Self> {
        Self::from(Ipv4Addr::LOCALHOST.into(), server).await
    }

    /// The same at another of this machine's addresses, for those who cannot reach the loopback one.
    pub async fn from(address: IpAddr, server: &str) -> anyhow::Result<Self> {
        let listener = TcpListener::bind((address, 0)).await?;
        let (address, state, trap) = (listener.local_addr()?, watch::Sender::new(State::Whole), Trap::default());
        let (server, tasks) = (server.to_owned(), Shutdown::manual());
        let (spawner, gates) = (tasks.clone(), Gates { state: state.clone(), trap: trap.clone() });
        tasks.spawn_detached(async move {
            while let Ok((stream, _)) = listener.accept().await {
                spawner.spawn_detached(carry(stream, server.clone(), gates.clone()));
            }
        });
        Ok(Self { address, state, trap })
    }

    /// Where to connect to.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// A link to the MongoDB at `uri`, and the connection string that goes through it.
    pub async fn to_mongodb(uri: &SecretString) -> anyhow::Result<(Self, String)> {
        let uri = uri.expose_secret();
        let (scheme, rest) = uri.split_once("://").context("no connection string")?;
        let (authority, options) = rest.split_once('/').unwrap_or((rest, ""));
        let (login, server) = authority.rsplit_once('@').map_or(("", authority), |(login, server)| (login, server));
        let link = Self::to(server).await?;
        let at = if login.is_empty() { "" } else { "@" };
        let mut through = format!("{scheme}://{login}{at}{}/{options}", link.address);
        if !through.contains("directConnection=") {
            // The server must not lead the driver around the link.
            through.push_str(if options.contains('?') { "&" } else { "?" });
            through.push_str("directConnection=true");
        }
        Ok((link, through))
    }

    /// A link to the Redis at `url`, and the URL that goes through it.
    pub async fn to_redis(url: &SecretString) -> anyhow::Result<(Self, String)> {
        let (scheme, rest) = url.expose_secret().split_once("://").context("no URL")?;
        let (authority, database) = rest.split_once('/').unwrap_or((rest, ""));
        let (login, server) = authority.rsplit_once('@').map_or(("", authority), |(login, server)| (login, server));
        let link = Self::to(server).await?;
        let at = if login.is_empty() { "" } else { "@" };
        let through = format!("{scheme}://{login}{at}{}/{database}", link.address);
        Ok((link, through))
    }

    /// A link to SQS or SES at `endpoint`, and the endpoint that goes through it.
    pub async fn to_http(endpoint: &str) -> anyhow::Result<(Self, String)> {
        let server = endpoint.strip_prefix("http://").context("no http endpoint")?;
        let link = Self::to(server.trim_end_matches('/')).await?;
        let through = format!("http://{}", link.address);
        Ok((link, through))
    }

    /// Ends all connections and lets no new ones through.
    pub fn cut(&self) {
        self.state.send_replace(State::Cut);
    }

    /// Lets nothing pass, in either direction, as if the server hung.
    pub fn stall(&self) {
        self.state.send_replace(State::Stalled);
    }

    /// Delays each piece of an answer by this time; requests pass at once.
    pub fn slow(&self, by: Duration) {
        self.state.send_replace(State::Slow(by));
    }

    /// Lets nothing pass, and what is connected now never again: who waits on such a connection hears neither an answer
    /// nor an end, as if the server's machine was gone. Mended, the link carries new connections only.
    pub fn strand(&self) {
        self.state.send_replace(State::Stranded);
    }

    /// Stalls when a request holds this text (MongoDB and SQS name what they are asked for in plain text).
    pub fn stall_at(&self, step: Step) {
        *self.trap.lock().unwrap_or_else(PoisonError::into_inner) = Some(step);
    }

    /// Waits until such a request came.
    pub async fn stalled(&self) -> anyhow::Result<()> {
        eventually("the link stalls", async || Ok(matches!(*self.state.borrow(), State::Stalled).then_some(()))).await
    }

    /// Lets requests pass, but answers no longer on any connection that has carried `request`: what is asked for
    /// happens, and who asked does not hear of it.
    pub fn mute_after(&self, request: &[u8]) {
        self.state.send_replace(State::MuteAfter(request.into()));
    }

    /// Lets everything pass, also what was held up, but for what was stranded.
    pub fn mend(&self) {
        self.state.send_replace(State::Whole);
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.cut();
    }
}

/// What decides whether a connection's bytes may pass.
#[derive(Clone)]
struct Gates {
    state: watch::Sender<State>,
    trap: Trap,
}

async fn carry(mut near: TcpStream, server: String, gates: Gates) {
    let Ok(mut far) = TcpStream::connect(server).await else { return };
    let ((near_in, near_out), (far_in, far_out)) = (near.split(), far.split());
    let (muted, mut state) = (watch::Sender::new(false), gates.state.subscribe());
    let way = |is_answer| Way { gates: gates.clone(), state: gates.state.subscribe(), muted: muted.clone(), is_answer };
    let stranded = tokio::select! {
        () = copy(near_in, far_out, way(false)) => false,
        () = copy(far_in, near_out, way(true)) => false,
        Ok(end) = state.wait_for(|state| matches!(state, State::Cut | State::Stranded)) => matches!(*end, State::Stranded),
    };
    if stranded {
        // Both ends stay open, and nobody reads or writes.
        let _cut = state.wait_for(|state| matches!(state, State::Cut)).await;
    }
}

/// One direction of a connection.
struct Way {
    gates: Gates,
    state: watch::Receiver<State>,
    muted: watch::Sender<bool>,
    is_answer: bool,
}

async fn copy(mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin, mut way: Way) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(length @ 1..) = from.read(&mut buffer).await {
        if way.may_pass(&buffer[..length]).await.is_none() || to.write_all(&buffer[..length]).await.is_err() {
            return;
        }
    }
}

impl Way {
    /// Waits until these bytes may pass; none when they never will.
    async fn may_pass(&mut self, bytes: &[u8]) -> Option<()> {
        let step = self.sprung(bytes);
        if let Some(Step::Before(_)) = step {
            self.gates.state.send_replace(State::Stalled);
        }
        let (muted, is_answer) = (self.muted.clone(), self.is_answer);
        let passes = |state: &State| match state {
            State::Whole | State::Cut | State::Slow(_) => true,
            State::Stalled | State::Stranded => false,
            State::MuteAfter(_) if is_answer => !*muted.borrow(),
            State::MuteAfter(request) => {
                if holds(bytes, request) {
                    muted.send_replace(true);
                }
                true
            }
        };
        let delay = match *self.state.wait_for(passes).await.ok()? {
            State::Slow(by) if is_answer => by,
            _ => Duration::ZERO,
        };
        tokio::time::sleep(delay).await;
        // Before the request passes: its answer must not be faster.
        if let Some(Step::After(_)) = step {
            self.gates.state.send_replace(State::Stalled);
        }
        Some(())
    }

    /// The step that these bytes are, if the link is to stall at it.
    fn sprung(&self, bytes: &[u8]) -> Option<Step> {
        if self.is_answer {
            return None;
        }
        let mut trap = self.gates.trap.lock().unwrap_or_else(PoisonError::into_inner);
        trap.take_if(|(Step::Before(text) | Step::After(text))| holds(bytes, text.as_bytes()))
    }
}

fn holds(bytes: &[u8], text: &[u8]) -> bool {
    bytes.windows(text.len().max(1)).any(|window| window == text)
}
