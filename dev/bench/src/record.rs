//! Where a figure comes from, and the files that keep it: raw counts as JSON, a table as Markdown.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use serde::Serialize;
use shop_runtime::clock::Clock;

/// How a bench was called.
#[derive(Debug, Clone, clap::Args)]
pub struct Call {
    /// The command as it was typed
    #[arg(long)]
    pub command: String,
    /// What is checked out
    #[arg(long)]
    pub commit: String,
    /// What the binaries were compiled with
    #[arg(long)]
    pub profile: String,
    /// Folder for the results
    #[arg(long)]
    pub record_to: Option<PathBuf>,
}

/// What a figure depends on besides the code.
#[derive(Debug, Clone, Serialize)]
pub struct Circumstances {
    pub command: String,
    pub commit: String,
    pub profile: String,
    pub at: String,
    pub cores: usize,
    pub memory_gib: u64,
    pub kernel: String,
    /// Processes that wanted a core during the minute before: who else was there.
    pub load_before: String,
}

impl Circumstances {
    pub fn of(call: &Call) -> Self {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        Self {
            command: call.command.clone(),
            commit: call.commit.clone(),
            profile: call.profile.clone(),
            at: Clock::system().now().strftime("%Y-%m-%d %H:%M UTC").to_string(),
            cores: std::thread::available_parallelism().map_or(0, std::num::NonZero::get),
            memory_gib: memory_gib(&read("/proc/meminfo")),
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            load_before: read("/proc/loadavg").split(' ').next().unwrap_or_default().to_owned(),
        }
    }

    fn list(&self) -> String {
        format!(
            "- command: `{}`\n- commit: {}\n- profile: {}\n- machine: {} cores, {} GiB, Linux {}; \
             MongoDB, Redis, SQS, SES, the client and the shop's processes share it\n- at: {}, load before {}\n",
            self.command,
            self.commit,
            self.profile,
            self.cores,
            self.memory_gib,
            self.kernel,
            self.at,
            self.load_before
        )
    }
}

/// A bench's results: what the JSON holds, and how it reads.
#[derive(Debug, Clone)]
pub struct Results<'a, T> {
    pub name: &'a str,
    pub raw: &'a T,
    pub text: &'a str,
}

/// Writes `<name>.json` and `<name>.md`, if that is asked for.
pub fn write<T: Serialize>(call: &Call, circumstances: &Circumstances, results: &Results<'_, T>) -> Result<()> {
    let Some(folder) = &call.record_to else { return Ok(()) };
    fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
    let json = serde_json::json!({ "circumstances": circumstances, "results": results.raw });
    let json = serde_json::to_string_pretty(&json).context("writing the results")? + "\n";
    let text = format!("# {}\n\n{}\n{}", results.name, circumstances.list(), results.text);
    save(&folder.join(format!("{}.json", results.name)), &json)?;
    save(&folder.join(format!("{}.md", results.name)), &text)
}

/// Writes `<name>.svg`, if that is asked for.
pub fn draw(call: &Call, name: &str, svg: &str) -> Result<()> {
    let Some(folder) = &call.record_to else { return Ok(()) };
    save(&folder.join(format!("{name}.svg")), svg)
}

/// Rows under a heading, as a Markdown table.
pub fn table(heading: &[&str], rows: &[Vec<String>]) -> String {
    let line = |cells: &[&str]| format!("| {} |\n", cells.join(" | "));
    let rule = vec!["---"; heading.len()];
    let rows = rows.iter().map(|row| line(&row.iter().map(String::as_str).collect::<Vec<_>>()));
    [line(heading), line(&rule)].into_iter().chain(rows).collect()
}

fn save(file: &Path, text: &str) -> Result<()> {
    fs::write(file, text).with_context(|| format!("writing {}", file.display()))?;
    println!("recorded {}", file.display());
    Ok(())
}

/// Rounded: what the kernel keeps for itself is not in `MemTotal`.
fn memory_gib(meminfo: &str) -> u64 {
    let kib = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:")?.trim().strip_suffix(" kB")?.parse().ok());
    (kib.unwrap_or(0_u64) + (1 << 19)) >> 20
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_markdown() {
        let rows = [vec!["1".to_owned(), "2".to_owned()]];
        assert_eq!(table(&["a", "b"], &rows), "| a | b |\n| --- | --- |\n| 1 | 2 |\n");
    }

    #[test]
    fn memory_is_read() {
        assert_eq!(memory_gib("MemTotal:       24530000 kB\nMemFree: 1 kB\n"), 23);
        assert_eq!(memory_gib(""), 0);
    }
}
