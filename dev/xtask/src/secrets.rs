//! The demo shop's namespace and the Secrets that dev/sample/shop.yaml names, for the local servers.
//! Values reach kubectl through standard input only.

use anyhow::Result;
use serde_json::{Value, json};

use crate::accounts::{Account, Accounts};
use crate::context::Context;
use crate::progress::note;
use crate::sample::Sample;
use crate::servers::{Deps, Endpoints};
use crate::target::Cluster;

/// `cargo xtask secrets`
pub fn run(context: &Context) -> Result<()> {
    apply(context, &Cluster::load(context)?, &Deps::load(context)?).map(drop)
}

/// Puts them on the cluster; the accounts of an earlier run are kept.
pub fn apply(context: &Context, cluster: &Cluster, servers: &Deps) -> Result<Accounts> {
    let sample = Sample::load(context)?;
    let accounts = Accounts::ensure(context)?;
    let manifest = manifest(&sample, &servers.cluster, &accounts.staff)?;
    cluster
        .kubectl(context)?
        .args(["apply", "--server-side", "--force-conflicts", "--field-manager=xtask", "-f", "-"])
        .input(manifest.to_string())
        .log_to(&context.log("shop"))?;
    note(format!("secrets: written to namespace {}", sample.metadata.namespace));
    Ok(accounts)
}

fn manifest(sample: &Sample, servers: &Endpoints, staff: &Account) -> Result<Value> {
    let namespace = &sample.metadata.namespace;
    let secret = |pointer: &str, values: Value| {
        let metadata = json!({"name": sample.secret(pointer)?, "namespace": namespace});
        anyhow::Ok(json!({"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": values}))
    };
    Ok(json!({"apiVersion": "v1", "kind": "List", "items": [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {
            "name": namespace, "labels": {"pod-security.kubernetes.io/enforce": "restricted"},
        }},
        secret("/mongodb/uriSecretRef/name", json!({"uri": servers.mongodb_uri}))?,
        secret("/redis/urlSecretRef/name", json!({"url": servers.redis_url}))?,
        secret("/aws/credentialsSecretRef/name", json!({"accessKeyId": "local", "secretAccessKey": "local"}))?,
        secret("/auth/staffSecretRef/name", json!({"email": staff.email, "password": staff.password}))?,
    ]}))
}
