//! KEDA and the cluster's HPA as a lane's scaler; `cargo xtask bench scale --with-keda` has installed them.

use anyhow::{Context, Result};
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use kube::{
    Api,
    api::{ApiResource, DeleteParams, DynamicObject, GroupVersionKind, PostParams},
};
use serde_json::{Value, json};

use super::{
    lane::{Lane, eventually},
    trace::Shape,
};

const VERSION: &str = "v1alpha1";
const GROUP: &str = "keda.sh";
/// Of both objects.
const NAME: &str = "bench";

/// The lane's workers follow KEDA until this is removed.
pub struct Scaled {
    objects: Api<DynamicObject>,
    authentications: Api<DynamicObject>,
}

impl Scaled {
    /// KEDA's defaults, but for the stabilisation window, which is the shop's own; ready when the HPA has read the queue.
    pub async fn apply(lane: &Lane<'_>, shape: &Shape, queue_length: u32) -> Result<Self> {
        let objects = |kind: &str| {
            let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(GROUP, VERSION, kind));
            Api::<DynamicObject>::namespaced_with(lane.site.client.clone(), &lane.site.namespace, &resource)
        };
        let scaled = Self { objects: objects("ScaledObject"), authentications: objects("TriggerAuthentication") };
        let secret = |parameter: &str, key: &str| json!({ "parameter": parameter, "name": "aws", "key": key });
        let authentication = json!({
            "secretTargetRef": [secret("awsAccessKeyID", "accessKeyId"), secret("awsSecretAccessKey", "secretAccessKey")],
        });
        create(&scaled.authentications, "TriggerAuthentication", authentication).await?;
        create(&scaled.objects, "ScaledObject", spec(lane, shape, queue_length)).await?;
        let hpas = lane.site.api::<HorizontalPodAutoscaler>();
        eventually("the HPA reads the queue through KEDA", async || {
            let hpa = hpas.get(&format!("keda-hpa-{NAME}")).await?;
            let conditions = hpa.status.and_then(|status| status.conditions).unwrap_or_default();
            Ok(conditions.iter().any(|one| one.type_ == "ScalingActive" && one.status == "True").then_some(()))
        })
        .await?;
        Ok(scaled)
    }

    pub async fn remove(self) -> Result<()> {
        for api in [&self.objects, &self.authentications] {
            api.delete(NAME, &DeleteParams::default()).await.context("removing KEDA's object")?;
            eventually("KEDA's object is gone", async || Ok(api.get_opt(NAME).await?.is_none().then_some(()))).await?;
        }
        Ok(())
    }
}

fn spec(lane: &Lane<'_>, shape: &Shape, queue_length: u32) -> Value {
    json!({
        "scaleTargetRef": { "name": format!("{}-worker", lane.name) },
        "minReplicaCount": shape.min,
        "maxReplicaCount": shape.max,
        "advanced": { "horizontalPodAutoscalerConfig": { "behavior": {
            "scaleDown": { "stabilizationWindowSeconds": shape.window_seconds },
        } } },
        "triggers": [{
            "type": "aws-sqs-queue",
            "metadata": {
                "queueURL": lane.site.queue_url(&lane.name),
                "queueLength": queue_length.to_string(),
                "awsRegion": "ap-south-1",
                "awsEndpoint": lane.site.servers.pods_sqs,
            },
            "authenticationRef": { "name": NAME },
        }],
    })
}

async fn create(api: &Api<DynamicObject>, kind: &str, spec: Value) -> Result<()> {
    let object = json!({
        "apiVersion": format!("{GROUP}/{VERSION}"), "kind": kind, "metadata": { "name": NAME }, "spec": spec,
    });
    let object: DynamicObject = serde_json::from_value(object)?;
    api.create(&PostParams::default(), &object).await.with_context(|| format!("creating KEDA's {kind}"))?;
    Ok(())
}
