//! The shop's binaries as processes that end when this one does, and what Linux says of their processor time and memory.

use std::{
    ffi::OsStr,
    fs::File,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result};
use serde::Serialize;

/// Ticks of processor time a second in /proc: 100 on every platform that Linux is built for here.
const TICKS_PER_SECOND: u64 = 100;

/// How to start a process.
#[derive(Debug, Clone)]
pub struct Plan {
    pub binary: PathBuf,
    pub args: Vec<String>,
    /// The whole environment: nothing is inherited, secrets are in no argument list.
    pub env: Vec<(&'static str, String)>,
    /// What it prints is appended here.
    pub log: PathBuf,
}

/// A process. Dropping it kills it with SIGKILL and waits until it is gone, so that it touches nothing afterwards.
#[derive(Debug)]
pub struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself: then there is nothing to kill.
        let _killed = self.0.kill();
        let _gone = self.0.wait();
    }
}

/// What a process has used.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Usage {
    /// Processor seconds since its start.
    pub cpu_seconds: f64,
    /// Resident memory now, and at its highest, in MiB.
    pub rss_mib: f64,
    pub peak_rss_mib: f64,
}

impl Process {
    pub fn start(plan: &Plan) -> Result<Self> {
        let log = File::options().create(true).append(true).open(&plan.log);
        let log = log.with_context(|| format!("opening {}", plan.log.display()))?;
        let mut command = tied(plan.binary.as_os_str());
        command.args(&plan.args).env_clear().envs(plan.env.iter().map(|(name, value)| (*name, value)));
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        command.spawn().map(Self).with_context(|| format!("starting {}", plan.binary.display()))
    }

    /// An error as soon as it has ended by itself.
    pub fn ensure_runs(&mut self) -> Result<()> {
        match self.0.try_wait()? {
            None => Ok(()),
            Some(status) => anyhow::bail!("it ended by itself: {status}"),
        }
    }

    pub fn usage(&self) -> Result<Usage> {
        let read = |file: &str| {
            let path = format!("/proc/{}/{file}", self.0.id());
            std::fs::read_to_string(&path).with_context(|| format!("reading {path}"))
        };
        let (stat, status) = (read("stat")?, read("status")?);
        usage(&stat, &status).context("/proc does not look as expected")
    }
}

/// A command that is killed when this process ends, however that ends.
fn tied(binary: &OsStr) -> Command {
    const SETPRIV: &str = "/usr/bin/setpriv";
    if !Path::new(SETPRIV).exists() {
        // Without util-linux, a process outlives a kill -9 of this one.
        return Command::new(binary);
    }
    let mut command = Command::new(SETPRIV);
    command.args(["--pdeathsig", "KILL"]).arg(binary);
    command
}

#[expect(clippy::cast_precision_loss, reason = "seconds and mebibytes to show")]
fn usage(stat: &str, status: &str) -> Option<Usage> {
    // After the name, which may hold anything: state is field 3, utime and stime are 14 and 15.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks = fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?;
    let mib = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        line.trim().strip_suffix(" kB")?.parse::<u64>().ok().map(|kib| kib as f64 / 1024.0)
    };
    let cpu = Duration::from_millis(ticks * 1000 / TICKS_PER_SECOND);
    Some(Usage { cpu_seconds: cpu.as_secs_f64(), rss_mib: mib("VmRSS:")?, peak_rss_mib: mib("VmHWM:")? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proc_is_read() {
        let stat = "42 (a) b) S 1 1 1 0 -1 4194560 900 0 0 0 150 25 0 0 20 0 4 0 100 1 1";
        let status = "Name:\ta\nVmHWM:\t    4096 kB\nVmRSS:\t    2048 kB\n";
        let expected = Usage { cpu_seconds: 1.75, rss_mib: 2.0, peak_rss_mib: 4.0 };
        assert_eq!(usage(stat, status), Some(expected));
        assert_eq!(usage("", status), None);
        assert_eq!(usage(stat, ""), None);
    }

    #[test]
    fn this_process_can_be_read() {
        let read = |file: &str| std::fs::read_to_string(format!("/proc/self/{file}")).unwrap();
        assert!(usage(&read("stat"), &read("status")).unwrap().peak_rss_mib > 1.0);
    }
}
