//! Reads what a shop depends on: its Secrets' keys, the other shops, what of it lives already. Changes nothing.

use kube::ResourceExt;

use crate::{
    build::Live,
    context::{Context, cached, is_owned},
    crd::ShopDeployment,
    names::Component,
    validate::{Fault, World, as_other, needed_secrets, optional_secrets},
};

#[derive(Debug, thiserror::Error)]
#[error("cannot read Secret {name}")]
pub struct FetchError {
    name: String,
    #[source]
    source: kube::Error,
}

pub struct Found {
    pub world: World,
    pub live: Live,
    /// What is missing without keeping the shop from being made.
    pub lacking: Vec<Fault>,
}

pub async fn fetch(ctx: &Context, shop: &ShopDeployment) -> Result<Found, FetchError> {
    let (namespace, name, uid) = (shop.namespace().unwrap_or_default(), shop.name_any(), shop.uid());
    let mut world = World {
        api_image: ctx.config.api_image.clone(),
        worker_image: ctx.config.worker_image.clone(),
        ..World::default()
    };
    for (_, secret, _) in needed_secrets(&shop.spec) {
        let found = ctx.secret_keys(&namespace, &secret).await;
        let found = found.map_err(|source| FetchError { name: secret.clone(), source })?;
        world.secrets.extend(found.map(|found| (secret, found)));
    }
    let others = ctx.stores.shops.state_filter(|other| other.uid() != uid);
    world.others = others.iter().map(|other| as_other(other)).collect();
    let live = |component| ctx.deployment((&namespace, &name), uid.as_deref().unwrap_or_default(), component);
    let ingress = cached(&ctx.stores.ingresses, &namespace, &Component::Api.object_name(&name));
    let ingress = ingress.filter(|live| is_owned(live.as_ref(), uid.as_deref().unwrap_or_default()));
    let live = Live {
        api: live(Component::Api),
        worker: live(Component::Worker),
        ingress: ingress.map(|live| live.gist().clone()),
    };
    let optional = optional_secrets(&shop.spec).into_iter();
    let missing = optional.filter(|secret| cached(&ctx.stores.secrets, &namespace, secret.name).is_none());
    Ok(Found { world, live, lacking: missing.map(|secret| secret.missing()).collect() })
}
