//! The operator's environment, read once. Nothing else reads environment variables.

use std::net::SocketAddr;

use clap::Parser;

/// The shop operator: keeps every shop as its ShopDeployment says and scales its workers.
#[derive(Clone, Debug, Parser)]
#[command(version, about)]
pub struct Config {
    /// Image of the api, for shops that name none.
    #[arg(long, env = "SHOP_API_IMAGE")]
    pub api_image: String,

    /// Image of the worker, for shops that name none.
    #[arg(long, env = "SHOP_WORKER_IMAGE")]
    pub worker_image: String,

    /// The one namespace to look after. Unset or empty: all of them.
    #[arg(long, env = "SHOP_WATCH_NAMESPACE", default_value = "")]
    pub watch_namespace: String,

    /// Look after the shops whose label shop.xhipment.io/operator-class has this value. Empty: those without the label.
    #[arg(long, env = "SHOP_OPERATOR_CLASS", default_value = "")]
    pub operator_class: String,

    /// Address of probes and metrics.
    #[arg(long, env = "SHOP_METRICS_ADDR", default_value = "0.0.0.0:9090")]
    pub metrics_addr: SocketAddr,

    #[arg(long, env = "SHOP_LOG_LEVEL", default_value = "info")]
    pub log_level: String,

    /// This process's name in the Lease and in events: the pod's name.
    #[arg(long, env = "SHOP_POD_NAME", default_value = "shop-operator")]
    pub pod_name: String,

    /// Name of the Lease: operators of one Lease take turns, those of several work side by side.
    #[arg(long, env = "SHOP_LEASE_NAME", default_value = "shop-operator")]
    pub lease_name: String,

    /// Namespace of the Lease: the operator's own.
    #[arg(long, env = "SHOP_POD_NAMESPACE", default_value = "default")]
    pub pod_namespace: String,
}

impl Config {
    /// The watched namespace, if it is one.
    pub fn namespace(&self) -> Option<&str> {
        (!self.watch_namespace.is_empty()).then_some(self.watch_namespace.as_str())
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn every_variable_is_documented() {
        let docs = include_str!("../../docs/configuration.md");
        let command = Config::command();
        let variables: Vec<_> = command.get_arguments().filter_map(|argument| argument.get_env()?.to_str()).collect();
        assert!(variables.len() > 5);
        let missing: Vec<_> = variables.iter().filter(|name| !docs.contains(&format!("`{name}`"))).collect();
        assert_eq!(missing, Vec::<&&str>::new());
    }

    #[test]
    fn images_are_required_and_named_in_the_error() {
        let error = Config::try_parse_from(["shop-operator"]).unwrap_err().to_string();
        assert!(error.contains("--api-image") && error.contains("--worker-image"), "{error}");
    }

    #[test]
    fn an_empty_namespace_means_all() {
        let parse = |namespace: &str| {
            Config::parse_from(["x", "--api-image=a", "--worker-image=w", "--watch-namespace", namespace])
        };
        assert_eq!(parse("").namespace(), None);
        assert_eq!(parse("shops").namespace(), Some("shops"));
    }
}
