//! What tests and checks need around them: the servers, the cluster, the operator of this checkout.
//! Remembers what was not there before, and takes that down again; what ran before is left running.

use anyhow::{Context as _, Result};

use crate::cluster::{self, Cluster};
use crate::context::Context;
use crate::deps::{self, Deps, Endpoints};
use crate::docker::Docker;
use crate::helm::{self, OPERATOR};
use crate::progress::note;
use crate::up;

/// Variables for the test programs.
pub type Env = Vec<(&'static str, String)>;

#[derive(Debug, Default)]
pub struct Stage {
    started: Vec<Started>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Started {
    Cluster,
    Servers,
    Operator,
}

impl Stage {
    /// MongoDB, Redis, SQS and SES, as this machine reaches them.
    pub fn servers(&mut self, context: &Context) -> Result<Env> {
        let running = Docker::running(context).is_some_and(|docker| {
            deps::SERVERS
                .iter()
                .all(|server| docker.container_status(&server.container()).as_deref() == Some("running"))
        });
        if !running {
            self.started.push(Started::Servers);
        }
        let servers = deps::up(context, deps::Ports::from_env()?)?;
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

    /// A cluster and the servers. An installed operator runs on: it leaves shops of another operator class alone.
    pub fn cluster(&mut self, context: &Context) -> Result<Env> {
        self.start_cluster(context)?;
        let mut env = self.servers(context)?;
        let cluster = Cluster::load(context)?;
        env.extend(kubeconfig(context, &cluster));
        Ok(env)
    }

    /// A cluster with the operator of this checkout, its images, and the servers.
    pub fn operator(&mut self, context: &Context) -> Result<Env> {
        self.start_cluster(context)?;
        let mut env = self.servers(context)?;
        let cluster = Cluster::load(context)?;
        if !has_operator(context, &cluster)? {
            self.started.push(Started::Operator);
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
        env.push(("SHOP_TEST_INGRESS_URL", crate::env::shop_url(&cluster).context("e2e tests need the kind cluster")?));
        Ok(env)
    }

    /// Takes down what was started here.
    pub fn strike(self, context: &Context) -> Result<()> {
        if self.started.contains(&Started::Cluster) {
            note("taking down the cluster that was started for this");
            return cluster::down(context);
        }
        for started in self.started.into_iter().rev() {
            match started {
                Started::Cluster => {}
                Started::Operator => helm::uninstall(context, &Cluster::load(context)?, OPERATOR)?,
                Started::Servers => match Docker::running(context) {
                    Some(docker) if Cluster::recorded(context)?.is_some() => {
                        deps::remove(context, &docker, deps::Data::Remove)?;
                    }
                    // Without a cluster the engine was started for the servers alone.
                    _ => cluster::down(context)?,
                },
            }
        }
        Ok(())
    }

    fn start_cluster(&mut self, context: &Context) -> Result<()> {
        if Cluster::recorded(context)?.is_none() {
            self.started.push(Started::Cluster);
        }
        cluster::up(context, &cluster::UpArgs::from_env()?).map(drop)
    }
}

fn endpoints(env: &mut Env, names: [&'static str; 4], of: Endpoints) {
    env.extend(names.into_iter().zip([of.mongodb_uri, of.redis_url, of.sqs_endpoint, of.ses_endpoint]));
}

fn kubeconfig(context: &Context, cluster: &Cluster) -> Option<(&'static str, String)> {
    cluster.kubeconfig(context).map(|file| ("KUBECONFIG", file.display().to_string()))
}

fn has_operator(context: &Context, cluster: &Cluster) -> Result<bool> {
    let get = cluster.kubectl(context)?.args(["-n", OPERATOR.namespace, "get", "deployment/shop-operator"]);
    Ok(get.succeeds())
}
