//! One loop per shop: look, decide, act, tell, sleep. Started and stopped by the reconciler.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use jiff::Timestamp;
use k8s_openapi::{
    api::{apps::v1::Deployment, core::v1::Pod},
    apimachinery::pkg::apis::meta::v1::Time,
};
use kube::runtime::events::EventType;
use shop_runtime::ids;
use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::{
    act,
    decide::{Decision, decide},
    depth::Gauge,
    history::{History, Memory},
    owner,
    pods::{Census, victims},
    policy::{Depth, Policy, Sample},
    reports::{Report, Reporters},
    view::View,
};
use crate::{
    assess::QueueHealth,
    causes::chain,
    context::{Context, cached},
    crd::ShopDeploymentStatus,
    names::Component,
    queue::{Problem, QueueError},
    validate::ValidatedShop,
};

/// How long the first pass is waited for.
const FIRST_PASS: Duration = Duration::from_secs(2);
/// Between two looks at a queue at rest, where no worker can tell that there is work.
pub const RESTING: Duration = Duration::from_secs(10);
/// The same where the workers tell.
const WATCHED: Duration = Duration::from_secs(20);
/// A queue with workers that has been empty for so long is at rest.
const CALM: f64 = 60.0;
/// A burst takes a moment to arrive: its first message is not the size of it.
const ARRIVAL: Duration = Duration::from_secs(1);
/// So long after the last work a queue is still watched closely.
pub const STAYS_ACTIVE: f64 = 600.0;
const LONGEST_BACKOFF: u64 = 60;
/// Refusals (no access, no such queue) do not mend themselves.
const REFUSED: Duration = Duration::from_mins(5);
/// Numbers alone are told no more often than this.
const TELL_EVERY: f64 = 10.0;
const POLLS_TO_BLIND: u32 = 3;

/// The running loops, by the shops' uids.
#[derive(Debug, Default)]
pub struct Scalers(Mutex<HashMap<String, Running>>);

#[derive(Debug)]
struct Running {
    shop: watch::Sender<Arc<ValidatedShop>>,
    _stops: DropGuard,
}

impl Scalers {
    /// Starts the shop's loop, or hands it the changed shop.
    pub fn follow(&self, ctx: &Arc<Context>, shop: &ValidatedShop, status: Option<&ShopDeploymentStatus>) {
        let mut running = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let uid = shop.owner.uid.clone();
        if let Some(running) = running.get(&uid) {
            running.shop.send_if_modified(|known| {
                let changed = differs(known, shop);
                if changed {
                    *known = Arc::new(shop.clone());
                }
                changed
            });
            return;
        }
        let token = CancellationToken::new();
        let (sender, receiver) = watch::channel(Arc::new(shop.clone()));
        let scaler = Scaler::new(ctx.clone(), receiver, status);
        running.insert(uid, Running { shop: sender, _stops: token.clone().drop_guard() });
        ctx.shutdown.spawn_detached(async move {
            tokio::select! {
                () = scaler.run() => {}
                () = token.cancelled() => {}
            }
        });
    }

    pub fn stop(&self, uid: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(uid);
    }

    /// Stops every loop, as when the lease is lost.
    pub fn stop_all(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

fn differs(a: &ValidatedShop, b: &ValidatedShop) -> bool {
    a.spec.queue != b.spec.queue
        || a.spec.aws != b.spec.aws
        || a.scaling != b.scaling
        || a.concurrency != b.concurrency
        || a.secret_versions() != b.secret_versions()
}

struct Scaler {
    ctx: Arc<Context>,
    shop: watch::Receiver<Arc<ValidatedShop>>,
    history: History,
    gauge: Gauge,
    reporters: Reporters,
    census: Census,
    missed: u32,
    last_work: f64,
    told: (f64, View),
    last_scale: Option<Timestamp>,
}

/// What one look at the cluster found.
struct Look {
    worker: Arc<Deployment>,
    pods: Vec<Arc<Pod>>,
    reports: HashMap<String, Report>,
    depth: Result<Depth, QueueError>,
    sample: Sample,
}

/// Until when there is nothing to look at.
enum Pause {
    For(Duration),
    /// Until one of these idle workers has something to do, at most so long.
    UntilNews(Vec<Arc<Pod>>, Duration),
}

impl Look {
    fn worker_count(&self) -> usize {
        usize::try_from(self.sample.current).unwrap_or(usize::MAX)
    }
}

impl Scaler {
    fn new(
        ctx: Arc<Context>,
        shop: watch::Receiver<Arc<ValidatedShop>>,
        status: Option<&ShopDeploymentStatus>,
    ) -> Self {
        let (now, first) = (ctx.clock.now(), shop.borrow().clone());
        let scaling = status.and_then(|status| status.autoscaling.as_ref());
        let memory = scaling.and_then(|scaling| scaling.memory.clone());
        let replicas = live_worker(&ctx, &first).and_then(|worker| worker.spec.replicas).unwrap_or(0);
        // What runs now counts as needed a moment ago: a restart never takes pods away sooner.
        let highest = memory.as_ref().map_or(0, |memory| memory.window_max).max(replicas);
        let memory = memory.unwrap_or_default();
        let time = |time: &Option<Time>| time.as_ref().map(|time| time.0);
        let remembered = Memory {
            service: memory.seconds_per_message,
            startup: memory.startup_seconds,
            window_max: u32::try_from(highest).unwrap_or(0),
            backlog_since: time(&memory.waiting_since).map(seconds),
            last_cut_off: time(&memory.last_busy_kill_time).map(seconds),
        };
        Self {
            history: History::restored(seconds(now), remembered),
            gauge: Gauge::default(),
            reporters: Reporters::new(ctx.asker.clone(), now),
            census: Census::new(now),
            missed: 0,
            last_work: seconds(now),
            told: (0.0, View::default()),
            last_scale: time(&memory.last_scale_time),
            ctx,
            shop,
        }
    }

    async fn run(mut self) {
        loop {
            let shop = self.shop.borrow_and_update().clone();
            // Boxed: between the polls the loop holds no call to SQS, which takes many times what it remembers.
            let look = Box::pin(self.look(&shop)).await;
            if !self.is_followed(&shop) {
                self.ctx.forget((&shop.namespace, &shop.name), &shop.owner.uid);
                return;
            }
            let pause = match look {
                Some(look) => Box::pin(self.turn(&shop, look)).await,
                // The first pass has not made it yet.
                None => Pause::For(FIRST_PASS),
            };
            tokio::select! {
                () = rest(&mut self.reporters, pause) => {}
                changed = self.shop.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    self.gauge.reset();
                    self.missed = 0;
                }
            }
        }
    }

    /// No pass tells the end of a shop without a finalizer, or that it is another operator's now.
    fn is_followed(&self, shop: &ValidatedShop) -> bool {
        let known = cached(&self.ctx.stores.shops, &shop.namespace, &shop.name);
        known.is_some_and(|known| known.metadata.uid.as_ref() == Some(&shop.owner.uid))
    }

    async fn look(&mut self, shop: &ValidatedShop) -> Option<Look> {
        let worker = live_worker(&self.ctx, shop)?;
        let pods = self.ctx.pods(&shop.namespace, &shop.name, Component::Worker);
        let (depth, reports) = tokio::join!(self.gauge.read(&self.ctx, shop), self.reporters.ask(&pods));
        self.ctx.metrics.polled(depth.is_ok());
        let progress = self.reporters.progress(&pods, &reports);
        // After the call: the Deployment may have changed meanwhile.
        let worker = live_worker(&self.ctx, shop).unwrap_or(worker);
        let counts = self.census.count(&worker, &pods, &reports);
        let is_there = |uid: &str| pods.iter().any(|pod| pod.metadata.uid.as_deref() == Some(uid));
        let cut_off = self.ctx.endings.count((&shop.namespace, &shop.name), is_there);
        if cut_off > 0 {
            self.ctx.metrics.cut_off(cut_off);
            tracing::warn!(shop = shop.name, namespace = shop.namespace, pods = cut_off, "taken away while at work");
        }
        let sample = Sample {
            at: seconds(self.ctx.clock.now()),
            depth: depth.as_ref().ok().copied(),
            current: counts.current,
            ready: counts.ready,
            pending: counts.pending,
            rolling: counts.rolling,
            busy_pods: counts.busy_pods,
            busy: counts.busy,
            reporting: counts.reporting,
            completed: progress.completed,
            service_seconds: progress.service_seconds,
            startup_seconds: counts.startup_seconds,
            cut_off,
        };
        Some(Look { worker, pods, reports, depth, sample })
    }

    /// Decides, acts and tells; says how long to wait.
    async fn turn(&mut self, shop: &ValidatedShop, look: Look) -> Pause {
        let policy = Policy::of(shop);
        let decision = owner::heed(&shop.scaling, decide(&policy, &mut self.history, &look.sample));
        self.missed = if look.depth.is_ok() { 0 } else { self.missed.saturating_add(1) };
        if look.sample.completed > 0 || look.sample.depth.is_some_and(|depth| !depth.is_empty()) {
            self.last_work = look.sample.at;
        }
        if let Err(error) = self.act(shop, &look, &decision).await {
            tracing::warn!(shop = shop.name, namespace = shop.namespace, error = %chain(&error), "scaling failed");
        }
        let is_as_decided = decision.replicas == look.sample.current && look.pods.len() == look.worker_count();
        let is_settled = is_as_decided && !decision.reason.passes();
        self.tell(shop, &policy, &look, decision);
        let calm = look.sample.at - self.last_work >= CALM && look.sample.depth.is_some();
        if is_settled && calm && self.reporters.are_idle(&look.pods, &look.reports) {
            return Pause::UntilNews(look.pods, WATCHED.max(poll(shop)));
        }
        Pause::For(self.wait(shop, &look))
    }

    async fn act(&mut self, shop: &ValidatedShop, look: &Look, decision: &Decision) -> Result<(), act::ActError> {
        let Some(wanted) = owner::to_write(&shop.scaling, decision) else { return Ok(()) };
        let current = look.sample.current;
        let count = usize::try_from(current.saturating_sub(wanted)).unwrap_or(usize::MAX);
        // The marks of an earlier decision stay until the pods it meant are gone.
        let is_marked = count > 0 || !is_shrinking(&look.pods, current);
        if is_marked && !act::mark(&self.ctx, &look.pods, &victims(&look.pods, &look.reports, count)).await? {
            return Ok(());
        }
        if !act::scale(&self.ctx, &look.worker, wanted).await? {
            return Ok(());
        }
        self.last_scale = Some(self.ctx.clock.now());
        self.ctx.metrics.scaled(decision.reason.as_str());
        let note = format!("workers {current} → {wanted}: {}", decision.explain());
        tracing::info!(
            shop = shop.name,
            namespace = shop.namespace,
            current,
            wanted,
            reason = decision.reason.as_str(),
            "scaled"
        );
        if let Some(object) = cached(&self.ctx.stores.shops, &shop.namespace, &shop.name) {
            self.ctx.event(&object, EventType::Normal, decision.reason.as_str(), note).await;
        }
        Ok(())
    }

    fn tell(&mut self, shop: &ValidatedShop, policy: &Policy, look: &Look, decision: Decision) {
        let queue = match &look.depth {
            Ok(_) => QueueHealth::Readable,
            Err(error) if error.is_refusal() || self.missed >= POLLS_TO_BLIND => QueueHealth::Bad(error.fault()),
            Err(_) => self.told.1.queue.clone(),
        };
        let visible = look.sample.depth.map(|depth| depth.visible);
        self.ctx.metrics.scaler(&shop.namespace, &shop.name, (decision.replicas, visible));
        let view = View {
            queue,
            url: self.gauge.known_url().map(str::to_owned).or_else(|| self.told.1.url.clone()),
            depth: look.sample.depth,
            memory: self.history.memory(policy),
            decision: Some(decision),
            last_scale: self.last_scale,
        };
        let now = look.sample.at;
        let news = view.differs(&self.told.1);
        let numbers = view.depth != self.told.1.depth && now - self.told.0 >= TELL_EVERY;
        self.ctx.views.set(&shop.owner.uid, view.clone());
        if news || numbers {
            self.told = (now, view);
            self.ctx.trigger(&shop.namespace, &shop.name);
        }
    }

    fn wait(&self, shop: &ValidatedShop, look: &Look) -> Duration {
        let active = poll(shop);
        match &look.depth {
            Ok(_) if look.sample.current > 0 || look.sample.at - self.last_work < STAYS_ACTIVE => active,
            Ok(_) => RESTING.max(active),
            Err(error) if error.problem == Problem::Missing && shop.is_managed() => {
                self.ctx.queues.recheck(&shop.owner.uid);
                self.ctx.trigger(&shop.namespace, &shop.name);
                RESTING
            }
            Err(error) if error.is_refusal() => REFUSED,
            Err(_) => Duration::from_secs((1_u64 << self.missed.saturating_sub(1).min(6)).min(LONGEST_BACKOFF)),
        }
    }
}

/// Between two looks while there is work.
fn poll(shop: &ValidatedShop) -> Duration {
    Duration::from_secs(shop.scaling.poll_seconds.max(1).into())
}

/// Waits, ±10 %, so that many shops do not ask at once.
async fn rest(reporters: &mut Reporters, pause: Pause) {
    match pause {
        Pause::For(time) => tokio::time::sleep(jittered(time)).await,
        Pause::UntilNews(pods, most) => {
            if reporters.news(&pods, jittered(most)).await {
                tokio::time::sleep(ARRIVAL).await;
            }
        }
    }
}

fn live_worker(ctx: &Context, shop: &ValidatedShop) -> Option<Arc<Deployment>> {
    ctx.deployment((&shop.namespace, &shop.name), &shop.owner.uid, Component::Worker)
}

/// Whether there are more pods than there are to be: some are still to be told to go.
fn is_shrinking(pods: &[Arc<Pod>], current: u32) -> bool {
    let staying = pods.iter().filter(|pod| pod.metadata.deletion_timestamp.is_none()).count();
    u32::try_from(staying).is_ok_and(|staying| staying > current)
}

#[expect(clippy::cast_precision_loss, reason = "milliseconds since 1970 fit into 53 bits")]
fn seconds(time: Timestamp) -> f64 {
    time.as_millisecond() as f64 / 1000.0
}

fn jittered(wait: Duration) -> Duration {
    let [byte] = ids::random_bytes::<1>().unwrap_or([128]);
    wait.mul_f64(0.9 + f64::from(byte) / 255.0 * 0.2)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{context::tests::context, validate::tests::minimal};

    #[tokio::test]
    async fn the_loop_ends_when_the_shop_is_gone_or_another_operators() {
        let (ctx, shop) = (Arc::new(context()), Arc::new(minimal()));
        ctx.views.set(&shop.owner.uid, View::default());
        let (_sender, receiver) = watch::channel(shop.clone());
        let scaler = Scaler::new(ctx.clone(), receiver, None);
        tokio::time::timeout(FIRST_PASS, scaler.run()).await.unwrap();
        assert!(ctx.views.get(&shop.owner.uid).is_none());
    }
}
