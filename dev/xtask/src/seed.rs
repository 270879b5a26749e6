//! Fills the shop with the sample catalogue through the staff calls, as a shop owner would. Running it again changes only what differs.

use std::fs;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use shop_domain::money::Amount;
use ureq::http::StatusCode;

use crate::accounts::Accounts;
use crate::command::wait_until;
use crate::context::Context;
use crate::env;
use crate::progress::note;
use crate::shop::Shop;
use crate::target::Cluster;

/// The worker applies it within a second; a worker that is being started takes longer.
const APPLY_LIMIT: Duration = Duration::from_secs(90);

/// dev/sample/catalogue.json
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Catalogue {
    location: String,
    stock_per_product: i64,
    products: Vec<Sample>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Sample {
    id: String,
    name: String,
    description: String,
    price: Amount,
}

/// What a PUT sends.
#[derive(Debug, Serialize)]
struct Details<'a> {
    name: &'a str,
    description: &'a str,
    price: &'a Amount,
}

/// What a GET shows.
#[derive(Debug, Deserialize)]
struct Listed {
    name: String,
    description: String,
    price: Amount,
    availability: Vec<Availability>,
}

impl Listed {
    fn shows(&self, product: &Sample) -> bool {
        self.name == product.name && self.description == product.description && self.price == product.price
    }
}

#[derive(Debug, Deserialize)]
struct Availability {
    location: String,
    available: i64,
}

#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// The shop's address; by default the demo shop's
    #[arg(long, env = "SHOP_URL")]
    url: Option<String>,
}

/// `cargo xtask seed`
pub fn run(context: &Context, args: &Args) -> Result<()> {
    let url = args.url.clone().map_or_else(|| demo_url(context), Ok)?;
    fill(context, &url)
}

fn demo_url(context: &Context) -> Result<String> {
    env::shop_url(&Cluster::load(context)?)
        .context("on a cluster that is not ours the shop's address is not known: pass --url")
}

/// Puts the sample catalogue and its stock into the shop at `url`.
pub fn fill(context: &Context, url: &str) -> Result<()> {
    let accounts = Accounts::kept(context)?.context("there is no staff account yet: run `cargo xtask up` first")?;
    let shop = Shop::new(url).log_in(&accounts.staff)?;
    let catalogue = read(context)?;
    let mut missing = Vec::new();
    let mut changed = 0;
    for product in &catalogue.products {
        let listed = find(&shop, &product.id)?;
        if !listed.as_ref().is_some_and(|listed| listed.shows(product)) {
            put(&shop, product)?;
            changed += 1;
        }
        let delta = catalogue.stock_per_product - available(listed.as_ref(), &catalogue.location);
        if delta > 0 {
            missing.push(json!({"productId": product.id, "delta": delta}));
        }
    }
    note(format!("catalogue: {changed} of {} products written", catalogue.products.len()));
    adjust(&shop, &catalogue.location, &missing)
}

fn read(context: &Context) -> Result<Catalogue> {
    let file = context.repo.join("dev/sample/catalogue.json");
    let text = fs::read_to_string(&file).with_context(|| format!("reading {}", file.display()))?;
    serde_json::from_str(&text).with_context(|| format!("{} is not a catalogue", file.display()))
}

fn find(shop: &Shop, id: &str) -> Result<Option<Listed>> {
    let answer = shop.get(&format!("/api/v1/products/{id}"))?;
    if answer.status == StatusCode::NOT_FOUND {
        return Ok(None);
    }
    answer.expect_success("reading a product")?.json().map(Some)
}

fn put(shop: &Shop, product: &Sample) -> Result<()> {
    let details = Details { name: &product.name, description: &product.description, price: &product.price };
    let body = serde_json::to_string(&details).context("writing a product as JSON")?;
    shop.put(&format!("/api/v1/products/{}", product.id), body)?.expect_success("writing a product").map(drop)
}

fn available(product: Option<&Listed>, location: &str) -> i64 {
    let rows = product.into_iter().flat_map(|product| &product.availability);
    rows.filter(|row| row.location == location).map(|row| row.available).sum()
}

fn adjust(shop: &Shop, location: &str, lines: &[Value]) -> Result<()> {
    if lines.is_empty() {
        note(format!("stock: {location} has all it should have"));
        return Ok(());
    }
    let count = lines.len();
    let body = json!({"location": location, "reason": "sample stock", "lines": lines});
    let answer = shop.post("/api/v1/inventory/adjustments", &body)?.expect_success("adjusting the stock")?;
    let id = answer.json::<Value>()?["adjustmentId"].as_str().map(str::to_owned);
    let id = id.context("the answer to the adjustment has no adjustmentId")?;
    let mut status = String::new();
    wait_until(APPLY_LIMIT, "the stock adjustment", || {
        status = status_of(shop, &id)?;
        ensure!(status != "Pending", "adjustment {id} is still Pending");
        Ok(())
    })
    .context("the worker applies adjustments: `kubectl get pods -A` shows whether one runs")?;
    ensure!(status == "Applied", "adjustment {id} is {status}: GET /api/v1/inventory/adjustments/{id} has the reasons");
    note(format!("stock: {count} products filled up at {location}"));
    Ok(())
}

fn status_of(shop: &Shop, id: &str) -> Result<String> {
    let answer = shop.get(&format!("/api/v1/inventory/adjustments/{id}"))?.expect_success("reading the adjustment")?;
    let status = answer.json::<Value>()?["status"].as_str().map(str::to_owned);
    status.with_context(|| format!("adjustment {id} has no status"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_catalogue_has_the_products_of_the_documented_order() {
        let catalogue = read(&Context::load().unwrap()).unwrap();
        let price = |id: &str| {
            let product = catalogue.products.iter().find(|product| product.id == id).unwrap();
            serde_json::to_string(&product.price).unwrap()
        };
        assert_eq!(catalogue.products.len(), 22);
        assert_eq!(price("67c8830b7ef1b848ac52ebec"), "1324");
        assert_eq!(price("67c8830b7ef1b848ac52ebee"), "1500");
        assert_eq!(price("67c8830b7ef1b848ac52eb01"), "29.99");
    }

    #[test]
    fn stock_is_counted_at_the_location_only() {
        let text = r#"{"id": "1", "name": "a", "description": "b", "price": 1, "currency": "INR", "version": 3,
            "availability": [{"location": "bangalore", "available": 7}, {"location": "pune", "available": 5}]}"#;
        let listed: Listed = serde_json::from_str(text).unwrap();
        assert_eq!(available(Some(&listed), "bangalore"), 7);
        assert_eq!(available(Some(&listed), "delhi"), 0);
        assert_eq!(available(None, "bangalore"), 0);
    }
}
