//! Two operators: whatever happens to a leader, what it still sends after its time changes nothing.

use std::{
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use k8s_openapi::api::{coordination::v1::Lease, core::v1::ConfigMap};
use kube::api::{DeleteParams, Patch, PatchParams};
use rstest::rstest;
use serde_json::{Value, json};
use shop_operator::crd::ShopDeployment;
use tokio::time::Instant;

use crate::{
    harness::Harness,
    stage::{Stage, client, is_long},
    wire::{Fault, Wire},
};

const CLEAN: Duration = Duration::from_secs(3);
const CRASHED: Duration = Duration::from_secs(16);
/// On a loaded machine everything takes longer, and polling adds its own.
const SLACK: Duration = Duration::from_secs(4);

async fn holder(harness: &Harness) -> Option<String> {
    harness.api::<Lease>().get_opt("shop-operator").await.unwrap()?.spec?.holder_identity
}

async fn leads(harness: &Harness, who: &str) -> Duration {
    let started = Instant::now();
    let what = format!("{who} to lead");
    harness.eventually(&what, async || (holder(harness).await.as_deref() == Some(who)).then_some(())).await;
    started.elapsed()
}

/// The real program, as a process of its own.
pub struct Program(Child);

impl Program {
    fn start(harness: &Harness, pod: &str) -> Self {
        Self::serving(harness, pod, "127.0.0.1:0")
    }

    /// With probes and metrics at this address.
    pub fn serving(harness: &Harness, pod: &str, address: &str) -> Self {
        Self::spawn(&mut Self::command(harness, pod, address))
    }

    /// With another `KUBECONFIG`, and with probes and metrics at this address.
    pub fn restricted(harness: &Harness, kubeconfig: &Path, address: &str) -> Self {
        Self::spawn(Self::command(harness, "restricted", address).env("KUBECONFIG", kubeconfig))
    }

    fn command(harness: &Harness, pod: &str, address: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_shop-operator"));
        command.args(harness.arguments(pod)).args(["--metrics-addr", address, "--log-level=warn"]);
        command
    }

    fn spawn(command: &mut Command) -> Self {
        Self(command.stdout(Stdio::null()).spawn().unwrap())
    }

    pub fn signal(&self, signal: &str) {
        let sent = Command::new("kill").args([signal, &self.id().to_string()]).status().unwrap();
        assert!(sent.success(), "{signal} was not sent");
    }

    pub fn id(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _gone_already = self.0.kill();
        let _status = self.0.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_next_leader_takes_over_in_time() {
    let harness = Harness::new().await;
    let one = Program::start(&harness, "one");
    leads(&harness, "one").await;
    let two = Program::start(&harness, "two");
    // It must have seen the Lease held, as a standby does.
    tokio::time::sleep(Duration::from_secs(2)).await;
    one.signal("-TERM");
    let clean = leads(&harness, "two").await;
    drop(one);
    let _three = Program::start(&harness, "three");
    tokio::time::sleep(Duration::from_secs(2)).await;
    two.signal("-KILL");
    let crashed = leads(&harness, "three").await;
    println!("hand-over: {clean:?} clean (3 s), {crashed:?} after a kill (16 s)");
    assert!(clean <= CLEAN + SLACK && crashed <= CRASHED + SLACK, "{clean:?}, {crashed:?}");
    harness.finish().await;
}

/// The next one need not wait for the end of a lease that nobody has.
#[tokio::test(flavor = "multi_thread")]
async fn a_lease_that_was_granted_unheard_is_given_back() {
    let (mut harness, wire) = (Harness::new().await, Wire::default());
    wire.fail(|seen, _| (seen.is_lease() && seen.method == "POST").then_some(Fault::AnswerLost));
    harness.operator_client = client(&wire).await;
    let operator = harness.start_operator("one");
    leads(&harness, "one").await;
    harness.stop_operator(operator).await;
    assert_eq!(wire.struck().len(), 1);
    assert_eq!(holder(&harness).await, None);
    harness.finish().await;
}

/// Paused for longer than the lease lasts, at whatever it was doing, while the next one leads.
#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_was_paused_changes_nothing_when_it_goes_on() {
    let stage = Stage::new().await;
    let harness = &stage.harness;
    let first = Program::start(harness, "one");
    leads(harness, "one").await;
    let wire = Wire::default();
    let second = stage.start("two", &wire);
    stage.apply(&stage.spec(json!({ "settings": { "displayName": "Old" } }))).await;
    // In the middle of the work on it: the first objects are there, the last may not be.
    harness.exists::<ConfigMap>("demo-api").await;
    first.signal("-STOP");
    stage.apply(&stage.spec(json!({ "settings": { "displayName": "New" } }))).await;
    println!("taken over from a paused leader after {:?}", leads(harness, "two").await);
    stage.ready(&second, &wire).await;
    let (before, writes) = (stage.versions().await, wire.writes().len());
    first.signal("-CONT");
    let lease = async || harness.api::<Lease>().get("shop-operator").await.unwrap().metadata.resource_version;
    // Two renewals of the second: the first has had its time to do harm.
    for _ in 0..2 {
        let seen = lease().await;
        harness.eventually("a renewal", async || (lease().await != seen).then_some(())).await;
    }
    assert_eq!(holder(harness).await.as_deref(), Some("two"));
    assert_eq!(stage.versions().await, before, "the paused leader has changed something");
    assert_eq!(wire.writes().len(), writes, "the second leader had something to repair");
    drop(first);
    drop(second);
    stage.finish().await;
}

/// The API server answers everything but what keeps the lease: the leader stops before the next one begins.
#[tokio::test(flavor = "multi_thread")]
async fn a_leader_whose_lease_alone_fails_stops_before_the_next_one_begins() {
    let stage = Stage::new().await;
    let (first_wire, second_wire) = (Wire::default(), Wire::default());
    let first = stage.start("one", &first_wire);
    leads(&stage.harness, "one").await;
    stage.apply(&stage.spec(json!({}))).await;
    stage.ready(&first, &first_wire).await;
    let second = stage.start("two", &second_wire);
    first_wire.fail(|seen, _| seen.is_lease().then_some(Fault::Answer(500)));
    println!("taken over from one that cannot renew after {:?}", leads(&stage.harness, "two").await);
    let written = first_wire.writes();
    stage.apply(&stage.spec(json!({ "settings": { "displayName": "New" } }))).await;
    stage.ready(&second, &second_wire).await;
    assert_eq!(first_wire.writes().len(), written.len(), "it writes without a lease: {:?}", first_wire.writes());
    first_wire.fail(|_, _| None);
    drop(second);
    leads(&stage.harness, "one").await;
    stage.apply(&stage.spec(json!({ "settings": { "displayName": "Newer" } }))).await;
    stage.ready(&first, &first_wire).await;
    drop(first);
    stage.finish().await;
}

/// A partition: the leader's writes are on the wire while its lease runs out; they arrive after the next one's.
#[rstest]
#[case::create(None, 4)]
#[case::change(Some(json!({ "settings": { "displayName": "Old" }, "api": { "ingress": { "host": "old.example" }, "replicas": 2 } })), 1)]
#[case::scale(Some(json!({ "worker": { "autoscaling": { "min": 2 } } })), 1)]
#[tokio::test(flavor = "multi_thread")]
async fn what_a_stale_leader_sent_gets_409_or_changes_nothing(#[case] change: Option<Value>, #[case] sample: usize) {
    let stage = Stage::new().await;
    let old = change.clone().unwrap_or_else(|| json!({ "settings": { "displayName": "Old" } }));
    let new = json!({
        "settings": { "displayName": "New" },
        "api": { "ingress": { "host": "new.example" }, "replicas": 3 },
        "worker": { "autoscaling": { "min": 3 } },
    });
    let numbers: Vec<usize> = if is_long() { (0..16).collect() } else { vec![sample] };
    let mut late = 0;
    for number in numbers {
        let wire = Wire::default();
        let first = stage.start("one", &wire);
        if change.is_some() {
            stage.apply(&stage.spec(json!({}))).await;
            stage.ready(&first, &wire).await;
        } else {
            leads(&stage.harness, "one").await;
        }
        wire.fail(move |seen, writes| {
            (seen.method != "GET" && !seen.is_lease() && writes == number).then_some(Fault::Hold)
        });
        stage.apply(&stage.spec(old.clone())).await;
        let held = held(&stage, &wire, number).await;
        if !held {
            println!("there is no write {number}");
            drop(first);
            stage.clear().await;
            continue;
        }
        wire.connect(false);
        // As when the lease has run out.
        stage.harness.api::<Lease>().delete("shop-operator", &DeleteParams::default()).await.unwrap();
        let other = Wire::default();
        let second = stage.start("two", &other);
        stage.apply(&stage.spec(new.clone())).await;
        stage.ready(&second, &other).await;
        stage.at_rest(&second, &other).await;
        let before = stage.versions().await;
        let (seen, status) = wire.let_go(1).await.remove(0);
        println!("{number}: {status} to {seen}");
        let after = stage.versions().await;
        assert!(status == 409 || before == after, "{seen} got {status} and changed {before:?} to {after:?}");
        late += 1;
        drop(first);
        drop(second);
        stage.clear().await;
        stage.harness.api::<Lease>().delete("shop-operator", &DeleteParams::default()).await.unwrap();
    }
    assert!(late > 0, "no write came late");
    stage.finish().await;
}

/// Whether the chosen write came about.
async fn held(stage: &Stage, wire: &Wire, number: usize) -> bool {
    let started = Instant::now();
    while wire.writes().len() <= number {
        if started.elapsed() > Duration::from_secs(8) {
            return false;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let touch = json!({ "metadata": { "annotations": { "test/touch": "held" } } });
    let shops = stage.harness.api::<ShopDeployment>();
    shops.patch("demo", &PatchParams::default(), &Patch::Merge(&touch)).await.unwrap();
    true
}
