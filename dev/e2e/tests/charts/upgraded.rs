//! Releases on the cluster: from the packaged charts of version 0.1.0 to those of this checkout by plain `helm upgrade`, and
//! the order that `helm test` places. Each test has releases of its own in a namespace of its own.

use std::{collections::BTreeSet, path::Path, process::Command, sync::Arc};

use anyhow::{Context, Result, ensure};
use futures::FutureExt;
use k8s_openapi::{
    api::{
        apps::v1::Deployment,
        core::v1::{Pod, Secret},
    },
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
};
use kube::{
    Api, ResourceExt,
    api::{ApiResource, DeleteParams, DynamicObject, GroupVersionKind, ListParams, Patch, PatchParams},
};
use serde_json::{Value, json};
use shop_bench::client::Answer;
use shop_e2e::{DOCUMENTED, LOCATION, Tested, in_namespace};
use shop_operator::crd::ShopDeployment;

use crate::helm::{chart, helm, released};

/// The operator's release of a test: this namespace's shops of this class, with the images of the deployed operator.
struct Release<'a> {
    tested: &'a Tested,
    images: Value,
}

impl<'a> Release<'a> {
    async fn new(tested: &'a Tested) -> Result<Self> {
        let deployments: Api<Deployment> = Api::namespaced(tested.client.clone(), "shop-system");
        let operator = deployments.get("shop-operator").await.context("run `cargo xtask test e2e`")?;
        let operator = serde_json::to_value(operator)?;
        let container = &operator["spec"]["template"]["spec"]["containers"][0];
        let variable = |name: &str| {
            let all = container["env"].as_array().into_iter().flatten();
            all.filter(|variable| variable["name"] == name).map(|variable| variable["value"].clone()).next()
        };
        let images = json!({
            "operator": container["image"],
            "api": variable("SHOP_API_IMAGE"),
            "worker": variable("SHOP_WORKER_IMAGE"),
        });
        Ok(Self { tested, images })
    }

    /// The CRD is the deployed operator's: a release leaves it alone.
    fn operator_values(&self) -> Value {
        json!({
            "replicas": 1,
            "images": self.images,
            "watchNamespace": self.tested.namespace,
            "crds": { "install": false },
            "env": [{ "name": "SHOP_OPERATOR_CLASS", "value": self.tested.namespace }],
        })
    }

    fn shop_values(&self) -> Result<Value> {
        let shop = self.tested.sample(|_| {})?;
        Ok(json!({
            "shop": shop["spec"],
            "labels": { "shop.xhipment.io/operator-class": self.tested.namespace },
        }))
    }

    fn helm(&self, args: &[&str], values: &Value) -> Result<String> {
        helm(&[args, &["--namespace", &self.tested.namespace]].concat(), values)
    }

    fn install(&self, name: &str, chart: &Path, values: &Value) -> Result<String> {
        self.helm(&["install", name, &chart.to_string_lossy()], values)
    }

    fn upgrade(&self, name: &str, more: &[&str], values: &Value) -> Result<String> {
        let folder = chart(if name == "demo" { "shop" } else { "shop-operator" });
        self.helm(&[&["upgrade", name, &folder.to_string_lossy()], more].concat(), values)
    }
}

async fn order(tested: &Tested) -> Result<()> {
    let buyer = tested.customer("asha").await?;
    let items = json!([{ "productId": DOCUMENTED[0].0, "quantity": 1 }]);
    let body = json!({ "location": LOCATION, "totalAmount": DOCUMENTED[0].1, "items": items });
    let Answer::Accepted { order_id } = tested.shop.order(&buyer, &body).await? else { anyhow::bail!("refused") };
    tested
        .eventually("the order is not Processed", || async {
            let order = tested.shop.read_order(&buyer, &order_id).await?;
            Ok((order["status"] == "Processed").then_some(()))
        })
        .await
}

/// The shop's own pods; an upgrade of the operator alone replaces none.
async fn pods(tested: &Tested) -> Result<BTreeSet<String>> {
    let ours =
        ListParams::default().labels("app.kubernetes.io/instance=demo,app.kubernetes.io/component in (api,worker)");
    Ok(tested.api::<Pod>().list(&ours).await?.iter().map(ResourceExt::name_any).collect())
}

/// The operator's Deployment has rolled out what its release says, and it is of this chart.
async fn rolled_out(tested: &Tested, chart: &str) -> Result<()> {
    tested
        .eventually("the operator is not rolled out", || async {
            let operator = tested.api::<Deployment>().get("upgraded-shop-operator").await?;
            let status = operator.status.clone().unwrap_or_default();
            let is_new = operator.labels().get("helm.sh/chart").is_some_and(|label| label == chart);
            let all =
                status.updated_replicas == Some(1) && status.replicas == Some(1) && status.ready_replicas == Some(1);
            Ok((is_new && all && status.observed_generation == operator.metadata.generation).then_some(()))
        })
        .await
}

#[test]
fn the_released_charts_are_upgraded_under_a_running_shop() {
    in_namespace(|tested: Arc<Tested>| async move {
        let release = Release::new(&tested).await?;
        release.install("upgraded", &released("shop-operator"), &release.operator_values())?;
        rolled_out(&tested, "shop-operator-0.1.0").await?;
        release.install("demo", &released("shop"), &release.shop_values()?)?;
        tested.ready().await?;
        tested.seed(10).await?;
        order(&tested).await?;
        let before = pods(&tested).await?;

        // As people do it, and as docs/operating.md says: the values of the first installation, and a chart that has more.
        for values in ["--reuse-values", "--reset-then-reuse-values"] {
            release.upgrade("upgraded", &[values], &Value::Null)?;
            rolled_out(&tested, "shop-operator-0.2.0").await?;
        }
        release.upgrade("demo", &["--reuse-values"], &Value::Null)?;
        tested.ready().await?;
        order(&tested).await?;
        let after = pods(&tested).await?;
        ensure!(before == after, "pods were replaced for nothing: {before:?}, {after:?}");

        // The new operator does its work: a change arrives.
        let mut values = release.shop_values()?;
        values["shop"]["settings"]["displayName"] = json!("Upgraded");
        release.upgrade("demo", &[], &values)?;
        tested.ready().await?;
        // Pods that drain are still there for some seconds.
        tested
            .eventually("the change reached no pod", || async {
                Ok(before.is_disjoint(&pods(&tested).await?).then_some(()))
            })
            .await?;

        // The shop goes with its release, while its operator runs; then that goes too.
        release.helm(&["uninstall", "demo", "--wait", "--timeout", "2m"], &Value::Null)?;
        tested
            .eventually("the shop is still there", || async {
                Ok(tested.api::<ShopDeployment>().get_opt("demo").await?.is_none().then_some(()))
            })
            .await?;
        release.helm(&["uninstall", "upgraded", "--wait"], &Value::Null)?;
        Ok(())
    });
}

#[test]
fn helm_test_places_an_order() {
    in_namespace(|tested: Arc<Tested>| async move {
        let release = Release::new(&tested).await?;
        let mut values = release.shop_values()?;
        values["labels"] = json!({});
        values["test"] = json!({ "image": release.images["api"] });
        release.install("demo", &chart("shop"), &values)?;
        tested.ready().await?;
        let said = release.helm(&["test", "demo", "--logs", "--timeout", "3m"], &Value::Null)?;
        ensure!(said.contains("was accepted and processed"), "{said}");
        ensure!(tested.shop.products().await?.is_empty(), "the test's product is still there");

        // A password that the shop does not know, as the operator is kept from telling it: the test fails, and its pod stays
        // to say why.
        let pause = |paused: bool| Patch::Merge(json!({ "spec": { "paused": paused } }));
        tested.api::<ShopDeployment>().patch("demo", &PatchParams::default(), &pause(true)).await?;
        tested.condition("Paused", "True").await?;
        let wrong = Patch::Merge(json!({ "stringData": { "password": "not the password" } }));
        tested.api::<Secret>().patch("staff", &PatchParams::default(), &wrong).await?;
        let failed = release.helm(&["test", "demo", "--timeout", "1m"], &Value::Null);
        ensure!(failed.is_err(), "the test passes with a wrong password: {failed:?}");
        let log = tested.api::<Pod>().logs("demo-smoke", &kube::api::LogParams::default()).await?;
        ensure!(log.contains("was answered 401") && !log.contains("not the password"), "{log}");
        tested.api::<ShopDeployment>().patch("demo", &PatchParams::default(), &pause(false)).await?;
        release.helm(&["uninstall", "demo"], &Value::Null)?;
        Ok(())
    });
}

/// A copy of the operator's chart whose CRD is of another kind: the real one belongs to the deployed release.
struct Renamed {
    folder: tempfile::TempDir,
    group: String,
}

impl Renamed {
    fn kind(&self) -> ApiResource {
        let kind = GroupVersionKind::gvk(&self.group, "v1alpha1", "Renamed");
        ApiResource::from_gvk_with_plural(&kind, "renameds")
    }

    fn crd(&self) -> String {
        format!("renameds.{}", self.group)
    }

    fn path(&self, version: &str) -> std::path::PathBuf {
        self.folder.path().join(version).join("shop-operator")
    }

    fn new(namespace: &str) -> Result<Self> {
        let renamed = Self { folder: tempfile::tempdir()?, group: format!("{namespace}.example.com") };
        let (old, new) = (renamed.folder.path().join("old"), renamed.folder.path().join("new"));
        std::fs::create_dir(&old)?;
        std::fs::create_dir(&new)?;
        run(Command::new("tar").arg("-xzf").arg(released("shop-operator")).arg("-C").arg(&old))?;
        run(Command::new("cp").arg("-rL").arg(chart("shop-operator")).arg(&new))?;
        renamed.rename("old", |text| text)?;
        renamed.rename("new", |text| text.replacen("description: ", "description: The new schema. ", 1))?;
        Ok(renamed)
    }

    fn rename(&self, version: &str, change: impl FnOnce(String) -> String) -> Result<()> {
        let file = self.path(version).join("files/crds/shopdeployments.yaml");
        let text = std::fs::read_to_string(&file)?;
        let text = text.replace("shop.xhipment.io", &self.group).replace("shopdeployment", "renamed");
        let text = text.replace("ShopDeployment", "Renamed").replace("    - shop\n    - shops\n", "    - rnmd\n");
        Ok(std::fs::write(&file, change(text))?)
    }
}

fn run(command: &mut Command) -> Result<()> {
    let status = command.status()?;
    ensure!(status.success(), "{command:?}: {status}");
    Ok(())
}

#[test]
fn the_crd_is_changed_by_an_upgrade_and_kept_by_an_uninstall() {
    in_namespace(|tested: Arc<Tested>| async move {
        let renamed = Renamed::new(&tested.namespace)?;
        let tried = std::panic::AssertUnwindSafe(crd_life(&tested, &renamed)).catch_unwind().await;
        let crds: Api<CustomResourceDefinition> = Api::all(tested.client.clone());
        let _gone = crds.delete(&renamed.crd(), &DeleteParams::default()).await;
        tried.unwrap_or_else(|panicked| std::panic::resume_unwind(panicked))
    });
}

async fn crd_life(tested: &Tested, renamed: &Renamed) -> Result<()> {
    let release = Release::new(tested).await?;
    let crds: Api<CustomResourceDefinition> = Api::all(tested.client.clone());
    // No operator: it knows the real kind only.
    let values = json!({ "replicas": 0, "watchNamespace": tested.namespace });
    release.install("crd", &renamed.path("old"), &values)?;
    let objects: Api<DynamicObject> = Api::namespaced_with(tested.client.clone(), &tested.namespace, &renamed.kind());
    let mut shop = tested.sample(|_| {})?;
    (shop["apiVersion"], shop["kind"]) = (json!(format!("{}/v1alpha1", renamed.group)), json!("Renamed"));
    let made = tested.eventually("the kind is not served", || async {
        let apply = objects.patch("demo", &PatchParams::apply("test"), &Patch::Apply(&shop)).await?;
        Ok(Some(apply.uid()))
    });
    let made = made.await?;
    let before = crds.get(&renamed.crd()).await?;
    ensure!(!serde_json::to_string(&before)?.contains("The new schema."), "the old chart has the new schema");

    let upgrade = ["upgrade", "crd", &renamed.path("new").to_string_lossy()].map(str::to_owned);
    release.helm(&upgrade.each_ref().map(String::as_str), &values)?;
    let after = crds.get(&renamed.crd()).await?;
    ensure!(
        after.uid() == before.uid() && after.metadata.generation > before.metadata.generation,
        "{:?}",
        after.metadata
    );
    ensure!(serde_json::to_string(&after)?.contains("The new schema."), "the upgrade did not reach the CRD");
    ensure!(objects.get("demo").await?.uid() == made, "the shop did not outlive the upgrade");

    release.helm(&["uninstall", "crd", "--wait"], &Value::Null)?;
    ensure!(crds.get(&renamed.crd()).await?.metadata.deletion_timestamp.is_none(), "the CRD went with the release");
    ensure!(objects.get("demo").await?.uid() == made, "the shop went with the release");
    // And is taken up again by the same release.
    release.install("crd", &renamed.path("new"), &values)?;
    ensure!(objects.get("demo").await?.uid() == made, "the shop did not outlive the new installation");
    release.helm(&["uninstall", "crd", "--wait"], &Value::Null)?;
    Ok(())
}
