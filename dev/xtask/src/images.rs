//! The images of this checkout's binaries: built by cargo on the host, put into images from scratch, loaded into the kind node.
//! A tag is the hash of what is in the image, so what is there already is neither built nor loaded again.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::Deserialize;
use webpki_root_certs::TLS_SERVER_ROOT_CERTS;

use crate::command::Run;
use crate::context::{Context, key_of, variable};
use crate::docker::Docker;
use crate::host::require;
use crate::progress::note;
use crate::target::Cluster;

const REGISTRY: &str = "localhost/xhipment";
const CA_ROOTS: &str = "etc/ssl/certs/ca-certificates.crt";

/// A binary that becomes an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Part {
    Api,
    Worker,
    Operator,
}

impl Part {
    pub const ALL: [Self; 3] = [Self::Api, Self::Worker, Self::Operator];

    fn name(self) -> &'static str {
        match self {
            Self::Api => "api",
            Self::Worker => "worker",
            Self::Operator => "operator",
        }
    }

    fn binary(self) -> String {
        format!("shop-{}", self.name())
    }
}

#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Only this one, put on the node under the given reference (what Tilt asks for)
    #[arg(long, requires = "reference")]
    part: Option<Part>,
    /// The reference for --part
    #[arg(long, requires = "part")]
    reference: Option<String>,
}

/// `cargo xtask images`
pub fn run(context: &Context, args: &Args) -> Result<()> {
    let docker = Docker::running(context).context("no Docker daemon answers: run `cargo xtask cluster up` first")?;
    if let (Some(part), Some(reference)) = (args.part, &args.reference) {
        let binaries = compile(context, &[part])?;
        pack(context, &docker, (part, reference), &binaries)?;
        return Cluster::load(context)?.load_image(context, &docker, reference);
    }
    let images = build(context, &docker)?;
    load(context, &docker, &images)
}

/// Complete references of the three images.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Images {
    pub api: String,
    pub worker: String,
    pub operator: String,
}

impl Images {
    /// The images of version `tag` in a registry.
    pub fn from_registry(registry: &str, tag: &str) -> Self {
        let image = |part: Part| format!("{}/{}:{tag}", registry.trim_end_matches('/'), part.name());
        Self { api: image(Part::Api), worker: image(Part::Worker), operator: image(Part::Operator) }
    }
}

/// Compiles what changed and makes the images that are not there yet.
pub fn build(context: &Context, docker: &Docker) -> Result<Images> {
    let binaries = compile(context, &Part::ALL)?;
    let image = |part: Part| {
        let tag = tag_of(context, part, &binaries)?;
        ensure_image(context, docker, (part, &format!("{REGISTRY}/{}:{tag}", part.name())), &binaries)
    };
    Ok(Images { api: image(Part::Api)?, worker: image(Part::Worker)?, operator: image(Part::Operator)? })
}

/// Puts the images on the kind node; kind skips what is there already.
pub fn load(context: &Context, docker: &Docker, images: &Images) -> Result<()> {
    let cluster = Cluster::load(context)?;
    let all = [&images.api, &images.worker, &images.operator];
    all.into_iter().try_for_each(|image| cluster.load_image(context, docker, image))
}

/// The executables of `parts`, as cargo reports them.
fn compile(context: &Context, parts: &[Part]) -> Result<Vec<PathBuf>> {
    if !cfg!(target_os = "linux") {
        bail!("images are made from binaries built on Linux; elsewhere use `docker build --build-arg BIN=shop-api .`");
    }
    note(format!("cargo build: log in {}", context.log("cargo").display()));
    cargo_build(context, &parts.iter().map(|part| part.binary()).collect::<Vec<_>>(), "cargo")
}

/// Builds programs of the workspace, with the log of that name; their executables, as cargo reports them.
pub fn cargo_build(context: &Context, programs: &[String], log: &str) -> Result<Vec<PathBuf>> {
    let cargo = || {
        // Always the whole workspace: with a part of it cargo unifies features anew and compiles dependencies again.
        Run::new(variable("CARGO").unwrap_or_else(|| "cargo".into()))
            .dir(&context.repo)
            // They would replace the flags of .cargo/config.toml, without which the binaries are not static.
            .without_env("RUSTFLAGS")
            .without_env("CARGO_ENCODED_RUSTFLAGS")
            .args(["build", "--locked", "--workspace"])
            .args(programs.iter().map(|program| format!("--bin={program}")))
    };
    cargo().log_to(&context.log(log))?;
    let messages = cargo().args(["--quiet", "--message-format", "json"]).read()?;
    let executables: Vec<_> = messages.lines().filter_map(executable).collect();
    Ok(executables)
}

/// The program that a line of cargo's JSON messages speaks of.
pub fn executable(message: &str) -> Option<PathBuf> {
    #[derive(Deserialize)]
    struct Artifact {
        executable: Option<PathBuf>,
    }
    serde_json::from_str::<Artifact>(message).ok()?.executable
}

fn binary_in(binaries: &[PathBuf], part: Part) -> Result<&Path> {
    binary_named(binaries, &part.binary())
}

/// The executable of this name.
pub fn binary_named<'a>(binaries: &'a [PathBuf], name: &str) -> Result<&'a Path> {
    let found = binaries.iter().find(|path| path.file_name().is_some_and(|file| *file == *name));
    found.map(PathBuf::as_path).with_context(|| format!("cargo built no program named {name}"))
}

fn tag_of(context: &Context, part: Part, binaries: &[PathBuf]) -> Result<String> {
    key_of(&[binary_in(binaries, part)?.to_owned(), context.repo.join("Dockerfile")], &ca_roots())
}

fn ensure_image(context: &Context, docker: &Docker, target: (Part, &str), binaries: &[PathBuf]) -> Result<String> {
    let (part, reference) = target;
    if docker.has_image(reference) {
        note(format!("{reference}: unchanged"));
    } else {
        pack(context, docker, target, binaries)?;
        remove_older(docker, part, reference)?;
    }
    Ok(reference.to_owned())
}

fn pack(context: &Context, docker: &Docker, (part, reference): (Part, &str), binaries: &[PathBuf]) -> Result<()> {
    require("strip", "install binutils, it takes the debug information out of what goes into an image")?;
    let dir = context.state().join("images").join(part.name());
    let (binary, roots) = (dir.join(part.binary()), dir.join(CA_ROOTS));
    fs::create_dir_all(roots.parent().unwrap_or(&dir)).with_context(|| format!("creating {}", dir.display()))?;
    fs::write(&roots, ca_roots()).with_context(|| format!("writing {}", roots.display()))?;
    Run::new("strip").arg("-o").arg(&binary).arg(binary_in(binaries, part)?).read()?;
    docker
        .run()
        .args(["build", "--target", "prebuilt", "--build-arg", &format!("BIN={}", part.binary()), "--tag", reference])
        .arg("--file")
        .arg(context.repo.join("Dockerfile"))
        .arg(&dir)
        .log_to(&context.log("images"))?;
    let size = fs::metadata(&binary).map_or(0, |meta| meta.len() / 1_000_000);
    note(format!("{reference}: built, {size} MB"));
    Ok(())
}

/// Every build leaves an image of some 40 MB: the daemon keeps the newest, the node's kubelet collects its own.
fn remove_older(docker: &Docker, part: Part, newest: &str) -> Result<()> {
    let repository = format!("{REGISTRY}/{}", part.name());
    let all = docker.run().args(["image", "ls", "--format", "{{.Repository}}:{{.Tag}}", &repository]).read()?;
    let older: Vec<_> = all.lines().filter(|image| *image != newest).collect();
    if older.is_empty() {
        return Ok(());
    }
    docker.run().args(["image", "rm"]).args(older).read().map(drop)
}

/// Mozilla's CA roots as PEM: pinned by Cargo.lock, not whatever this machine trusts.
fn ca_roots() -> String {
    let pem = |der: &[u8]| {
        let text = STANDARD.encode(der);
        let lines = text.as_bytes().chunks(64).map(|line| String::from_utf8_lossy(line) + "\n");
        format!("-----BEGIN CERTIFICATE-----\n{}-----END CERTIFICATE-----\n", lines.collect::<String>())
    };
    TLS_SERVER_ROOT_CERTS.iter().map(|certificate| pem(certificate)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn executables_are_found_in_cargos_messages() {
        let line = r#"{"reason":"compiler-artifact","target":{"name":"shop-api"},"executable":"/t/shop-api"}"#;
        assert_eq!(executable(line), Some(PathBuf::from("/t/shop-api")));
        assert_eq!(executable(r#"{"reason":"compiler-artifact","executable":null}"#), None);
        assert_eq!(executable(r#"{"reason":"build-finished","success":true}"#), None);
        assert!(binary_in(&[PathBuf::from("/t/shop-api")], Part::Api).is_ok());
        assert!(binary_in(&[PathBuf::from("/t/shop-api")], Part::Worker).is_err());
    }

    #[test]
    fn the_ca_roots_are_pem() {
        let roots = ca_roots();
        assert!(roots.starts_with("-----BEGIN CERTIFICATE-----\nMII"));
        assert!(roots.matches("-----END CERTIFICATE-----").count() > 100);
        assert!(roots.lines().all(|line| line.len() <= 64));
    }
}
