//! Programs at their pinned versions: kind, kubectl and helm from PATH or built, and everything the images are made of.
//! The pins are the go.mod files below dev/kind/go; results are kept in the cache under a key of those files.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

use crate::command::{Run, on_path};
use crate::context::{Context, key_of};
use crate::host::require;
use crate::progress::note;

const KUBERNETES: &str = "k8s.io/kubernetes";

/// Programs built together from one module of dev/kind/go.
#[derive(Clone, Copy, Debug)]
pub struct GoBuild {
    pub name: &'static str,
    pub module: &'static str,
    pub packages: &'static [&'static str],
    pub flags: &'static [&'static str],
}

pub const KIND: GoBuild = GoBuild { name: "kind", module: "kind", packages: &["sigs.k8s.io/kind"], flags: &[] };
pub const HELM: GoBuild = GoBuild { name: "helm", module: "helm", packages: &["helm.sh/helm/v4/cmd/helm"], flags: &[] };
pub const KUBECTL: GoBuild =
    GoBuild { name: "kubectl", module: "kubernetes", packages: &["k8s.io/kubernetes/cmd/kubectl"], flags: &[] };
pub const CONTROL_PLANE: GoBuild = GoBuild {
    name: "kubernetes",
    module: "kubernetes",
    packages: &[
        "k8s.io/kubernetes/cmd/kube-apiserver",
        "k8s.io/kubernetes/cmd/kube-controller-manager",
        "k8s.io/kubernetes/cmd/kube-scheduler",
        "k8s.io/kubernetes/cmd/kubelet",
        "k8s.io/kubernetes/cmd/kube-proxy",
        "k8s.io/kubernetes/cmd/kubeadm",
    ],
    flags: &[],
};
pub const ETCD: GoBuild =
    GoBuild { name: "etcd", module: "etcd", packages: &["go.etcd.io/etcd/server/v3"], flags: &[] };
pub const CONTAINERD: GoBuild = GoBuild {
    name: "containerd",
    module: "containerd",
    packages: &[
        "github.com/containerd/containerd/v2/cmd/containerd",
        "github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2",
        "github.com/containerd/containerd/v2/cmd/ctr",
    ],
    flags: &["-tags", "no_btrfs no_devmapper no_zfs no_aufs no_tracing"],
};
pub const CRI_TOOLS: GoBuild =
    GoBuild { name: "cri-tools", module: "cri-tools", packages: &["sigs.k8s.io/cri-tools/cmd/crictl"], flags: &[] };
/// Plays the kubelets of fake nodes, for benches with many pods.
pub const KWOK: GoBuild =
    GoBuild { name: "kwok", module: "kwok", packages: &["sigs.k8s.io/kwok/cmd/kwok"], flags: &[] };
/// What the scaler is measured beside.
pub const KEDA: GoBuild = GoBuild {
    name: "keda",
    module: "keda",
    packages: &["github.com/kedacore/keda/v2/cmd/operator", "github.com/kedacore/keda/v2/cmd/adapter"],
    flags: &[],
};
pub const COREDNS: GoBuild = GoBuild { name: "coredns", module: "coredns", packages: &["."], flags: &[] };
pub const PAUSE: GoBuild = GoBuild { name: "pause", module: "pause", packages: &["."], flags: &[] };
/// `-mod=mod`: the unused vendors' DNS providers are left out by an overlay, so go.mod need not list what they import.
pub const TRAEFIK: GoBuild = GoBuild {
    name: "traefik",
    module: "traefik",
    packages: &["github.com/traefik/traefik/v3/cmd/traefik"],
    flags: &["-mod=mod", "-overlay", "overlay.json"],
};

/// The command line tools of the cluster, at their pinned versions.
#[derive(Clone, Debug)]
pub struct Tools {
    pub kind: PathBuf,
    pub kubectl: PathBuf,
    pub helm: PathBuf,
}

impl Tools {
    /// Finds or builds the three tools and links them in one folder.
    pub fn ensure(context: &Context) -> Result<Self> {
        let tools = Self {
            kind: ensure_tool(context, &KIND, "kind", &["version"], "sigs.k8s.io/kind")?,
            kubectl: ensure_tool(context, &KUBECTL, "kubectl", &["version", "--client"], KUBERNETES)?,
            helm: ensure_tool(context, &HELM, "helm", &["version", "--short"], "helm.sh/helm/v4")?,
        };
        for (name, program) in [("kind", &tools.kind), ("kubectl", &tools.kubectl), ("helm", &tools.helm)] {
            link(context, name, program)?;
        }
        Ok(tools)
    }

    /// The folder to put first on PATH.
    pub fn dir(context: &Context) -> PathBuf {
        context.state().join("bin")
    }

    /// The tools as an earlier `ensure` left them.
    pub fn linked(context: &Context) -> Result<Self> {
        let dir = Self::dir(context);
        let tools = Self { kind: dir.join("kind"), kubectl: dir.join("kubectl"), helm: dir.join("helm") };
        if !tools.kubectl.exists() || !tools.helm.exists() || !tools.kind.exists() {
            bail!("kind, kubectl and helm have not been set up: run `cargo xtask cluster up` first");
        }
        Ok(tools)
    }
}

/// Puts a program into the folder that is first on PATH.
pub fn link(context: &Context, name: &str, program: &Path) -> Result<()> {
    let dir = Tools::dir(context);
    fs::create_dir_all(&dir).with_context(|| format!("creating {}", dir.display()))?;
    let link = dir.join(name);
    if fs::read_link(&link).is_ok_and(|target| target == program) {
        return Ok(());
    }
    // A link that is not there needs no removal.
    let _ = fs::remove_file(&link);
    symlink(program, &link).with_context(|| format!("linking {}", link.display()))
}

/// The version that a go.mod of dev/kind/go asks for.
pub fn pinned(context: &Context, module: &str, path: &str) -> Result<String> {
    let file = context.kind_dir().join("go").join(module).join("go.mod");
    let text = fs::read_to_string(&file).with_context(|| format!("reading {}", file.display()))?;
    pin_in(&text, path).with_context(|| format!("{} does not require {path}", file.display()))
}

pub fn kubernetes_version(context: &Context) -> Result<String> {
    pinned(context, "kubernetes", KUBERNETES)
}

fn pin_in(go_mod: &str, path: &str) -> Option<String> {
    go_mod.lines().find_map(|line| {
        let mut words = line.trim().trim_start_matches("require ").split_whitespace();
        (words.next() == Some(path))
            .then(|| words.next().unwrap_or_default().to_owned())
            .filter(|word| word.starts_with('v'))
    })
}

fn ensure_tool(context: &Context, build: &GoBuild, program: &str, ask: &[&str], path: &str) -> Result<PathBuf> {
    let wanted = pinned(context, build.module, path)?;
    let mut why = "not on PATH".to_owned();
    if let Some(found) = on_path(program).filter(|found| !found.starts_with(Tools::dir(context))) {
        let answer = Run::new(&found).args(ask).read().unwrap_or_default();
        if answer.split(|c: char| c.is_whitespace() || c == '+').any(|word| word == wanted) {
            note(format!("{program}: {} is {wanted}, so it is used", found.display()));
            return Ok(found);
        }
        why = format!("{} is another version", found.display());
    }
    let (dir, fresh) = ensure_built(context, build)?;
    note(format!("{program}: {why}, so {wanted} {}", if fresh { "was built" } else { "comes from the cache" }));
    Ok(dir.join(program))
}

/// The folder with the programs of a build, and whether they were built just now.
pub fn ensure_built(context: &Context, build: &GoBuild) -> Result<(PathBuf, bool)> {
    let source = context.kind_dir().join("go").join(build.module);
    let key = key_of(std::slice::from_ref(&source), &format!("{:?}{:?}", build.packages, build.flags))?;
    let dir = context.cache.join("bin").join(format!("{}-{key}", build.name));
    if dir.exists() {
        return Ok((dir, false));
    }
    require("go", "install Go 1.26 or later, it builds what cannot be downloaded")?;
    note(format!("{}: building from source, see {}", build.name, context.log(build.name).display()));
    let partial = dir.with_extension("partial");
    remake(&partial)?;
    let work = context.cache.join("build").join(build.name);
    remake(&work)?;
    // Go may write to go.mod and Traefik's overlay lies beside it: not in the checkout.
    Run::new("cp").arg("-r").arg(source.join(".")).arg(&work).read()?;
    if build.name == TRAEFIK.name {
        lay_over_dns_providers(context, &work)?;
    }
    compile(context, build, &work, &partial)?;
    fs::rename(&partial, &dir).with_context(|| format!("moving {} into place", dir.display()))?;
    Ok((dir, true))
}

fn compile(context: &Context, build: &GoBuild, work: &Path, out: &Path) -> Result<()> {
    let target = if build.name == ETCD.name { out.join("etcd") } else { out.join("") };
    go(work)
        .args(["build", "-trimpath", "-ldflags", &link_flags(context, build)?])
        .args(build.flags)
        .arg("-o")
        .arg(target)
        .args(build.packages)
        .log_to(&context.log(build.name))
        .context("building Go programs needs a Go module proxy or the modules' own hosts; run again to go on")
}

fn go(dir: &Path) -> Run {
    // The workspace of a parent folder must not reach these modules, nor flags of the user's.
    Run::build("go").env("CGO_ENABLED", "0").env("GOWORK", "off").env("GOFLAGS", "-buildvcs=false").dir(dir)
}

fn link_flags(context: &Context, build: &GoBuild) -> Result<String> {
    let version = |path: &str| pinned(context, build.module, path);
    let stamp = match build.module {
        "kubernetes" => kubernetes_stamp(&version(KUBERNETES)?),
        "containerd" => {
            format!(
                " -X github.com/containerd/containerd/v2/version.Version={}",
                version("github.com/containerd/containerd/v2")?
            )
        }
        "helm" => format!(" -X helm.sh/helm/v4/internal/version.version={}", version("helm.sh/helm/v4")?),
        "traefik" => {
            let pin = version("github.com/traefik/traefik/v3")?;
            format!(" -X github.com/traefik/traefik/v3/pkg/version.Version={}", pin.trim_start_matches('v'))
        }
        "keda" => {
            let pin = version("github.com/kedacore/keda/v2")?;
            format!(" -X github.com/kedacore/keda/v2/version.Version={}", pin.trim_start_matches('v'))
        }
        _ => String::new(),
    };
    Ok(format!("-s -w{stamp}"))
}

fn kubernetes_stamp(version: &str) -> String {
    let minor = version.split('.').nth(1).unwrap_or_default();
    let stamp = |package: &str| {
        format!(
            " -X {package}.gitVersion={version} -X {package}.gitMajor=1 -X {package}.gitMinor={minor} -X {package}.gitTreeState=clean"
        )
    };
    stamp("k8s.io/component-base/version") + &stamp("k8s.io/client-go/pkg/version")
}

/// Replaces lego's list of DNS vendors, half of Traefik's dependencies, by a stub.
fn lay_over_dns_providers(context: &Context, work: &Path) -> Result<()> {
    let lego = format!("github.com/go-acme/lego/v5@{}", pinned(context, "traefik", "github.com/go-acme/lego/v5")?);
    // An overlay may not name a file of the module cache: lego is reached through a link.
    symlink(module_dir(&lego)?, work.join("lego")).context("linking lego")?;
    let replace = serde_json::json!({ "Replace": {
        work.join("lego/providers/dns/zz_gen_dns_providers.go").to_string_lossy(): work.join("stub/dns.go.txt"),
    }});
    fs::write(work.join("overlay.json"), replace.to_string()).context("writing the overlay")
}

/// The unpacked source of `path@version`.
pub fn module_dir(module: &str) -> Result<PathBuf> {
    let answer = go(Path::new("/")).args(["mod", "download", "-json", module]).read()?;
    let answer: serde_json::Value = serde_json::from_str(&answer).context("reading what go answered")?;
    let dir = answer.get("Dir").and_then(serde_json::Value::as_str);
    dir.map(PathBuf::from).with_context(|| format!("go did not say where {module} is"))
}

fn remake(dir: &Path) -> Result<()> {
    if dir.exists() {
        fs::remove_dir_all(dir).with_context(|| format!("removing {}", dir.display()))?;
    }
    fs::create_dir_all(dir).with_context(|| format!("creating {}", dir.display()))
}

#[cfg(test)]
mod tests {
    use super::pin_in;

    #[test]
    fn pins_are_read_from_go_mod() {
        let go_mod = "module x\n\nrequire a.b/c v1.2.3\n\nrequire (\n\td.e/f v0.4.0 // indirect\n)\nreplace d.e/g => d.e/g v9.9.9\ntool a.b/cmd\n";
        assert_eq!(pin_in(go_mod, "a.b/c").as_deref(), Some("v1.2.3"));
        assert_eq!(pin_in(go_mod, "d.e/f").as_deref(), Some("v0.4.0"));
        assert_eq!(pin_in(go_mod, "a.b"), None);
    }
}
