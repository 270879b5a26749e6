//! A deadline for every request to the API server but a watch: an answer that never comes must not hold up a pass for ever.

use std::{
    task::{Context, Poll},
    time::Duration,
};

use futures::{FutureExt, future::BoxFuture};
use hyper::{Request, Response};
use kube::{
    Client, Config,
    client::{Body, ClientBuilder},
};
use tower::{BoxError, Layer, Service};

/// As long as the slowest admission webhook may take.
const DEADLINE: Duration = Duration::from_secs(30);
/// Without a byte a connection is given up: longer than a watch may be silent, whose end comes after 290 s.
const SILENCE: Duration = Duration::from_secs(295);

/// A client of this API server all of whose requests end.
pub fn client(mut config: Config) -> Result<Client, kube::Error> {
    config.read_timeout.get_or_insert(SILENCE);
    Ok(ClientBuilder::try_from(config)?.with_layer(&Deadline::default()).build())
}

/// Lays the deadline around a client's service.
#[derive(Clone, Copy, Debug)]
pub struct Deadline(Duration);

impl Default for Deadline {
    fn default() -> Self {
        Self(DEADLINE)
    }
}

impl<S> Layer<S> for Deadline {
    type Service = Hasty<S>;

    fn layer(&self, inner: S) -> Hasty<S> {
        Hasty { inner, deadline: self.0 }
    }
}

/// A service of which no request but a watch waits longer.
#[derive(Clone, Debug)]
pub struct Hasty<S> {
    inner: S,
    deadline: Duration,
}

#[derive(Debug, thiserror::Error)]
#[error("the API server did not answer within {0:?}")]
struct NoAnswer(Duration);

impl<S, B> Service<Request<Body>> for Hasty<S>
where
    S: Service<Request<Body>, Response = Response<B>>,
    S::Error: Into<BoxError>,
    S::Future: Send + 'static,
{
    type Response = Response<B>;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Response<B>, BoxError>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let watches = is_watch(request.uri().query().unwrap_or_default());
        let answer = self.inner.call(request).map(|answer| answer.map_err(Into::into));
        if watches {
            return answer.boxed();
        }
        let deadline = self.deadline;
        async move {
            let answer = tokio::time::timeout(deadline, answer).await;
            answer.unwrap_or_else(|_| Err(NoAnswer(deadline).into()))
        }
        .boxed()
    }
}

fn is_watch(query: &str) -> bool {
    query.split('&').any(|pair| matches!(pair, "watch=true" | "watch=1"))
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::ConfigMap;
    use kube::{
        Api,
        api::{ListParams, WatchParams},
    };

    use super::*;
    use crate::lease::tests::unanswered;

    #[tokio::test]
    async fn every_request_but_a_watch_ends() {
        let (config, _listener) = unanswered().await;
        let soon = Duration::from_millis(50);
        let client = ClientBuilder::try_from(config).unwrap().with_layer(&Deadline(soon)).build();
        let maps: Api<ConfigMap> = Api::default_namespaced(client);
        let error = shop_runtime::telemetry::chain(&maps.list(&ListParams::default()).await.unwrap_err());
        assert!(error.contains("did not answer within 50ms"), "{error}");
        let params = WatchParams::default();
        let watch = maps.watch(&params, "0");
        assert!(tokio::time::timeout(soon * 10, watch).await.is_err(), "a watch has time");
    }
}
