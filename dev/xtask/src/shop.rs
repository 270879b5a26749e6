//! A small client of the shop's HTTP API for the developer commands; the load tools in dev/bench have their own, concurrent one.

use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use ureq::{
    Agent,
    http::{Request, StatusCode},
};

use crate::accounts::Account;

/// A shop behind a URL, as somebody or as nobody.
#[derive(Debug, Clone)]
pub struct Shop {
    agent: Agent,
    url: String,
    token: Option<String>,
}

impl Shop {
    pub fn new(url: &str) -> Self {
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(Duration::from_secs(15)))
            // The shop is on this machine or a port-forward away.
            .proxy(None)
            .build();
        Self { agent: config.into(), url: url.trim_end_matches('/').to_owned(), token: None }
    }

    /// The same shop, as the account that logs in here.
    pub fn log_in(&self, account: &Account) -> Result<Self> {
        let answer = self.post("/api/v1/auth/login", &account.credentials())?;
        if answer.status == StatusCode::UNAUTHORIZED {
            bail!("the shop at {} does not know {} by this password", self.url, account.email);
        }
        let token = answer.expect_success("login")?.json::<Value>()?["accessToken"].as_str().map(str::to_owned);
        let token = token.context("the answer to the login has no accessToken")?;
        Ok(Self { token: Some(token), ..self.clone() })
    }

    /// Makes a customer's account unless it is there already.
    pub fn register(&self, account: &Account) -> Result<()> {
        let answer = self.post("/api/v1/auth/register", &account.credentials())?;
        if answer.status == StatusCode::CONFLICT {
            return Ok(());
        }
        answer.expect_success("registering a customer").map(drop)
    }

    pub fn get(&self, path: &str) -> Result<Answer> {
        self.send("GET", path, None)
    }

    pub fn post(&self, path: &str, body: &Value) -> Result<Answer> {
        self.send("POST", path, Some(body.to_string()))
    }

    /// `body` is JSON text, so that decimals stay as they are written.
    pub fn put(&self, path: &str, body: String) -> Result<Answer> {
        self.send("PUT", path, Some(body))
    }

    fn send(&self, method: &str, path: &str, body: Option<String>) -> Result<Answer> {
        let mut request = Request::builder().method(method).uri(format!("{}{path}", self.url));
        if let Some(token) = &self.token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        let answer = match body {
            Some(body) => self.agent.run(request.header("content-type", "application/json").body(body)?),
            None => self.agent.run(request.body(())?),
        };
        let mut answer = answer.with_context(|| {
            format!(
                "no answer from the shop at {}: `cargo xtask cluster status` and `kubectl get shops -A` tell why",
                self.url
            )
        })?;
        let body =
            answer.body_mut().read_to_string().with_context(|| format!("reading the answer to {method} {path}"))?;
        Ok(Answer { what: format!("{method} {path}"), status: answer.status(), body })
    }
}

impl Account {
    fn credentials(&self) -> Value {
        json!({"email": self.email, "password": self.password})
    }
}

#[derive(Debug)]
pub struct Answer {
    what: String,
    pub status: StatusCode,
    body: String,
}

impl Answer {
    /// Fails with the shop's own words.
    pub fn expect_success(self, what: &str) -> Result<Self> {
        if self.status.is_success() {
            return Ok(self);
        }
        bail!("{what}: the shop answered {} to {}: {}", self.status, self.what, problem(&self.body))
    }

    pub fn json<T: DeserializeOwned>(&self) -> Result<T> {
        serde_json::from_str(&self.body)
            .with_context(|| format!("the answer to {} is not as expected: {}", self.what, self.body))
    }
}

/// What a problem+json answer says, or the whole of another one.
fn problem(body: &str) -> String {
    let Ok(problem) = serde_json::from_str::<Value>(body) else { return body.chars().take(300).collect() };
    let detail = problem["detail"].as_str().unwrap_or("no detail").to_owned();
    let faults = problem["errors"].as_array().into_iter().flatten();
    let faults = faults.map(|fault| format!("\n    {}: {}", text(&fault["pointer"]), text(&fault["detail"])));
    detail + &faults.collect::<String>()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or("?")
}

#[cfg(test)]
mod tests {
    use super::problem;

    #[test]
    fn a_problem_is_told_with_its_faults() {
        let body =
            r#"{"detail":"the body has faults","errors":[{"pointer":"/price","detail":"must not be negative"}]}"#;
        assert_eq!(problem(body), "the body has faults\n    /price: must not be negative");
        assert_eq!(problem("<html>"), "<html>");
    }
}
