//! A way to the mail service that can be told to refuse. The SES stand-in takes every mail and can refuse none, so the
//! refusals are SES's own error bodies, played here; everything else goes through to the stand-in.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicUsize, Ordering},
};

use axum::{
    Router,
    body::Bytes,
    extract::State,
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
};
use shop_runtime::{aws::Service, shutdown::Shutdown};
use tokio::{net::TcpListener, sync::watch};

/// What SES answers instead of taking a mail.
#[derive(Debug, Clone, Copy)]
pub struct Refusal {
    pub status: u16,
    pub code: &'static str,
    pub message: &'static str,
}

pub const THROTTLED: Refusal = Refusal { status: 400, code: "Throttling", message: "Maximum sending rate exceeded." };
pub const AWAY: Refusal = Refusal { status: 503, code: "ServiceUnavailable", message: "Service is unavailable." };
pub const UNVERIFIED: Refusal =
    Refusal { status: 400, code: "MailFromDomainNotVerified", message: "MAIL FROM domain is not verified." };
pub const BLACKLISTED: Refusal = Refusal { status: 400, code: "MessageRejected", message: "Address blacklisted." };
pub const REJECTED: Refusal = Refusal { status: 400, code: "MessageRejected", message: "Transaction failed." };

/// The way; clones share it.
#[derive(Debug, Clone)]
pub struct Ses {
    pub service: Service,
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    stand_in: String,
    refusal: Mutex<Option<Refusal>>,
    calls: AtomicUsize,
    open: watch::Sender<bool>,
}

impl Ses {
    /// An open way to `stand_in`.
    pub async fn to(stand_in: &Service) -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let endpoint = Some(format!("http://{}", listener.local_addr()?));
        let stand_in_url = stand_in.endpoint.clone().unwrap_or_default();
        let inner = Inner {
            stand_in: stand_in_url,
            refusal: Mutex::new(None),
            calls: AtomicUsize::new(0),
            open: watch::Sender::new(true),
        };
        let new = Self { service: Service { endpoint, ..stand_in.clone() }, inner: Arc::new(inner) };
        let routes = Router::new().fallback(pass).with_state(new.inner.clone());
        Shutdown::manual().spawn_detached(async move {
            axum::serve(listener, routes).await.ok();
        });
        Ok(new)
    }

    /// Refuses every mail from now on.
    pub fn refuse(&self, refusal: Refusal) {
        *self.inner.refusal.lock().unwrap() = Some(refusal);
    }

    /// Takes every mail from now on.
    pub fn relent(&self) {
        *self.inner.refusal.lock().unwrap() = None;
    }

    /// Answers no mail until [`Self::let_through`].
    pub fn hold_up(&self) {
        self.inner.open.send_replace(false);
    }

    pub fn let_through(&self) {
        self.inner.open.send_replace(true);
    }

    /// How many mails were offered.
    pub fn calls(&self) -> usize {
        self.inner.calls.load(Ordering::SeqCst)
    }
}

async fn pass(State(ses): State<Arc<Inner>>, headers: HeaderMap, body: Bytes) -> Response {
    ses.calls.fetch_add(1, Ordering::SeqCst);
    ses.open.subscribe().wait_for(|open| *open).await.unwrap();
    let refusal = *ses.refusal.lock().unwrap();
    if let Some(Refusal { status, code, message }) = refusal {
        let kind = if status < 500 { "Sender" } else { "Receiver" };
        let xml = format!(
            "<ErrorResponse xmlns=\"http://ses.amazonaws.com/doc/2010-12-01/\"><Error><Type>{kind}</Type>\
             <Code>{code}</Code><Message>{message}</Message></Error><RequestId>1</RequestId></ErrorResponse>"
        );
        return (StatusCode::from_u16(status).unwrap(), [(header::CONTENT_TYPE, "text/xml")], xml).into_response();
    }
    let mut onward = reqwest::Client::new().post(&ses.stand_in).body(body);
    for name in [header::CONTENT_TYPE, header::AUTHORIZATION] {
        if let Some(value) = headers.get(&name) {
            onward = onward.header(name, value);
        }
    }
    let answer = onward.send().await.unwrap();
    let (status, kind) = (answer.status(), answer.headers().get(header::CONTENT_TYPE).cloned());
    let kind = kind.map(|kind| [(header::CONTENT_TYPE, kind)]);
    (status, kind.into_iter().flatten().collect::<HeaderMap>(), answer.bytes().await.unwrap()).into_response()
}
