//! What the process was asked to do: the arguments of a call. Knows no setting.

use clap::{Parser, Subcommand};

use super::{Config, SmokeConfig, StoreConfig};

/// What the process was asked to do.
#[derive(Debug, Clone, Parser)]
#[command(name = "shop-api", version, about = "The HTTP service of the shop")]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Clone, Subcommand)]
pub enum Command {
    /// Serve HTTP (the default).
    Serve(Box<Config>),
    /// Create the indexes, then end; safe to repeat.
    Migrate(StoreConfig),
    /// Place an order in a running shop, see it processed, and take everything back.
    Smoke(SmokeConfig),
}

impl Cli {
    /// Reads arguments and environment; a bare call means `serve`. Ends the process with a message when they are wrong.
    pub fn read() -> Self {
        Self::parse_from(with_default_command(std::env::args()))
    }
}

fn with_default_command(args: impl Iterator<Item = String>) -> Vec<String> {
    let mut args: Vec<_> = args.collect();
    let named = args
        .get(1)
        .is_some_and(|first| !first.starts_with('-') || matches!(first.as_str(), "-h" | "--help" | "-V" | "--version"));
    if !named {
        args.insert(1.min(args.len()), "serve".to_owned());
    }
    args
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case(&["shop-api"], &["shop-api", "serve"])]
    #[case(&["shop-api", "--name", "x"], &["shop-api", "serve", "--name", "x"])]
    #[case(&["shop-api", "migrate"], &["shop-api", "migrate"])]
    #[case(&["shop-api", "--help"], &["shop-api", "--help"])]
    fn serving_is_the_default(#[case] args: &[&str], #[case] read: &[&str]) {
        assert_eq!(with_default_command(args.iter().map(ToString::to_string)), read);
    }
}
