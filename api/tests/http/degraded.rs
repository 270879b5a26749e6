//! Starting and being slow: what is missing or wrong is named, and nothing waits for ever. Servers that are down: see
//! the tests of degradation.

use std::{io, time::Duration};

use axum::body::Bytes;
use http_body_util::StreamBody;
use hyper::body::Frame;
use reqwest::Method;
use shop_api::app::{self, StartError, Surroundings};

use crate::{
    shop::{Args, send, with_shop, with_shop_of},
    tour::everything_works,
};

/// Nobody listens there.
const DOWN: &str = "127.0.0.1:9";

#[tokio::test]
async fn with_no_redis_configured_everything_works() {
    with_shop_of(
        |args| {
            args.unset("--redis-url");
        },
        async |shop| {
            everything_works(shop).await;
        },
    )
    .await;
}

#[tokio::test]
async fn a_request_that_takes_too_long_is_cut_off() {
    let hasty = |args: &mut Args| {
        args.set("--request-timeout-seconds", "1");
    };
    with_shop_of(hasty, async |shop| {
        // The body never comes.
        let request = shop.request(Method::POST, "/auth/login").header("content-type", "application/json");
        let body = StreamBody::new(futures::stream::pending::<io::Result<Frame<Bytes>>>());
        assert_eq!(send(request.body(reqwest::Body::wrap(body))).await.problem(), (503, "timeout".into()));
    })
    .await;
}

#[tokio::test]
async fn a_port_in_use_or_a_bad_keys_file_is_named() {
    with_shop(async |shop| {
        let start = |args: Args| {
            app::start(args.config(), Surroundings { clock: shop.clock.clone(), shutdown: shop.shutdown.clone() })
        };
        let mut taken = shop.args.clone();
        taken.set("--http-addr", shop.base.trim_start_matches("http://"));
        let error = start(taken).await.unwrap_err();
        assert!(matches!(error, StartError::Http(_)) && error.to_string().contains("SHOP_HTTP_ADDR"), "{error}");
        let mut missing = shop.args.clone();
        missing.set("--auth-keys-file", "/no/such/file");
        let error = start(missing).await.unwrap_err().to_string();
        assert!(error.contains("/no/such/file") && error.contains("SHOP_AUTH_KEYS_FILE"), "{error}");
    })
    .await;
}

#[tokio::test]
async fn migrating_twice_is_harmless() {
    with_shop(async |shop| {
        let config = shop.args.config();
        for _ in 0..2 {
            app::migrate(&config.store, Duration::from_secs(10)).await.unwrap();
        }
    })
    .await;
}

#[tokio::test]
async fn migrating_waits_for_mongodb_but_not_for_ever() {
    with_shop(async |shop| {
        let mut args = shop.args.clone();
        args.set("--mongodb-uri", format!("mongodb://{DOWN}/?serverSelectionTimeoutMS=100"));
        let (started, patience) = (tokio::time::Instant::now(), Duration::from_secs(4));
        let error = app::migrate(&args.config().store, patience).await.unwrap_err().to_string();
        assert!(error.contains("within 4 s") && error.contains("SHOP_MONGODB_URI"), "{error}");
        assert!(started.elapsed() >= patience, "gave up after {:?}", started.elapsed());
    })
    .await;
}
