//! A connection to a server that a test can cut, stall and mend, also at a chosen request.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
};

use anyhow::Context;
use secrecy::{ExposeSecret, SecretString};
use shop_runtime::shutdown::Shutdown;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::watch,
};

use crate::eventually;

const CHUNK: usize = 64 * 1024;

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

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Whole,
    /// Connections stay, but nothing passes.
    Stalled,
    Cut,
}

impl Link {
    /// A link to `server` (`host:port`), whole at first.
    pub async fn to(server: &str) -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
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

    /// Where the link begins.
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

    /// Ends all connections and lets no new ones through.
    pub fn cut(&self) {
        self.state.send_replace(State::Cut);
    }

    /// Lets nothing pass, in either direction, as if the server hung.
    pub fn stall(&self) {
        self.state.send_replace(State::Stalled);
    }

    /// Stalls when a request holds this text (MongoDB and SQS name what they are asked for in plain text).
    pub fn stall_at(&self, step: Step) {
        *self.trap.lock().unwrap_or_else(PoisonError::into_inner) = Some(step);
    }

    /// Waits until such a request came.
    pub async fn stalled(&self) -> anyhow::Result<()> {
        eventually("the link stalls", async || Ok((*self.state.borrow() == State::Stalled).then_some(()))).await
    }

    /// Lets everything pass, also what was held up.
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

impl Gates {
    /// Waits until bytes may pass; false when the connection is over.
    async fn open(&self) -> bool {
        let mut seen = self.state.subscribe();
        let state = seen.wait_for(|state| *state != State::Stalled).await;
        state.is_ok_and(|state| *state == State::Whole)
    }

    async fn cut(&self) {
        let mut seen = self.state.subscribe();
        let _cut = seen.wait_for(|state| *state == State::Cut).await;
    }

    /// The step that these bytes are, if the link is to stall at it.
    fn sprung(&self, bytes: &[u8]) -> Option<Step> {
        let mut trap = self.trap.lock().unwrap_or_else(PoisonError::into_inner);
        let holds = |text: &str| bytes.windows(text.len()).any(|window| window == text.as_bytes());
        trap.take_if(|step| match step {
            Step::Before(text) | Step::After(text) => holds(text),
        })
    }

    fn stall(&self) {
        self.state.send_replace(State::Stalled);
    }
}

async fn carry(near: TcpStream, server: String, gates: Gates) {
    let Ok(far) = TcpStream::connect(server).await else { return };
    let ((from_near, to_near), (from_far, to_far)) = (near.into_split(), far.into_split());
    tokio::select! {
        () = requests(from_near, to_far, &gates) => {}
        () = answers(from_far, to_near, &gates) => {}
        () = gates.cut() => {}
    }
}

async fn requests(mut near: OwnedReadHalf, mut far: OwnedWriteHalf, gates: &Gates) {
    let mut chunk = vec![0; CHUNK];
    while let Ok(read @ 1..) = near.read(&mut chunk).await {
        let step = gates.sprung(&chunk[..read]);
        if let Some(Step::Before(_)) = step {
            gates.stall();
        }
        if !gates.open().await {
            return;
        }
        // Before the request: its answer must not be faster.
        if let Some(Step::After(_)) = step {
            gates.stall();
        }
        if far.write_all(&chunk[..read]).await.is_err() {
            return;
        }
    }
}

async fn answers(mut far: OwnedReadHalf, mut near: OwnedWriteHalf, gates: &Gates) {
    let mut chunk = vec![0; CHUNK];
    while let Ok(read @ 1..) = far.read(&mut chunk).await {
        if !gates.open().await || near.write_all(&chunk[..read]).await.is_err() {
            return;
        }
    }
}
