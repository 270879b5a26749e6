//! The way to the cluster, as kubectl goes it, and to a shop by its name.

use std::{path::PathBuf, time::Duration};

use kube::{
    Api, Client, Config, ResourceExt,
    api::ListParams,
    config::{KubeConfigOptions, Kubeconfig},
};
use shop_operator::crd::ShopDeployment;

use crate::problem::Problem;

/// A cluster that takes longer to answer counts as away.
const PATIENCE: Duration = Duration::from_secs(10);

/// Where to look, as kubectl has it.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Reach {
    /// The shop's namespace; by default the context's
    #[arg(short, long, global = true)]
    pub namespace: Option<String>,
    /// The kubeconfig's context; by default the current one
    #[arg(long, global = true)]
    pub context: Option<String>,
    /// The kubeconfig; by default KUBECONFIG, or ~/.kube/config
    #[arg(long, global = true, value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    pub kubeconfig: Option<PathBuf>,
}

/// A cluster and a namespace of it.
pub struct Cluster {
    pub client: Client,
    pub namespace: String,
    server: String,
}

impl Cluster {
    pub async fn connect(reach: &Reach) -> Result<Self, Problem> {
        let no_config = |error: &dyn std::error::Error| Problem::NoConfig(shop_runtime::telemetry::chain(error));
        let options = KubeConfigOptions { context: reach.context.clone(), ..KubeConfigOptions::default() };
        let config = match &reach.kubeconfig {
            Some(file) => {
                let file = Kubeconfig::read_from(file).map_err(|error| no_config(&error))?;
                Config::from_custom_kubeconfig(file, &options).await.map_err(|error| no_config(&error))
            }
            None if reach.context.is_some() => {
                Config::from_kubeconfig(&options).await.map_err(|error| no_config(&error))
            }
            None => Config::infer().await.map_err(|error| no_config(&error)),
        };
        let mut config = config?;
        config.connect_timeout = Some(PATIENCE);
        let (server, default) = (config.cluster_url.to_string(), config.default_namespace.clone());
        let client = Client::try_from(config).map_err(|error| no_config(&error))?;
        Ok(Self { client, namespace: reach.namespace.clone().unwrap_or(default), server })
    }

    pub fn api<K>(&self) -> Api<K>
    where
        K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope>,
        K::DynamicType: Default,
    {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// The shop of this name; where there is none, what may have been meant.
    pub async fn shop(&self, name: &str) -> Result<ShopDeployment, Problem> {
        let problem = |error| self.problem(&format!("read shop {name} in namespace {}", self.namespace), error);
        match self.api::<ShopDeployment>().get(name).await {
            Ok(shop) => Ok(shop),
            // Of the shop, or of all that there are: of the resource itself.
            Err(kube::Error::Api(status)) if status.code == 404 => Err(self.missing(name).await),
            Err(error) => Err(problem(error)),
        }
    }

    async fn missing(&self, name: &str) -> Problem {
        let here = match self.api::<ShopDeployment>().list_metadata(&ListParams::default()).await {
            Ok(shops) => shops.iter().map(ResourceExt::name_any).collect(),
            Err(kube::Error::Api(status)) if status.code == 404 => return Problem::NoCrd(self.server.clone()),
            // Only a hint is lost.
            Err(_) => Vec::new(),
        };
        let everywhere = Api::<ShopDeployment>::all(self.client.clone()).list_metadata(&ListParams::default()).await;
        let everywhere = everywhere.map(|shops| shops.items).unwrap_or_default();
        let same = everywhere.iter().filter(|shop| shop.name_any() == name);
        let elsewhere: Vec<_> = same.filter_map(ResourceExt::namespace).collect();
        Problem::no_shop(name, &self.namespace, (&here, &elsewhere))
    }

    /// Names of the shops in the namespace.
    pub async fn names(&self) -> Vec<String> {
        let shops = self.api::<ShopDeployment>().list_metadata(&ListParams::default()).await;
        shops.map(|shops| shops.iter().map(ResourceExt::name_any).collect()).unwrap_or_default()
    }

    pub fn problem(&self, doing: &str, error: kube::Error) -> Problem {
        Problem::of(&self.server, doing, error)
    }
}
