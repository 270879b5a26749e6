//! An operator that has nothing to do: no writes but the Lease's, next to no processor time, little memory.

use std::{collections::BTreeMap, net::TcpListener, time::Duration};

use jiff::Timestamp;
use k8s_openapi::api::{
    apps::v1::Deployment,
    core::v1::{ConfigMap, Pod, Secret, Service, ServiceAccount},
    events::v1::Event,
    networking::v1::{Ingress, NetworkPolicy},
    policy::v1::PodDisruptionBudget,
};
use kube::{ResourceExt, api::ListParams};
use serde_json::json;
use shop_operator::crd::ShopDeployment;
use shop_runtime::clock::Clock;

use crate::{
    audit::Requests,
    leaders::Program,
    rbac::{account, restricted_kubeconfig},
    stage::{Stage, is_long},
};

/// Clock ticks a second, as /proc counts them.
const TICKS: f64 = 100.0;

/// Percent of a core that an optimised operator may need for a hundred shops; this one's own code is not optimised, and on a
/// loaded machine every wake-up costs more.
const CPU: f64 = 0.5;
const UNOPTIMISED: f64 = 30.0;
/// Megabytes of its own. The program's text, many times that of an optimised one, is not counted.
const MEMORY: f64 = 30.0;

/// Seconds of processor time so far.
fn processor(id: u32) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).unwrap();
    let fields: Vec<_> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    let ticks = |at: usize| fields[at].parse::<f64>().unwrap();
    (ticks(11) + ticks(12)) / TICKS
}

/// Megabytes, by the name that /proc has for them.
fn memory(id: u32, what: &str) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{id}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with(what)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<f64>().unwrap() / 1024.0
}

/// Name and version of everything in the namespace, as the API server has it; the Lease is not among it.
async fn versions(stage: &Stage) -> BTreeMap<String, Option<String>> {
    let mut versions = BTreeMap::new();
    macro_rules! add {
        ($($kind:ty),*) => {$(
            for object in stage.harness.api::<$kind>().list(&ListParams::default()).await.unwrap() {
                versions.insert(format!("{} {}", stringify!($kind), object.name_any()), object.resource_version());
            }
        )*};
    }
    add!(ServiceAccount, ConfigMap, Secret, NetworkPolicy, Service, Ingress, PodDisruptionBudget, Deployment, Pod);
    add!(ShopDeployment);
    // The scheduler's complaints about pods that it may not have are not the operator's.
    for event in stage.harness.api::<Event>().list(&ListParams::default()).await.unwrap() {
        if event.reporting_controller.as_deref() == Some("shop-operator") {
            versions.insert(format!("Event {}", event.name_any()), event.resource_version());
        }
    }
    versions
}

/// What there is at one moment.
struct Look {
    at: Timestamp,
    versions: BTreeMap<String, Option<String>>,
    written: u64,
    processor: f64,
    /// Ten seconds and more after the last news.
    settled: bool,
}

async fn look(stage: &Stage, (id, address): (u32, &str)) -> Look {
    let (at, versions, written) = (Clock::system().now(), versions(stage).await, written(address).await);
    Look { at, versions, written, processor: processor(id), settled: false }
}

/// What the program says that it has written, also what changed nothing.
async fn written(address: &str) -> u64 {
    counted(address, "shop_operator_writes_total{").await
}

/// The sum of the program's counters whose lines begin like this.
pub async fn counted(address: &str, series: &str) -> u64 {
    let (address, client) = (format!("http://{address}/metrics").parse().unwrap(), hyper_client());
    let answer = client.get(address).await.unwrap();
    let body = http_body_util::BodyExt::collect(answer.into_body()).await.unwrap().to_bytes();
    let text = String::from_utf8(body.to_vec()).unwrap();
    text.lines()
        .filter(|line| line.starts_with(series))
        .filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok())
        .sum()
}

type HttpClient = hyper_util::client::legacy::Client<
    hyper_util::client::legacy::connect::HttpConnector,
    http_body_util::Empty<hyper::body::Bytes>,
>;

fn hyper_client() -> HttpClient {
    hyper_util::client::legacy::Client::builder(hyper_util::rt::TokioExecutor::new()).build_http()
}

#[tokio::test(flavor = "multi_thread")]
async fn at_rest_nothing_is_written() {
    let stage = Stage::new().await;
    let (shops, window) = if is_long() { (100, 60) } else { (10, 15) };
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let kubeconfig = restricted_kubeconfig(&stage.harness).await;
    let program = Program::restricted(&stage.harness, kubeconfig.path(), &free);
    let queues: Vec<_> = (0..shops).map(|number| stage.sqs.other(&format!("{}-{number}", stage.sqs.name))).collect();
    for (number, queue) in queues.iter().enumerate() {
        let spec = stage.spec(json!({ "queue": { "name": queue.name } }));
        stage.harness.apply(&format!("shop-{number}"), spec).await;
    }
    let all_ready = async || {
        let found = stage.harness.api::<ShopDeployment>().list(&ListParams::default()).await.unwrap();
        let ready = |shop: &ShopDeployment| {
            let conditions = shop.status.iter().flat_map(|status| &status.conditions);
            conditions.into_iter().any(|c| c.type_ == "Ready" && c.status == "True")
        };
        found.items.iter().all(ready).then_some(())
    };
    stage.harness.within(Duration::from_mins(10), "shops that are all ready", all_ready).await;
    // What is left to be told is told within ten seconds. The scheduler looks at pods without a node again now and then, and
    // says so on them: a time in which a pod has changed is no rest.
    let mut found = look(&stage, (program.id(), &free)).await;
    let rested = stage
        .harness
        .within(Duration::from_mins(10), "a time of rest", async || {
            tokio::time::sleep(Duration::from_secs(window)).await;
            let before = std::mem::replace(&mut found, look(&stage, (program.id(), &free)).await);
            let pods = |look: &Look| {
                look.versions
                    .iter()
                    .filter(|(name, _)| name.starts_with("Pod "))
                    .map(|(name, version)| (name.clone(), version.clone()))
                    .collect::<Vec<_>>()
            };
            let calm = before.settled && pods(&before) == pods(&found);
            found.settled = true;
            calm.then_some(before)
        })
        .await;
    let writes = found.written - rested.written;
    #[expect(clippy::cast_precision_loss, reason = "a minute")]
    let share = (found.processor - rested.processor) / window as f64 * 100.0;
    let (resident, own) = (memory(program.id(), "VmRSS"), memory(program.id(), "RssAnon"));
    println!(
        "{shops} shops at rest for {window} s: {writes} writes, {share:.2} % of a core, {resident:.1} MB resident, of which {own:.1} MB its own"
    );
    let changed: Vec<_> =
        found.versions.iter().filter(|(name, version)| rested.versions.get(*name) != Some(*version)).collect();
    assert_eq!((writes, changed), (0, vec![]));
    let mut asked = Requests::since(&stage.harness.client, &account(&stage.harness), rested.at).await.writes();
    let renewals = asked.remove("update coordination.k8s.io/leases").unwrap_or_default();
    assert!(renewals > 0, "the API server's log does not even have the Lease");
    assert_eq!(asked, BTreeMap::new(), "asked of the API server at rest");
    assert!(share <= CPU * UNOPTIMISED, "{share} % of a core");
    assert!(own <= MEMORY, "{own} MB");
    drop(program);
    for (number, queue) in queues.iter().enumerate() {
        let shops = stage.harness.api::<ShopDeployment>();
        shops.delete(&format!("shop-{number}"), &kube::api::DeleteParams::default()).await.unwrap();
        queue.clean().await;
    }
    stage.finish().await;
}
