//! Leader election by a Lease: every write carries the resourceVersion it was decided on, so that two can never both win.

use std::time::Duration;

use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::MicroTime,
};
use kube::{
    Api,
    api::{ObjectMeta, PostParams},
};
use shop_runtime::clock::Clock;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::causes::chain;

/// A leader that has not renewed for this long is taken for dead.
const DURATION: Duration = Duration::from_secs(12);
/// A leader that could not renew for this long stops by itself, well before another may start.
const DEADLINE: Duration = Duration::from_secs(8);
const RENEW: Duration = Duration::from_secs(3);
const RETRY: Duration = Duration::from_secs(1);
/// The API server answers in milliseconds, or is in trouble.
const PATIENCE: Duration = Duration::from_secs(3);

#[derive(Debug)]
pub struct Elector {
    api: Api<Lease>,
    name: String,
    me: String,
    clock: Clock,
    /// The other holder's last renewal, and when we saw it first: clocks of two machines are never compared.
    seen: Option<(Option<String>, Option<MicroTime>, Instant)>,
    /// A claim was sent, and no answer to it came.
    unheard: bool,
}

impl Elector {
    /// By the Lease of this name, as the one with that identity.
    pub fn new(api: Api<Lease>, (name, me): (String, String), clock: Clock) -> Self {
        Self { api, name, me, clock, seen: None, unheard: false }
    }

    /// Waits until the lease is ours, or `stop`; false when stopped. A lease that was granted unheard is given back.
    pub async fn acquire(&mut self, stop: &CancellationToken) -> bool {
        let taken = stop.run_until_cancelled(self.keep_trying()).await.is_some();
        if !taken && self.unheard {
            self.release().await;
        }
        taken
    }

    async fn keep_trying(&mut self) {
        loop {
            match tokio::time::timeout(PATIENCE, self.try_take()).await {
                Ok(Ok(true)) => return,
                Ok(Ok(false)) => {}
                Ok(Err(error)) => tracing::warn!(lease = self.name, error = %chain(&error), "cannot take the lease"),
                Err(_) => tracing::warn!(lease = self.name, "cannot take the lease: no answer"),
            }
            tokio::time::sleep(RETRY).await;
        }
    }

    /// Renews until the lease is lost (returns) or `stop` (hands it over, returns).
    pub async fn hold(&mut self, stop: &CancellationToken) {
        let mut renewed = Instant::now();
        loop {
            tokio::select! {
                () = tokio::time::sleep(RENEW) => {}
                () = stop.cancelled() => return,
            }
            let left = DEADLINE.saturating_sub(renewed.elapsed());
            match tokio::time::timeout(left, self.try_take()).await {
                Ok(Ok(true)) => renewed = Instant::now(),
                Ok(Ok(false)) => {
                    tracing::warn!(lease = self.name, "the lease was taken by another operator");
                    return;
                }
                Ok(Err(error)) => tracing::warn!(lease = self.name, error = %chain(&error), "cannot renew the lease"),
                Err(_) => {}
            }
            if renewed.elapsed() >= DEADLINE {
                tracing::warn!(lease = self.name, "the lease could not be renewed in time");
                return;
            }
        }
    }

    /// Gives the lease back, so that the next one need not wait.
    pub async fn release(&self) {
        match tokio::time::timeout(PATIENCE, self.hand_over()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(lease = self.name, error = %chain(&error), "cannot hand over the lease"),
            Err(_) => tracing::warn!(lease = self.name, "cannot hand over the lease: no answer"),
        }
    }

    async fn hand_over(&self) -> Result<(), kube::Error> {
        let Some(mut lease) = self.api.get_opt(&self.name).await? else { return Ok(()) };
        let spec = lease.spec.get_or_insert_default();
        if spec.holder_identity.as_deref() != Some(&self.me) {
            return Ok(());
        }
        spec.holder_identity = None;
        spec.renew_time = Some(self.now());
        self.api.replace(&self.name, &PostParams::default(), &lease).await.map(|_| ())
    }

    /// Takes or renews the lease where that is right; false where another holds it.
    async fn try_take(&mut self) -> Result<bool, kube::Error> {
        let Some(mut lease) = self.api.get_opt(&self.name).await? else {
            let lease = Lease {
                metadata: ObjectMeta { name: Some(self.name.clone()), ..ObjectMeta::default() },
                spec: Some(self.claim(None)),
            };
            self.unheard = true;
            let taken = won(self.api.create(&PostParams::default(), &lease).await)?;
            self.unheard = false;
            return Ok(taken);
        };
        if !self.is_free(&lease) {
            return Ok(false);
        }
        lease.spec = Some(self.claim(lease.spec.as_ref()));
        self.unheard = true;
        let taken = won(self.api.replace(&self.name, &PostParams::default(), &lease).await)?;
        self.unheard = false;
        if taken {
            self.seen = None;
        }
        Ok(taken)
    }

    fn is_free(&mut self, lease: &Lease) -> bool {
        let spec = lease.spec.clone().unwrap_or_default();
        let Some(holder) = spec.holder_identity.filter(|holder| !holder.is_empty()) else { return true };
        if holder == self.me {
            return true;
        }
        let now = Instant::now();
        match &self.seen {
            Some((known, renewed, since)) if known.as_ref() == Some(&holder) && *renewed == spec.renew_time => {
                now.duration_since(*since) > DURATION
            }
            _ => {
                self.seen = Some((Some(holder), spec.renew_time, now));
                false
            }
        }
    }

    fn claim(&self, before: Option<&LeaseSpec>) -> LeaseSpec {
        let now = self.now();
        let ours = before.filter(|spec| spec.holder_identity.as_deref() == Some(&self.me));
        let transitions = before.and_then(|spec| spec.lease_transitions).unwrap_or(0);
        LeaseSpec {
            holder_identity: Some(self.me.clone()),
            lease_duration_seconds: i32::try_from(DURATION.as_secs()).ok(),
            acquire_time: ours.and_then(|spec| spec.acquire_time.clone()).or_else(|| Some(now.clone())),
            renew_time: Some(now),
            lease_transitions: Some(if ours.is_some() { transitions } else { transitions.saturating_add(1) }),
            ..LeaseSpec::default()
        }
    }

    fn now(&self) -> MicroTime {
        let now = self.clock.now();
        // The API keeps microseconds.
        MicroTime(now.round(jiff::Unit::Microsecond).unwrap_or(now))
    }
}

fn won(result: Result<Lease, kube::Error>) -> Result<bool, kube::Error> {
    match result {
        Ok(_) => Ok(true),
        Err(kube::Error::Api(status)) if status.is_conflict() || status.is_already_exists() => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use kube::{Client, Config};
    use tokio::net::TcpListener;

    use super::*;

    /// The address of an API server that takes connections and never answers.
    pub(crate) async fn unanswered() -> (Config, TcpListener) {
        shop_runtime::install_tls_provider();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
        (Config::new(url), listener)
    }

    fn elector(config: Config) -> Elector {
        let client = Client::try_from(config).unwrap();
        Elector::new(Api::namespaced(client, "default"), ("lease".to_owned(), "me".to_owned()), Clock::system())
    }

    #[tokio::test]
    async fn a_server_that_does_not_answer_holds_up_no_stop() {
        let (config, _listener) = unanswered().await;
        let stop = CancellationToken::new();
        let stopped = async {
            let mut elector = elector(config);
            tokio::join!(elector.acquire(&stop), async {
                tokio::task::yield_now().await;
                stop.cancel();
            })
        };
        let (taken, ()) = tokio::time::timeout(PATIENCE, stopped).await.unwrap();
        assert!(!taken);
    }

    #[tokio::test]
    async fn a_server_that_does_not_answer_holds_up_no_hand_over() {
        let (config, _listener) = unanswered().await;
        tokio::time::timeout(PATIENCE * 2, elector(config).release()).await.unwrap();
    }
}
