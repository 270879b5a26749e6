//! The demo shop's accounts and keys for local use: generated once, kept in the state folder, readable by its owner only.

use std::path::PathBuf;

use anyhow::{Context as _, Result, anyhow};
use serde::{Deserialize, Serialize};

use crate::context::{Context, read_state, remove_file, write_state};

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
        read_state(&file(context))
    }

    /// Forgets them, when the database that knows them has gone.
    pub fn forget(context: &Context) -> Result<()> {
        remove_file(&file(context))
    }

    fn keep(&self, context: &Context) -> Result<()> {
        let text = serde_json::to_string_pretty(self).context("writing the demo accounts")?;
        write_state(&file(context), &text)
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
