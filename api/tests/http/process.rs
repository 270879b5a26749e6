//! The service as a process of its own, for what must be killed, measured or listened to.

use std::{
    process::{ExitStatus, Stdio},
    sync::{Arc, Mutex},
};

use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt, AsyncRead, BufReader},
    process::{Child, Command},
};

use crate::shop::{Args, Shop, eventually};

/// A running `shop-api`; killed when dropped.
pub struct Process {
    child: Child,
    pub base: String,
    pub log: Log,
}

impl Process {
    /// Starts another replica of the shop, with other flags, and waits until it serves.
    pub async fn start(shop: &Shop, change: impl FnOnce(&mut Args)) -> Self {
        Self::start_in(shop, change, &[]).await
    }

    /// The same with these variables set, or taken away.
    pub async fn start_in(shop: &Shop, change: impl FnOnce(&mut Args), environment: &[(&str, Option<&str>)]) -> Self {
        let mut args = shop.args.clone();
        args.set("--log-level", "info");
        change(&mut args);
        let mut command = Command::new(env!("CARGO_BIN_EXE_shop-api"));
        command.arg("serve").args(args.flags());
        command.env("MIMALLOC_ALLOW_THP", "0"); // as in the image
        for (name, value) in environment {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        let (child, log) = spawn(command);
        let base = log.find("it serves", |line| Some(format!("http://{}", line["http_addr"].as_str()?))).await;
        Self { child, base, log }
    }

    /// Ends it at once, as a crash does.
    pub async fn kill(mut self) {
        self.child.kill().await.unwrap();
    }

    /// Tells it to leave, as Kubernetes does, and waits for its end.
    pub async fn terminate(&mut self) -> ExitStatus {
        let id = self.child.id().unwrap().to_string();
        assert!(Command::new("kill").args(["-TERM", &id]).status().await.unwrap().success());
        self.child.wait().await.unwrap()
    }

    /// Resident memory in bytes.
    pub fn resident(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id().unwrap())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
    }
}

/// Starts a process that is killed when it is dropped.
pub fn spawn(mut command: Command) -> (Child, Log) {
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let mut child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let log = Log::default();
    log.follow(child.stdout.take().unwrap());
    log.follow(child.stderr.take().unwrap());
    (child, log)
}

/// The lines that a process prints, to either stream. They are read all the time: a process whose output nobody takes
/// stops.
#[derive(Clone, Default)]
pub struct Log(Arc<Mutex<Vec<String>>>);

impl Log {
    fn follow(&self, stream: impl AsyncRead + Unpin + Send + 'static) {
        let (log, mut lines) = (self.clone(), BufReader::new(stream).lines());
        tokio::spawn(async move {
            while let Ok(Some(line)) = lines.next_line().await {
                log.0.lock().unwrap().push(line);
            }
        });
    }

    pub fn lines(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }

    /// What `look` finds in a line, as soon as there is one. Lines that are no JSON are passed over.
    pub async fn find<T>(&self, what: &str, look: impl Fn(&Value) -> Option<T>) -> T {
        eventually(what, || async {
            self.lines().iter().find_map(|line| look(&serde_json::from_str(line).unwrap_or_default()))
        })
        .await
    }
}
