//! The `NetworkPolicies`, ingress direction only: 3000 as the owner says, 9090 for the operator and who reads metrics.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::networking::v1::{
        NetworkPolicy, NetworkPolicyIngressRule, NetworkPolicyPeer, NetworkPolicyPort, NetworkPolicySpec,
    },
    apimachinery::pkg::{apis::meta::v1::LabelSelector, util::intstr::IntOrString},
};

use super::{api::HTTP_PORT, both, metadata};
use crate::{
    crd::Peer,
    names::{self, Component},
    validate::ValidatedShop,
};

pub fn policies(shop: &ValidatedShop) -> Vec<NetworkPolicy> {
    if shop.spec.network_policy.enabled { both(|component| policy(shop, component)) } else { Vec::new() }
}

fn policy(shop: &ValidatedShop, component: Component) -> NetworkPolicy {
    let wanted = &shop.spec.network_policy;
    let mut readers = vec![operator()];
    readers.extend(wanted.metrics_from.iter().map(peer));
    let mut rules = vec![rule(9090, Some(readers))];
    if component == Component::Api {
        let callers: Vec<_> = wanted.ingress_from.iter().map(peer).collect();
        rules.insert(0, rule(HTTP_PORT, (!callers.is_empty()).then_some(callers)));
    }
    NetworkPolicy {
        metadata: metadata(shop, component),
        spec: Some(NetworkPolicySpec {
            pod_selector: Some(LabelSelector {
                match_labels: Some(component.selector(&shop.name)),
                ..LabelSelector::default()
            }),
            policy_types: Some(vec!["Ingress".to_owned()]),
            ingress: Some(rules),
            egress: None,
        }),
    }
}

fn rule(port: i32, from: Option<Vec<NetworkPolicyPeer>>) -> NetworkPolicyIngressRule {
    let port =
        NetworkPolicyPort { port: Some(IntOrString::Int(port)), protocol: Some("TCP".to_owned()), end_port: None };
    NetworkPolicyIngressRule { from, ports: Some(vec![port]) }
}

/// The operator, in whatever namespace it runs.
fn operator() -> NetworkPolicyPeer {
    let labels = BTreeMap::from([(names::NAME.to_owned(), names::MANAGER.to_owned())]);
    NetworkPolicyPeer {
        namespace_selector: Some(LabelSelector::default()),
        pod_selector: Some(selector(&labels)),
        ip_block: None,
    }
}

fn peer(peer: &Peer) -> NetworkPolicyPeer {
    NetworkPolicyPeer {
        namespace_selector: (!peer.namespace_labels.is_empty()).then(|| selector(&peer.namespace_labels)),
        // An empty peer would match nothing; an empty pod selector matches all pods.
        pod_selector: Some(selector(&peer.pod_labels)),
        ip_block: None,
    }
}

fn selector(labels: &BTreeMap<String, String>) -> LabelSelector {
    LabelSelector { match_labels: (!labels.is_empty()).then(|| labels.clone()), ..LabelSelector::default() }
}

#[cfg(test)]
mod tests {
    use crate::names;

    #[test]
    fn the_operators_pods_have_the_label_that_the_policies_let_in() {
        let chart = include_str!("../../../charts/shop-operator/templates/_helpers.tpl");
        assert!(chart.contains(&format!("\n{}: {}\n", names::NAME, names::MANAGER)));
    }
}
