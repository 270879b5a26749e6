//! `shop-api smoke`: places an order in a running shop as a customer would, sees it processed, and takes everything back.
//! A client like any other: it knows the shop by its URL alone, and touches neither its database nor its queue.

mod client;

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Value, json};
use shop_runtime::{
    clock::Clock,
    ids::{NoRandomness, random_hex},
};

pub use client::CallError;
use client::Client;

use crate::config::SmokeConfig;

const POLL: Duration = Duration::from_millis(250);
/// Where only the order of this run finds stock.
const LOCATION: &str = "smoke-test";

#[derive(Debug, thiserror::Error)]
pub enum SmokeError {
    #[error(transparent)]
    Call(#[from] CallError),
    #[error("the answer to {what} has no {field}: is it a shop that answers there?")]
    Incomplete { what: &'static str, field: &'static str },
    #[error("{what} after {seconds} s: {advice}")]
    TooLate { what: &'static str, seconds: u32, advice: &'static str },
    #[error("the order is {status}, not Processed: {reason}")]
    Refused { status: String, reason: String },
    #[error("no name for the customer can be made")]
    Random(#[from] NoRandomness),
}

/// What was made for the order, and by whom.
struct Trial<'a> {
    client: &'a Client,
    config: &'a SmokeConfig,
    clock: &'a Clock,
    started: Timestamp,
    staff: String,
    product: String,
}

struct Customer {
    password: String,
    token: String,
}

/// The id of the order that was processed.
pub async fn run(config: &SmokeConfig, clock: &Clock) -> Result<String, SmokeError> {
    let client = Client::new(&config.url)?;
    let staff = login(&client, &credentials(&config.staff_email, &config.staff_password)).await?;
    let (started, product) = (clock.now(), random_hex::<12>()?);
    let trial = Trial { client: &client, config, clock, started, staff, product };
    let ordered = trial.order().await;
    let removed = trial.remove_product().await;
    let order = ordered?;
    removed?;
    Ok(order)
}

fn credentials(email: &str, password: &SecretString) -> Value {
    json!({ "email": email, "password": password.expose_secret() })
}

async fn login(client: &Client, credentials: &Value) -> Result<String, SmokeError> {
    let answer = client.send("POST", "/api/v1/auth/login", ("", credentials)).await?;
    text(&answer, ("the login", "accessToken"))
}

fn text(answer: &Value, (what, field): (&'static str, &'static str)) -> Result<String, SmokeError> {
    answer[field].as_str().map(str::to_owned).ok_or(SmokeError::Incomplete { what, field })
}

impl Trial<'_> {
    async fn order(&self) -> Result<String, SmokeError> {
        self.stock_one().await?;
        let customer = self.register().await?;
        let ordered = self.place(&customer).await;
        let confirmation = json!({ "password": customer.password });
        let erased = self.client.send("DELETE", "/api/v1/auth/me", (&customer.token, &confirmation)).await;
        let order = ordered?;
        erased?;
        Ok(order)
    }

    /// A product of this run's own, and one unit of it.
    async fn stock_one(&self) -> Result<(), SmokeError> {
        let path = format!("/api/v1/products/{}", self.product);
        let product = json!({ "name": "Smoke test", "description": "Gone in a moment", "price": 1 });
        self.client.send("PUT", &path, (&self.staff, &product)).await?;
        let line = json!({ "productId": self.product, "delta": 1 });
        let adjustment = json!({ "location": LOCATION, "reason": "smoke test", "lines": [line] });
        self.client.send("POST", "/api/v1/inventory/adjustments", (&self.staff, &adjustment)).await?;
        let advice = "the worker books it from the queue; see its log, and QueueReadable of the shop";
        self.eventually(("the stock has not arrived", advice), async || {
            let product = self.client.get(&path, &self.staff).await?;
            let rows = product["availability"].as_array().map(Vec::as_slice).unwrap_or_default();
            Ok(rows.iter().any(|row| row["available"] == 1).then_some(()))
        })
        .await
    }

    async fn register(&self) -> Result<Customer, SmokeError> {
        // The mailbox simulator of SES: the confirmation is really sent, and bounces nowhere.
        let email = format!("success+{}@simulator.amazonses.com", random_hex::<6>()?);
        let password = random_hex::<16>()?;
        let credentials = json!({ "email": email, "password": password });
        let answer = self.client.send("POST", "/api/v1/auth/register", ("", &credentials)).await?;
        Ok(Customer { token: text(&answer, ("the registration", "accessToken"))?, password })
    }

    async fn place(&self, customer: &Customer) -> Result<String, SmokeError> {
        let line = json!({ "productId": self.product, "quantity": 1 });
        let order = json!({ "location": LOCATION, "totalAmount": 1, "items": [line] });
        let answer = self.client.send("POST", "/api/v1/orders", (&customer.token, &order)).await?;
        let id = text(&answer, ("the order", "orderId"))?;
        let path = format!("/api/v1/orders/{id}");
        let advice =
            "it is accepted, but no worker has processed it; see the worker's log, and QueueReadable of the shop";
        let status = async || {
            let order = self.client.get(&path, &customer.token).await?;
            let status = text(&order, ("the order", "status"))?;
            Ok((status != "Pending").then_some((status, order["reason"].to_string())))
        };
        let (status, reason) = self.eventually(("the order is still Pending", advice), status).await?;
        if status == "Processed" { Ok(id) } else { Err(SmokeError::Refused { status, reason }) }
    }

    async fn remove_product(&self) -> Result<(), SmokeError> {
        let path = format!("/api/v1/products/{}", self.product);
        match self.client.send("DELETE", &path, (&self.staff, &Value::Null)).await {
            // It was not made at all.
            Err(CallError::Refused { status: 404, .. }) => Ok(()),
            removed => Ok(removed.map(|_| ())?),
        }
    }

    async fn eventually<T>(
        &self,
        (what, advice): (&'static str, &'static str),
        mut ask: impl AsyncFnMut() -> Result<Option<T>, SmokeError>,
    ) -> Result<T, SmokeError> {
        let seconds = self.config.patience_seconds;
        loop {
            if let Some(answer) = ask().await? {
                return Ok(answer);
            }
            if self.clock.now().duration_since(self.started) > SignedDuration::from_secs(seconds.into()) {
                return Err(SmokeError::TooLate { what, seconds, advice });
            }
            tokio::time::sleep(POLL).await;
        }
    }
}
