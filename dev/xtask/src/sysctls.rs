//! The kernel settings that dockerd, the node's systemd and its kubelet change on this machine: noted before, put back by `down`.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

use crate::context::{Context, boot_id, read_state, remove_file, write_state};
use crate::progress::note;

const CHANGED: [&str; 7] = [
    "net.ipv4.ip_forward",
    "net.ipv6.conf.all.forwarding",
    "net.ipv6.conf.default.forwarding",
    "vm.overcommit_memory",
    "kernel.panic",
    "kernel.panic_on_oops",
    "fs.file-max",
];

#[derive(Debug, Serialize, Deserialize)]
struct Noted {
    boot: String,
    values: BTreeMap<String, String>,
}

/// Notes the settings as they are now, unless they have been noted since the machine was started.
pub fn save(context: &Context) -> Result<()> {
    if read_state::<Noted>(&file(context))?.is_some_and(|noted| noted.boot == boot_id()) {
        return Ok(());
    }
    let values = CHANGED.iter().filter_map(|name| Some(((*name).to_owned(), read(name)?))).collect();
    let text =
        serde_json::to_string_pretty(&Noted { boot: boot_id(), values }).context("noting the kernel settings")?;
    write_state(&file(context), &text)
}

/// Puts the settings back. What only root may change is named.
pub fn restore(context: &Context) -> Result<()> {
    let Some(noted) = read_state::<Noted>(&file(context))? else { return Ok(()) };
    if noted.boot == boot_id() {
        for (name, value) in &noted.values {
            let differs = read(name).is_some_and(|now| now != *value);
            if differs && fs::write(path(name), value).is_err() {
                note(format!("{name} was {value} before: `sudo sysctl -w {name}={value}` puts it back"));
            }
        }
    }
    remove_file(&file(context))
}

fn file(context: &Context) -> PathBuf {
    context.state().join("sysctls.json")
}

fn read(name: &str) -> Option<String> {
    fs::read_to_string(path(name)).ok().map(|value| value.trim().to_owned())
}

fn path(name: &str) -> PathBuf {
    Path::new("/proc/sys").join(name.replace('.', "/"))
}
