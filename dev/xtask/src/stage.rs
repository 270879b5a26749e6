//! What tests and checks need around them: the servers, the cluster, the operator of this checkout.
//! Remembers what was not there before, also across an interrupted run, and takes that down again; what ran before is left.

use anyhow::{Context as _, Result};

use crate::cluster;
use crate::context::Context;
use crate::deps::{self, Data};
use crate::helm::{self, OPERATOR};
use crate::plugin;
use crate::progress::note;
use crate::schemathesis;
use crate::servers::{self, Deps, Endpoints};
use crate::started::{self, Part, Started};
use crate::target::Cluster;
use crate::tools::Tools;
use crate::up;

/// Variables for the test programs.
pub type Env = Vec<(&'static str, String)>;

#[derive(Debug)]
pub struct Stage {
    started: Started,
}

/// Namespaces of tests carry one of these labels.
const TEST_NAMESPACES: [&str; 2] = ["shop.xhipment.io/test", "app.kubernetes.io/part-of=xhipment-e2e"];

impl Stage {
    /// An empty stage, or what an interrupted run left standing.
    pub fn open(context: &Context) -> Result<Self> {
        Ok(Self { started: Started::load(context)? })
    }

    /// MongoDB, Redis, SQS and SES, as this machine reaches them.
    pub fn servers(&mut self, context: &Context) -> Result<Env> {
        if !servers::are_set_up(context) {
            self.started.add(context, Part::Servers)?;
        }
        let servers = deps::up(context, deps::PortArgs::from_env()?)?;
        let mut env = Env::new();
        endpoints(
            &mut env,
            ["SHOP_TEST_MONGODB_URI", "SHOP_TEST_REDIS_URL", "SHOP_TEST_SQS_ENDPOINT", "SHOP_TEST_SES_ENDPOINT"],
            servers.host,
        );
        // The local SQS and SES take any credentials; the SDK wants some.
        env.extend([("AWS_ACCESS_KEY_ID", "local".to_owned()), ("AWS_SECRET_ACCESS_KEY", "local".to_owned())]);
        Ok(env)
    }

    /// The servers, and what fuzzes the API.
    pub fn fuzzer(&mut self, context: &Context) -> Result<Env> {
        let mut env = self.servers(context)?;
        env.push(("SHOP_TEST_SCHEMATHESIS", schemathesis::ensure(context)?.display().to_string()));
        Ok(env)
    }

    /// A cluster and the servers. An installed operator runs on: it leaves shops of another operator class alone.
    pub fn cluster(&mut self, context: &Context) -> Result<Env> {
        self.start_cluster(context)?;
        let mut env = self.servers(context)?;
        let cluster = Cluster::load(context)?;
        sweep(context, &cluster)?;
        env.extend(kubeconfig(context, &cluster));
        Ok(env)
    }

    /// A cluster with the operator of this checkout, its images, and the servers.
    pub fn operator(&mut self, context: &Context) -> Result<Env> {
        self.start_cluster(context)?;
        let mut env = self.servers(context)?;
        let cluster = Cluster::load(context)?;
        sweep(context, &cluster)?;
        if !has_operator(context, &cluster)? {
            self.started.add(context, Part::Operator)?;
        }
        let images = up::make_images(context)?;
        up::install_operator(context, &cluster, &images)?;
        endpoints(
            &mut env,
            [
                "SHOP_TEST_CLUSTER_MONGODB_URI",
                "SHOP_TEST_CLUSTER_REDIS_URL",
                "SHOP_TEST_CLUSTER_SQS_ENDPOINT",
                "SHOP_TEST_CLUSTER_SES_ENDPOINT",
            ],
            Deps::load(context)?.cluster,
        );
        env.extend(kubeconfig(context, &cluster));
        env.push(("SHOP_TEST_HELM", Tools::linked(context)?.helm.display().to_string()));
        env.push(("SHOP_TEST_KUBECTL_SHOP", plugin::ensure(context)?.display().to_string()));
        env.push(("SHOP_TEST_INGRESS_URL", crate::env::shop_url(&cluster).context("e2e tests need the kind cluster")?));
        Ok(env)
    }

    /// Takes down what was started here.
    pub fn strike(self, context: &Context) -> Result<()> {
        if self.started.has(Part::Cluster) {
            note("taking down the cluster that was started for this");
            if self.started.has(Part::Servers) || !servers::are_set_up(context) {
                return cluster::down(context);
            }
            cluster::remove_alone(context)?;
        } else if self.started.has(Part::Operator) {
            helm::uninstall(context, &Cluster::load(context)?, OPERATOR)?;
        }
        if self.started.has(Part::Servers) {
            note("taking down the servers that were started for this");
            deps::down(context, Data::Remove)?;
        }
        started::keep(context)
    }

    fn start_cluster(&mut self, context: &Context) -> Result<()> {
        if Cluster::recorded(context)?.is_none() {
            self.started.add(context, Part::Cluster)?;
        }
        cluster::up(context, &cluster::UpArgs::from_env()?).map(drop)
    }
}

/// Removes the namespaces that interrupted tests left; their shops' operators are gone, so nobody else ends these.
/// One that is on its way out belongs to a test that has ended in good order: it may be gone at any moment.
fn sweep(context: &Context, cluster: &Cluster) -> Result<()> {
    for label in TEST_NAMESPACES {
        let kubectl = || cluster.kubectl(context);
        let active = ["get", "namespaces", "--field-selector", "status.phase=Active", "-l", label];
        let left = kubectl()?.args(active).args(["-o", "jsonpath={.items[*].metadata.name}"]).read()?;
        for namespace in left.split_whitespace() {
            note(format!("removing namespace {namespace} of an interrupted test"));
            let shops = kubectl()?.args(["-n", namespace, "get", "shops", "-o", "name"]).read().unwrap_or_default();
            for shop in shops.lines() {
                let none = r#"{"metadata":{"finalizers":null}}"#;
                kubectl()?.args(["-n", namespace, "delete", shop, "--ignore-not-found", "--wait=false"]).read()?;
                // One without finalizers is gone by now.
                kubectl()?.args(["-n", namespace, "patch", shop, "--type=merge", "-p", none]).succeeds();
            }
            kubectl()?.args(["delete", "namespace", namespace, "--ignore-not-found", "--wait=false"]).read()?;
        }
    }
    Ok(())
}

fn endpoints(env: &mut Env, names: [&'static str; 4], of: Endpoints) {
    env.extend(names.into_iter().zip([of.mongodb_uri, of.redis_url, of.sqs_endpoint, of.ses_endpoint]));
}

fn kubeconfig(context: &Context, cluster: &Cluster) -> Option<(&'static str, String)> {
    cluster.kubeconfig(context).map(|file| ("KUBECONFIG", file))
}

fn has_operator(context: &Context, cluster: &Cluster) -> Result<bool> {
    let get = cluster.kubectl(context)?.args(["-n", OPERATOR.namespace, "get", "deployment/shop-operator"]);
    Ok(get.succeeds())
}
