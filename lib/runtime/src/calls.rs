//! Counts the requests that an SQS client makes, each attempt by itself: that is what AWS bills.

use aws_sdk_sqs::{
    Client,
    config::{ConfigBag, Intercept, RuntimeComponents, interceptors::BeforeTransmitInterceptorContextRef},
    error::BoxError,
};
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family},
};

use crate::metrics::Metrics;

/// The header that names the operation in SQS's JSON protocol, as `AmazonSQS.ReceiveMessage`.
const TARGET: &str = "x-amz-target";

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    operation: String,
}

/// A counter by operation. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct SqsCalls(Family<Labels, Counter>);

impl SqsCalls {
    /// A counter that is exported as `name`.
    pub fn register(metrics: &Metrics, name: &str) -> Self {
        let new = Self::default();
        metrics.register(|registry| registry.register(name, "Requests to SQS", new.0.clone()));
        new
    }

    /// The same client, counted. Both share their connections.
    pub fn watch(&self, client: &Client) -> Client {
        Client::from_conf(client.config().to_builder().interceptor(self.clone()).build())
    }
}

impl Intercept for SqsCalls {
    fn name(&self) -> &'static str {
        "SqsCalls"
    }

    fn read_before_transmit(
        &self,
        context: &BeforeTransmitInterceptorContextRef<'_>,
        _components: &RuntimeComponents,
        _config: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let target = context.request().headers().get(TARGET).unwrap_or_default();
        let operation = target.rsplit('.').next().unwrap_or_default().to_owned();
        self.0.get_or_create(&Labels { operation }).inc();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::aws::{self, Access, Service};

    #[tokio::test]
    async fn every_attempt_is_counted_under_its_operation() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let service = Service { region: "x".into(), endpoint: Some(endpoint.clone()) };
        let access = Access { key: Some((&"id".into(), &"key".into())), ..Access::default() };
        let (metrics, client) = (Metrics::default(), aws::sqs_as(&service, &access).await);
        let client = SqsCalls::register(&metrics, "shop_test_sqs_calls").watch(&client);
        let hang_up = async { while listener.accept().await.is_ok() {} };
        let answer = tokio::select! {
            answer = client.receive_message().queue_url(endpoint).send() => answer,
            () = hang_up => unreachable!("the listener goes on"),
        };
        assert!(answer.is_err());
        let text = metrics.encode().unwrap();
        assert!(text.contains(r#"shop_test_sqs_calls_total{operation="ReceiveMessage"} 2"#), "{text}");
    }
}
