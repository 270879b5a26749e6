//! The command line. What each command does is in its own file.

use clap::{Parser, Subcommand, ValueEnum};
use clap_complete::Shell;

use crate::{cluster::Reach, dead_letters, output::Format, simulate, staff::Staff};

/// Looks at shops, explains and simulates their scaling, and asks what only their staff may ask.
#[derive(Debug, Parser)]
#[command(name = "kubectl-shop", bin_name = "kubectl shop", version, about, disable_help_subcommand = true)]
#[command(after_help = "Exit codes: 0 done, 1 the shop's doctor found something, 2 could not be done.")]
pub struct Cli {
    #[command(flatten)]
    pub reach: Reach,
    /// Text for people, or JSON
    #[arg(short, long, global = true, value_enum, default_value = "text")]
    pub output: Format,
    /// Colours: auto is on a terminal, unless `NO_COLOR` is set
    #[arg(long, global = true, value_enum, default_value = "auto", value_name = "WHEN")]
    pub color: When,
    #[command(subcommand)]
    pub command: Command,
}

/// When to use colours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum When {
    Auto,
    Always,
    Never,
}

impl When {
    /// Sets it for all streams of the process.
    pub fn choose(self) {
        let choice = match self {
            Self::Auto => anstream::ColorChoice::Auto,
            Self::Always => anstream::ColorChoice::Always,
            Self::Never => anstream::ColorChoice::Never,
        };
        choice.write_global();
    }
}

#[derive(Clone, Debug, clap::Args)]
pub struct Name {
    /// Name of the ShopDeployment
    #[arg(add = crate::completion::shops())]
    pub name: String,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Conditions, pods, queue and scaling on one screen
    Status {
        #[command(flatten)]
        name: Name,
        /// Draw it again whenever something changes, until Ctrl-C
        #[arg(short, long)]
        watch: bool,
    },
    /// The scaler's last decision term by term, and what would change it
    Why {
        #[command(flatten)]
        name: Name,
    },
    /// What a shop's scaling makes of a load, beside what KEDA, an HPA and AWS's rule would
    Simulate(simulate::Args),
    /// Have the shop examine itself: its servers, indexes, ledger and clock
    Doctor {
        #[command(flatten)]
        name: Name,
        #[command(flatten)]
        staff: Staff,
    },
    /// Work that was given up: show it, or have it taken up again
    #[command(subcommand)]
    DeadLetters(dead_letters::Action),
    /// Have the operator change nothing of a shop any more, or only not its number of workers
    Pause {
        #[command(flatten)]
        name: Name,
        /// Only the number of workers stays as it is
        #[arg(long, conflicts_with = "scale_down")]
        scaling: bool,
        /// Only: no worker is taken away
        #[arg(long)]
        scale_down: bool,
    },
    /// Undo every pause, and a suspension
    Resume {
        #[command(flatten)]
        name: Name,
    },
    /// Zero api and worker pods; everything else is kept
    Suspend {
        #[command(flatten)]
        name: Name,
    },
    /// Print a completion script for kubectl-shop
    Completion { shell: Shell },
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;
    use rstest::rstest;

    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[rstest]
    #[case::flags_after_the_name(&["status", "demo", "-n", "xhipment", "-o", "json", "--watch"])]
    #[case::flags_before(&["-n", "xhipment", "why", "demo", "--context", "kind"])]
    #[case::file(&["simulate", "-f", "shop.yaml", "--generate", "long-jobs"])]
    #[case::live(&["simulate", "demo", "--trace", "t.csv", "--plot", "t.svg"])]
    #[case::one_letter(&["dead-letters", "redrive", "demo", "--id", "67c8830b7ef1b848ac52ebec"])]
    fn lines_that_are_taken(#[case] line: &[&str]) {
        Cli::try_parse_from(["kubectl-shop"].iter().chain(line)).unwrap();
    }

    #[rstest]
    #[case::no_shop(&["simulate"])]
    #[case::two_shops(&["simulate", "demo", "-f", "shop.yaml"])]
    #[case::two_loads(&["simulate", "demo", "--trace", "t.csv", "--generate", "step"])]
    #[case::redrive_what(&["dead-letters", "redrive", "demo"])]
    #[case::redrive_both(&["dead-letters", "redrive", "demo", "--all", "--id", "67c8830b7ef1b848ac52ebec"])]
    #[case::no_id(&["dead-letters", "redrive", "demo", "--id", "42"])]
    #[case::a_password_is_no_argument(&["doctor", "demo", "--password", "secret"])]
    #[case::two_pauses(&["pause", "demo", "--scaling", "--scale-down"])]
    fn lines_that_are_refused(#[case] line: &[&str]) {
        let refused = Cli::try_parse_from(["kubectl-shop"].iter().chain(line)).unwrap_err();
        assert_eq!(refused.exit_code(), 2);
    }
}
