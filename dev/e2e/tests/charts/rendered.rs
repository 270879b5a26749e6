//! What the charts render: rights by mode, objects by value, and words for whoever installed them.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::helm::{chart, helm, render};

fn of_kind<'a>(objects: &'a [Value], kind: &str) -> Vec<&'a Value> {
    objects.iter().filter(|object| object["kind"] == kind).collect()
}

fn one<'a>(objects: &'a [Value], kind: &str) -> Result<&'a Value> {
    let found = of_kind(objects, kind);
    ensure!(found.len() == 1, "{} of kind {kind}", found.len());
    Ok(found[0])
}

#[test]
fn rights_are_of_the_cluster_or_of_one_namespace_and_never_wildcards() -> Result<()> {
    let everywhere = render("shop-operator", &json!({}))?;
    one(&everywhere, "ClusterRole")?;
    one(&everywhere, "ClusterRoleBinding")?;
    let there = render("shop-operator", &json!({ "watchNamespace": "shops" }))?;
    ensure!(of_kind(&there, "ClusterRole").is_empty() && of_kind(&there, "ClusterRoleBinding").is_empty());
    let places =
        |kind: &str| -> Vec<_> { of_kind(&there, kind).iter().map(|role| &role["metadata"]["namespace"]).collect() };
    ensure!(places("Role") == ["shops", "here"], "{:?}", places("Role"));
    ensure!(places("RoleBinding") == ["shops", "here"], "{:?}", places("RoleBinding"));
    ensure!(
        of_kind(&there, "Role")[0]["rules"] == one(&everywhere, "ClusterRole")?["rules"],
        "the rules differ by mode"
    );
    for object in everywhere.iter().chain(&there) {
        for rule in object["rules"].as_array().into_iter().flatten() {
            ensure!(!rule.to_string().contains('*'), "a wildcard in {}: {rule}", object["metadata"]["name"]);
        }
        for subject in object["subjects"].as_array().into_iter().flatten() {
            ensure!(subject["kind"] == "ServiceAccount" && subject["namespace"] == "here", "{subject}");
        }
    }
    let env = |objects: &[Value]| -> Result<String> { Ok(container(one(objects, "Deployment")?)["env"].to_string()) };
    ensure!(env(&there)?.contains("SHOP_WATCH_NAMESPACE") && !env(&everywhere)?.contains("SHOP_WATCH_NAMESPACE"));
    Ok(())
}

fn container(deployment: &Value) -> &Value {
    &deployment["spec"]["template"]["spec"]["containers"][0]
}

#[test]
fn objects_come_and_go_by_value() -> Result<()> {
    let usual = render("shop-operator", &json!({}))?;
    let crd = one(&usual, "CustomResourceDefinition")?;
    ensure!(crd["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep", "{}", crd["metadata"]);
    one(&usual, "PodDisruptionBudget")?;
    for kind in ["PrometheusRule", "PodMonitor", "ConfigMap"] {
        ensure!(of_kind(&usual, kind).is_empty(), "{kind} without being asked for");
    }
    let less = render("shop-operator", &json!({ "crds": { "install": false }, "replicas": 1 }))?;
    ensure!(of_kind(&less, "CustomResourceDefinition").is_empty() && of_kind(&less, "PodDisruptionBudget").is_empty());
    let more =
        json!({ "podLabels": { "team": "ops" }, "env": [{ "name": "A", "value": "b" }], "images": { "tag": "7" } });
    let more = render("shop-operator", &more)?;
    let deployment = one(&more, "Deployment")?;
    ensure!(deployment["spec"]["template"]["metadata"]["labels"]["team"] == "ops");
    ensure!(container(deployment)["image"] == "localhost/xhipment/operator:7", "{}", container(deployment));
    ensure!(container(deployment)["env"].as_array().context("env")?.contains(&json!({ "name": "A", "value": "b" })));
    Ok(())
}

#[test]
fn monitoring_is_rendered_as_it_stands_in_the_files() -> Result<()> {
    let values = |kind: &str| {
        json!({ "monitoring": {
            "rules": { "kind": kind, "labels": { "release": "prometheus" } },
            "dashboard": { "enabled": true }, "podMonitor": { "enabled": true },
        }})
    };
    let folder = chart("shop-operator").join("files/monitoring");
    let alerts: Value = serde_yaml::from_str(&std::fs::read_to_string(folder.join("alerts.yaml"))?)?;
    let dashboard: Value = serde_json::from_str(&std::fs::read_to_string(folder.join("dashboard.json"))?)?;
    let objects = render("shop-operator", &values("PrometheusRule"))?;
    let rule = one(&objects, "PrometheusRule")?;
    ensure!(rule["spec"] == alerts && rule["metadata"]["labels"]["release"] == "prometheus", "{rule}");
    ensure!(one(&objects, "PodMonitor")?["spec"]["podMetricsEndpoints"][0]["honorLabels"] == true);
    let board = one(&objects, "ConfigMap")?;
    ensure!(board["metadata"]["labels"]["grafana_dashboard"] == "1", "{}", board["metadata"]);
    let text = board["data"]["xhipment-shops.json"].as_str().context("no dashboard")?;
    ensure!(serde_json::from_str::<Value>(text)? == dashboard);
    let objects = render("shop-operator", &values("ConfigMap"))?;
    let texts: Vec<_> =
        of_kind(&objects, "ConfigMap").iter().filter_map(|map| map["data"]["shop-alerts.yaml"].as_str()).collect();
    ensure!(texts.len() == 1 && serde_yaml::from_str::<Value>(texts[0])? == alerts, "{texts:?}");
    Ok(())
}

fn shop_values() -> Value {
    json!({
        "labels": { "shop.xhipment.io/operator-class": "blue" },
        "shop": {
            "mongodb": { "uriSecretRef": { "name": "m" } }, "queue": { "name": "q" }, "mail": { "from": "a@b.c" },
            "auth": { "staffSecretRef": { "name": "staff" } },
        },
        "secrets": { "m": { "uri": "mongodb://x" } },
    })
}

#[test]
fn a_shop_is_passed_on_as_it_is() -> Result<()> {
    let values = shop_values();
    let objects = render("shop", &values)?;
    let shop = one(&objects, "ShopDeployment")?;
    ensure!(shop["spec"] == values["shop"] && shop["metadata"]["name"] == "demo", "{shop}");
    ensure!(shop["metadata"]["labels"]["shop.xhipment.io/operator-class"] == "blue");
    ensure!(one(&objects, "Secret")?["stringData"] == values["secrets"]["m"]);
    Ok(())
}

#[test]
fn the_test_takes_its_account_from_the_secret_and_passes_the_restricted_level() -> Result<()> {
    let objects = render("shop", &shop_values())?;
    let pod = one(&objects, "Pod")?;
    ensure!(pod["metadata"]["annotations"]["helm.sh/hook"] == "test");
    let spec = &pod["spec"];
    ensure!(spec["automountServiceAccountToken"] == false && spec["securityContext"]["runAsNonRoot"] == true, "{spec}");
    let container = &spec["containers"][0];
    ensure!(container["securityContext"]["readOnlyRootFilesystem"] == true);
    for variable in container["env"].as_array().context("env")? {
        let from = &variable["valueFrom"]["secretKeyRef"];
        ensure!(variable["name"] == "SHOP_SMOKE_URL" || from["name"] == "staff", "{variable}");
    }
    let mut values = shop_values();
    values["test"] = json!({ "image": "r.example/api:9" });
    ensure!(one(&render("shop", &values)?, "Pod")?["spec"]["containers"][0]["image"] == "r.example/api:9");
    values["test"] = json!({ "enabled": false });
    ensure!(of_kind(&render("shop", &values)?, "Pod").is_empty());
    let mut values = shop_values();
    values["shop"].as_object_mut().context("shop")?.remove("auth");
    ensure!(of_kind(&render("shop", &values)?, "Pod").is_empty(), "without a staff account nobody makes the product");
    Ok(())
}

#[test]
fn notes_say_what_to_do_next() -> Result<()> {
    let notes = |name: &str, values: &Value| {
        let folder = chart(name);
        helm(&["install", "demo", &folder.to_string_lossy(), "--namespace", "here", "--dry-run=client"], values)
    };
    let text = notes("shop", &shop_values())?;
    for words in ["kubectl -n here wait --for=condition=Ready shop/demo", "helm test -n here demo", "It has no ingress"]
    {
        ensure!(text.contains(words), "{words}: {text}");
    }
    let text = notes("shop-operator", &json!({ "watchNamespace": "shops" }))?;
    for words in ["kubectl -n here rollout status", "kubectl delete shops --all -n shops", "kubectl delete crd"] {
        ensure!(text.contains(words), "{words}: {text}");
    }
    Ok(())
}
