//! A connection to a server that a test can cut, stall and mend.

use std::{net::SocketAddr, pin::pin};

use anyhow::Context;
use secrecy::{ExposeSecret, SecretString};
use shop_runtime::shutdown::Shutdown;
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    sync::watch,
};

/// A way to a server through this process. Dropping it cuts it for good.
#[derive(Debug)]
pub struct Link {
    address: SocketAddr,
    state: watch::Sender<State>,
}

#[derive(Debug, Clone, Copy)]
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

    /// Where the link begins.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Ends all connections and lets no new ones through.
    pub fn cut(&self) {
        self.state.send_replace(State::Cut);
    }

    /// Lets nothing pass, in either direction, as if the server hung.
    pub fn stall(&self) {
        self.state.send_replace(State::Stalled);
    }

    /// Lets everything pass, also what was held up.
    pub fn mend(&self) {
        self.state.send_replace(State::Whole);
    }
}

async fn carry(mut near: TcpStream, server: String, mut state: watch::Receiver<State>) {
    let Ok(mut far) = TcpStream::connect(server).await else { return };
    let mut copying = pin!(copy_bidirectional(&mut near, &mut far));
    loop {
        let now = *state.borrow_and_update();
        if matches!(now, State::Cut) {
            return;
        }
        tokio::select! {
            _ended = &mut copying, if matches!(now, State::Whole) => return,
            changed = state.changed() => if changed.is_err() { return },
        }
    }
}
