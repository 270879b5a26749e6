//! Our own dockerd: started by hand where there is none, stopped without leaving a trace.
//! Touches only what it recorded before the start; never another daemon's processes or networks.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

use crate::command::{Run, wait_until};
use crate::context::{Context, boot_id, variable, write_state};
use crate::progress::note;
use crate::{host, sysctls};

/// The host as it was before our daemon: what `stop` puts back.
#[derive(Debug, Serialize, Deserialize)]
struct Before {
    /// Another run of the machine has nothing left of what was started in this one.
    boot: String,
    links: Vec<String>,
    ruleset: String,
    iptables: String,
    ip6tables: String,
    had_lib_modules: bool,
}

pub fn address(context: &Context) -> String {
    format!("unix://{}", dir(context).join("docker.sock").display())
}

pub fn is_alive(context: &Context) -> bool {
    pid(context).is_some()
}

/// The `DOCKER_HOST` of the daemon that the user's own client would talk to, where it names one: ours is not the user's.
pub fn others_address(context: &Context) -> Option<String> {
    variable("DOCKER_HOST").filter(|host| *host != address(context))
}

/// Whether a daemon that is not ours answers.
pub fn another_answers(context: &Context) -> bool {
    let ask = Run::new("docker").arg("version");
    match others_address(context) {
        Some(host) => ask.env("DOCKER_HOST", host).succeeds(),
        None => ask.without_env("DOCKER_HOST").succeeds(),
    }
}

/// Whether a daemon of ours runs or did not end cleanly.
pub fn left_traces(context: &Context) -> bool {
    is_alive(context) || before_file(context).exists()
}

pub fn start(context: &Context) -> Result<()> {
    if is_alive(context) {
        return Ok(());
    }
    clean_traces(context)?;
    sysctls::save(context)?;
    fs::create_dir_all(dir(context)).context("creating the daemon's folder")?;
    save_before(context)?;
    let log = context.log("dockerd");
    launch(context)?.detach(&log)?;
    wait_until(Duration::from_secs(30), "our Docker daemon", || {
        Run::new("docker").env("DOCKER_HOST", address(context)).arg("version").read().map(drop)
    })
    .with_context(|| format!("see the end of {}", log.display()))
}

/// Puts right what a daemon of ours left that did not end cleanly.
pub fn clean_traces(context: &Context) -> Result<()> {
    if is_alive(context) || !left_traces(context) {
        return Ok(());
    }
    note("docker: cleaning what an interrupted run left");
    clean(context)
}

/// Ends the daemon with all its containers and puts the host back; the images stay.
pub fn stop(context: &Context) -> Result<()> {
    if let Some(pid) = pid(context) {
        let client = || Run::new("docker").env("DOCKER_HOST", address(context));
        let containers = client().args(["ps", "-aq"]).read().unwrap_or_default();
        if !containers.is_empty() {
            client()
                .args(["rm", "-fv"])
                .args(containers.lines())
                .read()
                .context("removing the containers of our daemon")?;
        }
        signal("TERM", &[pid])?;
        let ended = wait_until(Duration::from_secs(20), "the end of our Docker daemon", || gone(pid));
        if ended.is_err() {
            signal("KILL", &[pid])?;
        }
    }
    clean(context)
}

fn dir(context: &Context) -> PathBuf {
    context.state().join("docker")
}

fn exec_root(context: &Context) -> PathBuf {
    dir(context).join("exec")
}

/// The image cache: it outlives the daemon.
fn data_root(context: &Context) -> PathBuf {
    context.cache.join("docker")
}

fn before_file(context: &Context) -> PathBuf {
    dir(context).join("before.json")
}

/// The daemon's process, if the one in our pidfile is really it.
fn pid(context: &Context) -> Option<u32> {
    let pid = fs::read_to_string(dir(context).join("docker.pid")).ok()?.trim().parse().ok()?;
    let command_line = fs::read_to_string(format!("/proc/{pid}/cmdline")).ok()?;
    (command_line.contains("dockerd") && command_line.contains(&*exec_root(context).to_string_lossy())).then_some(pid)
}

fn gone(pid: u32) -> Result<()> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    // A process whose parent does not collect it stays listed as a zombie.
    let state = status.lines().find_map(|line| line.strip_prefix("State:")).unwrap_or("Z").trim();
    anyhow::ensure!(state.starts_with('Z') || state.starts_with('X'), "process {pid} still runs");
    Ok(())
}

fn launch(context: &Context) -> Result<Run> {
    let dir = dir(context);
    let dockerd = host::find("dockerd").context("dockerd is not installed: `apt-get install docker.io`")?;
    let mut run = Run::new(dockerd)
        .arg("--data-root")
        .arg(data_root(context))
        .arg("--exec-root")
        .arg(exec_root(context))
        .arg("--pidfile")
        .arg(dir.join("docker.pid"))
        .args(["-H", &address(context)])
        .args(["--storage-driver", "overlay2", "--log-opt", "max-size=10m", "--log-opt", "max-file=2"])
        .args(["--bip", "172.31.0.1/24", "--default-address-pool", "base=172.30.0.0/16,size=24"]);
    if host::lacks_sys_resource() {
        note("docker: this machine has no CAP_SYS_RESOURCE, so containers are started without asking for it");
        let wrapper = dir.join("runc-without-sys-resource");
        fs::copy(context.kind_dir().join("runc-without-sys-resource"), &wrapper)
            .context("copying the runtime wrapper")?;
        run = run
            .arg("--add-runtime")
            .arg(format!("without-sys-resource={}", wrapper.display()))
            .args(["--default-runtime", "without-sys-resource"]);
    }
    Ok(run)
}

fn save_before(context: &Context) -> Result<()> {
    let before = Before {
        boot: boot_id(),
        links: links()?,
        ruleset: Run::new("nft").args(["list", "ruleset"]).read()?,
        iptables: String::new(),
        ip6tables: String::new(),
        had_lib_modules: Path::new("/lib/modules").exists(),
    };
    // Asking iptables makes its empty tables: not asked where there is nothing to keep.
    let before = if before.ruleset.is_empty() {
        before
    } else {
        let iptables = Run::new("iptables-save").read()?;
        Before { iptables, ip6tables: Run::new("ip6tables-save").read()?, ..before }
    };
    let text = serde_json::to_string_pretty(&before).context("writing down the host's settings")?;
    write_state(&before_file(context), &text)
}

/// Puts the host back, whatever state the daemon ended in.
fn clean(context: &Context) -> Result<()> {
    end_leftover_processes(context)?;
    unmount_below(&context.cache)?;
    remove_cgroups();
    if let Ok(text) = fs::read_to_string(before_file(context)) {
        let before: Before =
            serde_json::from_str(&text).context("reading state/docker/before.json; remove that file by hand")?;
        if before.boot == boot_id() {
            put_back_network(context, &before)?;
        }
        if !before.had_lib_modules && Path::new("/lib/modules").exists() {
            // Made as the mount point of kind's node; kept when something has been put into it.
            Run::new("rmdir").arg("/lib/modules").succeeds();
        }
    }
    for dir in ["/run/docker/plugins", "/run/docker"] {
        // dockerd makes them beside its own folders; another daemon's are not empty.
        let _ = fs::remove_dir(dir);
    }
    match fs::remove_dir_all(dir(context)) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).context("removing the daemon's folder")
        }
        _ => Ok(()),
    }
}

/// Ends containerd, its shims and the containers' processes that a killed daemon left.
fn end_leftover_processes(context: &Context) -> Result<()> {
    let containers = container_ids(context);
    let exec_root = exec_root(context).to_string_lossy().into_owned();
    wait_until(Duration::from_secs(20), "the end of leftover processes", || {
        let mut left: Vec<u32> =
            processes().filter(|(_, line)| is_engine(line) && line.contains(&exec_root)).map(|(pid, _)| pid).collect();
        for cgroup in container_cgroups(&containers) {
            left.extend(processes_in(&cgroup));
        }
        left.retain(|pid| gone(*pid).is_err() && *pid != std::process::id());
        left.sort_unstable();
        left.dedup();
        if left.is_empty() {
            return Ok(());
        }
        signal("KILL", &left)?;
        anyhow::bail!("{} processes still run", left.len())
    })
}

fn is_engine(command_line: &str) -> bool {
    let program = command_line.split(' ').next().unwrap_or_default().rsplit('/').next().unwrap_or_default();
    program == "dockerd" || program.starts_with("containerd")
}

fn container_ids(context: &Context) -> Vec<String> {
    let entries = fs::read_dir(data_root(context).join("containers")).into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

/// The cgroups of our containers: one for each controller.
fn container_cgroups(containers: &[String]) -> Vec<PathBuf> {
    let roots = fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten().map(|entry| entry.path());
    let parents = roots.map(|root| root.join("docker")).chain([PathBuf::from("/sys/fs/cgroup/docker")]);
    parents.flat_map(|parent| containers.iter().map(move |id| parent.join(id))).filter(|dir| dir.is_dir()).collect()
}

fn processes_in(cgroup: &Path) -> Vec<u32> {
    let own = fs::read_to_string(cgroup.join("cgroup.procs")).unwrap_or_default();
    let mut found: Vec<u32> = own.lines().filter_map(|line| line.parse().ok()).collect();
    for child in subdirectories(cgroup) {
        found.extend(processes_in(&child));
    }
    found
}

/// Removes the empty cgroups that our containers made; the kernel keeps those that are in use.
fn remove_cgroups() {
    let roots = fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten().map(|entry| entry.path());
    for root in roots {
        let parent = if root.file_name().is_some_and(|name| name == "docker") { root } else { root.join("docker") };
        if parent.is_dir() {
            remove_empty_tree(&parent);
        }
    }
}

fn remove_empty_tree(dir: &Path) {
    for child in subdirectories(dir) {
        remove_empty_tree(&child);
    }
    // Fails for a cgroup with processes, which is none of ours.
    let _ = fs::remove_dir(dir);
}

fn subdirectories(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())).map(|entry| entry.path()).collect()
}

fn processes() -> impl Iterator<Item = (u32, String)> {
    fs::read_dir("/proc").into_iter().flatten().flatten().filter_map(|entry| {
        let pid = entry.file_name().to_str()?.parse().ok()?;
        let line = fs::read_to_string(entry.path().join("cmdline")).ok()?;
        Some((pid, line.replace('\0', " ")))
    })
}

fn signal(name: &str, pids: &[u32]) -> Result<()> {
    let list = pids.iter().map(u32::to_string).collect::<Vec<_>>().join(" ");
    // One that ended in the meantime is no failure.
    Run::new("sh").args(["-c", &format!("kill -{name} {list} 2>/dev/null || true")]).read().map(drop)
}

/// Detaches what a killed daemon or an interrupted debootstrap left mounted.
pub fn unmount_below(dir: &Path) -> Result<()> {
    let mounts = fs::read_to_string("/proc/self/mounts").context("reading the mounts")?;
    let points = mounts.lines().rev().filter_map(|line| line.split(' ').nth(1));
    for point in points.filter(|point| Path::new(point).starts_with(dir)) {
        Run::new("umount").args(["-l", point]).read()?;
    }
    Ok(())
}

fn put_back_network(context: &Context, before: &Before) -> Result<()> {
    if another_answers(context) {
        note("docker: another daemon runs by now, so the network devices and packet rules are left to it");
        return Ok(());
    }
    remove_links(&before.links)?;
    restore_rules(before)
}

fn links() -> Result<Vec<String>> {
    let entries = fs::read_dir("/sys/class/net").context("listing the network devices")?;
    Ok(entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect())
}

fn remove_links(before: &[String]) -> Result<()> {
    let made_by_docker = |name: &str| name == "docker0" || name.starts_with("br-") || name.starts_with("veth");
    for link in links()?.iter().filter(|name| made_by_docker(name) && !before.contains(name)) {
        // A veth goes with its other end.
        Run::new("ip").args(["link", "delete", link]).succeeds();
    }
    Ok(())
}

fn restore_rules(before: &Before) -> Result<()> {
    for (tool, family, saved) in [("iptables", "ip", &before.iptables), ("ip6tables", "ip6", &before.ip6tables)] {
        let now = Run::new(format!("{tool}-save")).read()?;
        let kept = without_docker(&now, saved);
        Run::new(format!("{tool}-restore")).input(kept.clone()).read()?;
        if before.ruleset.is_empty() && is_bare(&kept) {
            for table in kept.lines().filter_map(|line| line.strip_prefix('*')) {
                Run::new("nft").args(["delete", "table", family, table]).succeeds();
            }
        }
    }
    Ok(())
}

/// Tables with nothing in them but the kernel's own chains, which let everything pass.
fn is_bare(saved: &str) -> bool {
    saved.lines().all(|line| match line.chars().next() {
        Some('-') => false,
        Some(':') => line.split(' ').nth(1) == Some("ACCEPT"),
        _ => true,
    })
}

/// The rules of now without Docker's, the chains' policies as before.
fn without_docker(now: &str, before: &str) -> String {
    let docker =
        |line: &str| ["DOCKER", "docker0", " br-", "172.30.", "172.31.0."].iter().any(|mark| line.contains(mark));
    let policy = |line: &str| {
        let chain = line.split(' ').next().filter(|name| name.starts_with(':'))?;
        let old = before.lines().find(|old| old.split(' ').next() == Some(chain)).map(str::to_owned);
        // Where there was no table at all, it is Docker that forbids forwarding.
        old.or_else(|| (before.is_empty() && line.contains(" DROP ")).then(|| format!("{chain} ACCEPT [0:0]")))
    };
    let kept = now.lines().filter(|line| !docker(line) || before.lines().any(|old| old == *line));
    kept.map(|line| policy(line).unwrap_or_else(|| line.to_owned()) + "\n").collect()
}

#[cfg(test)]
mod tests {
    use super::{is_bare, without_docker};

    #[test]
    fn the_rules_of_others_stay_and_policies_come_back() {
        let before =
            "*filter\n:INPUT ACCEPT [0:0]\n:FORWARD ACCEPT [0:0]\n-A INPUT -p tcp --dport 22 -j ACCEPT\nCOMMIT\n";
        let now = "*filter\n:INPUT ACCEPT [9:9]\n:FORWARD DROP [1:1]\n:DOCKER - [0:0]\n-A INPUT -p tcp --dport 22 -j ACCEPT\n\
                   -A INPUT -p udp -j DROP\n-A FORWARD -j DOCKER-USER\n-A FORWARD -o docker0 -j ACCEPT\n\
                   -A FORWARD -i br-0123456789ab -j ACCEPT\nCOMMIT\n";
        let expected = "*filter\n:INPUT ACCEPT [0:0]\n:FORWARD ACCEPT [0:0]\n-A INPUT -p tcp --dport 22 -j ACCEPT\n\
                        -A INPUT -p udp -j DROP\nCOMMIT\n";
        assert_eq!(without_docker(now, before), expected);
        assert!(!is_bare(expected));
    }

    #[test]
    fn where_there_were_no_rules_only_those_of_others_are_left() {
        let docker = ":FORWARD DROP [1:1]\n:DOCKER - [0:0]\n-A FORWARD -j DOCKER-USER\n";
        let bare = format!("*filter\n:INPUT ACCEPT [9:9]\n{docker}COMMIT\n");
        let kept = without_docker(&bare, "");
        assert_eq!(kept, "*filter\n:INPUT ACCEPT [9:9]\n:FORWARD ACCEPT [0:0]\nCOMMIT\n");
        assert!(is_bare(&kept));
        let guarded = format!("*filter\n:INPUT ACCEPT [9:9]\n{docker}-A INPUT -s 6.6.6.6 -j DROP\nCOMMIT\n");
        assert!(!is_bare(&without_docker(&guarded, "")), "a rule that came since then stays");
    }
}
