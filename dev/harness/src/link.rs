//! A connection to a server that a test can cut, stall and mend.

use std::{net::SocketAddr, sync::Arc};

use anyhow::Context;
use secrecy::{ExposeSecret, SecretString};
use shop_runtime::shutdown::Shutdown;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
};

/// A way to a server through this process. Dropping it cuts it for good.
#[derive(Debug)]
pub struct Link {
    address: SocketAddr,
    state: watch::Sender<State>,
}

#[derive(Debug, Clone)]
enum State {
    Whole,
    /// Connections stay, but nothing passes.
    Stalled,
    /// From the moment at which a connection has carried these bytes to the server, it brings no answer back.
    MuteAfter(Arc<[u8]>),
    Cut,
}

impl Link {
    /// A link to `server` (`host:port`), whole at first.
    pub async fn to(server: &str) -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let (address, (state, seen)) = (listener.local_addr()?, watch::channel(State::Whole));
        let (server, tasks) = (server.to_owned(), Shutdown::manual());
        let spawner = tasks.clone();
        tasks.spawn_detached(async move {
            while let Ok((stream, _)) = listener.accept().await {
                spawner.spawn_detached(carry(stream, server.clone(), seen.clone()));
            }
        });
        Ok(Self { address, state })
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

    /// Ends all connections and lets no new ones through.
    pub fn cut(&self) {
        self.state.send_replace(State::Cut);
    }

    /// Lets nothing pass, in either direction, as if the server hung.
    pub fn stall(&self) {
        self.state.send_replace(State::Stalled);
    }

    /// Lets requests pass, but answers no longer on any connection that has carried `request`: what is asked for
    /// happens, and who asked does not hear of it.
    pub fn mute_after(&self, request: &[u8]) {
        self.state.send_replace(State::MuteAfter(request.into()));
    }

    /// Lets everything pass, also what was held up.
    pub fn mend(&self) {
        self.state.send_replace(State::Whole);
    }
}

async fn carry(near: TcpStream, server: String, mut state: watch::Receiver<State>) {
    let Ok(far) = TcpStream::connect(server).await else { return };
    let ((near_in, near_out), (far_in, far_out)) = (near.into_split(), far.into_split());
    let muted = watch::Sender::new(false);
    let there = copy(near_in, far_out, Way { state: state.clone(), muted: muted.clone(), is_answer: false });
    let back = copy(far_in, near_out, Way { state: state.clone(), muted: muted.clone(), is_answer: true });
    tokio::select! {
        () = there => {}
        () = back => {}
        _cut = state.wait_for(|state| matches!(state, State::Cut)) => {}
    }
}

/// One direction of a connection.
struct Way {
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
        let muted = self.muted.clone();
        let is_answer = self.is_answer;
        let passes = |state: &State| match state {
            State::Whole | State::Cut => true,
            State::Stalled => false,
            State::MuteAfter(_) if is_answer => !*muted.borrow(),
            State::MuteAfter(request) => {
                if bytes.windows(request.len().max(1)).any(|window| window == &**request) {
                    muted.send_replace(true);
                }
                true
            }
        };
        self.state.wait_for(passes).await.is_ok().then_some(())
    }
}
