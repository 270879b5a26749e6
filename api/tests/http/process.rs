//! The service as a process of its own, for what must be killed or measured.

use std::process::Stdio;

use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
};

use crate::shop::{Args, Shop};

/// A running `shop-api`; killed when dropped.
pub struct Process {
    child: Child,
    pub base: String,
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
        command.arg("serve").args(args.flags()).stdout(Stdio::piped()).kill_on_drop(true);
        command.env("MIMALLOC_ALLOW_THP", "0"); // as in the image
        for (name, value) in environment {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        let mut child = command.spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let base = loop {
            let line = lines.next_line().await.unwrap().expect("the process ended before it served");
            let line: serde_json::Value = serde_json::from_str(&line).unwrap();
            if let Some(address) = line["http_addr"].as_str() {
                break format!("http://{address}");
            }
        };
        // Whoever does not read what it logs would stop it.
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        Self { child, base }
    }

    /// Ends it at once, as a crash does.
    pub async fn kill(mut self) {
        self.child.kill().await.unwrap();
    }

    /// Resident memory in bytes.
    pub fn resident(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id().unwrap())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
    }
}
