//! The shop operator: turns a ShopDeployment into running pods, and scales its workers with the queue.
//! Knows Kubernetes and the attributes of SQS queues; never MongoDB, Redis or what a message says.

pub mod apply;
pub mod ask;
pub mod assess;
pub mod build;
pub mod causes;
pub mod conditions;
pub mod config;
pub mod contained;
pub mod context;
pub mod controller;
pub mod crd;
pub mod deadline;
pub mod deletion;
pub mod fetch;
pub mod kept;
pub mod keys;
pub mod lease;
pub mod manual;
pub mod metrics;
pub mod names;
pub mod queue;
pub mod report;
pub mod rollout;
pub mod run;
pub mod scale;
pub mod validate;
pub mod watches;

use kube::CustomResourceExt;

/// The CRD as it is checked in under crds/.
pub fn crd_yaml() -> Result<String, serde_yaml::Error> {
    serde_yaml::to_string(&crd::ShopDeployment::crd())
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    #[rstest]
    #[case("crds/shopdeployments.yaml", crate::crd_yaml().unwrap())]
    #[case("docs/shopdeployment.md", crate::manual::manual().unwrap())]
    fn what_is_checked_in_is_the_types_own(#[case] path: &str, #[case] wanted: String) {
        let found = std::fs::read_to_string(format!("{}/../{path}", env!("CARGO_MANIFEST_DIR"))).unwrap();
        assert!(found == wanted, "{path} differs from operator/src/crd: run `cargo run --bin crdgen`");
    }
}
