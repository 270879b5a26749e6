//! The signing keys: made once, 32 random bytes, and changed only by a rotation that was asked for. Between its steps their
//! values are not read: a Secret in their place is known by its owner and its key's name.

mod rotate;
mod rotation;

use base64::{Engine, engine::general_purpose::STANDARD};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;
use kube::{
    Api,
    api::{ObjectMeta, PostParams},
};
use serde_json::json;
use shop_runtime::ids::{NoRandomness, random_bytes};

pub use rotate::{Underway, rotate};
pub use rotation::{KeyIds, KeysFile, Next, PodKeys, Rotation, Step, TokenLife, Wanted, next_step};

use crate::{
    conditions::Reason,
    context::{Context, cached, is_owned},
    crd::ShopDeployment,
    names::{self, Component, KEYS_FILE, ROTATION, TOKEN_LIFE},
    validate::ValidatedShop,
};

#[derive(Debug, thiserror::Error)]
pub enum KeysError {
    #[error("cannot make signing keys")]
    Random(#[from] NoRandomness),
    #[error("cannot create Secret {name}")]
    Create {
        name: String,
        #[source]
        source: kube::Error,
    },
    #[error("cannot read Secret {name}")]
    Read {
        name: String,
        #[source]
        source: kube::Error,
    },
    #[error(
        "Secret {name} exists and is not this shop's: delete or rename it, or name it in spec.auth.keysSecretRef if its \
         keys are the ones to use"
    )]
    NotOurs { name: String },
    #[error(
        "Secret {name} has no key {KEYS_FILE}: restore it, or delete the Secret to have new signing keys made, which ends \
         all sessions"
    )]
    Damaged { name: String },
}

impl KeysError {
    pub fn reason(&self) -> Reason {
        match self {
            Self::NotOurs { .. } => Reason::NameTaken,
            Self::Damaged { .. } => Reason::SecretKeyMissing,
            Self::Random(_) | Self::Create { .. } | Self::Read { .. } => Reason::ApplyFailed,
        }
    }
}

/// Creates the shop's keys where it names none of its own and has none yet.
pub async fn ensure(ctx: &Context, shop: &ShopDeployment, valid: &ValidatedShop) -> Result<(), KeysError> {
    if !valid.generates_keys() {
        return Ok(());
    }
    let name = valid.keys_secret.clone();
    let Some(meta) = cached(&ctx.stores.secrets, &valid.namespace, &name) else {
        return create(ctx, shop, valid).await;
    };
    if !is_owned(meta.as_ref(), &valid.owner.uid) {
        return Err(KeysError::NotOurs { name });
    }
    match ctx.secret_keys(&valid.namespace, &name).await {
        Ok(Some(found)) if !found.keys.contains_key(KEYS_FILE) => Err(KeysError::Damaged { name }),
        // One that is gone by now comes back by the event of its end.
        Ok(_) => Ok(()),
        Err(source) => Err(KeysError::Read { name, source }),
    }
}

async fn create(ctx: &Context, object: &ShopDeployment, shop: &ValidatedShop) -> Result<(), KeysError> {
    let secrets: Api<Secret> = ctx.api(&shop.namespace);
    let name = shop.keys_secret.clone();
    match secrets.create(&PostParams::default(), &secret(shop, rotate::request(object), ctx.clock.now())?).await {
        Ok(_) => {
            ctx.metrics.write("Secret", "created");
            Ok(())
        }
        // The cache was behind.
        Err(kube::Error::Api(status)) if status.is_already_exists() => match secrets.get_metadata_opt(&name).await {
            Ok(Some(other)) if !is_owned(&other, &shop.owner.uid) => Err(KeysError::NotOurs { name }),
            Ok(_) => Ok(()),
            Err(source) => Err(KeysError::Read { name, source }),
        },
        Err(source) => {
            ctx.metrics.write("Secret", "failed");
            Err(KeysError::Create { name, source })
        }
    }
}

/// New keys. What asks for a rotation of keys that are not there yet has them.
fn secret(shop: &ValidatedShop, request: Option<&str>, now: Timestamp) -> Result<Secret, NoRandomness> {
    let file = KeysFile::new(STANDARD.encode(random_bytes::<32>()?));
    let content = json!(file).to_string();
    let life = TokenLife::noted(None, shop.spec.auth.access_token_minutes, now);
    let life = life.map(|life| (TOKEN_LIFE.to_owned(), rotate::note(&life)));
    let rotation = request.filter(|text| !text.is_empty()).map(|request| {
        let done = Rotation { request: request.to_owned(), step: Step::Done, key: file.signing, since: now };
        (ROTATION.to_owned(), rotate::note(&done))
    });
    let mut labels = Component::Api.selector(&shop.name);
    labels.insert(names::MANAGED_BY.to_owned(), names::MANAGER.to_owned());
    Ok(Secret {
        metadata: ObjectMeta {
            name: Some(shop.keys_secret.clone()),
            namespace: Some(shop.namespace.clone()),
            labels: Some(labels),
            annotations: Some(life.into_iter().chain(rotation).collect()),
            owner_references: Some(vec![shop.owner.clone()]),
            ..ObjectMeta::default()
        },
        string_data: Some([(KEYS_FILE.to_owned(), content)].into()),
        ..Secret::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        context::tests::{context, store},
        validate::tests::{minimal, shop as object},
    };

    #[tokio::test]
    async fn a_strangers_secret_is_not_taken_for_the_keys() {
        let (mut ctx, shop) = (context(), minimal());
        let stranger = json!({ "metadata": { "name": shop.keys_secret, "namespace": shop.namespace } });
        ctx.stores.secrets = store([serde_json::from_value(stranger).unwrap()]);
        let error = ensure(&ctx, &object(json!({})), &shop).await.unwrap_err();
        assert_eq!(error.reason(), Reason::NameTaken);
        assert!(error.to_string().contains("Secret demo-keys exists and is not this shop's"), "{error}");
    }

    #[test]
    fn keys_are_32_bytes_and_never_the_same() {
        let shop = minimal();
        let content =
            || secret(&shop, None, Timestamp::UNIX_EPOCH).unwrap().string_data.unwrap().remove(KEYS_FILE).unwrap();
        let (one, two): (String, String) = (content(), content());
        assert_ne!(one, two);
        let file: serde_json::Value = serde_json::from_str(&one).unwrap();
        assert_eq!(file["signing"], "k1");
        assert_eq!(STANDARD.decode(file["keys"]["k1"].as_str().unwrap()).unwrap().len(), 32);
    }

    #[test]
    fn new_keys_need_no_rotation() {
        let secret = |request| secret(&minimal(), request, Timestamp::UNIX_EPOCH).unwrap();
        let rotation: Rotation =
            serde_json::from_str(&secret(Some("may")).metadata.annotations.unwrap()[ROTATION]).unwrap();
        assert_eq!((rotation.request.as_str(), rotation.step, rotation.key.as_str()), ("may", Step::Done, "k1"));
        let annotations = secret(Some("")).metadata.annotations.unwrap();
        assert_eq!(annotations, [(TOKEN_LIFE.to_owned(), r#"{"minutes":15}"#.to_owned())].into());
    }
}
