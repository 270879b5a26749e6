//! The operator's life: wait for the CRD, become the leader, watch and work until told to stop or the lease is lost.

use std::{sync::Arc, time::Duration};

use futures::{StreamExt, channel::mpsc, future};
use kube::{
    Api, Client,
    api::ListParams,
    runtime::controller::{self, Config as ControllerConfig},
};
use shop_runtime::{clock::Clock, health::Readiness, shutdown::Shutdown};
use tokio::time::error::Elapsed;
use tokio_util::sync::CancellationToken;

use crate::{
    causes::chain,
    config::Config,
    context::{Context, Parts},
    controller::{on_error, reconcile},
    crd::ShopDeployment,
    lease::Elector,
    metrics::Metrics,
    watches::{Barred, scoped, watches},
};

const RETRY_CRD: Duration = Duration::from_secs(3);
const PATIENCE: Duration = Duration::from_secs(5);
const PASSES_AT_ONCE: u16 = 16;

/// What the operator is started with.
#[derive(Clone, Debug)]
pub struct Operator {
    pub config: Config,
    pub shutdown: Shutdown,
    pub readiness: Readiness,
    pub metrics: Metrics,
}

impl Operator {
    /// Runs until the drain has begun and the lease is handed over.
    pub async fn run(self, client: Client) {
        let stop = self.shutdown.draining();
        let leases = Api::namespaced(client.clone(), &self.config.pod_namespace);
        let names = (self.config.lease_name.clone(), self.config.pod_name.clone());
        let mut elector = Elector::new(leases, names, Clock::system());
        while self.crd_is_there(&client, &stop).await && elector.acquire(&stop).await {
            tracing::info!(holder = self.config.pod_name, "leading");
            self.metrics.lead_taken();
            tokio::select! {
                () = self.work(client.clone()) => {}
                // Dropping the work aborts every pass in flight.
                () = elector.hold(&stop) => {}
            }
            self.metrics.lead_lost();
            // Only a leader has caches; a standby is ready to become one.
            self.readiness.open("caches");
            self.readiness.open("watches");
            elector.release().await;
            tracing::info!("no longer leading");
        }
    }

    /// Waits for the CRD and says so on `/readyz`, in place of exiting again and again.
    async fn crd_is_there(&self, client: &Client, stop: &CancellationToken) -> bool {
        let shops: Api<ShopDeployment> = scoped(client, &self.config);
        let one = ListParams::default().limit(1);
        let there = async {
            while let Err(why) = listed(tokio::time::timeout(PATIENCE, shops.list_metadata(&one)).await) {
                tracing::warn!(why, "cannot list ShopDeployments");
                self.readiness.close("crd", why);
                tokio::time::sleep(RETRY_CRD).await;
            }
        };
        let found = stop.run_until_cancelled(there).await.is_some();
        if found {
            self.readiness.open("crd");
        }
        found
    }

    /// Watches and passes, for ever.
    async fn work(&self, client: Client) {
        self.readiness.close("caches", "the watches have not delivered everything yet");
        let (trigger, triggers) = mpsc::unbounded();
        let barred = Barred::default();
        let (controller, stores, pods) = watches(&client, &self.config, &barred);
        let ctx = Arc::new(Context::new(Parts {
            client,
            config: self.config.clone(),
            shutdown: self.shutdown.clone(),
            readiness: self.readiness.clone(),
            metrics: self.metrics.clone(),
            stores,
            barred,
            trigger,
        }));
        let _loops_end_with_the_work = StopScalers(ctx.clone());
        let (filled, told, endings, known) = (ctx.clone(), ctx.clone(), ctx.clone(), ctx.clone());
        let pods = pods.for_each(|pod| {
            endings.endings.see(&pod);
            future::ready(())
        });
        let controller = controller.with_config(ControllerConfig::default().concurrency(PASSES_AT_ONCE));
        // A failed pass has been logged where it failed. There is none for what is gone, or another operator's.
        let passes = controller.reconcile_on(triggers).run(reconcile, on_error, ctx).for_each(|pass| {
            if let Err(controller::Error::ObjectNotFound(shop)) = pass {
                let uid = shop.extra.uid.as_deref().unwrap_or_default();
                known.forget((shop.namespace.as_deref().unwrap_or_default(), &shop.name), uid);
            }
            future::ready(())
        });
        tokio::join!(passes, pods, filled.watch_filling(), told.tell_what_is_barred());
    }
}

/// Why the shops could not be listed.
fn listed<T>(answer: Result<Result<T, kube::Error>, Elapsed>) -> Result<T, String> {
    answer.map_err(|_| "the API server does not answer".to_owned())?.map_err(|error| match &error {
        // To a kind that it does not know the server gives no reason, only a code.
        kube::Error::Api(status) if status.code == 404 => {
            "the CRD shopdeployments.shop.xhipment.io is not installed: kubectl apply --server-side -f crds/".to_owned()
        }
        error => chain(error),
    })
}

struct StopScalers(Arc<Context>);

impl Drop for StopScalers {
    fn drop(&mut self) {
        self.0.scalers.stop_all();
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use shop_runtime::metrics;

    use super::*;
    use crate::lease::tests::unanswered;

    #[tokio::test]
    async fn a_server_that_does_not_answer_holds_up_no_stop() {
        let (config, _listener) = unanswered().await;
        let client = Client::try_from(config).unwrap();
        let shutdown = Shutdown::manual();
        let operator = Operator {
            config: Config::parse_from(["shop-operator", "--api-image=api", "--worker-image=worker"]),
            shutdown: shutdown.clone(),
            readiness: Readiness::default(),
            metrics: Metrics::register(&metrics::Metrics::default()),
        };
        let stopped = async {
            tokio::join!(operator.run(client), async {
                tokio::task::yield_now().await;
                shutdown.drain();
            })
        };
        tokio::time::timeout(PATIENCE, stopped).await.unwrap();
    }
}
