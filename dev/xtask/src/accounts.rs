//! The demo shop's accounts and keys for local use: generated once, kept in the state folder, readable by its owner only.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;

use anyhow::{Context as _, Result, anyhow};
use serde::{Deserialize, Serialize};

use crate::context::Context;

#[derive(Clone, Serialize, Deserialize)]
pub struct Account {
    pub email: String,
    pub password: String,
}

impl std::fmt::Debug for Account {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Account").field("email", &self.email).finish_non_exhaustive()
    }
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Accounts {
    pub staff: Account,
    pub customer: Account,
}

impl Accounts {
    /// The accounts of an earlier run, or new ones.
    pub fn ensure(context: &Context) -> Result<Self> {
        if let Some(accounts) = Self::kept(context)? {
            return Ok(accounts);
        }
        let accounts = Self { staff: generate("staff@example.com")?, customer: generate("customer@example.com")? };
        accounts.keep(context)?;
        Ok(accounts)
    }

    /// The accounts of an earlier run.
    pub fn kept(context: &Context) -> Result<Option<Self>> {
        let file = file(context);
        let Ok(text) = fs::read_to_string(&file) else { return Ok(None) };
        let accounts = serde_json::from_str(&text);
        accounts
            .map(Some)
            .with_context(|| format!("{} is damaged: remove it and run `cargo xtask up` again", file.display()))
    }

    /// Forgets them, when the database that knows them has gone.
    pub fn forget(context: &Context) -> Result<()> {
        let file = file(context);
        match fs::remove_file(&file) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(error).with_context(|| format!("removing {}", file.display()))
            }
            _ => Ok(()),
        }
    }

    fn keep(&self, context: &Context) -> Result<()> {
        let file = file(context);
        let writing = || format!("writing {}", file.display());
        let text = serde_json::to_string_pretty(self).with_context(writing)?;
        let mut open = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&file).with_context(writing)?;
        open.write_all(text.as_bytes()).with_context(writing)
    }
}

fn generate(email: &str) -> Result<Account> {
    let mut bytes = [0; 12];
    getrandom::fill(&mut bytes).map_err(|error| anyhow!("the operating system gave no random bytes: {error}"))?;
    Ok(Account { email: email.to_owned(), password: hex::encode(bytes) })
}

fn file(context: &Context) -> PathBuf {
    context.state().join("accounts.json")
}
