//! The signing keys: made once, 32 random bytes, never overwritten. Their values are never read again here.

use base64::{Engine, engine::general_purpose::STANDARD};
use k8s_openapi::api::core::v1::Secret;
use kube::{
    Api,
    api::{ObjectMeta, PostParams},
};
use serde_json::json;
use shop_runtime::ids::{NoRandomness, random_bytes};

use crate::{
    context::{Context, cached},
    names::{self, Component, KEYS_FILE},
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
}

/// Creates the shop's keys where it names none of its own and has none yet.
pub async fn ensure(ctx: &Context, shop: &ValidatedShop) -> Result<(), KeysError> {
    if !shop.generates_keys() || cached(&ctx.stores.secrets, &shop.namespace, &shop.keys_secret).is_some() {
        return Ok(());
    }
    let secrets: Api<Secret> = ctx.api(&shop.namespace);
    match secrets.create(&PostParams::default(), &secret(shop)?).await {
        Ok(_) => {
            ctx.metrics.write("Secret", "created");
            Ok(())
        }
        // The cache was behind: whoever made it first is right.
        Err(kube::Error::Api(status)) if status.is_already_exists() => Ok(()),
        Err(source) => Err(KeysError::Create { name: shop.keys_secret.clone(), source }),
    }
}

fn secret(shop: &ValidatedShop) -> Result<Secret, NoRandomness> {
    let key = STANDARD.encode(random_bytes::<32>()?);
    let content = json!({ "signing": "k1", "keys": { "k1": key } }).to_string();
    let mut labels = Component::Api.selector(&shop.name);
    labels.insert(names::MANAGED_BY.to_owned(), names::MANAGER.to_owned());
    Ok(Secret {
        metadata: ObjectMeta {
            name: Some(shop.keys_secret.clone()),
            namespace: Some(shop.namespace.clone()),
            labels: Some(labels),
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
    use crate::validate::tests::minimal;

    #[test]
    fn keys_are_32_bytes_and_never_the_same() {
        let shop = minimal();
        let content = || secret(&shop).unwrap().string_data.unwrap().remove(KEYS_FILE).unwrap();
        let (one, two): (String, String) = (content(), content());
        assert_ne!(one, two);
        let file: serde_json::Value = serde_json::from_str(&one).unwrap();
        assert_eq!(file["signing"], "k1");
        assert_eq!(STANDARD.decode(file["keys"]["k1"].as_str().unwrap()).unwrap().len(), 32);
    }
}
