//! Completion: a script for the shells, and answers to kubectl, which asks `kubectl_complete-shop` what may come next.

use std::{ffi::OsString, fmt::Write as _, path::Path, time::Duration};

use clap::{Command, CommandFactory};
use clap_complete::{
    CompletionCandidate, Shell,
    engine::{ArgValueCandidates, complete},
};

use crate::{
    cli::Cli,
    cluster::{Cluster, Reach},
};

/// The name under which kubectl asks.
const ASKED_AS: &str = "kubectl_complete-shop";
/// Nobody waits longer for a completion.
const PATIENCE: Duration = Duration::from_secs(2);
// What kubectl's completion does with the candidates: cobra's ShellCompDirective.
const NO_SPACE: u8 = 2;
const NO_FILES: u8 = 4;

/// Completes the names of shops.
pub fn shops() -> ArgValueCandidates {
    ArgValueCandidates::new(|| names(&words()).into_iter().map(CompletionCandidate::new).collect())
}

/// Prints the script that completes kubectl-shop when it is called by that name.
pub fn script(shell: Shell) {
    clap_complete::generate(shell, &mut Cli::command(), "kubectl-shop", &mut std::io::stdout());
}

pub fn asked_by_kubectl() -> bool {
    let program = std::env::args_os().next().unwrap_or_default();
    Path::new(&program).file_name().is_some_and(|name| name == ASKED_AS)
}

/// Prints what may come in place of the last word.
pub fn answer() {
    print!("{}", candidates(&mut Cli::command(), words()));
}

fn words() -> Vec<OsString> {
    std::env::args_os().skip(1).collect()
}

/// One candidate to a line, its description behind a tab, and the directive.
fn candidates(command: &mut Command, words: Vec<OsString>) -> String {
    let line: Vec<_> = std::iter::once(OsString::from(ASKED_AS)).chain(words).collect();
    let last = line.len() - 1;
    let found = complete(command, line, last, Some(Path::new("."))).unwrap_or_default();
    let mut text = String::new();
    let mut directive = NO_FILES;
    for candidate in found.iter().filter(|candidate| !candidate.is_hide_set()) {
        let value = candidate.get_value().to_string_lossy();
        let help = candidate.get_help().map(|help| format!("\t{help}")).unwrap_or_default();
        let _ = writeln!(text, "{value}{}", help.lines().next().unwrap_or_default());
        if value.ends_with('/') {
            directive |= NO_SPACE;
        }
    }
    text + &format!(":{directive}\n")
}

/// The shops in the namespace that the line so far leads to; none where the cluster does not say in time.
fn names(words: &[OsString]) -> Vec<String> {
    let reach = reach(words);
    let list = async { Some(Cluster::connect(&reach).await.ok()?.names().await) };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    shop_runtime::install_tls_provider();
    let names =
        runtime.ok().and_then(|runtime| runtime.block_on(async { tokio::time::timeout(PATIENCE, list).await.ok() }));
    names.flatten().unwrap_or_default()
}

/// The flags of a line that is not whole yet.
fn reach(words: &[OsString]) -> Reach {
    let words: Vec<_> = words.iter().map(|word| word.to_string_lossy()).collect();
    let flag = |names: &[&str]| {
        let mut found = None;
        for (at, word) in words.iter().enumerate() {
            if names.contains(&&**word) {
                found = words.get(at + 1).map(std::string::ToString::to_string);
            } else if let Some((_, value)) = word.split_once('=').filter(|(name, _)| names.contains(name)) {
                found = Some(value.to_owned());
            }
        }
        found
    };
    Reach {
        namespace: flag(&["-n", "--namespace"]),
        context: flag(&["--context"]),
        kubeconfig: flag(&["--kubeconfig"]).map(Into::into),
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn asked(line: &[&str]) -> String {
        candidates(&mut Cli::command(), line.iter().map(OsString::from).collect())
    }

    #[rstest]
    #[case::commands(&["st"], "status\tConditions, pods, queue and scaling on one screen\n:4\n")]
    #[case::of_a_command(&["dead-letters", "re"], "redrive\t")]
    #[case::values(&["simulate", "--generate", "fl"], "flapping\t")]
    #[case::flags(&["status", "--wa"], "--watch\t")]
    #[case::formats(&["-o", "j"], "json\n")]
    fn kubectl_is_answered(#[case] line: &[&str], #[case] begins: &str) {
        let answer = asked(line);
        assert!(answer.starts_with(begins) && answer.ends_with(":4\n"), "{answer}");
    }

    #[test]
    fn the_line_so_far_says_where_to_look() {
        let words = ["status", "-n", "one", "--namespace=two", "--context", "kind", "de"].map(OsString::from);
        let reach = reach(&words);
        assert_eq!((reach.namespace.as_deref(), reach.context.as_deref()), (Some("two"), Some("kind")));
        assert_eq!(reach.kubeconfig, None);
    }
}
