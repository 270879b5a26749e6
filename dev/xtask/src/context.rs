//! Where things live: the checkout, the cache of built inputs and the state of what runs now.
//! The only place of xtask that reads the environment; starts nothing.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};

/// Docker and containerd put sockets below the cache directory; a socket path may have 107 bytes.
const LONGEST_CACHE_PATH: usize = 50;

#[derive(Clone, Debug)]
pub struct Context {
    /// The root of the checkout.
    pub repo: PathBuf,
    /// `$XDG_CACHE_HOME/xhipment`, by default `~/.cache/xhipment`.
    pub cache: PathBuf,
}

impl Context {
    pub fn load() -> Result<Self> {
        // What cargo says of this run, not what it said when it compiled: checkouts may share a target directory.
        let xtask = variable("CARGO_MANIFEST_DIR").unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").to_owned());
        let repo = Path::new(&xtask).join("../..").canonicalize().context("finding the checkout")?;
        let base = variable("XDG_CACHE_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
        let home = variable("HOME").map(|home| Path::new(&home).join(".cache"));
        let Some(base) = base.or(home) else {
            bail!("neither HOME nor XDG_CACHE_HOME is set: export one, built images are kept there");
        };
        let cache = base.join("xhipment");
        if cache.as_os_str().len() > LONGEST_CACHE_PATH {
            bail!("{} is too long a path for Docker's sockets: set XDG_CACHE_HOME to a shorter one", cache.display());
        }
        let context = Self { repo, cache };
        for dir in [context.state(), context.logs()] {
            fs::create_dir_all(&dir).with_context(|| format!("creating {}", dir.display()))?;
        }
        Ok(context)
    }

    /// What belongs to the running cluster and servers; gone after `down`, the cache is not.
    pub fn state(&self) -> PathBuf {
        self.cache.join("state")
    }

    pub fn logs(&self) -> PathBuf {
        self.cache.join("logs")
    }

    pub fn log(&self, step: &str) -> PathBuf {
        self.logs().join(format!("{step}.log"))
    }

    pub fn kind_dir(&self) -> PathBuf {
        self.repo.join("dev/kind")
    }

    /// Waits for a build script that outlived its run; the script holds the lock beside its work folder.
    pub fn wait_for_script(work: &Path) -> Result<()> {
        if let Some(parent) = work.parent() {
            fs::create_dir_all(parent).with_context(|| format!("creating {}", parent.display()))?;
        }
        lock_file(&work.with_extension("lock"), "waiting for the build of an interrupted run to end").map(drop)
    }

    /// Held while something is started, built or stopped: two runs at once would break each other.
    pub fn lock(&self) -> Result<File> {
        lock_file(&self.cache.join("lock"), "waiting for another `cargo xtask` of this user to finish")
    }
}

fn lock_file(path: &Path, patience: &str) -> Result<File> {
    let file = File::create(path).with_context(|| format!("creating {}", path.display()))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            println!("  {patience}");
            file.lock().with_context(|| format!("waiting for the holder of {}", path.display()))?;
        }
        Err(TryLockError::Error(error)) => return Err(error).with_context(|| format!("locking {}", path.display())),
    }
    Ok(file)
}

#[expect(
    clippy::disallowed_methods,
    reason = "xtask has no config.rs; this is the one place that reads the environment"
)]
pub fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// Reads a file of the state folder; `None` where there is none.
pub fn read_state<T: DeserializeOwned>(file: &Path) -> Result<Option<T>> {
    match fs::read_to_string(file) {
        Ok(text) => serde_json::from_str(&text)
            .map(Some)
            .with_context(|| format!("{} is damaged: remove it, then run down and up", file.display())),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("reading {}", file.display())),
    }
}

/// Writes a file of the state folder, readable by its owner only: the whole of it or, after a crash, what was there before.
pub fn write_state(file: &Path, text: &str) -> Result<()> {
    let writing = || format!("writing {}", file.display());
    let new = file.with_extension("new");
    let mut options = OpenOptions::new();
    let mut open = options.write(true).create(true).truncate(true).mode(0o600).open(&new).with_context(writing)?;
    open.write_all(text.as_bytes()).and_then(|()| open.sync_all()).with_context(writing)?;
    fs::rename(&new, file).with_context(writing)
}

/// Removes a file that may have gone already.
pub fn remove_file(file: &Path) -> Result<()> {
    match fs::remove_file(file) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(error).with_context(|| format!("removing {}", file.display()))
        }
        _ => Ok(()),
    }
}

/// What the operating system calls this run of the machine: another one has none of our processes, mounts and rules.
pub fn boot_id() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
}

/// A command's arguments when none is given: from their environment variables, else the defaults.
pub fn arguments_from_env<A: clap::Args>() -> Result<A> {
    let command = A::augment_args(clap::Command::new("xtask").no_binary_name(true));
    let matches = command.try_get_matches_from(std::iter::empty::<&str>()).context("reading the environment")?;
    A::from_arg_matches(&matches).context("reading the environment")
}

/// A short key of pinned inputs: the files (below a folder: all of them) and anything else that shapes the result.
pub fn key_of(inputs: &[PathBuf], extra: &str) -> Result<String> {
    let mut hasher = Sha256::new();
    for input in inputs {
        hash_into(&mut hasher, input, input)?;
    }
    hasher.update(extra.as_bytes());
    Ok(hex::encode(hasher.finalize()).chars().take(12).collect())
}

fn hash_into(hasher: &mut Sha256, root: &Path, path: &Path) -> Result<()> {
    let here = || format!("reading {}", path.display());
    if path.is_dir() {
        let mut entries: Vec<_> =
            fs::read_dir(path).with_context(here)?.map(|entry| entry.map(|e| e.path())).collect::<Result<_, _>>()?;
        entries.sort();
        return entries.iter().try_for_each(|entry| hash_into(hasher, root, entry));
    }
    let name = path.strip_prefix(root.parent().unwrap_or(root)).unwrap_or(path);
    hasher.update(name.as_os_str().as_encoded_bytes());
    hasher.update(fs::read(path).with_context(here)?);
    Ok(())
}
