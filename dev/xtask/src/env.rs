//! `cargo xtask env`: what other programs need to know of the running shop, as shell exports.
//! The addresses are those for programs on this machine; pods have their own.

use anyhow::Result;

use crate::accounts::Accounts;
use crate::context::{Context, variable};
use crate::docker::Docker;
use crate::plugin;
use crate::sample::Sample;
use crate::servers::{Deps, Endpoints};
use crate::target::Cluster;
use crate::tools::Tools;

/// Prints the exports, for `eval "$(cargo xtask env)"`. `kubectl shop` is there afterwards, as this checkout has it.
pub fn print(context: &Context) -> Result<()> {
    plugin::ensure(context)?;
    for (name, value) in exports(context)? {
        println!("export {name}={}", quoted(&value));
    }
    Ok(())
}

/// The variables and their values, as they are now.
pub fn exports(context: &Context) -> Result<Vec<(&'static str, String)>> {
    let cluster = Cluster::load(context)?;
    let sample = Sample::load(context)?;
    let path = variable("PATH").unwrap_or_default();
    let tools = Tools::dir(context);
    let has_tools = std::env::split_paths(&path).any(|dir| dir == tools);
    let mut all = vec![
        ("PATH", if has_tools { path } else { format!("{}:{path}", tools.display()) }),
        ("SHOP_NAMESPACE", sample.metadata.namespace.clone()),
        ("SHOP_NAME", sample.metadata.name.clone()),
    ];
    all.extend(cluster.kubeconfig(context).map(|file| ("KUBECONFIG", file)));
    all.extend(shop_url(&cluster).map(|url| ("SHOP_URL", url)));
    if let Some(servers) = Deps::recorded(context)? {
        all.extend(addresses(servers.host, sample.queue_name()?));
    }
    if let Some(host) = Docker::running(context).as_ref().and_then(Docker::own_host) {
        all.push(("DOCKER_HOST", host.to_owned()));
    }
    if let Some(accounts) = Accounts::kept(context)? {
        all.extend([("STAFF_EMAIL", accounts.staff.email), ("STAFF_PASSWORD", accounts.staff.password)]);
    }
    Ok(all)
}

/// Where the demo shop answers; unknown on a cluster that is not ours.
pub fn shop_url(cluster: &Cluster) -> Option<String> {
    match cluster {
        Cluster::Kind { http_port, .. } => Some(format!("http://127.0.0.1:{http_port}")),
        Cluster::Current { .. } => None,
    }
}

fn addresses(servers: Endpoints, queue: &str) -> [(&'static str, String); 5] {
    // The account that ElasticMQ puts into the URLs of its queues.
    let queue_url = format!("{}/000000000000/{queue}", servers.sqs_endpoint);
    [
        ("MONGODB_URI", servers.mongodb_uri),
        ("REDIS_URL", servers.redis_url),
        ("SQS_ENDPOINT", servers.sqs_endpoint),
        ("SQS_QUEUE_URL", queue_url),
        ("SES_ENDPOINT", servers.ses_endpoint),
    ]
}

/// `value` as one word of a POSIX shell.
fn quoted(value: &str) -> String {
    format!("'{}'", value.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::quoted;

    #[test]
    fn values_are_one_word_for_a_shell() {
        assert_eq!(quoted("mongodb://u:p@h/?a=b&c=$d"), "'mongodb://u:p@h/?a=b&c=$d'");
        assert_eq!(quoted("it's"), r"'it'\''s'");
    }
}
