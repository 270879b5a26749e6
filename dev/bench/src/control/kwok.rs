//! Fake nodes, and the kwok process that plays their kubelets: pods on them are Ready at once and cost nothing.

use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::Node;
use kube::{
    Api, Client,
    api::{DeleteParams, ListParams, PostParams},
};
use serde_json::json;

use crate::{
    control::Binaries,
    process::{Plan, Process},
};

/// Shops on one node: two pods each, and a kubelet takes 110.
const SHOPS_PER_NODE: usize = 50;
/// Label of the nodes, and of the taint that keeps others' pods away.
pub const FAKE: &str = "shop-bench.xhipment.io/fake";
const MANAGED: &str = "shop-bench.xhipment.io/fake=true";

pub struct Nodes {
    api: Api<Node>,
    _kwok: Process,
}

impl Nodes {
    /// Enough nodes for so many shops.
    pub async fn add(client: Client, binaries: &Binaries, shops: usize) -> Result<Self> {
        let config = binaries.logs.join("kwok.yaml");
        std::fs::write(&config, include_str!("kwok.yaml")).context("writing kwok's configuration")?;
        let plan = Plan {
            binary: binaries.kwok.clone(),
            args: vec![
                "--kubeconfig".to_owned(),
                binaries.kubeconfig.to_string_lossy().into_owned(),
                "--config".to_owned(),
                config.to_string_lossy().into_owned(),
                // Addresses for benchmarks (RFC 2544): nothing answers there.
                "--cidr=198.18.0.0/15".to_owned(),
                "--manage-all-nodes=false".to_owned(),
                format!("--manage-nodes-with-label-selector={MANAGED}"),
            ],
            env: Vec::new(),
            log: binaries.logs.join("kwok.log"),
        };
        let api = Api::<Node>::all(client);
        let nodes = Self { api, _kwok: Process::start(&plan)? };
        nodes.remove_left().await?;
        for n in 0..shops.div_ceil(SHOPS_PER_NODE) {
            nodes.api.create(&PostParams::default(), &node(n)?).await.context("making a fake node")?;
        }
        Ok(nodes)
    }

    pub async fn remove(self) -> Result<()> {
        self.remove_left().await
    }

    async fn remove_left(&self) -> Result<()> {
        let all = ListParams::default().labels(MANAGED);
        self.api.delete_collection(&DeleteParams::default(), &all).await.context("removing the fake nodes")?;
        Ok(())
    }
}

fn node(n: usize) -> Result<Node> {
    let room = json!({ "cpu": "1000", "memory": "1000Gi", "pods": "110" });
    Ok(serde_json::from_value(json!({
        "metadata": { "name": format!("shop-bench-{n}"), "labels": { FAKE: "true" } },
        "spec": { "taints": [{ "key": FAKE, "value": "true", "effect": "NoSchedule" }] },
        "status": { "allocatable": room, "capacity": room },
    }))?)
}
