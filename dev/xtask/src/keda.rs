//! KEDA on the cluster, for a bench beside it: built from its Go module, with its own manifests. Removed afterwards.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};

use crate::context::{Context, key_of};
use crate::docker::Docker;
use crate::progress::note;
use crate::target::Cluster;
use crate::tools::{self, KEDA};

const MODULE: &str = "github.com/kedacore/keda/v2";
/// Program, image in KEDA's manifests, the command that these start.
const PARTS: [(&str, &str, &str); 2] = [
    ("operator", "ghcr.io/kedacore/keda:main", "keda"),
    ("adapter", "ghcr.io/kedacore/keda-metrics-apiserver:main", "keda-adapter"),
];

/// Does `work` while KEDA runs on our own cluster: elsewhere there may be another KEDA.
pub fn beside(context: &Context, work: impl FnOnce() -> Result<()>) -> Result<()> {
    let cluster = Cluster::load(context)?;
    ensure!(matches!(cluster, Cluster::Kind { .. }), "KEDA is installed on the kind cluster only");
    let outcome = install(context, &cluster).and_then(|()| work());
    outcome.and(remove(context, &cluster))
}

/// Builds what is not there yet, puts it on the cluster, and waits until the cluster's HPA can read through it.
fn install(context: &Context, cluster: &Cluster) -> Result<()> {
    let docker = Docker::running(context).context("the Docker daemon that ran the cluster has gone")?;
    let version = tools::pinned(context, KEDA.module, MODULE)?;
    let (programs, _) = tools::ensure_built(context, &KEDA)?;
    let mut manifest = manifest(context, cluster, &version)?;
    for (program, public, command) in PARTS {
        let image = ensure_image(context, &docker, &programs, (program, command, &version))?;
        cluster.load_image(context, &docker, &image)?;
        manifest = manifest.replace(public, &image);
    }
    note(format!("KEDA {version}: starting"));
    let log = context.log("keda");
    let apply = ["apply", "--server-side", "--force-conflicts", "-f", "-"];
    cluster.kubectl(context)?.args(apply).input(manifest).log_to(&log)?;
    // The operator's first start makes the certificates that both mount, and ends; the kubelet sees the new Secret when
    // it starts the container again, after its back-off.
    for deployment in ["deployment/keda-operator", "deployment/keda-metrics-apiserver"] {
        let rollout = ["-n", "keda", "rollout", "status", deployment, "--timeout=240s"];
        cluster.kubectl(context)?.args(rollout).log_to(&log)?;
    }
    let available =
        ["wait", "--for=condition=Available", "apiservice/v1beta1.external.metrics.k8s.io", "--timeout=120s"];
    cluster.kubectl(context)?.args(available).log_to(&log)
}

/// Everything of KEDA's goes, its kinds included; objects that an interrupted bench left go first, while it still runs.
fn remove(context: &Context, cluster: &Cluster) -> Result<()> {
    let version = tools::pinned(context, KEDA.module, MODULE)?;
    let left = ["delete", "scaledobjects.keda.sh", "--all", "--all-namespaces", "--timeout=60s"];
    // Without the kind there are none.
    cluster.kubectl(context)?.args(left).succeeds();
    let delete = ["delete", "--ignore-not-found", "--wait=false", "-f", "-"];
    let manifest = manifest(context, cluster, &version)?;
    cluster.kubectl(context)?.args(delete).input(manifest).log_to(&context.log("keda"))
}

/// KEDA's own manifests without its webhooks; the images are on the node.
fn manifest(context: &Context, cluster: &Cluster, version: &str) -> Result<String> {
    let config = tools::module_dir(&format!("{MODULE}@{version}"))?.join("config/minimal");
    let manifest = cluster.kubectl(context)?.arg("kustomize").arg(config).read()?;
    Ok(manifest.replace("imagePullPolicy: Always", "imagePullPolicy: IfNotPresent"))
}

fn ensure_image(
    context: &Context,
    docker: &Docker,
    programs: &Path,
    (program, command, version): (&str, &str, &str),
) -> Result<String> {
    // A user without a name: the manifests ask for one that is not root.
    let dockerfile =
        format!("FROM scratch\nCOPY {program} /{command}\nUSER 65532:65532\nENTRYPOINT [\"/{command}\"]\n");
    let image = format!("localhost/xhipment-{command}:{version}-{}", key_of(&[programs.join(program)], &dockerfile)?);
    if !docker.has_image(&image) {
        let folder = context.state().join("images").join(command);
        fs::create_dir_all(&folder).with_context(|| format!("creating {}", folder.display()))?;
        fs::copy(programs.join(program), folder.join(program)).context("preparing KEDA's image")?;
        fs::write(folder.join("Dockerfile"), dockerfile).context("preparing KEDA's image")?;
        docker.build(&folder, &image, &context.log("keda"))?;
    }
    Ok(image)
}
