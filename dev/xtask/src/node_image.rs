//! The image of kind's node: the public one where it can be pulled, else built from Go modules and Debian packages.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

use crate::command::Run;
use crate::context::{Context, key_of};
use crate::daemon;
use crate::docker::Docker;
use crate::host::{self, needed};
use crate::progress::note;
use crate::tools::{self, CONTAINERD, CONTROL_PLANE, COREDNS, CRI_TOOLS, ETCD, KUBECTL, PAUSE};

/// The image that was made for the pinned version of kind, from the notes of its release: raised together with it.
const PUBLIC: &str = "kindest/node:v1.36.4@sha256:099e049362a1526b2db71494e1947aae99bd16290d7c895f2b7ea312e3cbfaed";

/// An image and where it came from.
#[derive(Clone, Debug)]
pub struct Image {
    pub name: String,
    /// Built here: no registry has it.
    pub built: bool,
}

/// Finds, pulls or builds the node image, and says which.
pub fn ensure(context: &Context, docker: &Docker) -> Result<Image> {
    let version = tools::kubernetes_version(context)?;
    let built = format!("localhost/xhipment-node:{version}-{}", key(context)?);
    if docker.has_image(&built) {
        note(format!("node image: {built} was built earlier"));
        return Ok(Image { name: built, built: true });
    }
    let why = if docker.is_ours() && host::lacks_sys_resource() {
        "the public one wants CAP_SYS_RESOURCE, which this machine does not have".to_owned()
    } else {
        if docker.has_image(PUBLIC) {
            note(format!("node image: the public {PUBLIC} is there"));
            return Ok(Image { name: PUBLIC.to_owned(), built: false });
        }
        let Err(error) = docker.pull(context, PUBLIC) else {
            note(format!("node image: the public {PUBLIC} was pulled"));
            return Ok(Image { name: PUBLIC.to_owned(), built: false });
        };
        format!("{PUBLIC} cannot be pulled ({error:#})")
    };
    note(format!("node image: {why}, so it is built from Go modules and Debian packages"));
    build(context, docker, &built, &version)?;
    Ok(Image { name: built, built: true })
}

fn key(context: &Context) -> Result<String> {
    let kind = context.kind_dir();
    let modules = ["kubernetes", "etcd", "containerd", "coredns", "pause", "cri-tools", "kind"];
    let mut inputs: Vec<PathBuf> = modules.iter().map(|name| kind.join("go").join(name)).collect();
    let files = ["node-image.sh", "cni-from-pod-cidr.sh", "cni-from-pod-cidr.service"];
    inputs.extend(files.iter().map(|name| kind.join(name)));
    key_of(&inputs, "")
}

fn build(context: &Context, docker: &Docker, image: &str, version: &str) -> Result<()> {
    if !(host::is_debian() && host::is_root()) {
        bail!("building the node image needs root on Debian 12: give Docker access to its registry, or run there");
    }
    host::ensure_packages(context, &[needed("debootstrap", "debootstrap"), needed("jq", "jq")])?;
    let work = context.cache.join("build/node-image");
    Context::wait_for_script(&work)?;
    if docker.has_image(image) {
        return Ok(());
    }
    daemon::unmount_below(&work)?;
    let bin = work.join("bin");
    if bin.exists() {
        fs::remove_dir_all(&bin).with_context(|| format!("removing {}", bin.display()))?;
    }
    fs::create_dir_all(&bin).with_context(|| format!("creating {}", bin.display()))?;
    for build in [&CONTROL_PLANE, &KUBECTL, &ETCD, &CONTAINERD, &COREDNS, &CRI_TOOLS, &PAUSE] {
        link_programs(&tools::ensure_built(context, build)?.0, &bin)?;
    }
    let log = context.log("node-image");
    note(format!("node image: putting it together, see {}", log.display()));
    let run = Run::new("bash")
        .arg(context.kind_dir().join("node-image.sh"))
        .env("HERE", context.kind_dir())
        .env("WORK", &work)
        .env("IMAGE", image)
        .env("VERSION", version)
        .env("MIRROR", host::debian_mirror()?)
        .env("KIND_FILES", kind_files(context)?);
    docker.aim(run).log_to(&log)?;
    fs::remove_dir_all(&work).with_context(|| format!("removing {}", work.display()))
}

/// Programs are linked, not copied: they are half a gigabyte.
fn link_programs(from: &Path, to: &Path) -> Result<()> {
    for entry in fs::read_dir(from).with_context(|| format!("reading {}", from.display()))?.flatten() {
        let target = to.join(entry.file_name());
        fs::hard_link(entry.path(), &target).with_context(|| format!("linking {}", target.display()))?;
    }
    Ok(())
}

/// The files of kind's own base image: they are in its Go module.
fn kind_files(context: &Context) -> Result<PathBuf> {
    let module = format!("sigs.k8s.io/kind@{}", tools::pinned(context, "kind", "sigs.k8s.io/kind")?);
    Ok(tools::module_dir(&module)?.join("images/base/files"))
}
