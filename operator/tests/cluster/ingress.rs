//! The Ingress's class: the spec's, or else the cluster's default, which the API server gives to new Ingresses alone.

use k8s_openapi::api::networking::v1::{Ingress, IngressClass};
use kube::{Api, ResourceExt, api::ListParams};
use serde_json::{Value, json};

use crate::harness::Harness;

#[tokio::test(flavor = "multi_thread")]
async fn an_ingress_has_the_cluster_s_class_unless_the_shop_names_one() {
    let harness = Harness::with_operator().await;
    let classes: Api<IngressClass> = Api::all(harness.client.clone());
    let is_default = |class: &IngressClass| {
        class.annotations().get("ingressclass.kubernetes.io/is-default-class").is_some_and(|value| value == "true")
    };
    let default = classes.list(&ListParams::default()).await.unwrap().into_iter().find(is_default);
    let default = default.expect("the cluster has a default IngressClass").name_any();
    let spec = |ingress: Value| json!({ "api": { "ingress": ingress } });
    let becomes = async |host: &str, class: &str| {
        let like = async || {
            let spec = harness.api::<Ingress>().get_opt("demo-api").await.unwrap()?.spec?;
            let named = spec.rules?.first()?.host.as_deref() == Some(host);
            (named && spec.ingress_class_name.as_deref() == Some(class)).then_some(())
        };
        harness.eventually(&format!("an Ingress of {host} with the class {class}"), like).await;
    };
    harness.apply("demo", spec(json!({ "enabled": true, "host": "one.example.com" }))).await;
    becomes("one.example.com", &default).await;
    harness.apply("demo", spec(json!({ "enabled": true, "host": "two.example.com" }))).await;
    becomes("two.example.com", &default).await;
    harness.apply("demo", spec(json!({ "enabled": true, "host": "two.example.com", "className": "other" }))).await;
    becomes("two.example.com", "other").await;
    harness.apply("demo", spec(json!({ "enabled": true, "host": "three.example.com" }))).await;
    becomes("three.example.com", &default).await;
    harness.finish().await;
}
