//! What an account asked of the API server and what it was denied, in the words of RBAC: read from the server's own audit
//! log, which it writes to its output (dev/kind/audit-policy.yaml says of whom).

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api, Client, ResourceExt,
    api::{ListParams, LogParams},
};
use serde_json::{Value, json};

/// One right, as a rule of a Role grants it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Right {
    pub group: String,
    pub resource: String,
    pub verb: String,
}

impl std::fmt::Display for Right {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}/{}", self.verb, self.group, self.resource)
    }
}

const VERBS: [&str; 8] = ["get", "list", "watch", "create", "update", "patch", "delete", "deletecollection"];

/// The rights that rules grant, one by one. Fails on a wildcard and on a verb that no request can have.
pub fn granted(rules: &[Value]) -> BTreeSet<Right> {
    let texts = |rule: &Value, key: &str| -> Vec<String> {
        rule[key].as_array().unwrap().iter().map(|text| text.as_str().unwrap().to_owned()).collect()
    };
    let mut rights = BTreeSet::new();
    for rule in rules {
        for (group, resource) in texts(rule, "apiGroups")
            .iter()
            .flat_map(|group| texts(rule, "resources").into_iter().map(move |resource| (group.clone(), resource)))
        {
            assert!(group != "*" && !resource.contains('*'), "a wildcard: {rule}");
            for verb in texts(rule, "verbs") {
                assert!(VERBS.contains(&verb.as_str()), "a wildcard or an unknown verb: {rule}");
                rights.insert(Right { group: group.clone(), resource: resource.clone(), verb });
            }
        }
    }
    rights
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Requests {
    pub used: BTreeSet<Right>,
    pub denied: BTreeSet<String>,
    writes: BTreeMap<String, usize>,
}

impl Requests {
    /// All that this account has asked for so far.
    pub async fn of(client: &Client, account: &str) -> Self {
        let requests = Self::read(&log(client).await, account, Timestamp::MIN);
        assert!(
            !requests.used.is_empty(),
            "the API server's log has nothing of {account}: was the cluster made before it wrote one? \
             `cargo xtask cluster down` removes it, the next test makes it anew"
        );
        requests
    }

    /// What it has asked for since then.
    pub async fn since(client: &Client, account: &str, begin: Timestamp) -> Self {
        Self::read(&log(client).await, account, begin)
    }

    /// What it asked for that changes something, and how often.
    pub fn writes(&self) -> BTreeMap<String, usize> {
        self.writes.clone()
    }

    /// Of the lines of a log those that are events of this account since then.
    fn read(log: &str, account: &str, begin: Timestamp) -> Self {
        let mut requests = Self::default();
        for line in log.lines().filter(|line| line.starts_with('{')) {
            let Ok(event) = serde_json::from_str::<Value>(line) else { continue };
            let time = event["requestReceivedTimestamp"].as_str().and_then(|time| time.parse::<Timestamp>().ok());
            if event["user"]["username"] == account && time.is_some_and(|time| time >= begin) {
                requests.note(&event);
            }
        }
        requests
    }

    fn note(&mut self, event: &Value) {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let object = &event["objectRef"];
        let resource = match (text(&object["resource"]), text(&object["subresource"])) {
            // Discovery, versions: of no resource, and everybody's right.
            (resource, _) if resource.is_empty() => return,
            (resource, sub) if sub.is_empty() => resource,
            (resource, sub) => format!("{resource}/{sub}"),
        };
        let right = Right { group: text(&object["apiGroup"]), resource, verb: text(&event["verb"]) };
        let status = &event["responseStatus"]["code"];
        if *status == 403 {
            self.denied.insert(format!("{right} ({})", text(&event["requestURI"])));
        }
        if matches!(right.verb.as_str(), "create" | "update" | "patch" | "delete" | "deletecollection") {
            *self.writes.entry(right.to_string()).or_default() += 1;
        }
        // An apply that makes the object is asked for both rights.
        if right.verb == "patch" && *status == 201 {
            self.used.insert(Right { verb: "create".to_owned(), ..right.clone() });
        }
        self.used.insert(right);
    }
}

/// What the API server has written to its output.
async fn log(client: &Client) -> String {
    let pods: Api<Pod> = Api::namespaced(client.clone(), "kube-system");
    let servers = pods.list(&ListParams::default().labels("component=kube-apiserver")).await.unwrap();
    let server = servers.items.first().expect("the API server is no pod: these tests need the cluster of xtask");
    pods.logs(&server.name_any(), &LogParams::default()).await.unwrap()
}

#[test]
fn events_are_read_as_rbac_names_them() {
    let event = |who: &str, verb: &str, object: Value, code: u16| {
        let user = json!({ "username": who });
        let status = json!({ "code": code });
        json!({ "user": user, "verb": verb, "requestURI": "/x", "objectRef": object, "responseStatus": status,
                "requestReceivedTimestamp": "2026-11-28T18:29:26.439827Z" })
        .to_string()
    };
    let lines = [
        "I1128 18:29:26.439827       1 trace.go:236] a line of another kind".to_owned(),
        event("me", "list", json!({ "resource": "pods" }), 200),
        event("me", "patch", json!({ "apiGroup": "apps", "resource": "deployments" }), 201),
        event("me", "patch", json!({ "apiGroup": "g", "resource": "shops", "subresource": "status" }), 403),
        event("me", "get", Value::Null, 200),
        event("other", "delete", json!({ "resource": "secrets" }), 200),
    ];
    let requests = Requests::read(&lines.join("\n"), "me", Timestamp::MIN);
    let used: Vec<_> = requests.used.iter().map(Right::to_string).collect();
    assert_eq!(used, ["list /pods", "create apps/deployments", "patch apps/deployments", "patch g/shops/status"]);
    let writes = [("patch apps/deployments".to_owned(), 1), ("patch g/shops/status".to_owned(), 1)];
    assert_eq!(requests.writes(), BTreeMap::from(writes));
    let later = "2026-11-28T18:29:27Z".parse().unwrap();
    assert_eq!(Requests::read(&lines.join("\n"), "me", later), Requests::default());
    assert_eq!(requests.denied.into_iter().collect::<Vec<_>>(), ["patch g/shops/status (/x)"]);
}
