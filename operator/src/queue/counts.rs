//! A queue's counts, asked for all the time: the SDK signs the question once in a while, and in between it is sent as it is.
//! To build and sign one anew takes several times as long as to send it, and a hundred shops ask fifty times a second.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use aws_sdk_sqs::{
    Client,
    config::{
        ConfigBag, HttpClient as _, Intercept, RuntimeComponents, http::HttpRequest,
        interceptors::BeforeTransmitInterceptorContextRef, timeout::TimeoutConfig,
    },
    error::BoxError,
    types::QueueAttributeName,
};
use aws_smithy_runtime_api::client::http::{HttpConnector as _, HttpConnectorSettings, SharedHttpConnector};
use http_body_util::{BodyExt as _, Limited};
use serde::Deserialize;
use tokio::time::Instant;

use super::{Problem, QueueError, within};
use crate::scale::Depth;

/// A signature holds for at least five minutes.
const SIGNED_FOR: Duration = Duration::from_mins(2);
/// SQS answers in milliseconds. What goes wrong is asked again by the SDK, which knows what to make of it.
const PATIENCE: Duration = Duration::from_secs(1);
const LONGEST_ANSWER: usize = 16 * 1024;

const COUNTS: [QueueAttributeName; 3] = [
    QueueAttributeName::ApproximateNumberOfMessages,
    QueueAttributeName::ApproximateNumberOfMessagesNotVisible,
    QueueAttributeName::ApproximateNumberOfMessagesDelayed,
];

/// Asks for the counts of one queue, as one client.
#[derive(Debug, Default)]
pub struct Counts(Option<Signed>);

/// A request as it went out.
#[derive(Debug)]
struct Signed {
    request: HttpRequest,
    connector: SharedHttpConnector,
    at: Instant,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    attributes: HashMap<String, String>,
}

impl Counts {
    /// The counts, approximate on AWS.
    pub async fn ask(&mut self, client: &Client, url: &str) -> Result<Depth, QueueError> {
        if let Some(signed) = self.0.take().filter(|signed| signed.at.elapsed() < SIGNED_FOR)
            && let Some(answer) = signed.ask_again().await
        {
            self.0 = Some(signed);
            return depth(|name| answer.attributes.get(name));
        }
        let seen = Witness::default();
        let request = client.get_queue_attributes().queue_url(url).set_attribute_names(Some(COUNTS.to_vec()));
        let answer = within(request.customize().interceptor(seen.clone()).send()).await?;
        let found = answer.attributes.unwrap_or_default();
        let depth = depth(|name| found.get(&QueueAttributeName::from(name)))?;
        self.0 = seen.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        Ok(depth)
    }
}

impl Signed {
    async fn ask_again(&self) -> Option<Answer> {
        let request = self.request.try_clone()?;
        let answer = async {
            let answer = self.connector.call(request).await.ok().filter(|answer| answer.status().is_success())?;
            let body = Limited::new(answer.into_body(), LONGEST_ANSWER).collect().await.ok()?;
            serde_json::from_slice(&body.to_bytes()).ok()
        };
        tokio::time::timeout(PATIENCE, answer).await.ok().flatten()
    }
}

/// Takes a copy of the request that the SDK sends, and of the way it goes.
#[derive(Clone, Debug, Default)]
struct Witness(Arc<Mutex<Option<Signed>>>);

impl Intercept for Witness {
    fn name(&self) -> &'static str {
        "Witness"
    }

    fn read_before_transmit(
        &self,
        context: &BeforeTransmitInterceptorContextRef<'_>,
        components: &RuntimeComponents,
        config: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let mut settings = HttpConnectorSettings::builder();
        settings.set_connect_timeout(config.load::<TimeoutConfig>().and_then(TimeoutConfig::connect_timeout));
        let connector = components.http_client().map(|client| client.http_connector(&settings.build(), components));
        let seen = connector.zip(context.request().try_clone());
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) =
            seen.map(|(connector, request)| Signed { request, connector, at: Instant::now() });
        Ok(())
    }
}

fn depth<'a>(found: impl Fn(&str) -> Option<&'a String>) -> Result<Depth, QueueError> {
    let [visible, in_flight, delayed] = COUNTS.map(|name| count(found(name.as_str()), name.as_str()));
    Ok(Depth { visible: visible?, in_flight: in_flight?, delayed: delayed? })
}

/// A count that is not there is no zero: an empty queue loses its workers, and may be deleted.
fn count(found: Option<&String>, name: &str) -> Result<u64, QueueError> {
    let number = found.and_then(|text| text.parse().ok());
    number.ok_or_else(|| QueueError::new(Problem::Other, format!("SQS gave no number for {name}")))
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use http_body_util::Full;
    use hyper::{Request, Response, body::Bytes, body::Incoming, service::service_fn};
    use hyper_util::rt::{TokioExecutor, TokioIo};
    use rstest::rstest;
    use shop_runtime::aws::{Access, Service, sqs_as};
    use tokio::{net::TcpListener, sync::mpsc};

    use super::*;

    #[rstest]
    #[case::a_number(Some("3"), Some(3))]
    #[case::nothing(None, None)]
    #[case::empty(Some(""), None)]
    #[case::negative(Some("-1"), None)]
    fn a_count_that_is_no_number_is_no_zero(#[case] text: Option<&str>, #[case] expected: Option<u64>) {
        assert_eq!(count(text.map(str::to_owned).as_ref(), "n").ok(), expected);
    }

    const THREE: &str = r#"{"Attributes":{"ApproximateNumberOfMessages":"3",
        "ApproximateNumberOfMessagesNotVisible":"0","ApproximateNumberOfMessagesDelayed":"0"}}"#;

    /// A queue that refuses the how many-eth question; its address, and the SDK's id of each question.
    async fn queue(refuses: usize) -> (String, mpsc::UnboundedReceiver<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let (ids, asked) = mpsc::unbounded_channel();
        let seen = Arc::new(Mutex::new(0));
        let answer = move |request: Request<Incoming>| {
            let mut seen = seen.lock().unwrap();
            *seen += 1;
            ids.send(request.headers()["amz-sdk-invocation-id"].to_str().unwrap().to_owned()).unwrap();
            let (status, body) = if *seen == refuses { (403, "{}") } else { (200, THREE) };
            let answer = Response::builder().status(status).body(Full::new(Bytes::from_static(body.as_bytes())));
            std::future::ready(Ok::<_, Infallible>(answer.unwrap()))
        };
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let server = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
                let answer = answer.clone();
                tokio::spawn(async move {
                    let _ended = server.serve_connection(TokioIo::new(stream), service_fn(answer)).await;
                });
            }
        });
        (address, asked)
    }

    #[rstest]
    #[case::all_are_answered(0, [0, 0, 0])]
    #[case::what_is_refused_is_signed_anew(2, [0, 0, 1])]
    #[tokio::test]
    async fn a_question_is_signed_once(#[case] refuses: usize, #[case] expected: [usize; 3]) {
        shop_runtime::install_tls_provider();
        let (address, mut asked) = queue(refuses).await;
        let service = Service { region: "eu-central-1".to_owned(), endpoint: Some(address.clone()) };
        let key = ("id".to_owned().into(), "key".to_owned().into());
        let client = sqs_as(&service, &Access { key: Some((&key.0, &key.1)), ..Access::default() }).await;
        let (mut counts, mut ids) = (Counts::default(), Vec::new());
        let mut order = Vec::new();
        while order.len() < expected.len() {
            let depth = counts.ask(&client, &format!("{address}/1/orders")).await.unwrap();
            assert_eq!(depth, Depth { visible: 3, in_flight: 0, delayed: 0 });
            while let Ok(id) = asked.try_recv() {
                let at = ids.iter().position(|known| *known == id).unwrap_or(ids.len());
                if at == ids.len() {
                    ids.push(id);
                }
                order.push(at);
            }
        }
        assert_eq!(order, expected);
    }
}
