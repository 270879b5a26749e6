//! The few calls of a customer's client, over plain HTTP: inside a cluster the api is reached by its Service.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::{Request, Uri};
use hyper_util::{
    client::legacy::{Client as Pool, connect::HttpConnector},
    rt::TokioExecutor,
};
use serde_json::Value;

/// Longer than the service itself lets a request take.
const PATIENCE: Duration = Duration::from_secs(35);
const LONGEST_ANSWER: usize = 1 << 20;

#[derive(Debug, thiserror::Error)]
pub enum CallError {
    #[error(
        "{url:?} is no address of a shop: write it as http://NAME-api, without a path (the smoke test speaks no TLS)"
    )]
    Url { url: String },
    #[error("{call} at {url}: no answer ({why}); is the shop Ready, and may this pod reach its port 3000?")]
    NoAnswer { call: String, url: String, why: String },
    #[error("{call} was answered {status}: {detail}")]
    Refused { call: String, status: u16, detail: String },
}

#[derive(Debug)]
pub struct Client {
    pool: Pool<HttpConnector, Full<Bytes>>,
    url: String,
}

impl Client {
    pub fn new(url: &str) -> Result<Self, CallError> {
        let base = url.trim_end_matches('/');
        let parsed = base.parse::<Uri>().ok();
        let fits = parsed.is_some_and(|uri| uri.scheme_str() == Some("http") && uri.path() == "/");
        if !fits {
            return Err(CallError::Url { url: url.to_owned() });
        }
        Ok(Self { pool: Pool::builder(TokioExecutor::new()).build_http(), url: base.to_owned() })
    }

    pub async fn get(&self, path: &str, token: &str) -> Result<Value, CallError> {
        self.send("GET", path, (token, &Value::Null)).await
    }

    /// The JSON of a good answer; `Null` where it has none. An empty token and a `Null` body are left out.
    pub async fn send(&self, method: &str, path: &str, (token, body): (&str, &Value)) -> Result<Value, CallError> {
        let call = format!("{method} {path}");
        let mut request = Request::builder().method(method).uri(format!("{}{path}", self.url));
        if !token.is_empty() {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        let body = if body.is_null() { String::new() } else { body.to_string() };
        if !body.is_empty() {
            request = request.header("content-type", "application/json");
        }
        let no_answer = |why: String| CallError::NoAnswer { call: call.clone(), url: self.url.clone(), why };
        let request = request.body(Full::from(body)).map_err(|error| no_answer(error.to_string()))?;
        let (status, answer) = tokio::time::timeout(PATIENCE, self.exchange(request))
            .await
            .map_err(|_| no_answer(format!("none within {} s", PATIENCE.as_secs())))?
            .map_err(no_answer)?;
        if (200..300).contains(&status) {
            return Ok(answer);
        }
        let detail = answer["detail"].as_str().unwrap_or("it did not say why").to_owned();
        Err(CallError::Refused { call, status, detail })
    }

    async fn exchange(&self, request: Request<Full<Bytes>>) -> Result<(u16, Value), String> {
        let answer = self.pool.request(request).await.map_err(|error| shop_runtime::telemetry::chain(&error))?;
        let status = answer.status().as_u16();
        let body =
            Limited::new(answer.into_body(), LONGEST_ANSWER).collect().await.map_err(|error| error.to_string())?;
        Ok((status, serde_json::from_slice(&body.to_bytes()).unwrap_or(Value::Null)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_address_of_a_shop_will_do() {
        for url in ["http://demo-api", "http://demo-api/", "http://127.0.0.1:3000"] {
            assert!(Client::new(url).is_ok(), "{url}");
        }
        for url in ["https://shop.example.com", "demo-api", "http://demo-api/api/v1", ""] {
            assert!(Client::new(url).unwrap_err().to_string().contains("http://NAME-api"), "{url}");
        }
    }
}
