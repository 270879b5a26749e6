//! Shops to scale: on the cluster, with a queue and a database each, in one namespace that goes with them.

use std::{
    fmt::Display,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use futures::{StreamExt, TryStreamExt, future::try_join_all, stream};
use k8s_openapi::{
    NamespaceResourceScope,
    api::core::v1::{Namespace, Secret},
};
use kube::{
    Api, Client,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams},
};
use reqwest::Method;
use secrecy::SecretString;
use serde_json::{Value, json};
use shop_operator::crd::ShopDeployment;
use shop_runtime::{
    aws, ids,
    queue::{Queue, QueueAddress},
};
use shop_store::{
    Store,
    orders::{Listing, OrderDocument, Viewer},
};

use super::{
    trace::{Load, Shape},
    watch::Observer,
};
use crate::client::{Account, Answer, Shop};

/// Where the servers are, for the bench and for the pods.
#[derive(Debug, Clone, clap::Args)]
pub struct Servers {
    #[arg(long, env = "SHOP_TEST_INGRESS_URL")]
    pub ingress: String,
    #[arg(long, env = "SHOP_TEST_SQS_ENDPOINT")]
    pub sqs: String,
    #[arg(long, env = "SHOP_TEST_MONGODB_URI", hide_env_values = true)]
    pub mongodb: SecretString,
    #[arg(long, env = "SHOP_TEST_CLUSTER_MONGODB_URI", hide_env_values = true)]
    pub pods_mongodb: String,
    #[arg(long, env = "SHOP_TEST_CLUSTER_SQS_ENDPOINT")]
    pub pods_sqs: String,
    #[arg(long, env = "SHOP_TEST_CLUSTER_SES_ENDPOINT")]
    pub pods_ses: String,
}

/// The namespace with what its shops refer to.
pub struct Site {
    pub client: Client,
    pub namespace: String,
    pub servers: Servers,
    sqs: aws_sdk_sqs::Client,
    /// Names of all lanes that ever were: their databases are still there.
    lanes: Mutex<Vec<String>>,
}

/// A shop that is Ready, and what is seen of it. Nothing is in stock yet.
pub struct Lane<'a> {
    pub site: &'a Site,
    pub name: String,
    pub observer: Observer,
    shape: Shape,
    store: Store,
    shop: Shop,
    staff: Account,
    buyer: Mutex<Session>,
}

/// A buyer's session, and since when: a bench may outlive a token.
#[derive(Clone)]
struct Session {
    since: Instant,
    buyer: Account,
}

const PATIENCE: Duration = Duration::from_mins(3);
/// A load that begins so late in a session still ends within it: a token lives for a quarter of an hour.
const SESSION: Duration = Duration::from_mins(5);
const PASSWORD: &str = "correct horse";
const REGION: &str = "ap-south-1";
const STAFF: (&str, &str) = ("staff@example.com", "a staff password");
const LOCATION: &str = "bangalore";
/// As many adjustments bring the stock: more than two messages, which the scaler would look at twice.
pub const PRODUCTS: usize = 10;
const STOCK: i64 = 1_000_000;
const IN_FLIGHT: usize = 32;
/// A limit that nobody reaches: all load comes from one address.
const UNLIMITED: u32 = 1_000_000;

impl Site {
    pub async fn open(servers: &Servers) -> Result<Self> {
        let client = Client::try_default().await.context("no Kubernetes: run `cargo xtask bench scale`")?;
        let sqs = aws::sqs(&aws::Service { region: REGION.to_owned(), endpoint: Some(servers.sqs.clone()) }).await;
        let namespace = format!("shop-test-scale-{}", ids::random_hex::<4>()?);
        let labels = json!({ "shop.xhipment.io/test": "true", "pod-security.kubernetes.io/enforce": "restricted" });
        let object = json!({ "metadata": { "name": namespace, "labels": labels } });
        let namespaces = Api::<Namespace>::all(client.clone());
        namespaces.create(&PostParams::default(), &serde_json::from_value(object)?).await?;
        let site = Self { client, namespace, servers: servers.clone(), sqs, lanes: Mutex::default() };
        for (name, data) in [
            ("mongodb", json!({ "uri": servers.pods_mongodb })),
            ("aws", json!({ "accessKeyId": "local", "secretAccessKey": "local" })),
            ("staff", json!({ "email": STAFF.0, "password": STAFF.1 })),
        ] {
            let secret: Secret = serde_json::from_value(json!({ "metadata": { "name": name }, "stringData": data }))?;
            site.api().create(&PostParams::default(), &secret).await?;
        }
        Ok(site)
    }

    /// Also after a failure. Lanes that are still there are ended first: their operator must see them off.
    pub async fn close(self) -> Result<()> {
        let shops = self.api::<ShopDeployment>();
        shops.delete_collection(&DeleteParams::default(), &ListParams::default()).await?;
        let gone = eventually("the shops are gone", async || {
            let left = shops.list(&ListParams::default()).await?;
            Ok(left.items.is_empty().then_some(()))
        })
        .await;
        let lanes = self.lanes.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let dropped = try_join_all(lanes.iter().map(async |lane| Ok(self.store(lane).await?.drop_database().await?)));
        let dropped = dropped.await;
        let namespaces = Api::<Namespace>::all(self.client.clone());
        let deleted = namespaces.delete(&self.namespace, &DeleteParams::default()).await;
        gone.and(dropped.map(drop)).and(deleted.map(drop).context("removing the namespace"))
    }

    pub fn api<K>(&self) -> Api<K>
    where
        K: kube::Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
    {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// The URL of a lane's queue, as pods reach it.
    pub fn queue_url(&self, lane: &str) -> String {
        format!("{}/000000000000/{}", self.servers.pods_sqs, self.queue_name(lane))
    }

    async fn store(&self, lane: &str) -> Result<Store> {
        Ok(Store::connect(&self.servers.mongodb, &self.queue_name(lane)).await?)
    }

    /// Of the database too.
    fn queue_name(&self, lane: &str) -> String {
        format!("{}-{lane}", self.namespace)
    }

    fn host(&self, lane: &str) -> String {
        format!("{lane}.{}.localhost", self.namespace)
    }

    fn shop(&self, lane: &str, shape: &Shape) -> Result<ShopDeployment> {
        Ok(serde_json::from_value(json!({
            "metadata": { "name": lane },
            "spec": {
                "mongodb": { "uriSecretRef": { "name": "mongodb" }, "database": self.queue_name(lane) },
                "aws": { "credentialsSecretRef": { "name": "aws" } },
                "queue": {
                    "name": self.queue_name(lane), "endpoint": self.servers.pods_sqs, "region": REGION,
                    "management": "Managed", "deletionPolicy": "Delete",
                },
                "mail": { "from": "shop@example.com", "endpoint": self.servers.pods_ses, "perSecond": 300 },
                "auth": { "staffSecretRef": { "name": "staff" } },
                "api": {
                    "replicas": 1,
                    "ingress": { "enabled": true, "className": "traefik", "host": self.host(lane) },
                },
                "worker": {
                    "concurrency": 1,
                    "batchSize": 1,
                    "env": [{ "name": "SHOP_SIMULATED_WORK_MS", "value": shape.work_ms }],
                    // Many of them share the machine, and they sleep.
                    "resources": { "requests": { "cpu": "1m", "memory": "8Mi" } },
                    "autoscaling": {
                        "targetWaitSeconds": shape.target_wait_seconds,
                        "expectedSecondsPerMessage": shape.expected_seconds,
                        "min": shape.min,
                        "max": shape.max,
                        "scaleDown": { "windowSeconds": shape.window_seconds },
                    },
                },
                "settings": {
                    "cookieSecure": false,
                    "trustedProxies": ["10.244.0.0/16"],
                    "limits": {
                        "authPer15Minutes": UNLIMITED, "writesPerMinute": UNLIMITED,
                        "readsPerMinute": UNLIMITED, "addressPerMinute": UNLIMITED,
                    },
                },
            },
        }))?)
    }
}

impl<'a> Lane<'a> {
    /// Makes a shop and waits until it answers.
    pub async fn open(site: &'a Site, name: String, shape: Shape) -> Result<Self> {
        let queue = Queue::new(site.sqs.clone(), QueueAddress::Name(site.queue_name(&name)));
        site.lanes.lock().unwrap_or_else(PoisonError::into_inner).push(name.clone());
        let observer = Observer::start(&site.client, (&site.namespace, &name), queue);
        let shops = site.api::<ShopDeployment>();
        shops.create(&PostParams::default(), &site.shop(&name, &shape)?).await.context("creating a shop")?;
        eventually(&format!("the shop {name} is Ready"), async || {
            let status = shops.get(&name).await?.status.unwrap_or_default();
            Ok(status.conditions.iter().any(|one| one.type_ == "Ready" && one.status == "True").then_some(()))
        })
        .await?;
        let shop = Shop::new(&site.servers.ingress, Some(&site.host(&name)))?;
        // Another shop without a host answers for every name until the ingress knows this one: only this one knows its staff.
        let login = async || Ok(shop.login(STAFF.0, STAFF.1).await.ok());
        let staff = eventually(&format!("the shop {name} answers"), login).await?;
        let buyer = shop.customer(&buyer_of(&name), PASSWORD).await?;
        let buyer = Mutex::new(Session { since: Instant::now(), buyer });
        let store = site.store(&name).await?;
        let lane = Self { site, name, observer, shape, store, shop, staff, buyer };
        for n in 0..PRODUCTS {
            let body = json!({ "name": format!("Product {n}"), "description": "a sample", "price": 100 });
            let path = format!("/api/v1/products/{}", product(n));
            lane.accepted(lane.shop.request(Method::PUT, &path, Some(&lane.staff)).json(&body)).await?;
        }
        Ok(lane)
    }

    /// Brings the products' stock, in one message for each, and waits until all have arrived.
    pub async fn stock(&self) -> Result<()> {
        let adjust = async |n: usize| {
            let lines = json!([{ "productId": product(n), "delta": STOCK }]);
            let body = json!({ "location": LOCATION, "reason": "first delivery", "lines": lines });
            let path = "/api/v1/inventory/adjustments";
            self.accepted(self.shop.request(Method::POST, path, Some(&self.staff)).json(&body)).await
        };
        stream::iter(0..PRODUCTS).map(adjust).buffer_unordered(PRODUCTS).try_collect::<()>().await?;
        eventually("the stock arrives", async || {
            let products = self.shop.products().await?;
            let all = products.iter().filter(|one| one.available_at(LOCATION) > 0).count() == PRODUCTS;
            Ok(all.then_some(()))
        })
        .await
    }

    /// Waits for new load at the fewest workers, with the scaler told to keep still.
    pub async fn calm(&self) -> Result<()> {
        let min = self.shape.min;
        self.scaling(json!({ "autoscaling": { "mode": "Manual" }, "replicas": min })).await?;
        eventually(&format!("{} has {min} workers and no message", self.name), async || {
            let record = self.observer.record();
            let calm = record.wanted() == Some(i32::try_from(min)?)
                && record.present() == min as usize
                && record.backlog() == Some(0);
            Ok(calm.then_some(()))
        })
        .await
    }

    /// The shop's own scaler decides.
    pub async fn by_itself(&self) -> Result<()> {
        self.scaling(json!({ "autoscaling": { "mode": "DrainTime" }, "replicas": null })).await
    }

    /// Others decide: the operator writes no number.
    pub async fn by_others(&self) -> Result<()> {
        self.scaling(json!({ "autoscaling": { "mode": "Manual" }, "replicas": null })).await
    }

    async fn scaling(&self, worker: Value) -> Result<()> {
        let change = Patch::Merge(json!({ "spec": { "worker": worker } }));
        let shops = self.site.api::<ShopDeployment>();
        shops.patch(&self.name, &PatchParams::default(), &change).await.context("changing the shop's scaling")?;
        Ok(())
    }

    /// Places the load's orders when they are due, and returns how many there were. The first one that is refused for good
    /// ends it.
    pub async fn offer(&self, load: &Load) -> Result<usize> {
        let started = tokio::time::Instant::now();
        let due = load.due();
        let (orders, salt, buyer) = (due.len(), ids::random_hex::<4>()?, self.buyer().await?);
        let place = async |(n, due): (usize, Duration)| {
            tokio::time::sleep_until(started + due).await;
            let body =
                json!({ "location": LOCATION, "items": [{ "productId": product(n % PRODUCTS), "quantity": 1 }] });
            let key = format!("{salt}-{n}");
            match self.shop.order_persistently(&buyer, &body, &key).await? {
                Answer::Accepted { .. } => Ok(()),
                Answer::Refused { status, code } => bail!("an order was refused: {status} {code}"),
            }
        };
        let all = stream::iter(due.into_iter().enumerate()).map(place).buffer_unordered(IN_FLIGHT);
        all.try_collect::<()>().await?;
        tokio::time::sleep_until(started + Duration::from_secs(load.seconds)).await;
        Ok(orders)
    }

    /// The buyer, signed in not long ago.
    async fn buyer(&self) -> Result<Account> {
        let session = self.buyer.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if session.since.elapsed() < SESSION {
            return Ok(session.buyer);
        }
        let buyer = self.shop.login(&buyer_of(&self.name), PASSWORD).await?;
        *self.buyer.lock().unwrap_or_else(PoisonError::into_inner) =
            Session { since: Instant::now(), buyer: buyer.clone() };
        Ok(buyer)
    }

    /// The newest orders, when all are decided.
    pub async fn decided(&self, count: usize) -> Result<Vec<OrderDocument>> {
        eventually(&format!("all orders of {} are decided", self.name), async || {
            Ok((!crate::ground::has_pending(&self.store).await?).then_some(()))
        })
        .await?;
        let newest = Listing { viewer: Viewer::Staff, status: None, after: None, limit: i64::try_from(count)? };
        let orders = self.store.orders.list(&newest).await?;
        ensure!(orders.len() == count, "{count} orders were accepted, but {} are there", orders.len());
        Ok(orders)
    }

    /// The shop goes, with its queue.
    pub async fn close(self) -> Result<()> {
        let shops = self.site.api::<ShopDeployment>();
        shops.delete(&self.name, &DeleteParams::default()).await.context("deleting a shop")?;
        eventually(&format!("the shop {} is gone", self.name), async || {
            Ok(shops.get_opt(&self.name).await?.is_none().then_some(()))
        })
        .await
    }

    async fn accepted(&self, request: reqwest::RequestBuilder) -> Result<()> {
        let answer = request.send().await?;
        let status = answer.status();
        ensure!(status.is_success(), "{} answered {status}: {}", answer.url().clone(), answer.text().await?);
        Ok(())
    }
}

fn buyer_of(lane: &str) -> String {
    format!("buyer@{lane}.example.com")
}

/// Asks until there is an answer; a question that fails counts as none yet.
pub async fn eventually<T>(what: impl Display, ask: impl AsyncFn() -> Result<Option<T>>) -> Result<T> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match ask().await {
            Ok(Some(answer)) => return Ok(answer),
            Ok(None) | Err(_) if Instant::now() < deadline => {}
            Ok(None) => bail!("not within {} s: {what}", PATIENCE.as_secs()),
            Err(error) => return Err(error.context(format!("not within {} s: {what}", PATIENCE.as_secs()))),
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

fn product(n: usize) -> String {
    format!("{:024x}", n + 1)
}
