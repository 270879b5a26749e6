//! Prints an answer: as text for people, or as JSON.

use std::io::{IsTerminal as _, Write as _};

use anyhow::{Context as _, Result};
use serde::Serialize;

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    Text,
    Json,
}

#[derive(Clone, Copy, Debug)]
pub struct Output {
    pub format: Format,
}

impl Output {
    /// One answer. A reader that has gone away is no error.
    pub fn print(self, answer: &impl Serialize, text: impl FnOnce() -> String) -> Result<()> {
        let shown = match self.format {
            Format::Text => text(),
            Format::Json => serde_json::to_string_pretty(answer).context("cannot write the answer as JSON")? + "\n",
        };
        write(&shown)
    }

    /// One of many answers: as text in place of the one before where that is a terminal's, as JSON one to a line.
    pub fn print_next(self, answer: &impl Serialize, text: impl FnOnce() -> String) -> Result<()> {
        let shown = match self.format {
            Format::Json => serde_json::to_string(answer).context("cannot write the answer as JSON")? + "\n",
            Format::Text if std::io::stdout().is_terminal() => format!("\x1b[H\x1b[J{}", text()),
            Format::Text => text() + "\n",
        };
        write(&shown)
    }
}

fn write(shown: &str) -> Result<()> {
    let mut out = anstream::stdout().lock();
    match out.write_all(shown.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error).context("cannot write the answer"),
        _ => Ok(()),
    }
}
