//! `cargo xtask down`: undoes `up`. On a cluster of our own everything goes with it; on another one, the two releases.

use std::fs;

use anyhow::{Context as _, Result};

use crate::accounts::Accounts;
use crate::cluster;
use crate::context::Context;
use crate::helm::{self, OPERATOR};
use crate::progress::note;
use crate::sample::Sample;
use crate::target::Cluster;

#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Remove the cache of built programs and images too: the next `up` takes as long as the first
    #[arg(long)]
    purge: bool,
}

pub fn run(context: &Context, args: &Args) -> Result<()> {
    let _lock = context.lock()?;
    if let Some(Cluster::Current { .. }) = Cluster::recorded(context)? {
        let cluster = Cluster::load(context)?;
        // The shop first: its operator deletes what Kubernetes does not know of.
        for release in [Sample::load(context)?.release(), OPERATOR] {
            if helm::is_ours(context, &cluster, release)? {
                helm::uninstall(context, &cluster, release)?;
            }
        }
        note("kept: the CRD with shops that others made, the namespaces and their Secrets");
    }
    cluster::down(context)?;
    Accounts::forget(context)?;
    if args.purge {
        fs::remove_dir_all(&context.cache).with_context(|| format!("removing {}", context.cache.display()))?;
        println!("The cache {} is gone too.", context.cache.display());
    }
    Ok(())
}
