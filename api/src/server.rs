//! The HTTP server: accepts connections, and ends them in order when the process drains. Knows no routes.

use std::{net::SocketAddr, time::Duration};

use axum::{Router, extract::ConnectInfo, http::Request};
use hyper::body::Incoming;
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto::Builder,
    service::TowerToHyperService,
};
use shop_runtime::shutdown::Shutdown;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

/// A connection on which no request's head arrives for this long is cut off. hyper has one time for a slow head and for
/// a connection that idles between requests, and proxies keep idle ones for 60 to 90 s: were ours closed first, the next
/// request on them would be lost.
const HEAD_TIMEOUT: Duration = Duration::from_mins(2);
/// After a failed accept (no file handles left) trying again at once would only burn processor time.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}; set SHOP_HTTP_ADDR to a free address")]
pub struct ServeError {
    address: SocketAddr,
    source: std::io::Error,
}

/// How the server leaves: it goes on accepting for `delay` after the drain began, so that nobody is refused
/// who has not heard of it yet.
#[derive(Debug, Clone)]
pub struct Drain {
    pub shutdown: Shutdown,
    pub delay: Duration,
}

/// Serves `routes` until the drain is over. Returns the bound address (port 0 picks a free one).
pub async fn serve(address: SocketAddr, routes: Router, drain: Drain) -> Result<SocketAddr, ServeError> {
    let bind = TcpListener::bind(address).await.and_then(|listener| Ok((listener.local_addr()?, listener)));
    let (bound, listener) = bind.map_err(|source| ServeError { address, source })?;
    let shutdown = drain.shutdown.clone();
    shutdown.spawn(accept(listener, routes, drain));
    Ok(bound)
}

async fn accept(listener: TcpListener, routes: Router, drain: Drain) {
    let server = Server { routes, leaving: CancellationToken::new(), shutdown: drain.shutdown.clone() };
    let draining = drain.shutdown.draining();
    let leave = async {
        draining.cancelled().await;
        tokio::time::sleep(drain.delay).await;
    };
    tokio::pin!(leave);
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, peer)) => server.connect(stream, peer),
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
            () = &mut leave => break,
        }
    }
    server.leaving.cancel();
}

struct Server {
    routes: Router,
    /// Cancelled when connections should end after the request they are at.
    leaving: CancellationToken,
    shutdown: Shutdown,
}

impl Server {
    fn connect(&self, stream: TcpStream, peer: SocketAddr) {
        // Small answers must not wait for more (Nagle); a failure only costs speed.
        let _no_delay = stream.set_nodelay(true);
        let service = self.routes.clone().map_request(move |mut request: Request<Incoming>| {
            request.extensions_mut().insert(ConnectInfo(peer));
            request.map(axum::body::Body::new)
        });
        let mut builder = Builder::new(TokioExecutor::new());
        builder.http1().timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT);
        builder.http2().timer(TokioTimer::new());
        let connection = builder.serve_connection(TokioIo::new(stream), TowerToHyperService::new(service)).into_owned();
        // Boxed: connections are held open for long, and a task has room for what it moves twice.
        let mut connection = Box::pin(connection);
        let leaving = self.leaving.clone();
        self.shutdown.spawn(async move {
            let ended = tokio::select! {
                ended = connection.as_mut() => ended,
                () = leaving.cancelled() => {
                    connection.as_mut().graceful_shutdown();
                    connection.await
                }
            };
            if let Err(error) = ended {
                tracing::debug!(error = error.as_ref() as &dyn std::error::Error, "connection ended early");
            }
        });
    }
}
