//! SQS queues from the operator's side: clients, attributes, and the queues that it manages. Never a message body.

mod counts;
mod error;
mod managed;

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Mutex, OnceLock, PoisonError},
    time::Duration,
};

use aws_sdk_sqs::{Client, config::SharedHttpClient};
pub use counts::Counts;
pub use error::{Problem, QueueError};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::{ByteString, api::core::v1::Secret};
pub use managed::{Left, Managed};
use secrecy::SecretString;
use shop_runtime::{
    aws::{self, Access, Service},
    trust::Certificates,
};

use crate::{
    context::{Context, cached},
    crd::{CaSecretRef, Queue, ShopDeploymentSpec},
};

/// Managed queues are compared with the spec this often; there is no watch on them.
pub const RECHECK: Duration = Duration::from_mins(5);
/// SQS answers in milliseconds, or is in trouble.
const PATIENCE: Duration = Duration::from_secs(5);

/// Where a shop's queue is and who asks.
#[derive(Clone, Debug)]
pub struct Place<'a> {
    pub uid: &'a str,
    pub namespace: &'a str,
    pub queue: &'a Queue,
    /// The Secret with credentials, if they are not ambient.
    pub credentials: Option<&'a str>,
    /// A private CA that the queue may be certified by.
    pub ca: Option<&'a CaSecretRef>,
}

impl<'a> Place<'a> {
    /// The place of a shop's queue.
    pub fn new(uid: &'a str, namespace: &'a str, spec: &'a ShopDeploymentSpec) -> Self {
        let credentials = spec.aws.credentials_secret_ref.as_ref().map(|secret| secret.name.as_str());
        Self { uid, namespace, queue: &spec.queue, credentials, ca: spec.ca_secret_ref.as_ref() }
    }
}

/// Clients and what is known of managed queues, by shop.
#[derive(Debug, Default)]
pub struct Queues {
    /// One for all shops, so that they share connections and the public certificates.
    http: OnceLock<SharedHttpClient>,
    clients: Mutex<HashMap<String, (String, Client)>>,
    checked: Mutex<HashMap<String, (Queue, Timestamp)>>,
}

impl Queues {
    /// A client for the shop's queue, made anew when its place or its credentials have changed.
    pub async fn client(&self, ctx: &Context, place: &Place<'_>) -> Result<Client, QueueError> {
        let secrets = [place.credentials, place.ca.map(|ca| ca.name.as_str())];
        let versions = secrets.map(|name| {
            let meta = cached(&ctx.stores.secrets, place.namespace, name?)?;
            meta.metadata.resource_version.clone()
        });
        let known = self.clients.lock().unwrap_or_else(PoisonError::into_inner).get(place.uid).cloned();
        let ca_key = place.ca.map(|ca| &ca.key);
        let (region, endpoint) = (&place.queue.region, &place.queue.endpoint);
        let namespace = secrets.iter().any(Option::is_some).then_some(place.namespace);
        let sign = format!("{region}|{endpoint:?}|{namespace:?}|{secrets:?}|{ca_key:?}|{versions:?}");
        match known {
            Some((made_for, client)) if made_for == sign => return Ok(client),
            // A Secret is gone, as when everything is being deleted: the old client still works.
            Some((_, client))
                if secrets.iter().zip(&versions).any(|(name, version)| name.is_some() && version.is_none()) =>
            {
                return Ok(client);
            }
            _ => {}
        }
        if let Some(client) = self.another_ones(&sign) {
            return Ok(self.keep(place.uid, (sign, client)));
        }
        let client = self.connect(ctx, place).await?;
        // Another shop may have made one meanwhile.
        let client = self.another_ones(&sign).unwrap_or(client);
        Ok(self.keep(place.uid, (sign, client)))
    }

    /// Shops with the same place and credentials share a client: one is as large as all that is kept of a shop.
    fn another_ones(&self, sign: &str) -> Option<Client> {
        let clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        clients.values().find(|(made_for, _)| made_for == sign).map(|(_, client)| client.clone())
    }

    fn keep(&self, uid: &str, (sign, client): (String, Client)) -> Client {
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        clients.insert(uid.to_owned(), (sign, client.clone()));
        client
    }

    async fn connect(&self, ctx: &Context, place: &Place<'_>) -> Result<Client, QueueError> {
        let service = Service { region: place.queue.region.clone(), endpoint: place.queue.endpoint.clone() };
        let key = match place.credentials {
            Some(name) => Some(credentials(ctx, place.namespace, name).await?),
            None => None,
        };
        let ca = match place.ca {
            Some(ca) => Some(certificates(ctx, place.namespace, ca).await?),
            None => None,
        };
        let shared = Some(self.http.get_or_init(aws::connections).clone());
        let access = Access { key: key.as_ref().map(|(id, key)| (id, key)), ca: ca.as_ref(), shared };
        Ok(aws::sqs_as(&service, &access).await)
    }

    /// Whether a managed queue was compared with this very spec not long ago.
    pub fn is_fresh(&self, uid: &str, queue: &Queue, now: Timestamp) -> bool {
        let checked = self.checked.lock().unwrap_or_else(PoisonError::into_inner);
        let recheck = SignedDuration::try_from(RECHECK).unwrap_or(SignedDuration::MAX);
        checked.get(uid).is_some_and(|(spec, at)| spec == queue && now.duration_since(*at) < recheck)
    }

    pub fn checked(&self, uid: &str, queue: &Queue, now: Timestamp) {
        self.checked.lock().unwrap_or_else(PoisonError::into_inner).insert(uid.to_owned(), (queue.clone(), now));
    }

    /// The queue is not as it was: compare it again in the next pass.
    pub fn recheck(&self, uid: &str) {
        self.checked.lock().unwrap_or_else(PoisonError::into_inner).remove(uid);
    }

    pub fn forget(&self, uid: &str) {
        self.recheck(uid);
        self.clients.lock().unwrap_or_else(PoisonError::into_inner).remove(uid);
    }
}

async fn credentials(ctx: &Context, namespace: &str, name: &str) -> Result<(SecretString, SecretString), QueueError> {
    let mut data = read(ctx, (namespace, name), Problem::AccessDenied).await?;
    let mut take = |key: &str| {
        let missing = |what: String| QueueError::new(Problem::AccessDenied, format!("Secret {name} {what}"));
        let bytes = data.remove(key).ok_or_else(|| missing(format!("has no key {key}")))?;
        let text = String::from_utf8(bytes.0).map_err(|_| missing(format!("holds no text under {key}")))?;
        Ok(SecretString::from(text.trim().to_owned()))
    };
    Ok((take("accessKeyId")?, take("secretAccessKey")?))
}

async fn certificates(ctx: &Context, namespace: &str, ca: &CaSecretRef) -> Result<Certificates, QueueError> {
    let mut data = read(ctx, (namespace, &ca.name), Problem::NoCertificate).await?;
    let pem = data.remove(&ca.key).map(|bytes| bytes.0).unwrap_or_default();
    let unusable = || format!("Secret {} (spec.caSecretRef) has no usable certificate under {}", ca.name, ca.key);
    Certificates::parse(pem).ok_or_else(|| QueueError::new(Problem::NoCertificate, unusable()))
}

async fn read(
    ctx: &Context,
    (namespace, name): (&str, &str),
    problem: Problem,
) -> Result<BTreeMap<String, ByteString>, QueueError> {
    let missing = |what: &str| QueueError::new(problem, format!("Secret {name} {what}"));
    let secret = ctx.api::<Secret>(namespace).get_opt(name).await;
    let secret = secret.map_err(|_| missing("cannot be read"))?.ok_or_else(|| missing("does not exist"))?;
    Ok(secret.data.unwrap_or_default())
}

/// The queue's URL: given, or looked up by its name.
pub async fn url(client: &Client, queue: &Queue) -> Result<String, QueueError> {
    match (&queue.url, &queue.name) {
        (Some(url), _) => Ok(url.clone()),
        (None, Some(name)) => url_of(client, name).await,
        (None, None) => Err(QueueError::new(Problem::Missing, "spec.queue has neither url nor name".to_owned())),
    }
}

async fn url_of(client: &Client, name: &str) -> Result<String, QueueError> {
    let answer = within(client.get_queue_url().queue_name(name).send()).await.map_err(|error| error.of(name))?;
    answer.queue_url.ok_or_else(|| QueueError::new(Problem::Other, format!("SQS gave no URL for queue {name}")))
}

/// Runs one SQS call with the operator's patience.
async fn within<T, E>(call: impl Future<Output = Result<T, aws_sdk_sqs::error::SdkError<E>>>) -> Result<T, QueueError>
where
    E: aws_sdk_sqs::error::ProvideErrorMetadata + std::error::Error + 'static,
{
    match tokio::time::timeout(PATIENCE, call).await {
        Ok(answer) => answer.map_err(|error| QueueError::from_sdk(&error)),
        Err(_) => {
            Err(QueueError::new(Problem::Unreachable, format!("SQS did not answer within {} s", PATIENCE.as_secs())))
        }
    }
}
