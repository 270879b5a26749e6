//! The images of the four servers: public ones where they can be pulled, else built from Debian packages,
//! Maven jars, npm and crates. Starts no server.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

use crate::command::Run;
use crate::context::{Context, key_of};
use crate::docker::Docker;
use crate::host::{self, needed, require};
use crate::progress::note;
use crate::{daemon, servers::Server};

const MONGODB_STAND_IN: &str = "secantus-mdb";
const MONGODB_STAND_IN_VERSION: &str = "0.5.3-beta.196";

/// An image of a server and whether it is the public one.
#[derive(Clone, Debug)]
pub struct ServerImage {
    pub name: String,
    pub public: bool,
}

/// Finds, pulls or builds the image of a server, and says which.
pub fn ensure(context: &Context, docker: &Docker, server: Server) -> Result<ServerImage> {
    let built = built_name(context, server)?;
    if docker.has_image(&built) {
        note(format!("{server}: {built} was built earlier"));
        return Ok(ServerImage { name: built, public: false });
    }
    let public = server.public_image();
    if !docker.has_image(public)
        && let Err(error) = docker.pull(context, public)
    {
        note(format!("{server}: {public} cannot be pulled ({error:#}), so a stand-in is built"));
        build(context, docker, server, &built)?;
        return Ok(ServerImage { name: built, public: false });
    }
    note(format!("{server}: the public {public} is used"));
    if server == Server::Ses {
        return ses_on_public_node(context, docker);
    }
    Ok(ServerImage { name: public.to_owned(), public: true })
}

fn folder(context: &Context, server: Server) -> PathBuf {
    context.kind_dir().join("deps").join(server.short())
}

fn built_name(context: &Context, server: Server) -> Result<String> {
    let base = context.kind_dir().join("deps/base.sh");
    let version = if server == Server::Mongodb { MONGODB_STAND_IN_VERSION } else { "" };
    let key = key_of(&[base, folder(context, server)], &format!("{version}{:?}", host::codename()))?;
    Ok(format!("localhost/xhipment-{}:{key}", server.short()))
}

fn ses_on_public_node(context: &Context, docker: &Docker) -> Result<ServerImage> {
    let source = folder(context, Server::Ses);
    let name = format!("localhost/xhipment-ses-node:{}", key_of(std::slice::from_ref(&source), "")?);
    if !docker.has_image(&name) {
        let dockerfile = source.join("Dockerfile.public");
        let build = docker.run().args(["build", "-t", &name, "-f"]).arg(dockerfile).arg(&source);
        build.log_to(&context.log("deps-ses"))?;
    }
    Ok(ServerImage { name, public: true })
}

fn build(context: &Context, docker: &Docker, server: Server, image: &str) -> Result<()> {
    let base = ensure_base(context, docker)?;
    let log = context.log(&format!("deps-{}", server.short()));
    let work = context.cache.join("build").join(format!("deps-{}", server.short()));
    if work.exists() {
        fs::remove_dir_all(&work).with_context(|| format!("removing {}", work.display()))?;
    }
    fs::create_dir_all(&work).with_context(|| format!("creating {}", work.display()))?;
    Run::new("cp").arg("-r").arg(folder(context, server).join(".")).arg(&work).read()?;
    match server {
        Server::Mongodb => add_mongodb(context, &work, &log)?,
        Server::Sqs => add_elasticmq(context, &work, &log)?,
        Server::Ses => add_ses(context, &work, &log)?,
        Server::Redis => {}
    }
    docker.run().args(["build", "-t", image, "--build-arg", &format!("BASE={base}")]).arg(&work).log_to(&log)?;
    fs::remove_dir_all(&work).with_context(|| format!("removing {}", work.display()))
}

/// Debian with Redis, Node.js and a JRE: one image below all four.
fn ensure_base(context: &Context, docker: &Docker) -> Result<String> {
    let suite = host::codename().filter(|_| host::is_debian() && host::is_root());
    let Some(suite) = suite else {
        bail!("building the servers' images needs root on Debian: give Docker access to its registry, or run there");
    };
    let script = context.kind_dir().join("deps/base.sh");
    let image = format!("localhost/xhipment-deps-base:{suite}-{}", key_of(std::slice::from_ref(&script), "")?);
    if docker.has_image(&image) {
        return Ok(image);
    }
    host::ensure_packages(context, &[needed("debootstrap", "debootstrap")])?;
    let work = context.cache.join("build/deps-base");
    Context::wait_for_script(&work)?;
    daemon::unmount_below(&work)?;
    fs::create_dir_all(&work).with_context(|| format!("creating {}", work.display()))?;
    let log = context.log("deps-base");
    note(format!("servers: the common base from Debian packages, see {}", log.display()));
    let run = Run::new("bash").arg(script).env("WORK", &work).env("IMAGE", &image).env("SUITE", &suite);
    docker.aim(run).env("MIRROR", host::debian_mirror()?).log_to(&log)?;
    Ok(image)
}

fn add_mongodb(context: &Context, work: &Path, log: &Path) -> Result<()> {
    let root = context.cache.join("bin").join(format!("{MONGODB_STAND_IN}-{MONGODB_STAND_IN_VERSION}"));
    let program = root.join("bin/secantusd-rs");
    if !program.exists() {
        host::ensure_packages(context, &[needed("cmake", "cmake"), needed("g++", "g++"), needed("make", "make")])?;
        require("cargo", "install Rust, it builds the stand-in for MongoDB")?;
        note(format!(
            "mongodb: compiling {MONGODB_STAND_IN} {MONGODB_STAND_IN_VERSION}, 6 to 9 minutes once, see {}",
            log.display()
        ));
        let target = context.cache.join("build").join(MONGODB_STAND_IN);
        Run::build("cargo")
            .args([
                "install",
                MONGODB_STAND_IN,
                "--locked",
                "--version",
                MONGODB_STAND_IN_VERSION,
                "--ignore-rust-version",
                "--root",
            ])
            .arg(&root)
            .arg("--target-dir")
            .arg(&target)
            // Outside the checkout: its cargo configuration is not for this program.
            .dir(&context.cache)
            .log_to(log)?;
        fs::remove_dir_all(&target).context("removing what was left of compiling")?;
    }
    fs::create_dir_all(work.join("bin")).context("preparing the image")?;
    fs::copy(&program, work.join("bin/secantusd-rs")).context("preparing the image").map(drop)
}

fn add_elasticmq(context: &Context, work: &Path, log: &Path) -> Result<()> {
    host::ensure_packages(context, &[needed("mvn", "maven")])?;
    let mvn = Run::new("mvn").args([
        "-B",
        "-q",
        "dependency:copy-dependencies",
        "-DincludeScope=runtime",
        "-DoutputDirectory=lib",
    ]);
    mvn.dir(work).log_to(log)
}

fn add_ses(context: &Context, work: &Path, log: &Path) -> Result<()> {
    host::ensure_packages(context, &[needed("npm", "npm")])?;
    Run::new("npm").args(["ci", "--omit=dev", "--no-audit", "--no-fund"]).dir(work).log_to(log)
}
