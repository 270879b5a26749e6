//! A shop under test: what a test makes, asks and changes of it, and how it is removed.

use std::{
    future::Future,
    net::{IpAddr, UdpSocket},
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use k8s_openapi::api::core::v1::{Namespace, Node, Pod, Secret};
use kube::{
    Api, Client, ResourceExt,
    api::{DeleteParams, ListParams, LogParams, ObjectMeta, Patch, PatchParams, PostParams},
};
use mongodb::bson::{Document, doc};
use reqwest::Method;
use secrecy::ExposeSecret;
use serde_json::{Value, json};
use shop_bench::{
    client::{Account, Answer, Shop},
    view::{Addresses, View},
};
use shop_harness::{Link, TlsFront};
use shop_operator::crd::ShopDeployment;

use crate::{DOCUMENTED, LOCATION, PATIENCE, servers::Servers};

const STAFF: (&str, &str) = ("staff@example.com", "a staff password");

/// A shop under test.
pub struct Tested {
    pub client: Client,
    pub namespace: String,
    pub shop: Shop,
    servers: Servers,
}

impl Tested {
    /// Makes nothing yet: what is made from here on is cleaned up.
    pub(crate) async fn new() -> Result<Self> {
        let servers = Servers::from_env()?;
        let client = Client::try_default().await.context("no Kubernetes: run `cargo xtask test e2e`")?;
        let namespace = format!("xhipment-e2e-{}", shop_runtime::ids::random_hex::<4>()?);
        let shop = Shop::new(&servers.ingress, Some(&host(&namespace)))?;
        Ok(Self { client, namespace, shop, servers })
    }

    /// The namespace, with the Secrets of a shop.
    pub(crate) async fn prepare(&self) -> Result<()> {
        let labels =
            [("app.kubernetes.io/part-of", "xhipment-e2e"), ("pod-security.kubernetes.io/enforce", "restricted")];
        let labels = labels.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
        let metadata = ObjectMeta { name: Some(self.namespace.clone()), labels: Some(labels), ..ObjectMeta::default() };
        let object = Namespace { metadata, ..Namespace::default() };
        Api::<Namespace>::all(self.client.clone()).create(&PostParams::default(), &object).await?;
        for (name, data) in self.secrets() {
            self.create_secret(name, data).await?;
        }
        Ok(())
    }

    fn secrets(&self) -> [(&'static str, Value); 4] {
        [
            ("mongodb", json!({"uri": self.servers.pods_mongodb})),
            ("redis", json!({"url": self.servers.pods_redis})),
            ("aws", json!({"accessKeyId": "local", "secretAccessKey": "local"})),
            ("staff", json!({"email": STAFF.0, "password": STAFF.1})),
        ]
    }

    /// Creates one of the Secrets that the shop refers to.
    pub async fn create_secret(&self, name: &str, data: Value) -> Result<()> {
        let secret: Secret = serde_json::from_value(json!({"metadata": {"name": name}, "stringData": data}))?;
        self.api::<Secret>().create(&PostParams::default(), &secret).await?;
        Ok(())
    }

    /// The Secret of this name as a new test namespace has it.
    pub async fn restore_secret(&self, name: &str) -> Result<()> {
        let (name, data) = self.secrets().into_iter().find(|(known, _)| *known == name).context("no such Secret")?;
        self.create_secret(name, data).await
    }

    /// Objects of one kind in the test's namespace.
    pub fn api<K>(&self) -> Api<K>
    where
        K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope>,
        K::DynamicType: Default,
    {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// The sample shop, moved into the test's namespace, database and queue; `change` may alter it first.
    pub fn sample(&self, change: impl FnOnce(&mut Value)) -> Result<Value> {
        let mut shop: Value = serde_yaml::from_str(include_str!("../../sample/shop.yaml"))?;
        shop["metadata"]["namespace"] = json!(self.namespace);
        let spec = &mut shop["spec"];
        spec["mongodb"]["uriSecretRef"] = json!({"name": "mongodb"});
        spec["mongodb"]["database"] = json!(self.database());
        spec["redis"]["urlSecretRef"] = json!({"name": "redis"});
        spec["aws"] = json!({"credentialsSecretRef": {"name": "aws"}});
        spec["auth"]["staffSecretRef"] = json!({"name": "staff"});
        spec["queue"]["name"] = json!(self.database());
        spec["queue"]["endpoint"] = json!(self.servers.pods_sqs);
        spec["mail"]["endpoint"] = json!(self.servers.pods_ses);
        spec["api"]["ingress"]["host"] = json!(host(&self.namespace));
        change(&mut shop);
        Ok(shop)
    }

    pub async fn create_shop(&self, change: impl FnOnce(&mut Value)) -> Result<()> {
        let shop: ShopDeployment = serde_json::from_value(self.sample(change)?)?;
        self.api::<ShopDeployment>().create(&PostParams::default(), &shop).await?;
        Ok(())
    }

    /// Name of the shop's database and queue.
    pub fn database(&self) -> String {
        self.namespace.replace("xhipment-", "")
    }

    pub async fn deployment(&self) -> Result<ShopDeployment> {
        Ok(self.api::<ShopDeployment>().get("demo").await?)
    }

    /// Waits until the condition has the status.
    pub async fn condition(&self, kind: &str, status: &str) -> Result<String> {
        self.eventually(&format!("{kind} is not {status}"), || async {
            let shop = self.deployment().await?;
            let conditions = shop.status.as_ref().map(|status| status.conditions.clone()).unwrap_or_default();
            let found = conditions
                .into_iter()
                .find(|c| c.type_ == kind && c.status == status && c.observed_generation == shop.metadata.generation);
            Ok(found.map(|condition| format!("{}: {}", condition.reason, condition.message)))
        })
        .await
    }

    /// Waits until the shop is Ready and answers through the ingress.
    pub async fn ready(&self) -> Result<()> {
        self.condition("Ready", "True").await?;
        // Another shop without a host answers for every name until the ingress knows this one: only this one knows its staff.
        self.eventually("the shop does not answer behind the ingress", || async {
            self.staff().await.map(|_| Some(()))
        })
        .await
    }

    /// The documented products, `stock` units of each at [`LOCATION`].
    pub async fn seed(&self, stock: i64) -> Result<()> {
        let staff = self.staff().await?;
        for (id, price) in DOCUMENTED {
            let body = json!({"name": format!("Product {price}"), "description": "a sample", "price": price});
            let path = format!("/api/v1/products/{id}");
            let answer = self.shop.request(Method::PUT, &path, Some(&staff)).json(&body).send().await?;
            ensure!(answer.status().is_success(), "PUT product answered {}: {}", answer.status(), answer.text().await?);
        }
        let lines: Vec<_> = DOCUMENTED.iter().map(|(id, _)| json!({"productId": id, "delta": stock})).collect();
        let body = json!({"location": LOCATION, "reason": "first delivery", "lines": lines});
        let path = "/api/v1/inventory/adjustments";
        let answer = self.shop.request(Method::POST, path, Some(&staff)).json(&body).send().await?;
        ensure!(answer.status().as_u16() == 202, "adjustment answered {}: {}", answer.status(), answer.text().await?);
        self.eventually("the stock does not arrive", || async {
            let product = self.shop.product(DOCUMENTED[1].0).await?;
            Ok((product.available_at(LOCATION) == stock).then_some(()))
        })
        .await
    }

    pub async fn staff(&self) -> Result<Account> {
        self.shop.login(STAFF.0, STAFF.1).await
    }

    pub async fn customer(&self, name: &str) -> Result<Account> {
        self.shop.customer(&self.address(name), "correct horse").await
    }

    /// As `kubectl scale` does, for a shop in Manual mode.
    pub async fn scale_workers(&self, replicas: i32) -> Result<()> {
        let scale = Patch::Merge(json!({"spec": {"replicas": replicas}}));
        self.api::<ShopDeployment>().patch_scale("demo", &PatchParams::default(), &scale).await?;
        self.eventually("the workers are not as many as was asked for", || async {
            let worker = self.deployment().await?.status.and_then(|status| status.worker);
            Ok(worker.is_some_and(|worker| (worker.ready, worker.desired) == (replicas, replicas)).then_some(()))
        })
        .await
    }

    /// One unit of the first documented product.
    pub async fn order_one(&self, buyer: &Account) -> Result<String> {
        let body = json!({"location": LOCATION, "items": [{"productId": DOCUMENTED[0].0, "quantity": 1}]});
        match self.shop.order(buyer, &body).await? {
            Answer::Accepted { order_id } => Ok(order_id),
            refused @ Answer::Refused { .. } => bail!("refused: {refused:?}"),
        }
    }

    pub async fn becomes(&self, buyer: &Account, order: &str, status: &str) -> Result<()> {
        self.eventually(&format!("the order is not {status}"), || async {
            Ok((self.shop.read_order(buyer, order).await?["status"] == status).then_some(()))
        })
        .await
    }

    /// A customer's address, unlike that of any other test.
    pub fn address(&self, name: &str) -> String {
        format!("{name}@{}.example.com", self.database())
    }

    /// The mails that the mail service holds for this address.
    pub async fn mails_to(&self, address: &str) -> Result<Vec<Value>> {
        let store: Value = reqwest::get(format!("{}/store", self.servers.ses)).await?.json().await?;
        let all = store["emails"].as_array().cloned().unwrap_or_default();
        Ok(all.into_iter().filter(|mail| mail["destination"].to_string().contains(address)).collect())
    }

    pub async fn view(&self) -> Result<View> {
        View::open(&Addresses {
            namespace: self.namespace.clone(),
            name: "demo".to_owned(),
            mongodb_uri: self.servers.mongodb.clone().into(),
            database: self.database(),
            sqs_endpoint: Some(self.servers.sqs.clone()),
            queue_url: format!("{}/000000000000/{}", self.servers.sqs, self.database()),
            region: "ap-south-1".to_owned(),
        })
        .await
    }

    /// Makes an order unreadable, as a fault in some later version might.
    pub async fn spoil(&self, order: &str) -> Result<()> {
        self.rewrite(order, doc! { "$set": { "kept": "$lines", "lines": "spoiled" } }).await
    }

    /// Makes a spoiled order readable again.
    pub async fn mend(&self, order: &str) -> Result<()> {
        self.rewrite(order, doc! { "$set": { "lines": "$kept" } }).await
    }

    async fn rewrite(&self, order: &str, change: Document) -> Result<()> {
        let orders = mongodb::Client::with_uri_str(&self.servers.mongodb).await?;
        let orders = orders.database(&self.database()).collection::<Document>("orders");
        let changed = orders.update_one(doc! { "_id": order }, vec![change]).await?;
        ensure!(changed.modified_count == 1, "order {order} was not changed");
        Ok(())
    }

    /// The queues whose names begin with the shop's.
    pub async fn queues(&self) -> Result<Vec<String>> {
        let answer = self.sqs().await.list_queues().queue_name_prefix(self.database()).send().await?;
        Ok(answer.queue_urls.unwrap_or_default())
    }

    /// A way to SQS that the test can cut for this shop alone, and the endpoint by which pods take it.
    pub async fn link_to_sqs(&self) -> Result<(Link, String)> {
        let server = self.servers.sqs.strip_prefix("http://").context("the local SQS is served over plain HTTP")?;
        let link = Link::from(self.address_for_pods().await?, server).await?;
        let endpoint = format!("http://{}", link.address());
        Ok((link, endpoint))
    }

    /// MongoDB, Redis and SQS behind TLS with a private CA's certificate, and the part of a spec that leads a shop there.
    pub async fn servers_behind_tls(&self) -> Result<(TlsFront, Value)> {
        let front = TlsFront::at(self.address_for_pods().await?)?;
        let servers = front.of(&shop_harness::Servers::from_environment()?).await?;
        self.create_secret("ca", json!({"ca.crt": std::fs::read_to_string(front.ca_file())?})).await?;
        self.create_secret("mongodb-tls", json!({"uri": servers.mongodb_uri.expose_secret()})).await?;
        self.create_secret("redis-tls", json!({"url": servers.redis_url.expose_secret()})).await?;
        let spec = json!({
            "caSecretRef": {"name": "ca"},
            "mongodb": {"uriSecretRef": {"name": "mongodb-tls"}, "database": self.database()},
            "redis": {"urlSecretRef": {"name": "redis-tls"}},
            "queue": {"endpoint": servers.sqs_endpoint},
        });
        Ok((front, spec))
    }

    /// The address of this machine that the nodes, and so the pods, are connected to.
    async fn address_for_pods(&self) -> Result<IpAddr> {
        let nodes = Api::<Node>::all(self.client.clone()).list(&ListParams::default()).await?;
        let mut addresses = nodes.iter().filter_map(|node| node.status.as_ref()?.addresses.as_ref()).flatten();
        let node = addresses.find(|address| address.type_ == "InternalIP").context("no node has an address")?;
        // Connecting a datagram socket sends nothing: it only chooses the way, and with it our own address.
        let socket = UdpSocket::bind("0.0.0.0:0")?;
        socket.connect((node.address.as_str(), 9)).with_context(|| format!("no way to node {}", node.address))?;
        Ok(socket.local_addr()?.ip())
    }

    async fn sqs(&self) -> aws_sdk_sqs::Client {
        let endpoint = Some(self.servers.sqs.clone());
        shop_runtime::aws::sqs(&shop_runtime::aws::Service { region: "ap-south-1".to_owned(), endpoint }).await
    }

    /// Asks until there is an answer, at most [`PATIENCE`]; a failed question counts as no answer yet.
    pub async fn eventually<T, A: Future<Output = Result<Option<T>>>>(
        &self,
        otherwise: &str,
        ask: impl Fn() -> A,
    ) -> Result<T> {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            let answer = ask().await;
            match answer {
                Ok(Some(answer)) => return Ok(answer),
                Ok(None) | Err(_) if tokio::time::Instant::now() < deadline => {}
                Ok(None) => bail!("{otherwise} after {} s", PATIENCE.as_secs()),
                Err(error) => return Err(error.context(format!("{otherwise} after {} s", PATIENCE.as_secs()))),
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    /// Removes the shop, its namespace and its database, each whatever became of the others; tells the first error.
    pub(crate) async fn clean_up(&self) -> Result<()> {
        let ended = self.end_shops().await;
        let forced = if ended.is_err() { self.force_shops().await } else { Ok(()) };
        let namespaces = Api::<Namespace>::all(self.client.clone());
        let namespace = match namespaces.delete(&self.namespace, &DeleteParams::default()).await {
            Err(kube::Error::Api(status)) if status.is_not_found() => Ok(()),
            deleted => deleted.map(|_| ()).context("cannot delete the namespace"),
        };
        let database = async { Ok(self.view().await?.store.drop_database().await?) }.await;
        ended.and(forced).and(namespace).and(database)
    }

    /// Deletes the shop and waits for its end, which is the operator's work.
    pub async fn end_shops(&self) -> Result<()> {
        let shops = self.api::<ShopDeployment>();
        for shop in shops.list(&ListParams::default()).await? {
            shops.delete(&shop.name_any(), &DeleteParams::default()).await?;
        }
        self.eventually("the shop is still there", || async {
            Ok(shops.list(&ListParams::default()).await?.items.is_empty().then_some(()))
        })
        .await
    }

    /// Ends the shop without its operator: a finalizer would keep the namespace too.
    async fn force_shops(&self) -> Result<()> {
        let shops = self.api::<ShopDeployment>();
        let none = Patch::Merge(json!({"metadata": {"finalizers": null}}));
        for shop in shops.list(&ListParams::default()).await? {
            shops.patch(&shop.name_any(), &PatchParams::default(), &none).await?;
        }
        for url in self.queues().await? {
            self.sqs().await.delete_queue().queue_url(url).send().await?;
        }
        Ok(())
    }

    /// What a failed test leaves in the log: the shop's status, its pods, and what these warned of.
    pub(crate) async fn describe(&self) -> String {
        let status = self.deployment().await.map(|shop| serde_json::to_string_pretty(&shop.status).unwrap_or_default());
        let mut told = vec![format!("shop in {}: {}", self.namespace, status.unwrap_or_default())];
        let pods = self.api::<Pod>();
        let all = pods.list(&ListParams::default()).await.map(|pods| pods.items).unwrap_or_default();
        for pod in all {
            let name = pod.name_any();
            let log = pods.logs(&name, &LogParams::default()).await.unwrap_or_default();
            let warnings = log.lines().filter(|line| !line.contains("\"level\":\"INFO\"")).collect::<Vec<_>>();
            let newest = warnings.iter().rev().take(20).rev().copied().collect::<Vec<_>>().join("\n");
            told.push(format!("pod {name} {:?}\n{newest}", pod.status));
        }
        told.join("\n")
    }
}

fn host(namespace: &str) -> String {
    format!("{namespace}.localhost")
}
