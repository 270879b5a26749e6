//! The operations port (9090, never behind the ingress): `/livez`, `/readyz`, `/metrics`, and what a binary adds.

use std::net::SocketAddr;

use axum::{
    Router,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use tokio::net::TcpListener;

use crate::{health::Readiness, metrics::Metrics, shutdown::Shutdown};

#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address} for probes and metrics: {source}; set SHOP_METRICS_ADDR to a free address")]
pub struct OpsError {
    address: SocketAddr,
    source: std::io::Error,
}

/// The routes of the operations port.
pub fn router(readiness: Readiness, metrics: Metrics) -> Router {
    Router::new()
        .route("/livez", get(|| async { "ok" }))
        .route("/readyz", get(readyz).with_state(readiness))
        .route("/metrics", get(render).with_state(metrics))
}

/// Serves `routes` until the process has stopped its work; answers probes while draining.
/// Returns the bound address (port 0 picks a free one).
pub async fn serve(address: SocketAddr, routes: Router, shutdown: &Shutdown) -> Result<SocketAddr, OpsError> {
    let bind = TcpListener::bind(address).await.and_then(|listener| Ok((listener.local_addr()?, listener)));
    let (bound, listener) = bind.map_err(|source| OpsError { address, source })?;
    let finished = shutdown.finished();
    shutdown.spawn_detached(async move {
        let server = axum::serve(listener, routes).with_graceful_shutdown(async move { finished.cancelled().await });
        if let Err(error) = server.await {
            tracing::error!(%error, "operations port failed");
        }
    });
    Ok(bound)
}

async fn readyz(State(readiness): State<Readiness>) -> Response {
    let missing = readiness.missing();
    if missing.is_empty() {
        "ok".into_response()
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, missing.join("\n")).into_response()
    }
}

async fn render(State(metrics): State<Metrics>) -> Response {
    match metrics.encode() {
        Ok(text) => {
            let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
            ([(header::CONTENT_TYPE, kind)], text).into_response()
        }
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read, Write},
        net::TcpStream,
    };

    use super::*;

    fn get(address: SocketAddr, path: &str) -> String {
        let mut stream = TcpStream::connect(address).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    #[tokio::test]
    async fn probes_tell_what_is_missing() {
        let (readiness, shutdown) = (Readiness::default(), Shutdown::manual());
        let routes = router(readiness.clone(), Metrics::default());
        let address = serve(([127, 0, 0, 1], 0).into(), routes, &shutdown).await.unwrap();
        let fetch = move |path: &'static str| tokio::task::spawn_blocking(move || get(address, path));

        assert!(fetch("/livez").await.unwrap().starts_with("HTTP/1.1 200"));
        assert!(fetch("/readyz").await.unwrap().starts_with("HTTP/1.1 200"));
        readiness.close("mongodb", "no answer");
        let answer = fetch("/readyz").await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 503") && answer.contains("mongodb: no answer"), "{answer}");
        assert!(fetch("/metrics").await.unwrap().contains("# EOF"));
    }

    #[tokio::test]
    async fn a_port_in_use_is_named() {
        let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = taken.local_addr().unwrap();
        let error = serve(address, Router::new(), &Shutdown::manual()).await.unwrap_err().to_string();
        assert!(error.contains(&address.to_string()) && error.contains("SHOP_METRICS_ADDR"), "{error}");
    }
}
