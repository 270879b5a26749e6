//! What tests and checks have started and must take down, written down so that it outlives an interrupted run.

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

use crate::context::{Context, read_state, remove_file, write_state};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Part {
    Cluster,
    Servers,
    Operator,
}

#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Started(Vec<Part>);

impl Started {
    /// Nothing, or what an interrupted run left standing.
    pub fn load(context: &Context) -> Result<Self> {
        Ok(read_state(&file(context))?.unwrap_or_default())
    }

    /// To be called before the part is started.
    pub fn add(&mut self, context: &Context, part: Part) -> Result<()> {
        if !self.has(part) {
            self.0.push(part);
        }
        let text = serde_json::to_string(self).context("noting what is started")?;
        write_state(&file(context), &text)
    }

    pub fn has(&self, part: Part) -> bool {
        self.0.contains(&part)
    }
}

/// What tests have started stays from now on: somebody asked for it by name, or it is gone.
pub fn keep(context: &Context) -> Result<()> {
    remove_file(&file(context))
}

fn file(context: &Context) -> PathBuf {
    context.state().join("stage.json")
}
