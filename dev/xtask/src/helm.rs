//! Installs the charts of this checkout with helm. Values go through standard input: an argument list is there for everyone to read.

use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};

use crate::command::wait_until;
use crate::context::Context;
use crate::images::Images;
use crate::target::Cluster;

/// A chart of this checkout as a release.
#[derive(Clone, Copy, Debug)]
pub struct Release<'a> {
    pub name: &'a str,
    pub chart: &'a str,
    pub namespace: &'a str,
}

pub const OPERATOR: Release<'_> = Release { name: "shop-operator", chart: "shop-operator", namespace: "shop-system" };

/// The operator with these images.
pub fn operator_values(images: &Images) -> Value {
    json!({"images": {"operator": images.operator, "api": images.api, "worker": images.worker}})
}

/// On releases that were installed here: on somebody's own cluster no other is upgraded or uninstalled.
const MARK: &str = "installed-by=xtask";

/// Installs or upgrades the release; does not wait for what it made to be ready.
pub fn install(context: &Context, cluster: &Cluster, release: Release<'_>, values: &Value) -> Result<()> {
    forget_interrupted(context, cluster, release)?;
    restricted_namespace(context, cluster, release.namespace)?;
    if matches!(cluster, Cluster::Current { .. })
        && is_there(context, cluster, release, &[])?
        && !is_ours(context, cluster, release)?
    {
        bail!(
            "there is a release {} in namespace {} that was not installed from here: upgrade it with helm, or \
             uninstall it first",
            release.name,
            release.namespace
        );
    }
    // On our own cluster, what Tilt put there is taken over.
    let take_over: &[&str] = if matches!(cluster, Cluster::Kind { .. }) { &["--take-ownership"] } else { &[] };
    let chart = context.repo.join("charts").join(release.chart);
    cluster
        .helm(context)?
        .args(["upgrade", "--install", release.name])
        .arg(&chart)
        .args(["--namespace", release.namespace, "--labels", MARK, "--values", "-"])
        // A field that `kubectl apply` of the sample owns since then is taken back.
        .args(["--server-side=true", "--force-conflicts"])
        .args(take_over)
        .input(values.to_string())
        .log_to(&context.log("helm"))
        .with_context(|| format!("installing chart {} as release {}", release.chart, release.name))
}

/// The namespace, at the restricted level of Pod Security. On somebody's own cluster one that is there keeps its level.
fn restricted_namespace(context: &Context, cluster: &Cluster, namespace: &str) -> Result<()> {
    let there = cluster.kubectl(context)?.args(["get", "namespace", namespace]).succeeds();
    if there && matches!(cluster, Cluster::Current { .. }) {
        return Ok(());
    }
    let labels = json!({"pod-security.kubernetes.io/enforce": "restricted"});
    let object = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace, "labels": labels}});
    let apply = ["apply", "--server-side", "--force-conflicts", "--field-manager=xtask", "-f", "-"];
    let run = cluster.kubectl(context)?.args(apply).input(object.to_string());
    run.log_to(&context.log("helm")).with_context(|| format!("making namespace {namespace}"))
}

/// Makes the shops' kind known where no operator is installed.
pub fn install_crds(context: &Context, cluster: &Cluster) -> Result<()> {
    let crds = context.repo.join("crds");
    cluster.kubectl(context)?.args(["apply", "--server-side", "-f"]).arg(&crds).log_to(&context.log("helm"))?;
    // kubectl gives up at once on a kind that is so new that it has no conditions yet.
    wait_until(Duration::from_secs(30), "the shops' kind", || {
        let established = ["wait", "--for=condition=Established", "--timeout=30s", "-f"];
        cluster.kubectl(context)?.args(established).arg(&crds).log_to(&context.log("helm"))
    })
}

/// Whether the release was installed from here.
pub fn is_ours(context: &Context, cluster: &Cluster, release: Release<'_>) -> Result<bool> {
    is_there(context, cluster, release, &["--selector", MARK])
}

fn is_there(context: &Context, cluster: &Cluster, release: Release<'_>, more: &[&str]) -> Result<bool> {
    let list = cluster.helm(context)?.args(["list", "--namespace", release.namespace, "--short"]).args(more);
    Ok(list.read()?.lines().any(|name| name.trim() == release.name))
}

/// Uninstalls the release and waits until its objects are gone; fine to repeat.
pub fn uninstall(context: &Context, cluster: &Cluster, release: Release<'_>) -> Result<()> {
    cluster
        .helm(context)?
        .args(["uninstall", release.name, "--namespace", release.namespace])
        .args(["--ignore-not-found", "--wait", "--cascade", "foreground", "--timeout", "3m"])
        .log_to(&context.log("helm"))
        .with_context(|| format!("uninstalling release {}", release.name))
}

/// A run that was ended in the middle leaves a pending revision, at which helm refuses any other.
fn forget_interrupted(context: &Context, cluster: &Cluster, release: Release<'_>) -> Result<()> {
    let pending =
        format!("owner=helm,name={},status in (pending-install,pending-upgrade,pending-rollback)", release.name);
    let kubectl = cluster.kubectl(context)?;
    kubectl.args(["-n", release.namespace, "delete", "secret", "-l", &pending]).log_to(&context.log("helm"))
}
