//! One order's way through api, queue, worker and mailer is one trace, as a collector sees it. In a program of its own:
//! where spans go is decided once for a process.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking, in its helpers too")]

#[path = "http/shop.rs"]
#[expect(dead_code, reason = "the shop of the http tests, of which this needs little")]
mod shop;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{Router, body::Bytes, extract::State, routing::post};
use clap::Parser;
use opentelemetry_proto::tonic::{
    collector::trace::v1::ExportTraceServiceRequest,
    trace::v1::{Span, span::SpanKind},
};
use prost::Message;
use reqwest::Method;
use shop_runtime::{clock::Clock, ids, otlp::Collector, shutdown::Shutdown, telemetry};

use crate::shop::{DOCUMENTED_ORDER, Shop, bearer, eventually, send, with_shop};

/// What the collector was sent.
#[derive(Clone, Default)]
struct Received(Arc<Mutex<Vec<Span>>>);

impl Received {
    /// A collector that keeps everything, and its base address.
    async fn listen() -> (Self, String) {
        let (received, listener) = (Self::default(), tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap());
        let address = listener.local_addr().unwrap();
        let keep = |State(received): State<Self>, body: Bytes| async move { received.keep(body) };
        let routes = Router::new().route("/v1/traces", post(keep)).with_state(received.clone());
        Shutdown::manual().spawn_detached(async move { axum::serve(listener, routes).await });
        (received, format!("http://{address}/"))
    }

    fn keep(&self, body: Bytes) {
        let request = ExportTraceServiceRequest::decode(body).unwrap();
        let scopes = request.resource_spans.into_iter().flat_map(|resource| resource.scope_spans);
        self.0.lock().unwrap().extend(scopes.flat_map(|scope| scope.spans));
    }

    /// The spans of a trace by their names.
    fn of(&self, trace_id: &str) -> HashMap<String, Span> {
        let all = self.0.lock().unwrap().clone();
        let own = all.into_iter().filter(|span| hex::encode(&span.trace_id) == trace_id);
        own.map(|span| (span.name.clone(), span)).collect()
    }
}

fn worker(shop: &Shop) -> shop_worker::Config {
    let flags = ["--mongodb-uri", "--mongodb-database", "--redis-url", "--queue-name", "--sqs-endpoint"];
    let flags = flags.into_iter().flat_map(|flag| [flag.to_owned(), shop.args.0[flag].clone()]);
    let own = ["shop-worker", "--metrics-addr", "127.0.0.1:0"].map(String::from);
    shop_worker::Config::try_parse_from(own.into_iter().chain(flags)).unwrap()
}

/// Places an order as a part of a trace.
async fn order(shop: &Shop, token: &str, traceparent: &str) {
    let request = bearer(shop.request(Method::POST, "/orders"), token).header("traceparent", traceparent);
    let answer = send(request.header("content-type", "application/json").body(DOCUMENTED_ORDER)).await;
    assert_eq!(answer.status, 201, "{answer:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_is_one_trace_from_the_request_to_the_mail() {
    let (received, endpoint) = Received::listen().await;
    let collector = Collector { service: "shop", endpoint, ratio: 1.0 };
    let traces = telemetry::init_traced("warn", Some(&collector)).unwrap();
    with_shop(async |shop| {
        let config = worker(shop);
        let shutdown = Shutdown::manual();
        let deadline = shop_worker::deadline(&shutdown, config.hand_back_after());
        shop_worker::start(&config, Clock::system(), &shutdown, deadline).await.unwrap();

        let (token, parent) = (shop.customer().await, "00f067aa0ba902b7");
        let [recorded, ignored] = [(); 2].map(|()| ids::random_hex::<16>().unwrap());
        order(shop, &token, &format!("00-{ignored}-{parent}-00")).await;
        order(shop, &token, &format!("00-{recorded}-{parent}-01")).await;
        let spans = eventually("the mail's span", || async {
            Some(received.of(&recorded)).filter(|spans| spans.contains_key("send mail"))
        })
        .await;

        let chain = [
            ("POST /api/v1/orders", SpanKind::Server),
            ("send OrderPlaced", SpanKind::Producer),
            ("process OrderPlaced", SpanKind::Consumer),
            ("send mail", SpanKind::Client),
        ];
        let mut above = parent.to_owned();
        for (name, kind) in chain {
            let span = spans.get(name).unwrap_or_else(|| panic!("no {name} in {:?}", spans.keys()));
            assert_eq!((hex::encode(&span.parent_span_id), span.kind()), (above, kind), "{name}");
            above = hex::encode(&span.span_id);
        }
        assert_eq!(spans.len(), chain.len(), "{:?}", spans.keys());
        assert!(received.of(&ignored).is_empty(), "the caller did not want this one recorded");
        let text = format!("{:?}", received.0.lock().unwrap());
        assert!(!text.contains(&token) && !text.contains("@example.com") && text.contains("/api/v1/auth/register"));

        shutdown.drain();
        // Ends the open receive, which takes 20 s else.
        let end = shop.queue.client().send_message().queue_url(shop.queue.url().await.unwrap());
        end.message_body("the test is over").send().await.unwrap();
        assert!(shutdown.wait(Duration::from_secs(40)).await);
    })
    .await;
    traces.flush().await;
}
