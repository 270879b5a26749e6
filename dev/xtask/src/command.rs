//! Runs other programs: with the output in a log, as text, or as a yes/no question.
//! A failure names the program, shows the last lines and where the rest is.

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

const TAIL_LINES: usize = 15;

/// One program call, built up like `std::process::Command`.
#[derive(Debug)]
pub struct Run {
    command: Command,
    input: Option<Vec<u8>>,
}

impl Run {
    pub fn new(program: impl AsRef<OsStr>) -> Self {
        Self { command: Command::new(program), input: None }
    }

    /// A long build that ends when this process does, however that ends: nothing works on in what `down` or the next `up` removes.
    pub fn build(program: &str) -> Self {
        // Where util-linux is missing, a build outlives a kill -9.
        match on_path("setpriv") {
            Some(setpriv) => Self::new(setpriv).args(["--pdeathsig", "KILL", program]),
            None => Self::new(program),
        }
    }

    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.command.arg(arg);
        self
    }

    pub fn args<S: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = S>) -> Self {
        self.command.args(args);
        self
    }

    pub fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    pub fn without_env(mut self, name: &str) -> Self {
        self.command.env_remove(name);
        self
    }

    pub fn dir(mut self, dir: &Path) -> Self {
        self.command.current_dir(dir);
        self
    }

    pub fn input(mut self, input: impl Into<Vec<u8>>) -> Self {
        self.input = Some(input.into());
        self
    }

    /// Appends both outputs to the log; the error carries its last lines.
    pub fn log_to(self, log: &Path) -> Result<()> {
        let what = self.title();
        let mut file = open_log(log, &what)?;
        file.flush().with_context(|| format!("writing {}", log.display()))?;
        let status = self.spawn(&file, &file)?.wait().with_context(|| format!("waiting for {what}"))?;
        if status.success() {
            return Ok(());
        }
        bail!("`{what}` failed ({status})\n{}\nThe whole log: {}", tail(log), log.display())
    }

    /// As `log_to`, but ends the program when it printed nothing that `alive` takes for progress within the time.
    pub fn log_with_patience(self, log: &Path, patience: Duration, alive: fn(&str) -> bool) -> Result<()> {
        let what = self.title();
        let from = fs::metadata(log).map_or(0, |meta| meta.len());
        let file = open_log(log, &what)?;
        let mut child = self.spawn(&file, &file)?;
        let started = Instant::now();
        let mut waiting = true;
        loop {
            if let Some(status) = child.try_wait().context("waiting for a program")? {
                if status.success() {
                    return Ok(());
                }
                bail!("{}", last_line(&read_from(log, from)));
            }
            waiting = waiting && !alive(&read_from(log, from));
            if waiting && started.elapsed() > patience {
                child.kill().context("ending a program that makes no progress")?;
                child.wait().context("waiting for a program")?;
                bail!("no answer within {} s", patience.as_secs());
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// What the program printed; on failure the error carries what it complained about.
    pub fn read(self) -> Result<String> {
        Ok(String::from_utf8_lossy(&self.read_bytes()?).trim_end().to_owned())
    }

    pub fn read_bytes(self) -> Result<Vec<u8>> {
        let what = self.title();
        let output = self.output()?;
        if output.status.success() {
            return Ok(output.stdout);
        }
        bail!("`{what}` failed ({}): {}", output.status, String::from_utf8_lossy(&output.stderr).trim())
    }

    /// Whether the program can be run and ends well; its output is dropped.
    pub fn succeeds(self) -> bool {
        self.output().is_ok_and(|output| output.status.success())
    }

    /// Starts it in a session of its own, so that it outlives this process and its terminal.
    pub fn detach(self, log: &Path) -> Result<()> {
        let what = self.title();
        let file = open_log(log, &what)?;
        let mut detached = Command::new("setsid");
        detached.arg("--fork").arg(self.command.get_program()).args(self.command.get_args());
        Self { command: detached, input: None }
            .spawn(&file, &file)?
            .wait()
            .with_context(|| format!("starting {what}"))?;
        Ok(())
    }

    fn title(&self) -> String {
        let words = std::iter::once(self.command.get_program()).chain(self.command.get_args());
        let title = words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ");
        if title.chars().count() > 160 { title.chars().take(160).chain("…".chars()).collect() } else { title }
    }

    fn spawn(mut self, out: &File, err: &File) -> Result<std::process::Child> {
        let what = self.title();
        self.command.stdin(if self.input.is_some() { Stdio::piped() } else { Stdio::null() });
        self.command.stdout(out.try_clone().context("sharing the log")?);
        self.command.stderr(err.try_clone().context("sharing the log")?);
        let mut child = self.command.spawn().with_context(|| format!("starting `{what}`"))?;
        if let (Some(input), Some(mut stdin)) = (&self.input, child.stdin.take()) {
            stdin.write_all(input).with_context(|| format!("writing to `{what}`"))?;
        }
        Ok(child)
    }

    fn output(mut self) -> Result<Output> {
        let what = self.title();
        self.command.stdin(if self.input.is_some() { Stdio::piped() } else { Stdio::null() });
        self.command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = self.command.spawn().with_context(|| format!("starting `{what}`"))?;
        if let (Some(input), Some(mut stdin)) = (&self.input, child.stdin.take()) {
            stdin.write_all(input).with_context(|| format!("writing to `{what}`"))?;
        }
        child.wait_with_output().with_context(|| format!("waiting for `{what}`"))
    }
}

/// The program's path when it is on `PATH`.
pub fn on_path(program: &str) -> Option<PathBuf> {
    let path = crate::context::variable("PATH")?;
    std::env::split_paths(&path).map(|dir| dir.join(program)).find(|file| is_program(file))
}

fn is_program(file: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    fs::metadata(file).is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

fn open_log(log: &Path, what: &str) -> Result<File> {
    let mut file = OpenOptions::new()
        .create(true)
        .append(true)
        .open(log)
        .with_context(|| format!("opening the log {}", log.display()))?;
    writeln!(file, "$ {what}").with_context(|| format!("writing {}", log.display()))?;
    Ok(file)
}

fn read_from(log: &Path, from: u64) -> String {
    let bytes = fs::read(log).unwrap_or_default();
    let start = usize::try_from(from).unwrap_or(0).min(bytes.len());
    String::from_utf8_lossy(bytes.get(start..).unwrap_or_default()).into_owned()
}

fn last_line(text: &str) -> String {
    text.lines().rev().map(str::trim).find(|line| !line.is_empty()).unwrap_or("it said nothing").to_owned()
}

fn tail(log: &Path) -> String {
    let text = read_from(log, 0);
    let lines: Vec<&str> = text.lines().collect();
    let skipped = lines.len().saturating_sub(TAIL_LINES);
    lines.iter().skip(skipped).map(|line| format!("    {line}")).collect::<Vec<_>>().join("\n")
}

/// Asks again until the answer is yes; the error is what was still wrong when the time was over.
pub fn wait_until(limit: Duration, what: &str, mut ready: impl FnMut() -> Result<()>) -> Result<()> {
    let started = Instant::now();
    loop {
        let Err(error) = ready() else { return Ok(()) };
        if started.elapsed() > limit {
            return Err(error).with_context(|| format!("{what} was not ready after {} s", limit.as_secs()));
        }
        std::thread::sleep(Duration::from_millis(200));
    }
}
