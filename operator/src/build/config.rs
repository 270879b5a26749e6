//! The `ConfigMaps`: the binaries' settings as environment variables, without secrets.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::ConfigMap;

use super::metadata;
use crate::{
    crd::{Auth, LogLevel},
    names::Component,
    validate::ValidatedShop,
};

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
    let tracing = &spec.settings.tracing;
    data.push(("OTEL_TRACES_SAMPLER_ARG", tracing.sample_ratio.to_string()));
    data.extend(tracing.otlp_endpoint.clone().map(|endpoint| ("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)));
    data
}

fn api(shop: &ValidatedShop) -> Vec<(&'static str, String)> {
    let (mail, settings) = (&shop.spec.mail, &shop.spec.settings);
    let mut data = vec![
        ("SHOP_MAIL_FROM", mail.from.clone()),
        ("SHOP_MAIL_PER_SECOND", mail.per_second.to_string()),
        ("SHOP_MAIL_MAX_ATTEMPTS", mail.max_attempts.to_string()),
        ("SHOP_SES_REGION", mail.region.clone()),
        ("SHOP_CANCEL_WINDOW_MINUTES", settings.cancel_window_minutes.to_string()),
        ("SHOP_MAX_EVENT_STREAMS", settings.max_event_streams.to_string()),
        ("SHOP_REQUEST_TIMEOUT_SECONDS", settings.request_timeout_seconds.to_string()),
        ("SHOP_DRAIN_SECONDS", settings.drain_seconds.to_string()),
        ("SHOP_COOKIE_SECURE", settings.cookie_secure.to_string()),
        ("SHOP_PASSWORD_MIN_LENGTH", settings.password_min_length.to_string()),
        ("SHOP_LIMIT_AUTH_PER_15_MINUTES", settings.limits.auth_per15_minutes.to_string()),
        ("SHOP_LIMIT_WRITES_PER_MINUTE", settings.limits.writes_per_minute.to_string()),
        ("SHOP_LIMIT_READS_PER_MINUTE", settings.limits.reads_per_minute.to_string()),
        ("SHOP_LIMIT_ADDRESS_PER_MINUTE", settings.limits.address_per_minute.to_string()),
    ];
    data.extend(auth(&shop.spec.auth));
    data.extend(mail.endpoint.clone().map(|endpoint| ("SHOP_SES_ENDPOINT", endpoint)));
    if !settings.trusted_proxies.is_empty() {
        data.push(("SHOP_TRUSTED_PROXIES", settings.trusted_proxies.join(",")));
    }
    if !settings.cors_origins.is_empty() {
        data.push(("SHOP_CORS_ORIGINS", settings.cors_origins.join(",")));
    }
    data
}

fn auth(auth: &Auth) -> Vec<(&'static str, String)> {
    let argon2 = &auth.argon2;
    let mut data = vec![
        ("SHOP_ACCESS_TOKEN_MINUTES", auth.access_token_minutes.to_string()),
        ("SHOP_ARGON2_MEMORY_KIB", argon2.memory_kib.to_string()),
        ("SHOP_ARGON2_PASSES", argon2.passes.to_string()),
        ("SHOP_ARGON2_LANES", argon2.lanes.to_string()),
    ];
    data.extend(argon2.workers.map(|workers| ("SHOP_PASSWORD_WORKERS", workers.to_string())));
    data.extend(auth.password_reset_url.clone().map(|url| ("SHOP_PASSWORD_RESET_URL", url)));
    data
}

fn worker(shop: &ValidatedShop) -> Vec<(&'static str, String)> {
    let (worker, queue) = (&shop.spec.worker, &shop.spec.queue);
    vec![
        ("SHOP_WORKER_CONCURRENCY", worker.concurrency.to_string()),
        ("SHOP_WORKER_PREFETCH", worker.prefetch.to_string()),
        ("SHOP_WORKER_BATCH_SIZE", worker.batch_size.to_string()),
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

#[cfg(test)]
mod tests;
