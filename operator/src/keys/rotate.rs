//! Takes the steps of a rotation: asks the api's pods, writes the Secret, tells. What comes next is decided in `rotation`.

use std::time::Duration;

use base64::{Engine, engine::general_purpose::STANDARD};
use jiff::SignedDuration;
use k8s_openapi::{ByteString, api::core::v1::Secret};
use kube::{
    ResourceExt,
    api::{PartialObjectMeta, PostParams},
    runtime::events::EventType,
};
use serde::Serialize;
use shop_runtime::ids::{NoRandomness, random_bytes};

use super::rotation::{KeysFile, Next, PodKeys, Rotation, Step, TokenLife, Wanted, next_step};
use crate::{
    causes::chain,
    context::{Context, cached},
    crd::{KeyRotationStatus, ShopDeployment},
    names::{Component, KEYS_FILE, ROTATE_KEYS, ROTATION, TOKEN_LIFE},
    rollout,
    validate::ValidatedShop,
};

/// Pods take a changed file over within two minutes, without an event.
const LOOK_AGAIN: Duration = Duration::from_secs(3);
/// What a person has to mend, or the API server.
const TRY_AGAIN: Duration = Duration::from_secs(30);
const BLOCKED: &str = "Blocked";
/// Reason of the events.
const EVENT: &str = "KeyRotation";

#[derive(Debug, thiserror::Error)]
enum RotateError {
    #[error(
        "what Secret {name} holds under {KEYS_FILE} is not what the operator wrote there: restore it, or delete the Secret \
         to have new signing keys made, which ends all sessions"
    )]
    Unusable { name: String },
    #[error("annotation {ROTATION} of Secret {name} is not what the operator wrote there: restore it, or remove it")]
    UnknownStep { name: String },
    #[error("cannot make a signing key")]
    Random(#[from] NoRandomness),
    #[error("cannot change Secret {name}")]
    Write {
        name: String,
        #[source]
        source: kube::Error,
    },
}

/// What there is to report of a rotation, and when to look again.
#[derive(Clone, Debug)]
pub struct Underway {
    pub status: KeyRotationStatus,
    pub wait: Option<Duration>,
}

/// The text that asks for a rotation.
pub fn request(shop: &ShopDeployment) -> Option<&str> {
    shop.annotations().get(ROTATE_KEYS).map(String::as_str)
}

/// Takes the next step of a rotation, if one is under way or asked for. What goes wrong holds up nothing else.
pub async fn rotate(ctx: &Context, shop: &ShopDeployment, valid: &ValidatedShop) -> Option<Underway> {
    if !valid.generates_keys() {
        return not_ours(shop, &valid.keys_secret);
    }
    let meta = cached(&ctx.stores.secrets, &valid.namespace, &valid.keys_secret)?;
    match advance(ctx, (shop, valid), &meta).await {
        Ok(underway) => underway,
        Err(error) => Some(blocked(ctx, shop, &error).await),
    }
}

/// Keys that are the owner's are the owner's to change.
fn not_ours(shop: &ShopDeployment, secret: &str) -> Option<Underway> {
    let request = request(shop).filter(|text| !text.is_empty())?;
    let message = format!(
        "annotation {ROTATE_KEYS}={request} changes nothing: Secret {secret} (spec.auth.keysSecretRef) is yours. Accept a \
         further key in it, sign with it when all pods log \"token keys changed\", drop the old one after accessTokenMinutes"
    );
    Some(Underway { status: KeyRotationStatus { step: "NotManaged".to_owned(), message }, wait: None })
}

async fn blocked(ctx: &Context, shop: &ShopDeployment, error: &RotateError) -> Underway {
    let message = format!("{}; it is tried again by itself", chain(error));
    let before = shop.status.as_ref().and_then(|status| status.key_rotation.as_ref());
    if before.is_none_or(|before| before.step != BLOCKED) {
        tracing::warn!(shop = %shop.name_any(), namespace = ?shop.namespace(), error = %chain(error), "rotation blocked");
        ctx.event(shop, EventType::Warning, EVENT, message.clone()).await;
    }
    Underway { status: KeyRotationStatus { step: BLOCKED.to_owned(), message }, wait: Some(TRY_AGAIN) }
}

/// Takes the next step, if it is time.
async fn advance(
    ctx: &Context,
    (shop, valid): (&ShopDeployment, &ValidatedShop),
    meta: &PartialObjectMeta<Secret>,
) -> Result<Option<Underway>, RotateError> {
    let name = &valid.keys_secret;
    let known = match meta.annotations().get(ROTATION).map(|text| serde_json::from_str::<Rotation>(text)) {
        Some(Err(_)) => return Err(RotateError::UnknownStep { name: name.clone() }),
        Some(Ok(rotation)) => Some(rotation),
        None => None,
    };
    if let Some(rotation) = known.as_ref().filter(|rotation| !is_told(ctx, shop, rotation)) {
        // Its step was taken by an operator that ended before it could say so.
        announce(ctx, shop, rotation).await;
    }
    let now = ctx.clock.now();
    // What cannot be read was not written by the operator, and is written anew.
    let life = meta.annotations().get(TOKEN_LIFE).and_then(|text| serde_json::from_str::<TokenLife>(text).ok());
    if let Some(news) = TokenLife::noted(life.as_ref(), valid.spec.auth.access_token_minutes, now) {
        let write = |secret: &mut Secret| {
            secret.annotations_mut().insert(TOKEN_LIFE.to_owned(), note(&news));
            Ok(())
        };
        change(ctx, (valid, meta), write).await?;
        // Its event brings the next pass.
        return Ok(known.map(|rotation| told(&rotation, "", None)));
    }
    let longest = life.map_or(valid.spec.auth.access_token_minutes, |life| life.longest(now));
    let wanted = Wanted { request: request(shop), token_life: SignedDuration::from_mins(longest.into()) };
    let asks = known.as_ref().is_some_and(|rotation| matches!(rotation.step, Step::Accept | Step::Sign));
    let pods = if asks { pods(ctx, valid).await } else { Vec::new() };
    let (step, after) = match next_step(known.as_ref(), &wanted, &pods, now) {
        Next::Rest => return Ok(known.map(|rotation| told(&rotation, "", None))),
        Next::Wait(why, wait) => return Ok(known.map(|rotation| told(&rotation, &why, wait))),
        Next::Start => (Step::Accept, None),
        Next::Take(step) => (step, known),
    };
    let Some(secret) = write(ctx, (valid, meta), (step, after, wanted.request)).await? else { return Ok(None) };
    announce(ctx, shop, &secret).await;
    Ok(Some(told(&secret, "", None)))
}

/// Every api pod that runs or is about to: one that starts just now may have read the keys already.
async fn pods(ctx: &Context, valid: &ValidatedShop) -> Vec<PodKeys> {
    let mut pods = ctx.pods(&valid.namespace, &valid.name, Component::Api);
    pods.retain(|pod| rollout::may_serve(pod));
    pods.sort_by_key(|pod| pod.name_any());
    let asked = pods.iter().map(async |pod| PodKeys { pod: pod.name_any(), keys: ctx.asker.report(pod).await });
    futures::future::join_all(asked).await
}

/// Changes the keys and the note of the step in one write.
async fn write(
    ctx: &Context,
    (valid, meta): (&ValidatedShop, &PartialObjectMeta<Secret>),
    (step, known, request): (Step, Option<Rotation>, Option<&str>),
) -> Result<Option<Rotation>, RotateError> {
    let mut rotation = known.unwrap_or_else(|| Rotation {
        request: request.unwrap_or_default().to_owned(),
        step,
        key: String::new(),
        since: ctx.clock.now(),
    });
    let take = |secret: &mut Secret| {
        let unusable = || RotateError::Unusable { name: valid.keys_secret.clone() };
        let data = secret.data.get_or_insert_default();
        let content = data.get(KEYS_FILE).ok_or_else(unusable)?;
        let mut file: KeysFile = serde_json::from_slice(&content.0).map_err(|_| unusable())?;
        let before = file.clone();
        match step {
            Step::Accept => rotation.key = file.accept(STANDARD.encode(random_bytes::<32>()?)),
            Step::Sign if !file.sign_with(&rotation.key) => return Err(unusable()),
            Step::Sign | Step::Expire => {}
            Step::Done => file.drop_old(),
        }
        (rotation.step, rotation.since) = (step, ctx.clock.now());
        if file != before {
            data.insert(KEYS_FILE.to_owned(), ByteString(serde_json::to_vec(&file).unwrap_or_default()));
        }
        secret.annotations_mut().insert(ROTATION.to_owned(), note(&rotation));
        Ok(())
    };
    Ok(change(ctx, (valid, meta), take).await?.then_some(rotation))
}

/// Changes the keys' Secret, only if it is the one that was decided on; false where it is not.
async fn change(
    ctx: &Context,
    (valid, meta): (&ValidatedShop, &PartialObjectMeta<Secret>),
    change: impl FnOnce(&mut Secret) -> Result<(), RotateError>,
) -> Result<bool, RotateError> {
    let (name, secrets) = (&valid.keys_secret, ctx.api::<Secret>(&valid.namespace));
    let failed = |source| RotateError::Write { name: name.clone(), source };
    let read = secrets.get_opt(name).await.map_err(failed)?;
    let Some(mut secret) = read.filter(|secret| secret.resource_version() == meta.resource_version()) else {
        return Ok(false);
    };
    change(&mut secret)?;
    match secrets.replace(name, &PostParams::default(), &secret).await {
        Ok(_) => {
            ctx.metrics.write("Secret", "changed");
            Ok(true)
        }
        // Another one's change: the watch brings it.
        Err(kube::Error::Api(status)) if status.is_conflict() || status.is_not_found() => Ok(false),
        Err(source) => {
            ctx.metrics.write("Secret", "failed");
            Err(failed(source))
        }
    }
}

/// A rotation, or a life, as the Secret's annotation has it.
pub fn note(value: &impl Serialize) -> String {
    // Our own types always serialise.
    serde_json::to_string(value).unwrap_or_default()
}

/// Whether the status shows the step, or this process has published its event.
fn is_told(ctx: &Context, shop: &ShopDeployment, rotation: &Rotation) -> bool {
    let status = shop.status.as_ref().and_then(|status| status.key_rotation.as_ref());
    let shown = told(rotation, "", None).status;
    status.is_some_and(|status| status.step == shown.step && status.message.starts_with(&shown.message))
        || ctx.remembered(&shop.uid().unwrap_or_default(), |memory| {
            memory.events.get(EVENT).is_some_and(|(note, _)| *note == news(rotation))
        })
}

async fn announce(ctx: &Context, shop: &ShopDeployment, rotation: &Rotation) {
    let Rotation { key, request, step, .. } = rotation;
    tracing::info!(shop = %shop.name_any(), namespace = ?shop.namespace(), request, key, ?step, "keys rotated");
    ctx.event(shop, EventType::Normal, EVENT, news(rotation)).await;
}

/// The note of a step's event.
fn news(rotation: &Rotation) -> String {
    let (key, request) = (&rotation.key, &rotation.request);
    let what = match rotation.step {
        Step::Accept => format!("key {key} is made; the pods are to accept it"),
        Step::Sign => format!("every pod accepts key {key}; they are to sign with it"),
        Step::Expire => format!("every pod signs with key {key}; the old key is dropped after one token life"),
        Step::Done => format!("key {key} is the only one: the rotation is done"),
    };
    format!("rotation {request}: {what}")
}

fn told(rotation: &Rotation, why: &str, wait: Option<SignedDuration>) -> Underway {
    let (key, request) = (&rotation.key, &rotation.request);
    let colon = if why.is_empty() { "" } else { ": " };
    let message = format!("rotation {request} to key {key}{colon}{why}");
    let at_rest = rotation.step == Step::Done;
    let wait = wait.and_then(|wait| Duration::try_from(wait).ok()).or((!at_rest).then_some(LOOK_AGAIN));
    Underway { status: KeyRotationStatus { step: format!("{:?}", rotation.step), message }, wait }
}
