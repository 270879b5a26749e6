//! The `ConfigMaps`: the binaries' settings as environment variables, without secrets.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::ConfigMap;

use super::metadata;
use crate::{crd::LogLevel, names::Component, validate::ValidatedShop};

pub struct Config {
    pub api: ConfigMap,
    pub worker: ConfigMap,
}

pub fn build(shop: &ValidatedShop) -> Config {
    let map = |component, data: Vec<(&str, String)>| {
        let all = common(shop).into_iter().chain(data).map(|(key, value)| (key.to_owned(), value));
        ConfigMap {
            metadata: metadata(shop, component),
            data: Some(all.collect::<BTreeMap<_, _>>()),
            ..ConfigMap::default()
        }
    };
    Config { api: map(Component::Api, api(shop)), worker: map(Component::Worker, worker(shop)) }
}

fn common(shop: &ValidatedShop) -> Vec<(&'static str, String)> {
    let (spec, queue) = (&shop.spec, &shop.spec.queue);
    let mut data = vec![
        ("SHOP_NAME", spec.settings.display_name.clone()),
        ("SHOP_CURRENCY", spec.settings.currency.clone()),
        ("SHOP_LOG_LEVEL", log_level(spec.settings.log_level).to_owned()),
        ("SHOP_MONGODB_DATABASE", spec.mongodb.database.clone()),
        ("SHOP_SQS_REGION", queue.region.clone()),
    ];
    data.extend(queue.name.clone().map(|name| ("SHOP_SQS_QUEUE_NAME", name)));
    data.extend(queue.url.clone().map(|url| ("SHOP_SQS_QUEUE_URL", url)));
    data.extend(queue.endpoint.clone().map(|endpoint| ("SHOP_SQS_ENDPOINT", endpoint)));
    data
}

fn api(shop: &ValidatedShop) -> Vec<(&'static str, String)> {
    let (spec, settings) = (&shop.spec, &shop.spec.settings);
    let mut data = vec![
        ("SHOP_MAIL_FROM", spec.mail.from.clone()),
        ("SHOP_MAIL_PER_SECOND", spec.mail.per_second.to_string()),
        ("SHOP_SES_REGION", spec.mail.region.clone()),
        ("SHOP_ACCESS_TOKEN_MINUTES", spec.auth.access_token_minutes.to_string()),
        ("SHOP_COOKIE_SECURE", settings.cookie_secure.to_string()),
        ("SHOP_PASSWORD_MIN_LENGTH", settings.password_min_length.to_string()),
        ("SHOP_LIMIT_AUTH_PER_15_MINUTES", settings.limits.auth_per15_minutes.to_string()),
        ("SHOP_LIMIT_WRITES_PER_MINUTE", settings.limits.writes_per_minute.to_string()),
        ("SHOP_LIMIT_READS_PER_MINUTE", settings.limits.reads_per_minute.to_string()),
        ("SHOP_LIMIT_ADDRESS_PER_MINUTE", settings.limits.address_per_minute.to_string()),
    ];
    data.extend(spec.mail.endpoint.clone().map(|endpoint| ("SHOP_SES_ENDPOINT", endpoint)));
    if !settings.trusted_proxies.is_empty() {
        data.push(("SHOP_TRUSTED_PROXIES", settings.trusted_proxies.join(",")));
    }
    if !settings.cors_origins.is_empty() {
        data.push(("SHOP_CORS_ORIGINS", settings.cors_origins.join(",")));
    }
    data
}

fn worker(shop: &ValidatedShop) -> Vec<(&'static str, String)> {
    let (worker, queue) = (&shop.spec.worker, &shop.spec.queue);
    vec![
        ("SHOP_WORKER_CONCURRENCY", worker.concurrency.to_string()),
        ("SHOP_WORKER_MAX_PROCESSING_SECONDS", worker.max_processing_seconds.to_string()),
        ("SHOP_SQS_VISIBILITY_SECONDS", queue.visibility_timeout_seconds.to_string()),
        ("SHOP_SQS_MAX_RECEIVE_COUNT", queue.dead_letter.max_receive_count.to_string()),
    ]
}

fn log_level(level: LogLevel) -> &'static str {
    match level {
        LogLevel::Error => "error",
        LogLevel::Warn => "warn",
        LogLevel::Info => "info",
        LogLevel::Debug => "debug",
        LogLevel::Trace => "trace",
    }
}
