//! What a running shop looks like at one moment: backlog, workers, orders, predicted wait. Reads only.

use std::{fmt, time::Duration};

use anyhow::{Context, Result};
use aws_sdk_sqs::types::QueueAttributeName;
use kube::{Api, Client};
use shop_operator::crd::ShopDeployment;
use shop_runtime::aws;
use shop_store::{Store, audit::Books};

/// Where the shop's parts are, from outside the cluster.
#[derive(Debug, Clone, clap::Args)]
pub struct Addresses {
    /// Namespace of the ShopDeployment.
    #[arg(long, env = "SHOP_NAMESPACE")]
    pub namespace: String,
    /// Name of the ShopDeployment.
    #[arg(long, env = "SHOP_NAME")]
    pub name: String,
    #[arg(long, env = "MONGODB_URI", hide_env_values = true)]
    pub mongodb_uri: secrecy::SecretString,
    #[arg(long, env = "SHOP_DATABASE", default_value = "xhipment")]
    pub database: String,
    #[arg(long, env = "SQS_ENDPOINT")]
    pub sqs_endpoint: Option<String>,
    #[arg(long, env = "SQS_QUEUE_URL")]
    pub queue_url: String,
    #[arg(long, env = "SQS_REGION", default_value = "ap-south-1")]
    pub region: String,
}

/// The parts of one shop.
pub struct View {
    pub store: Store,
    sqs: aws_sdk_sqs::Client,
    queue_url: String,
    shops: Api<ShopDeployment>,
    name: String,
}

/// One look.
#[derive(Debug, Clone)]
pub struct Moment {
    pub books: Books,
    /// Messages that wait, are worked on, or are not due yet.
    pub backlog: i64,
    pub workers_ready: i32,
    pub workers_desired: i32,
    pub wait: String,
    pub explain: String,
}

impl View {
    pub async fn open(at: &Addresses) -> Result<Self> {
        let sqs = aws::Service { region: at.region.clone(), endpoint: at.sqs_endpoint.clone() };
        let client = Client::try_default().await.context("no Kubernetes: set KUBECONFIG, as `cargo xtask env` does")?;
        Ok(Self {
            store: Store::connect(&at.mongodb_uri, &at.database).await?,
            sqs: aws::sqs(&sqs).await,
            queue_url: at.queue_url.clone(),
            shops: Api::namespaced(client, &at.namespace),
            name: at.name.clone(),
        })
    }

    pub async fn look(&self) -> Result<Moment> {
        let shop = self.shops.get(&self.name).await.with_context(|| format!("cannot read the shop {}", self.name))?;
        let status = shop.status.unwrap_or_default();
        let (worker, scaling) = (status.worker.unwrap_or_default(), status.autoscaling.unwrap_or_default());
        Ok(Moment {
            books: self.store.audit.read().await?,
            backlog: self.backlog().await?,
            workers_ready: worker.ready,
            workers_desired: worker.desired,
            wait: scaling.wait,
            explain: scaling.explain,
        })
    }

    /// Looks every second until `done`, handing each moment to `seen`; an error after `limit`.
    pub async fn watch_until(
        &self,
        limit: Duration,
        seen: impl Fn(&Moment),
        done: impl Fn(&Moment) -> bool,
    ) -> Result<Moment> {
        let mut ticks = tokio::time::interval(Duration::from_secs(1));
        let watching = async {
            loop {
                ticks.tick().await;
                let moment = self.look().await?;
                seen(&moment);
                if done(&moment) {
                    return Ok(moment);
                }
            }
        };
        match tokio::time::timeout(limit, watching).await {
            Ok(moment) => moment,
            Err(_) => anyhow::bail!("not done after {} s; last seen: {}", limit.as_secs(), self.look().await?),
        }
    }

    async fn backlog(&self) -> Result<i64> {
        let names = [
            QueueAttributeName::ApproximateNumberOfMessages,
            QueueAttributeName::ApproximateNumberOfMessagesNotVisible,
            QueueAttributeName::ApproximateNumberOfMessagesDelayed,
        ];
        let request =
            self.sqs.get_queue_attributes().queue_url(&self.queue_url).set_attribute_names(Some(names.to_vec()));
        let answer = request.send().await.context("cannot read the queue's depth")?;
        let attributes = answer.attributes.unwrap_or_default();
        Ok(names.iter().filter_map(|name| attributes.get(name)?.parse::<i64>().ok()).sum())
    }
}

impl Moment {
    /// Orders with this status.
    pub fn orders(&self, status: &str) -> u64 {
        self.books.orders.get(status).copied().unwrap_or(0)
    }
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "backlog {:>5}  workers {}/{}  pending {:>5}  processed {:>6}  failed {:>4}  wait {:>6}  {}",
            self.backlog,
            self.workers_ready,
            self.workers_desired,
            self.orders("Pending"),
            self.orders("Processed"),
            self.orders("Failed"),
            self.wait,
            self.explain
        )
    }
}
