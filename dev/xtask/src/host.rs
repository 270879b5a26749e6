//! Facts about this machine and its Debian packages; touches nothing else of the host.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

use crate::command::{Run, on_path};
use crate::context::Context;
use crate::progress::note;

/// A program that is needed and the Debian package that has it.
#[derive(Clone, Copy, Debug)]
pub struct Needed {
    pub program: &'static str,
    pub package: &'static str,
}

pub const fn needed(program: &'static str, package: &'static str) -> Needed {
    Needed { program, package }
}

pub fn is_root() -> bool {
    status_field("Uid:").is_some_and(|ids| ids.split_whitespace().nth(1) == Some("0"))
}

pub fn is_debian() -> bool {
    os_release("ID").as_deref() == Some("debian")
}

/// Debian's name for this release, for packages that must fit programs built here.
pub fn codename() -> Option<String> {
    os_release("VERSION_CODENAME")
}

/// `--privileged` containers ask for every capability; a sandboxed root may lack this one.
pub fn lacks_sys_resource() -> bool {
    const CAP_SYS_RESOURCE: u64 = 1 << 24;
    status_field("CapBnd:")
        .and_then(|bits| u64::from_str_radix(bits.trim(), 16).ok())
        .is_some_and(|bits| bits & CAP_SYS_RESOURCE == 0)
}

/// The first mirror of this machine's own apt sources.
pub fn debian_mirror() -> Result<String> {
    let sites = Run::new("apt-get").args(["indextargets", "--format", "$(SITE)"]).read()?;
    let first = sites.lines().next().map(str::to_owned);
    first.context("apt has no package source: add one below /etc/apt and run `apt-get update`")
}

/// Installs what is missing, where that can be done.
pub fn ensure_packages(context: &Context, wanted: &[Needed]) -> Result<()> {
    let missing: Vec<_> = wanted.iter().filter(|need| !installed(need.program)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let mut packages: Vec<_> = missing.iter().map(|need| need.package).collect();
    packages.dedup();
    let programs = missing.iter().map(|need| need.program).collect::<Vec<_>>().join(", ");
    install(context, &packages).with_context(|| format!("{programs} missing"))
}

/// Installs Debian packages, where that can be done.
pub fn install(context: &Context, packages: &[&str]) -> Result<()> {
    let list = packages.join(" ");
    if !(is_root() && is_debian()) {
        bail!("only root on Debian can be helped: install them (Debian packages: {list})");
    }
    note(format!("packages: installing {list} with apt-get"));
    let log = context.log("packages");
    let apt = || Run::new("apt-get").env("DEBIAN_FRONTEND", "noninteractive");
    // A package may start its service when it is installed; ours are started by hand.
    let policy = KeepServicesDown::new()?;
    let installed = apt()
        .args(["update", "-q"])
        .log_to(&log)
        .and_then(|()| apt().args(["install", "-qy", "--no-install-recommends"]).args(packages).log_to(&log));
    drop(policy);
    installed.with_context(|| {
        format!("install {list} by hand or give the machine access to its package mirror, then run again")
    })
}

/// Fails with a hint when a compiler that xtask cannot install is missing.
pub fn require(program: &str, hint: &str) -> Result<()> {
    if installed(program) { Ok(()) } else { bail!("{program} is not on PATH: {hint}") }
}

fn installed(program: &str) -> bool {
    find(program).is_some()
}

/// Where a program is; daemons are not on everybody's PATH.
pub fn find(program: &str) -> Option<PathBuf> {
    let in_sbin = || ["/usr/sbin", "/sbin"].iter().map(|dir| Path::new(dir).join(program)).find(|file| file.exists());
    on_path(program).or_else(in_sbin)
}

/// Packages start their services at every boot unless told not to: those that were installed for us only are told.
pub fn disable_services(units: &[&str]) {
    if find("systemctl").is_some() && !Run::new("systemctl").arg("disable").args(units).succeeds() {
        note(format!(
            "{} may start at the next boot: `systemctl disable` them if that is not wanted",
            units.join(", ")
        ));
    }
}

/// What an interrupted installation of packages left.
pub fn finish_interrupted_install() {
    drop(KeepServicesDown { ours: KeepServicesDown::is_ours() });
}

fn status_field(name: &str) -> Option<String> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    status.lines().find_map(|line| line.strip_prefix(name)).map(|rest| rest.trim().to_owned())
}

fn os_release(name: &str) -> Option<String> {
    let text = fs::read_to_string("/etc/os-release").ok()?;
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='))?;
    Some(value.trim_matches('"').to_owned())
}

/// While it lives, packages start no service (Debian's policy-rc.d); removed with it.
struct KeepServicesDown {
    ours: bool,
}

impl KeepServicesDown {
    const FILE: &'static str = "/usr/sbin/policy-rc.d";
    const TEXT: &'static str = "#!/bin/sh\n# Made by xhipment while it installs packages; safe to remove.\nexit 101\n";

    fn is_ours() -> bool {
        fs::read_to_string(Self::FILE).is_ok_and(|text| text == Self::TEXT)
    }

    fn new() -> Result<Self> {
        use std::os::unix::fs::PermissionsExt as _;
        if Path::new(Self::FILE).exists() {
            return Ok(Self { ours: Self::is_ours() });
        }
        fs::write(Self::FILE, Self::TEXT).context("writing policy-rc.d")?;
        fs::set_permissions(Self::FILE, fs::Permissions::from_mode(0o755)).context("writing policy-rc.d")?;
        Ok(Self { ours: true })
    }
}

impl Drop for KeepServicesDown {
    fn drop(&mut self) {
        if self.ours
            && let Err(error) = fs::remove_file(Self::FILE)
        {
            note(format!("{} could not be removed: {error}", Self::FILE));
        }
    }
}
