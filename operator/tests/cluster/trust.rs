//! A private CA: the operator's own client trusts it, and the pods get it as a file.

use crate::{harness::Harness, queue::Sqs};
use k8s_openapi::api::{apps::v1::Deployment, core::v1::Secret};
use kube::api::{Patch, PatchParams};
use serde_json::json;
use shop_harness::TlsFront;

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_of_a_private_ca_is_reached_once_its_certificate_is_there() {
    let (mut harness, sqs, front) = (Harness::new().await, Sqs::new().await, TlsFront::new().unwrap());
    harness.start_operator("one");
    harness.secret("ca", &[("ca.crt", "no certificate")]).await;
    let queue =
        json!({ "name": sqs.name, "management": "Managed", "endpoint": front.https(&sqs.endpoint).await.unwrap() });
    harness.apply("demo", json!({ "queue": queue, "caSecretRef": { "name": "ca" } })).await;
    let message = harness.condition("demo", "QueueReadable", |status, _| status == "False").await;
    assert!(message.contains("Secret ca (spec.caSecretRef) has no usable certificate under ca.crt"), "{message}");

    let pod = harness.exists::<Deployment>("demo-worker").await.spec.template;
    let config = |template: &k8s_openapi::api::core::v1::PodTemplateSpec| {
        template.metadata.as_ref().unwrap().annotations.clone().unwrap()
    };
    let before = config(&pod);
    let container = &pod.spec.unwrap().containers[0];
    let file = container.env.iter().flatten().find(|env| env.name == "SHOP_CA_FILE").unwrap().value.clone().unwrap();
    assert!(file.starts_with(&container.volume_mounts.as_ref().unwrap()[0].mount_path), "{file}");

    let pem = std::fs::read_to_string(front.ca_file()).unwrap();
    let right = json!({ "stringData": { "ca.crt": pem } });
    harness.api::<Secret>().patch("ca", &PatchParams::default(), &Patch::Merge(&right)).await.unwrap();
    harness.condition("demo", "QueueReadable", |status, _| status == "True").await;
    assert!(sqs.url(&sqs.name).await.is_some(), "the queue has been made");
    harness
        .eventually("pods that read the new certificate", async || {
            let worker = harness.exists::<Deployment>("demo-worker").await;
            (config(&worker.spec.template) != before).then_some(())
        })
        .await;
    harness.finish().await;
    sqs.clean().await;
}
