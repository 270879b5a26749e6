//! Asks pods what they report of themselves: `GET :9090/report` by pod address. Knows no report's meaning.

use std::time::Duration;

use http_body_util::{BodyExt, Empty, Limited};
use hyper::{Uri, body::Bytes};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use k8s_openapi::api::core::v1::Pod;
use serde::de::DeserializeOwned;

const PATIENCE: Duration = Duration::from_secs(1);
const LONGEST_REPORT: usize = 16 * 1024;
/// Of an answer, in bytes; its head must not be longer. There is a connection for every worker, with such a buffer.
const READ_AT_ONCE: usize = 4096;
const PORT: u16 = 9090;

/// Clones share their connections.
#[derive(Clone, Debug)]
pub struct Asker(Client<HttpConnector, Empty<Bytes>>);

impl Default for Asker {
    fn default() -> Self {
        Self(Client::builder(TokioExecutor::new()).http1_read_buf_exact_size(READ_AT_ONCE).build_http())
    }
}

impl Asker {
    /// The pod's report; nothing where it has no address, does not answer within a second, or answers something else.
    pub async fn report<T: DeserializeOwned>(&self, pod: &Pod) -> Option<T> {
        self.answer(pod, "", PATIENCE).await
    }

    /// The worker's report when it has a message in hand or has completed others than `seen`, at the latest after `wait`.
    pub async fn news<T: DeserializeOwned>(&self, pod: &Pod, seen: u64, wait: Duration) -> Option<T> {
        self.answer(pod, &format!("?wait={}&seen={seen}", wait.as_secs()), wait + PATIENCE).await
    }

    async fn answer<T: DeserializeOwned>(&self, pod: &Pod, query: &str, patience: Duration) -> Option<T> {
        let address = pod.status.as_ref()?.pod_ip.as_deref()?;
        let host = if address.contains(':') { format!("[{address}]") } else { address.to_owned() };
        let uri: Uri = format!("http://{host}:{PORT}/report{query}").parse().ok()?;
        let report = async {
            let answer = self.0.get(uri).await.ok().filter(|answer| answer.status().is_success())?;
            let body = Limited::new(answer.into_body(), LONGEST_REPORT).collect().await.ok()?;
            serde_json::from_slice(&body.to_bytes()).ok()
        };
        tokio::time::timeout(patience, report).await.ok().flatten()
    }
}
