//! The demo shop of dev/sample/shop.yaml: its name, its namespace and its spec have their one source there.

use std::fs;

use anyhow::{Context as _, Result};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::context::Context;
use crate::helm::Release;
use crate::images::Images;

#[derive(Debug, Deserialize)]
pub struct Sample {
    pub metadata: Metadata,
    pub spec: Value,
}

#[derive(Debug, Deserialize)]
pub struct Metadata {
    pub name: String,
    pub namespace: String,
}

impl Sample {
    pub fn load(context: &Context) -> Result<Self> {
        let file = context.repo.join("dev/sample/shop.yaml");
        let text = fs::read_to_string(&file).with_context(|| format!("reading {}", file.display()))?;
        serde_yaml::from_str(&text).with_context(|| format!("{} is no ShopDeployment", file.display()))
    }

    pub fn release(&self) -> Release<'_> {
        Release { name: &self.metadata.name, chart: "shop", namespace: &self.metadata.namespace }
    }

    /// Values of chart `shop` that render this object.
    pub fn values(&self) -> Value {
        json!({"shop": self.spec})
    }

    /// The same with images in the spec, so that new ones are a new generation of the shop.
    pub fn values_with(&self, images: &Images) -> Value {
        let mut spec = self.spec.clone();
        spec["images"] = json!({"api": images.api, "worker": images.worker});
        json!({"shop": spec})
    }

    /// The name of the Secret that the spec refers to at `pointer`.
    pub fn secret(&self, pointer: &str) -> Result<&str> {
        let name = self.spec.pointer(pointer).and_then(Value::as_str);
        name.with_context(|| format!("dev/sample/shop.yaml has no spec{}", pointer.replace('/', ".")))
    }

    pub fn queue_name(&self) -> Result<&str> {
        self.spec["queue"]["name"].as_str().context("dev/sample/shop.yaml has no spec.queue.name")
    }
}
