//! What is seen of a lane from outside while it runs: events of the API server as one client gets them, and the queue.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use futures::{Stream, StreamExt};
use k8s_openapi::{
    NamespaceResourceScope,
    api::{apps::v1::Deployment, core::v1::Pod},
};
use kube::{
    Api, Client, Resource, ResourceExt,
    runtime::{
        WatchStreamExt,
        watcher::{Config, Event, watcher},
    },
};
use serde::Serialize;
use shop_operator::crd::ShopDeployment;
use shop_runtime::queue::Queue;
use tokio::task::JoinSet;

use super::figures::{Life, Replicas};

const LOOK: Duration = Duration::from_millis(250);

/// The messages of a queue at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Depth {
    pub at: f64,
    pub visible: u64,
    pub in_flight: u64,
}

/// All that was seen so far.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Record {
    pub replicas: Vec<Replicas>,
    /// By uid.
    pub pods: HashMap<String, Life>,
    pub depth: Vec<Depth>,
    /// Changes of the shop and of its workers' Deployment, whoever made them.
    pub writes: Vec<f64>,
}

/// Looks on until it is dropped.
pub struct Observer {
    started: Instant,
    record: Arc<Mutex<Record>>,
    _tasks: JoinSet<()>,
}

impl Observer {
    /// Looks at the shop of this name and at its queue.
    pub fn start(client: &Client, (namespace, name): (&str, &str), queue: Queue) -> Self {
        let record = Arc::new(Mutex::new(Record::default()));
        let started = Instant::now();
        let mut tasks = JoinSet::new();
        let note = {
            let record = record.clone();
            move |note: &dyn Fn(f64, &mut Record)| {
                note(started.elapsed().as_secs_f64(), &mut record.lock().unwrap_or_else(PoisonError::into_inner));
            }
        };
        let named = |name: &str| Config::default().fields(&format!("metadata.name={name}"));
        let shops = events::<ShopDeployment>(client, namespace, named(name));
        tasks.spawn(each(shops, {
            let note = note.clone();
            move |_| note(&|at, record| record.writes.push(at))
        }));
        let deployments = events::<Deployment>(client, namespace, named(&format!("{name}-worker")));
        tasks.spawn(each(deployments, {
            let note = note.clone();
            move |event| note(&|at, record| record.see_deployment(at, &event))
        }));
        let labels = format!("app.kubernetes.io/instance={name},app.kubernetes.io/component=worker");
        let pods = events::<Pod>(client, namespace, Config::default().labels(&labels));
        tasks.spawn(each(pods, {
            let note = note.clone();
            move |event| note(&|at, record| record.see_pod(at, &event))
        }));
        tasks.spawn(async move {
            let mut ticks = tokio::time::interval(LOOK);
            loop {
                ticks.tick().await;
                if let Ok(counts) = queue.counts().await {
                    let (visible, in_flight) = (counts.visible, counts.in_flight);
                    note(&|at, record| record.depth.push(Depth { at, visible, in_flight }));
                }
            }
        });
        Self { started, record, _tasks: tasks }
    }

    /// Seconds since it began.
    pub fn now(&self) -> f64 {
        self.started.elapsed().as_secs_f64()
    }

    pub fn record(&self) -> Record {
        self.record.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Record {
    fn see_deployment(&mut self, at: f64, event: &Event<Deployment>) {
        let (Event::Apply(worker) | Event::InitApply(worker)) = event else { return };
        self.writes.push(at);
        let count = worker.spec.replicas.unwrap_or(1);
        if self.replicas.last().is_none_or(|last| last.count != count) {
            self.replicas.push(Replicas { at, count });
        }
    }

    fn see_pod(&mut self, at: f64, event: &Event<Pod>) {
        match event {
            Event::Apply(pod) | Event::InitApply(pod) => {
                let new = Life { created: at, ready: None, gone: None };
                let life = self.pods.entry(pod.uid().unwrap_or_default()).or_insert(new);
                if life.ready.is_none() && is_ready(pod) {
                    life.ready = Some(at);
                }
            }
            Event::Delete(pod) => {
                if let Some(life) = self.pods.get_mut(&pod.uid().unwrap_or_default()) {
                    life.gone = Some(at);
                }
            }
            Event::Init | Event::InitDone => {}
        }
    }

    /// How many pods there are now, those on their way out included.
    pub fn present(&self) -> usize {
        self.pods.values().filter(|life| life.gone.is_none()).count()
    }

    /// The number of workers wanted now.
    pub fn wanted(&self) -> Option<i32> {
        self.replicas.last().map(|value| value.count)
    }

    /// Waiting and in work.
    pub fn backlog(&self) -> Option<u64> {
        self.depth.last().map(|depth| depth.visible + depth.in_flight)
    }
}

/// The events of one kind; an interrupted watch goes on by itself.
fn events<K>(client: &Client, namespace: &str, config: Config) -> impl Stream<Item = Event<K>> + Send + use<K>
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>
        + Clone
        + std::fmt::Debug
        + serde::de::DeserializeOwned
        + Send
        + 'static,
{
    let all = watcher(Api::<K>::namespaced(client.clone(), namespace), config).default_backoff();
    all.filter_map(async |event| event.ok())
}

async fn each<E>(events: impl Stream<Item = E> + Send, seen: impl Fn(E) + Send) {
    let mut events = std::pin::pin!(events);
    while let Some(event) = events.next().await {
        seen(event);
    }
}

fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_ref());
    conditions.is_some_and(|all| all.iter().any(|one| one.type_ == "Ready" && one.status == "True"))
}
