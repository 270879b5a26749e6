//! Names, labels and annotations that the operator writes: one place, so that selectors and builders cannot disagree.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;

/// Field manager of the reconciler.
pub const MANAGER: &str = "shop-operator";
/// Field manager of the scaler: the worker's `spec.replicas`, and nothing else.
pub const SCALER: &str = "shop-scaler";

pub const FINALIZER: &str = "shop.xhipment.io/queue";
/// Which operator looks after a shop, where there are several.
pub const CLASS_LABEL: &str = "shop.xhipment.io/operator-class";
/// Fingerprint of the object as it was built: a difference is a change of ours, so that removed fields are noticed too.
pub const BUILT: &str = "shop.xhipment.io/built";
/// On an Ingress: its class is the spec's, not the cluster's default.
pub const CLASS_GIVEN: &str = "shop.xhipment.io/class-given";
/// Fingerprint of what a pod reads at start: a difference rolls the pods.
pub const CONFIG: &str = "shop.xhipment.io/config";
pub const PAUSE_SCALING: &str = "shop.xhipment.io/pause-scaling";
pub const PAUSE_SCALE_DOWN: &str = "shop.xhipment.io/pause-scale-down";
/// On a shop: any new text asks for new signing keys.
pub const ROTATE_KEYS: &str = "shop.xhipment.io/rotate-keys";
/// On the keys' Secret: how far their rotation has come.
pub const ROTATION: &str = "shop.xhipment.io/rotation";
/// On the keys' Secret: how long tokens live that were signed with them.
pub const TOKEN_LIFE: &str = "shop.xhipment.io/token-life";
pub const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";
/// The cost of the pods that the scaler wants to go: lower than any pod's own cost of 0.
pub const VICTIM: &str = "-1000";
/// Tag of a Managed queue: the shop it belongs to, as namespace/name.
pub const QUEUE_TAG: &str = "shop.xhipment.io/shop";

pub const MANAGED_BY: &str = "app.kubernetes.io/managed-by";
pub const INSTANCE: &str = "app.kubernetes.io/instance";
pub const COMPONENT: &str = "app.kubernetes.io/component";
pub const NAME: &str = "app.kubernetes.io/name";
pub const VERSION: &str = "app.kubernetes.io/version";
pub const APP: &str = "xhipment";

pub const KEYS_FILE: &str = "keys.json";
/// How the names of FIFO queues end.
pub const FIFO: &str = ".fifo";

/// Whether the scaler wants this pod to go before others.
pub fn is_victim(pod: &Pod) -> bool {
    pod.annotations().get(DELETION_COST).is_some_and(|cost| cost == VICTIM)
}

/// The two kinds of pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Component {
    Api,
    Worker,
}

impl Component {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Api => "api",
            Self::Worker => "worker",
        }
    }

    /// Name of this component's objects.
    pub fn object_name(self, shop: &str) -> String {
        format!("{shop}-{}", self.as_str())
    }

    /// The labels that select this component's pods; they never change.
    pub fn selector(self, shop: &str) -> BTreeMap<String, String> {
        [(NAME, APP), (INSTANCE, shop), (COMPONENT, self.as_str())]
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .into()
    }

    /// [`Component::selector`] as kubectl and the scale subresource write it.
    pub fn selector_text(self, shop: &str) -> String {
        let pairs: Vec<_> = self.selector(shop).into_iter().map(|(key, value)| format!("{key}={value}")).collect();
        pairs.join(",")
    }
}

/// Name of the generated signing keys' Secret.
pub fn keys_secret(shop: &str) -> String {
    format!("{shop}-keys")
}

/// Name of a Managed queue's dead-letter queue, which is of the same kind. Also of a URL that ends in the name.
pub fn dead_letter_queue(queue: &str) -> String {
    match queue.strip_suffix(FIFO) {
        Some(name) => format!("{name}-dlq{FIFO}"),
        None => format!("{queue}-dlq"),
    }
}

/// Name of what Prometheus finds the shop's pods by.
pub fn metrics(shop: &str) -> String {
    format!("{shop}-metrics")
}

/// The version in an image reference: its tag, or the start of its digest. Always the value of a label.
pub fn image_version(image: &str) -> String {
    let (version, longest) = if let Some((_, digest)) = image.split_once('@') {
        (digest.split_once(':').map_or(digest, |(_, hash)| hash), 12)
    } else {
        let last = image.rsplit('/').next().unwrap_or(image);
        (last.split_once(':').map_or("", |(_, tag)| tag), 63)
    };
    let version: String = version.chars().take(longest).collect();
    // A tag may begin with an underscore and end with any of -_., a label's value may not.
    match version.trim_matches(|c: char| !c.is_ascii_alphanumeric()) {
        "" => "latest".to_owned(),
        version => version.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("localhost/xhipment/api:dev-1", "dev-1")]
    #[case("localhost:5000/api", "latest")]
    #[case("r.example/api@sha256:0123456789abcdef", "0123456789ab")]
    #[case("r.example/api:1.2@sha512:0123456789abcdef", "0123456789ab")]
    #[case("api:_build-7_", "build-7")]
    #[case("api:__", "latest")]
    fn version_of_an_image(#[case] image: &str, #[case] version: &str) {
        assert_eq!(image_version(image), version);
    }

    #[test]
    fn a_version_that_is_cut_is_still_a_labels_value() {
        let tag = format!("{}-{}", "x".repeat(62), "y".repeat(60));
        assert_eq!(image_version(&format!("api:{tag}")), "x".repeat(62));
    }

    #[rstest]
    #[case("orders", "orders-dlq")]
    #[case("orders.fifo", "orders-dlq.fifo")]
    #[case("http://sqs/1/orders.fifo", "http://sqs/1/orders-dlq.fifo")]
    fn dead_letters_of_a_fifo_queue_are_in_one_too(#[case] queue: &str, #[case] dead: &str) {
        assert_eq!(dead_letter_queue(queue), dead);
    }

    #[test]
    fn selector_text_is_what_kubectl_takes() {
        assert_eq!(
            Component::Worker.selector_text("demo"),
            "app.kubernetes.io/component=worker,app.kubernetes.io/instance=demo,app.kubernetes.io/name=xhipment"
        );
    }
}
