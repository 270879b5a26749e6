//! A client of the shop's HTTP API, as an app of the shop would have one.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use reqwest::{
    Method, RequestBuilder, StatusCode,
    header::{HOST, HeaderMap, HeaderValue},
};
use serde::Deserialize;
use serde_json::{Value, json};

/// Longer than the api's own limit of 30 s: a busy shop says so itself, and whoever gives up before only adds to its load.
const PATIENCE: Duration = Duration::from_secs(40);
/// Of an order that is repeated; the pauses between them add up to 13 seconds.
const ATTEMPTS: u32 = 8;

/// A shop behind a URL.
#[derive(Debug, Clone)]
pub struct Shop {
    http: reqwest::Client,
    url: String,
}

/// A logged-in account.
#[derive(Debug, Clone)]
pub struct Account {
    token: String,
}

/// One product as the catalogue shows it.
#[derive(Debug, Clone, Deserialize)]
pub struct Product {
    pub id: String,
    pub name: String,
    pub availability: Vec<Availability>,
}

#[derive(Debug, Clone, Deserialize)]
pub struct Availability {
    pub location: String,
    pub available: i64,
}

impl Account {
    /// The holder of an access token.
    pub fn with_token(token: String) -> Self {
        Self { token }
    }
}

impl Product {
    /// Units available at `location`.
    pub fn available_at(&self, location: &str) -> i64 {
        self.availability.iter().filter(|row| row.location == location).map(|row| row.available).sum()
    }
}

/// The shop's answer to an order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    Accepted {
        order_id: String,
    },
    /// The shop said no, with its problem code.
    Refused {
        status: StatusCode,
        code: String,
    },
}

impl Shop {
    /// A shop at `url`; `host` is sent as the Host header where the ingress routes by it.
    pub fn new(url: &str, host: Option<&str>) -> Result<Self> {
        let mut headers = HeaderMap::new();
        if let Some(host) = host {
            headers.insert(HOST, HeaderValue::from_str(host).context("the host name is no valid header")?);
        }
        let http = reqwest::Client::builder()
            .default_headers(headers)
            .timeout(PATIENCE)
            .build()
            .context("cannot make an HTTP client")?;
        Ok(Self { http, url: url.trim_end_matches('/').to_owned() })
    }

    /// A request to `path` (beginning with `/`), as `account` if one is given.
    pub fn request(&self, method: Method, path: &str, account: Option<&Account>) -> RequestBuilder {
        let request = self.http.request(method, format!("{}{path}", self.url));
        match account {
            Some(account) => request.bearer_auth(&account.token),
            None => request,
        }
    }

    /// Makes the account if it is not there yet, and logs in.
    pub async fn customer(&self, email: &str, password: &str) -> Result<Account> {
        let credentials = json!({"email": email, "password": password});
        let answer = self.request(Method::POST, "/api/v1/auth/register", None).json(&credentials).send().await;
        let answer = answer.with_context(|| format!("no answer from {}", self.url))?;
        match answer.status() {
            StatusCode::CREATED => token(&answer.json().await?),
            StatusCode::CONFLICT => self.login(email, password).await,
            status => bail!("register answered {status}: {}", answer.text().await?),
        }
    }

    pub async fn login(&self, email: &str, password: &str) -> Result<Account> {
        let credentials = json!({"email": email, "password": password});
        let answer = self.request(Method::POST, "/api/v1/auth/login", None).json(&credentials).send().await?;
        ensure!(answer.status().is_success(), "login answered {}: {}", answer.status(), answer.text().await?);
        token(&answer.json().await?)
    }

    /// The first 100 products.
    pub async fn products(&self) -> Result<Vec<Product>> {
        #[derive(Deserialize)]
        struct Page {
            data: Vec<Product>,
        }
        let answer = self.request(Method::GET, "/api/v1/products?limit=100", None).send().await?;
        ensure!(answer.status().is_success(), "products answered {}: {}", answer.status(), answer.text().await?);
        Ok(answer.json::<Page>().await?.data)
    }

    pub async fn product(&self, id: &str) -> Result<Product> {
        let answer = self.request(Method::GET, &format!("/api/v1/products/{id}"), None).send().await?;
        ensure!(answer.status().is_success(), "product {id} answered {}: {}", answer.status(), answer.text().await?);
        Ok(answer.json().await?)
    }

    /// Places an order with `body` as the request's JSON.
    pub async fn order(&self, account: &Account, body: &Value) -> Result<Answer> {
        self.ordered(self.request(Method::POST, "/api/v1/orders", Some(account)), body).await
    }

    /// The same under an idempotency key: it may be repeated after a failure.
    pub async fn order_once(&self, account: &Account, body: &Value, key: &str) -> Result<Answer> {
        let request = self.request(Method::POST, "/api/v1/orders", Some(account));
        self.ordered(request.header("Idempotency-Key", key), body).await
    }

    /// The same, asked again after a failure, as a shop's app would: a refusal that is final comes back at once, the last
    /// failure after all attempts.
    pub async fn order_persistently(&self, account: &Account, body: &Value, key: &str) -> Result<Answer> {
        let mut attempt = 0;
        loop {
            let answer = self.order_once(account, body, key).await;
            attempt += 1;
            let again = match &answer {
                Ok(Answer::Accepted { .. }) => false,
                Ok(Answer::Refused { status, .. }) => status.is_server_error(),
                Err(_) => true,
            };
            if !again || attempt == ATTEMPTS {
                return answer;
            }
            tokio::time::sleep(Duration::from_millis(50 << attempt)).await;
        }
    }

    async fn ordered(&self, request: RequestBuilder, body: &Value) -> Result<Answer> {
        let answer = request.json(body).send().await?;
        let status = answer.status();
        let body: Value = answer.json().await.with_context(|| format!("order answered {status} without JSON"))?;
        let text = |field: &str| body[field].as_str().unwrap_or_default().to_owned();
        if status == StatusCode::CREATED {
            Ok(Answer::Accepted { order_id: text("orderId") })
        } else {
            Ok(Answer::Refused { status, code: text("code") })
        }
    }

    /// The order as its owner sees it.
    pub async fn read_order(&self, account: &Account, id: &str) -> Result<Value> {
        let answer = self.request(Method::GET, &format!("/api/v1/orders/{id}"), Some(account)).send().await?;
        ensure!(answer.status().is_success(), "order {id} answered {}: {}", answer.status(), answer.text().await?);
        Ok(answer.json().await?)
    }
}

fn token(body: &Value) -> Result<Account> {
    let token = body["accessToken"].as_str().context("the answer carries no accessToken")?;
    Ok(Account { token: token.to_owned() })
}
