//! Records what is asked of the API server, in the words of RBAC, and what was denied. Changes no request.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex},
    task::{Context, Poll},
};

use futures::{FutureExt, future::BoxFuture};
use hyper::{Method, Request, Response, StatusCode, Uri};
use kube::{Client, Config, client::ClientBuilder};
use serde_json::Value;
use tower::{Layer, Service};

/// One right, as a rule of a Role grants it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Right {
    pub group: String,
    pub resource: String,
    pub verb: &'static str,
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
                let verb = VERBS.into_iter().find(|known| *known == verb);
                let verb = verb.unwrap_or_else(|| panic!("a wildcard or an unknown verb: {rule}"));
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
}

/// What the client that it is laid around has asked for so far.
#[derive(Clone, Debug, Default)]
pub struct Recording(Arc<Mutex<Requests>>);

impl Recording {
    pub fn client(&self, config: Config) -> Client {
        ClientBuilder::try_from(config).unwrap().with_layer(self).build()
    }

    pub fn so_far(&self) -> Requests {
        self.0.lock().unwrap().clone()
    }

    fn note(&self, (method, uri): (&Method, &Uri), status: StatusCode) {
        let Some(right) = right(method, uri) else { return };
        let mut requests = self.0.lock().unwrap();
        if status == StatusCode::FORBIDDEN {
            requests.denied.insert(format!("{right} ({method} {uri})"));
        }
        // An apply that makes the object is asked for both rights.
        if right.verb == "patch" && status == StatusCode::CREATED {
            requests.used.insert(Right { verb: "create", ..right.clone() });
        }
        requests.used.insert(right);
    }
}

impl<S> Layer<S> for Recording {
    type Service = Recorded<S>;

    fn layer(&self, inner: S) -> Recorded<S> {
        Recorded { inner, recording: self.clone() }
    }
}

#[derive(Clone, Debug)]
pub struct Recorded<S> {
    inner: S,
    recording: Recording,
}

impl<S, B, R> Service<Request<B>> for Recorded<S>
where
    S: Service<Request<B>, Response = Response<R>>,
    S::Future: Send + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<S::Response, S::Error>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let (method, uri, recording) = (request.method().clone(), request.uri().clone(), self.recording.clone());
        let answer = self.inner.call(request);
        async move {
            let answer = answer.await;
            if let Ok(answer) = &answer {
                recording.note((&method, &uri), answer.status());
            }
            answer
        }
        .boxed()
    }
}

/// What RBAC calls a request: `/apis/{group}/{version}[/namespaces/{namespace}]/{resource}[/{name}[/{subresource}]]`.
fn right(method: &Method, uri: &Uri) -> Option<Right> {
    let parts: Vec<_> = uri.path().trim_matches('/').split('/').collect();
    let (group, rest) = match parts.as_slice() {
        ["api", _version, rest @ ..] => ("", rest),
        ["apis", group, _version, rest @ ..] => (*group, rest),
        _ => return None,
    };
    let rest = match rest {
        ["namespaces", _namespace, rest @ ..] if !rest.is_empty() => rest,
        rest => rest,
    };
    let (resource, named) = match rest {
        [] => return None,
        [resource] => ((*resource).to_owned(), false),
        [resource, _name] => ((*resource).to_owned(), true),
        [resource, _name, subresource, ..] => (format!("{resource}/{subresource}"), true),
    };
    let watches =
        uri.query().is_some_and(|query| query.split('&').any(|pair| matches!(pair, "watch=true" | "watch=1")));
    let verb = match (method.as_str(), named) {
        ("GET", true) => "get",
        ("GET", false) if watches => "watch",
        ("GET", false) => "list",
        ("POST", _) => "create",
        ("PUT", _) => "update",
        ("PATCH", _) => "patch",
        ("DELETE", true) => "delete",
        ("DELETE", false) => "deletecollection",
        _ => return None,
    };
    Some(Right { group: group.to_owned(), resource, verb })
}

#[test]
fn requests_are_named_as_rbac_names_them() {
    let named = |method: Method, uri: &str| right(&method, &uri.parse().unwrap()).map(|right| right.to_string());
    let cases = [
        (Method::GET, "/api/v1/namespaces/a/pods?&labelSelector=x", "list /pods"),
        (Method::GET, "/api/v1/pods?&watch=true&resourceVersion=1", "watch /pods"),
        (Method::GET, "/api/v1/namespaces/a/secrets/s", "get /secrets"),
        (Method::GET, "/api/v1/namespaces/a", "get /namespaces"),
        (
            Method::PATCH,
            "/apis/shop.xhipment.io/v1alpha1/namespaces/a/shopdeployments/d/status?force=true",
            "patch shop.xhipment.io/shopdeployments/status",
        ),
        (Method::PUT, "/apis/coordination.k8s.io/v1/namespaces/a/leases/l", "update coordination.k8s.io/leases"),
        (Method::DELETE, "/apis/apps/v1/namespaces/a/deployments/d", "delete apps/deployments"),
    ];
    for (method, uri, expected) in cases {
        assert_eq!(named(method, uri).as_deref(), Some(expected), "{uri}");
    }
    assert_eq!(named(Method::GET, "/version"), None);
}
