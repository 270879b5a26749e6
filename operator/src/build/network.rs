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
    use rstest::rstest;
    use serde_json::{Value, json};

    use super::*;
    use crate::validate::{
        tests::{shop, world},
        validate,
    };

    const EVERYBODY: [&str; 6] = ["operator", "ingress", "prometheus", "prometheus here", "neighbour", "stranger"];

    type Labels = &'static [(&'static str, &'static str)];

    /// Who calls: the labels of its namespace and of its pod.
    struct Caller {
        shops_own_namespace: bool,
        namespace: BTreeMap<String, String>,
        pod: BTreeMap<String, String>,
    }

    fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    fn caller(who: &str) -> Caller {
        let (own, namespace, pod): (bool, Labels, Labels) = match who {
            "operator" => (false, &[("name", "shop-system")], &[(names::NAME, names::MANAGER)]),
            "ingress" => (false, &[("name", "traefik")], &[("app", "traefik")]),
            "prometheus" => (false, &[("name", "monitoring")], &[("app", "prometheus")]),
            "prometheus here" => (true, &[("name", "shops")], &[("app", "prometheus")]),
            "neighbour" => (true, &[("name", "shops")], &[("app", "other")]),
            _ => (false, &[("name", "elsewhere")], &[("app", "other")]),
        };
        Caller { shops_own_namespace: own, namespace: labels(namespace), pod: labels(pod) }
    }

    /// As the documentation of `NetworkPolicyPeer` has it: without a namespace selector it is the policy's own namespace.
    fn lets_in(policy: &NetworkPolicy, caller: &Caller, port: i32) -> bool {
        let matches = |selector: &LabelSelector, of: &BTreeMap<String, String>| {
            selector.match_labels.iter().flatten().all(|(key, value)| of.get(key) == Some(value))
        };
        let is = |peer: &NetworkPolicyPeer| {
            let namespace = peer.namespace_selector.as_ref();
            namespace.map_or(caller.shops_own_namespace, |selector| matches(selector, &caller.namespace))
                && peer.pod_selector.as_ref().is_none_or(|selector| matches(selector, &caller.pod))
        };
        policy.spec.iter().flat_map(|spec| spec.ingress.iter().flatten()).any(|rule| {
            let ports: Vec<_> = rule.ports.iter().flatten().filter_map(|found| found.port.clone()).collect();
            ports.contains(&IntOrString::Int(port)) && rule.from.as_ref().is_none_or(|peers| peers.iter().any(is))
        })
    }

    #[rstest]
    #[case::by_default(json!({}), &EVERYBODY, &["operator"])]
    #[case::only_the_ingress(
        json!({ "ingressFrom": [{ "namespaceLabels": { "name": "traefik" } }] }), &["ingress"], &["operator"]
    )]
    #[case::a_pod_of_a_namespace(
        json!({ "ingressFrom": [{ "namespaceLabels": { "name": "traefik" }, "podLabels": { "app": "other" } }] }),
        &[], &["operator"]
    )]
    #[case::pods_without_a_namespace_are_the_shops_own(
        json!({ "metricsFrom": [{ "podLabels": { "app": "prometheus" } }] }),
        &EVERYBODY, &["operator", "prometheus here"]
    )]
    #[case::a_namespace_that_reads_metrics(
        json!({ "ingressFrom": [{}], "metricsFrom": [{ "namespaceLabels": { "name": "monitoring" } }] }),
        &["prometheus here", "neighbour"], &["operator", "prometheus"]
    )]
    fn who_may_reach_what(#[case] wanted: Value, #[case] http: &[&str], #[case] metrics: &[&str]) {
        let shop = shop(json!({ "spec": { "networkPolicy": wanted } }));
        let policies = policies(&validate(&shop, &world(&[("mongodb", "uri")])).unwrap());
        let (api, worker) = (&policies[0], &policies[1]);
        for who in EVERYBODY {
            let caller = caller(who);
            assert_eq!(lets_in(api, &caller, HTTP_PORT), http.contains(&who), "{who} to the api's 3000");
            assert_eq!(lets_in(api, &caller, 9090), metrics.contains(&who), "{who} to the api's 9090");
            assert_eq!(lets_in(worker, &caller, 9090), metrics.contains(&who), "{who} to the worker's 9090");
            assert!(!lets_in(worker, &caller, HTTP_PORT), "{who} to the worker's 3000, where nothing listens");
            assert!(!lets_in(api, &caller, 22), "{who} to any other port");
        }
    }

    #[test]
    fn the_operators_pods_have_the_label_that_the_policies_let_in() {
        let chart = include_str!("../../../charts/shop-operator/templates/_helpers.tpl");
        assert!(chart.contains(&format!("\n{}: {}\n", names::NAME, names::MANAGER)));
    }
}
