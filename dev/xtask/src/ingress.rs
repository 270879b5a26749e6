//! Traefik, the cluster's ingress on 127.0.0.1: its image and its manifest. Routes are the shop's own.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::command::wait_until;
use crate::context::{Context, key_of};
use crate::docker::Docker;
use crate::net;
use crate::node_image::Image;
use crate::progress::note;
use crate::target::Cluster;
use crate::tools::{self, TRAEFIK};

const DOCKERFILE: &str = "FROM scratch\nCOPY tmp /tmp\nCOPY traefik /traefik\nENTRYPOINT [\"/traefik\"]\n";

/// Finds, pulls or builds Traefik's image, and says which.
pub fn ensure_image(context: &Context, docker: &Docker) -> Result<Image> {
    let version = tools::pinned(context, "traefik", "github.com/traefik/traefik/v3")?;
    let module: PathBuf = context.kind_dir().join("go/traefik");
    let built = format!("localhost/xhipment-traefik:{version}-{}", key_of(&[module], DOCKERFILE)?);
    if docker.has_image(&built) {
        note(format!("ingress: {built} was built earlier"));
        return Ok(Image { name: built, built: true });
    }
    let public = format!("traefik:{version}");
    if docker.has_image(&public) {
        note(format!("ingress: the public {public} is there"));
        return Ok(Image { name: public, built: false });
    }
    let Err(error) = docker.pull(context, &public) else {
        note(format!("ingress: the public {public} was pulled"));
        return Ok(Image { name: public, built: false });
    };
    note(format!("ingress: {public} cannot be pulled ({error:#}), so Traefik is built from its Go module"));
    let (programs, _) = tools::ensure_built(context, &TRAEFIK)?;
    // A scratch image has no folder for temporary files, and Traefik wants one.
    fs::create_dir_all(programs.join("tmp")).context("preparing Traefik's image")?;
    fs::write(programs.join("Dockerfile"), DOCKERFILE).context("preparing Traefik's image")?;
    docker.build(&programs, &built, &context.log("ingress"))?;
    Ok(Image { name: built, built: true })
}

/// Applies Traefik's manifest; the image is on the node or can be pulled by it.
pub fn apply(context: &Context, cluster: &Cluster, image: &Image) -> Result<()> {
    let file = context.kind_dir().join("ingress.yaml");
    let manifest = fs::read_to_string(&file).with_context(|| format!("reading {}", file.display()))?;
    let manifest = manifest.replace("@IMAGE@", &image.name);
    cluster
        .kubectl(context)?
        .args(["apply", "--server-side", "--force-conflicts", "-f", "-"])
        .input(manifest)
        .log_to(&context.log("ingress"))
}

pub fn wait(context: &Context, cluster: &Cluster, port: u16) -> Result<()> {
    let log = context.log("ingress");
    cluster
        .kubectl(context)?
        .args(["-n", "traefik", "rollout", "status", "daemonset/traefik", "--timeout=120s"])
        .log_to(&log)?;
    wait_until(Duration::from_secs(20), "the ingress", || net::http_get(port, "/").map(drop))
}
