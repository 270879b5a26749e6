//! Many shops in one namespace, each with a queue of its own: made, changed, looked at and removed.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use futures::{StreamExt, TryStreamExt, stream, stream::BoxStream};
use k8s_openapi::api::{
    apps::v1::Deployment,
    core::v1::{ConfigMap, Namespace, Secret, Service},
};
use kube::{
    Api, Client, Resource, ResourceExt,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams},
    runtime::{WatchStreamExt, watcher},
};
use serde_json::json;
use shop_operator::crd::ShopDeployment;
use shop_runtime::{aws, ids};

use crate::control::{Binaries, kwok::FAKE};

/// The cluster's own controllers make 20 writes a second, and each shop takes them several.
const PATIENCE: Duration = Duration::from_mins(20);
const AT_ONCE: usize = 16;
const CLASS: &str = "shop.xhipment.io/operator-class";
const REGION: &str = "ap-south-1";

pub struct Fleet {
    client: Client,
    sqs: aws_sdk_sqs::Client,
    endpoint: String,
    namespace: String,
    size: usize,
}

/// How long creation took, from its beginning.
pub struct Created {
    pub made: Duration,
    pub ready: Duration,
}

impl Fleet {
    /// The namespace, its Secrets and the queues; no shop yet.
    pub async fn new(client: Client, binaries: &Binaries, size: usize) -> Result<Self> {
        let endpoint = binaries.sqs_endpoint.clone();
        let sqs = aws::sqs(&aws::Service { region: REGION.to_owned(), endpoint: Some(endpoint.clone()) }).await;
        let namespace = format!("shop-test-bench-{}", ids::random_hex::<4>()?);
        let fleet = Self { client, sqs, endpoint, namespace, size };
        let object = json!({ "metadata": { "name": fleet.namespace, "labels": { "shop.xhipment.io/test": "true" } } });
        let namespaces = Api::<Namespace>::all(fleet.client.clone());
        namespaces.create(&PostParams::default(), &serde_json::from_value(object)?).await?;
        for (name, data) in [
            ("mongodb", json!({ "uri": "mongodb://nowhere" })),
            ("aws", json!({ "accessKeyId": "local", "secretAccessKey": "local" })),
        ] {
            let secret: Secret = serde_json::from_value(json!({ "metadata": { "name": name }, "stringData": data }))?;
            fleet.api().create(&PostParams::default(), &secret).await?;
        }
        stream::iter(0..size)
            .map(async |n| fleet.sqs.create_queue().queue_name(fleet.queue(n)).send().await.map(drop))
            .buffer_unordered(AT_ONCE)
            .try_collect::<()>()
            .await
            .context("making the queues")?;
        Ok(fleet)
    }

    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    pub fn size(&self) -> usize {
        self.size
    }

    /// Makes all shops, and waits until they are Ready.
    pub async fn create(&self) -> Result<Created> {
        let mut watched = self.watch::<ShopDeployment>("");
        let started = Instant::now();
        let shops = self.api::<ShopDeployment>();
        let create = stream::iter(0..self.size)
            .map(|n| {
                let shop = self.shop(n);
                let shops = &shops;
                async move { shops.create(&PostParams::default(), &shop?).await.map_err(anyhow::Error::from) }
            })
            .buffer_unordered(AT_ONCE)
            .try_for_each(async |_| Ok(()));
        let mut made = None;
        let follow = async {
            // Uid to whether it is Ready: a shop with a status has all its objects.
            let mut seen = BTreeMap::new();
            while let Some(shop) = watched.next().await {
                let Some(status) = &shop.status else { continue };
                if status.observed_generation != shop.metadata.generation {
                    continue;
                }
                let ready = status.conditions.iter().any(|one| one.type_ == "Ready" && one.status == "True");
                seen.insert(shop.uid(), ready);
                if seen.len() == self.size && made.is_none() {
                    made = Some(started.elapsed());
                }
                if seen.len() == self.size && seen.values().all(|ready| *ready) {
                    return Ok(started.elapsed());
                }
            }
            bail!("the watch has ended")
        };
        let ready = tokio::time::timeout(PATIENCE, async { tokio::try_join!(create, follow) }).await;
        let ((), ready) =
            ready.with_context(|| format!("not all shops are Ready after {} s", PATIENCE.as_secs()))??;
        Ok(Created { made: made.unwrap_or(ready), ready })
    }

    /// Changes one shop's spec after the other's; how long each took to reach the first object.
    pub async fn change(&self, changes: usize) -> Result<Vec<Duration>> {
        let shops = self.api::<ShopDeployment>();
        let mut taken = Vec::with_capacity(changes);
        for change in 0..changes {
            let name = name(change % self.size);
            let before = self.api::<ConfigMap>().get(&format!("{name}-api")).await?.resource_version();
            let generation = shops.get(&name).await?.metadata.generation;
            let mut specs = self.watch::<ShopDeployment>(&format!("metadata.name={name}"));
            let mut maps = self.watch::<ConfigMap>(&format!("metadata.name={name}-api"));
            // Both watches have begun as soon as they have told what is there.
            tokio::join!(specs.next(), maps.next());
            let text = Patch::Merge(json!({ "spec": { "settings": { "displayName": format!("Shop {change}") } } }));
            let told = first(&mut specs, |shop| shop.metadata.generation > generation);
            let written = first(&mut maps, |map| map.resource_version() != before);
            let patch = async {
                shops.patch(&name, &PatchParams::default(), &text).await.map(drop).map_err(anyhow::Error::from)
            };
            let all = async { tokio::try_join!(patch, told, written) };
            let ((), told, written) = tokio::time::timeout(Duration::from_mins(1), all).await.context("a change")??;
            taken.push(written.saturating_duration_since(told));
        }
        Ok(taken)
    }

    /// Kind, name and version of what the operator writes.
    pub async fn versions(&self) -> Result<BTreeSet<String>> {
        let mut all = BTreeSet::new();
        self.add_versions::<ShopDeployment>(&mut all).await?;
        self.add_versions::<Deployment>(&mut all).await?;
        self.add_versions::<ConfigMap>(&mut all).await?;
        self.add_versions::<Service>(&mut all).await?;
        self.add_versions::<Secret>(&mut all).await?;
        Ok(all)
    }

    async fn add_versions<K>(&self, all: &mut BTreeSet<String>) -> Result<()>
    where
        K: Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>
            + Clone
            + std::fmt::Debug
            + serde::de::DeserializeOwned,
    {
        let found = self.api::<K>().list_metadata(&ListParams::default()).await?;
        let told =
            |name: String, version: Option<String>| format!("{}/{name}@{}", K::kind(&()), version.unwrap_or_default());
        all.extend(found.iter().map(|object| told(object.name_any(), object.resource_version())));
        Ok(())
    }

    /// Also after a failure. The namespace goes by itself; nobody waits for it.
    pub async fn remove(&self) -> Result<()> {
        let namespaces = Api::<Namespace>::all(self.client.clone());
        let gone = namespaces.delete(&self.namespace, &DeleteParams::default()).await.context("removing the namespace");
        let queues = stream::iter(0..self.size).map(async |n| self.remove_queue(n).await).buffer_unordered(AT_ONCE);
        let queues = queues.try_collect::<()>().await.context("removing the queues");
        gone.map(drop).and(queues)
    }

    async fn remove_queue(&self, n: usize) -> Result<()> {
        let url = self.sqs.get_queue_url().queue_name(self.queue(n)).send().await?.queue_url;
        self.sqs.delete_queue().queue_url(url.unwrap_or_default()).send().await?;
        Ok(())
    }

    fn api<K>(&self) -> Api<K>
    where
        K: Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>,
    {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// The objects that these field selectors leave, as they are and as they change. An interrupted watch goes on by itself.
    fn watch<K>(&self, fields: &str) -> BoxStream<'static, K>
    where
        K: Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>
            + Clone
            + std::fmt::Debug
            + serde::de::DeserializeOwned
            + Send
            + 'static,
    {
        let config = watcher::Config::default().fields(fields);
        let objects = watcher(self.api::<K>(), config).default_backoff().applied_objects();
        objects.filter_map(async |object| object.ok()).boxed()
    }

    fn queue(&self, n: usize) -> String {
        format!("{}-{n}", self.namespace)
    }

    /// A shop as most are, on the fake nodes.
    fn shop(&self, n: usize) -> Result<ShopDeployment> {
        let pod = json!({
            "nodeSelector": { FAKE: "true" },
            "tolerations": [{ "key": FAKE, "operator": "Exists" }],
        });
        Ok(serde_json::from_value(json!({
            "metadata": { "name": name(n), "labels": { CLASS: self.namespace } },
            "spec": {
                "mongodb": { "uriSecretRef": { "name": "mongodb" } },
                "queue": { "name": self.queue(n), "endpoint": self.endpoint, "region": REGION },
                "mail": { "from": "shop@example.com" },
                "aws": { "credentialsSecretRef": { "name": "aws" } },
                "api": { "ingress": { "enabled": true, "className": "bench", "host": format!("{}.invalid", name(n)) }, "pod": pod },
                "worker": { "pod": pod },
            },
        }))?)
    }
}

/// When the first object that `is_it` was seen.
async fn first<K>(watched: &mut BoxStream<'static, K>, is_it: impl Fn(&K) -> bool) -> Result<Instant> {
    while let Some(object) = watched.next().await {
        if is_it(&object) {
            return Ok(Instant::now());
        }
    }
    bail!("the watch has ended")
}

fn name(n: usize) -> String {
    format!("shop-{n}")
}
