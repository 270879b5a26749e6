//! `cargo xtask test`: all tests of the project, with the servers and the cluster that they need.
//! What was not running before is stopped afterwards; a missing server is a failure, never a skip.

use std::io::{BufRead as _, BufReader};
use std::ops::AddAssign;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context as _, Result, bail};
use clap::ValueEnum;

use crate::context::{Context, variable};
use crate::stage::Stage;

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Suite {
    /// Decisions and invariants; needs nothing but a compiler
    Unit,
    /// Store, worker and api on real servers
    Integration,
    /// The operator on the cluster's API server
    Operator,
    /// A whole shop on the whole cluster
    E2e,
}

impl Suite {
    const ALL: [Self; 4] = [Self::Unit, Self::Integration, Self::Operator, Self::E2e];

    fn name(self) -> &'static str {
        match self {
            Self::Unit => "unit",
            Self::Integration => "integration",
            Self::Operator => "operator",
            Self::E2e => "e2e",
        }
    }

    /// Folders whose files are the suite's test programs.
    fn folders(self) -> &'static [&'static str] {
        match self {
            Self::Unit => &[],
            Self::Integration => &["lib/store/tests", "api/tests", "worker/tests"],
            Self::Operator => &["operator/tests"],
            Self::E2e => &["dev/e2e/tests"],
        }
    }
}

#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// Which tests; all of them by default
    suites: Vec<Suite>,
    /// Exhaustively: every property with 20,000 cases, the API with ten times as many requests
    #[arg(long)]
    long: bool,
}

/// What test programs said of themselves.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Tally {
    passed: usize,
    failed: usize,
    ignored: usize,
}

/// What the failed tests said of themselves: shown once more at the end, where a long run is looked at first.
#[derive(Debug, Default)]
struct Failures {
    /// The report being read, as `---- name stdout ----` begins one.
    is_open: bool,
    reports: Vec<Vec<String>>,
}

impl Failures {
    /// So much of one report is shown: a panic's message without what a dump of all objects adds to it.
    const LINES: usize = 12;

    fn read(&mut self, line: &str) {
        if let Some(name) = line.strip_prefix("---- ").and_then(|line| line.strip_suffix(" stdout ----")) {
            self.is_open = true;
            self.reports.push(vec![name.to_owned()]);
        } else if line == "failures:" {
            self.is_open = false;
        } else if let (true, Some(report)) = (self.is_open, self.reports.last_mut())
            && (report.len() > 1 || line.contains(" panicked at ") || line.starts_with("Error: "))
            && report.len() <= Self::LINES
        {
            report.push(line.to_owned());
        }
    }

    fn print(&self) {
        for (name, lines) in self.reports.iter().filter_map(|report| report.split_first()) {
            println!("✗ {name}");
            for line in lines.iter().filter(|line| !line.is_empty()) {
                println!("    {line}");
            }
        }
    }
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.ignored += other.ignored;
    }
}

pub fn run(context: &Context, args: &Args) -> Result<()> {
    let _lock = context.lock()?;
    let suites: Vec<Suite> = if args.suites.is_empty() { Suite::ALL.to_vec() } else { args.suites.clone() };
    let mut stage = Stage::open(context)?;
    let (mut tally, mut failures) = (Tally::default(), Failures::default());
    let outcome = run_suites(context, (&mut stage, &mut tally, &mut failures), &suites, args.long);
    let struck = stage.strike(context);
    failures.print();
    println!("{} passed, {} failed", tally.passed, tally.failed);
    if let (Err(_), Err(error)) = (&outcome, &struck) {
        eprintln!("error: taking down what was started for the tests: {error:#}");
    }
    outcome?;
    struck?;
    match tally {
        Tally { failed: 0, ignored: 0, passed: 1.. } => Ok(()),
        Tally { failed: 0, ignored: 0, .. } => bail!("no test was found"),
        Tally { failed: 0, ignored, .. } => bail!("{ignored} tests are marked ignored: run them or remove them"),
        Tally { failed, .. } => bail!("{failed} tests failed; each is named above, with what it said"),
    }
}

/// Adds up what the suites say, also of those before one that could not be run.
fn run_suites(
    context: &Context,
    (stage, total, failures): (&mut Stage, &mut Tally, &mut Failures),
    suites: &[Suite],
    long: bool,
) -> Result<()> {
    for &suite in suites {
        println!("▶ {} tests", suite.name());
        let started = Instant::now();
        let env = match suite {
            Suite::Unit => Vec::new(),
            Suite::Integration => stage.fuzzer(context)?,
            Suite::Operator => stage.cluster(context)?,
            Suite::E2e => stage.operator(context)?,
        };
        let tally = cargo_test(context, suite, (&env, long), failures)?;
        println!(
            "  {} tests: {} passed, {} failed in {} s",
            suite.name(),
            tally.passed,
            tally.failed,
            started.elapsed().as_secs()
        );
        *total += tally;
    }
    Ok(())
}

fn cargo_test(
    context: &Context,
    suite: Suite,
    (env, long): (&[(&'static str, String)], bool),
    failures: &mut Failures,
) -> Result<Tally> {
    let mut cargo = Command::new(variable("CARGO").unwrap_or_else(|| "cargo".into()));
    // Always the whole workspace: with a part of it cargo unifies features anew and compiles dependencies again.
    cargo.args(["test", "--locked", "--workspace", "--no-fail-fast"]).current_dir(&context.repo);
    match suite {
        Suite::Unit => {
            cargo.args(["--lib", "--bins"]);
        }
        _ => {
            for name in programs(context, suite)? {
                cargo.args(["--test", &name]);
            }
        }
    }
    cargo.arg("--").args(threads(suite));
    cargo.envs(env.iter().map(|(name, value)| (*name, value)));
    if long {
        cargo.env("PROPTEST_CASES", "20000").env("SHOP_TEST_LONG", "1");
    }
    let mut child = cargo.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().context("starting cargo test")?;
    let output = child.stdout.take().context("cargo test has no output")?;
    let mut tally = Tally::default();
    for line in BufReader::new(output).lines() {
        let line = line.context("reading the output of cargo test")?;
        println!("{line}");
        failures.read(&line);
        if let Some(result) = read_result(&line) {
            tally += result;
        }
    }
    if !child.wait().context("waiting for cargo test")?.success() && tally.failed == 0 {
        bail!("cargo test ended without running all tests; its message is above");
    }
    Ok(tally)
}

/// Tests on a cluster each bring a shop of their own: two cores carry two of them.
fn threads(suite: Suite) -> &'static [&'static str] {
    match suite {
        Suite::E2e => &["--test-threads=2"],
        Suite::Operator => &["--test-threads=4"],
        Suite::Unit | Suite::Integration => &[],
    }
}

/// Names of the suite's test programs: the files of its folders.
fn programs(context: &Context, suite: Suite) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for folder in suite.folders() {
        let folder = context.repo.join(folder);
        let files = folder.read_dir().with_context(|| format!("reading {}", folder.display()))?;
        for file in files {
            let path = file.with_context(|| format!("reading {}", folder.display()))?.path();
            names.extend(program(&path));
        }
    }
    names.sort();
    // Programs of one name in several crates are run by that one name.
    names.dedup();
    Ok(names)
}

/// A file, or a folder with a `main.rs`, as cargo has it.
fn program(path: &Path) -> Option<String> {
    let is_program = path.extension().is_some_and(|extension| extension == "rs") || path.join("main.rs").is_file();
    is_program.then(|| path.file_stem()?.to_str().map(str::to_owned))?
}

/// Reads `test result: ok. 3 passed; 0 failed; 0 ignored; …`.
fn read_result(line: &str) -> Option<Tally> {
    let counts = line.strip_prefix("test result: ")?.split_once(". ")?.1;
    let count = |word: &str| {
        let part = counts.split("; ").find_map(|part| part.strip_suffix(word))?;
        part.trim().parse().ok()
    };
    Some(Tally { passed: count("passed")?, failed: count("failed")?, ignored: count("ignored")? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cargos_closing_lines_are_counted() {
        let line = "test result: FAILED. 12 passed; 3 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.02s";
        assert_eq!(read_result(line), Some(Tally { passed: 12, failed: 3, ignored: 1 }));
        assert_eq!(read_result("test result: nonsense"), None);
        assert_eq!(read_result("test stock::tests::x ... ok"), None);
    }

    #[test]
    fn what_failed_tests_said_is_kept_for_the_end() {
        let mut failures = Failures::default();
        let output = "failures:\n\n---- a::b stdout ----\na log line\n\nthread 'a::b' (7) panicked at src/a.rs:3:5:\n\
                      left is not right\n\n---- c stdout ----\nError: it is down\n\nfailures:\n    a::b\n    c\n";
        output.lines().for_each(|line| failures.read(line));
        let kept: Vec<_> = failures.reports.iter().map(|report| report.join("|")).collect();
        assert_eq!(
            kept,
            ["a::b|thread 'a::b' (7) panicked at src/a.rs:3:5:|left is not right|", "c|Error: it is down|"]
        );
    }

    #[test]
    fn test_programs_are_found_as_cargo_finds_them() {
        assert_eq!(program(Path::new("a/orders.rs")), Some("orders".to_owned()));
        assert_eq!(program(Path::new("a/snapshots")), None);
        assert_eq!(program(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/src"))), Some("src".to_owned()));
    }
}
