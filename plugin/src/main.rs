//! `kubectl shop`: looks at shops, explains and simulates their scaling, and asks what only their staff may ask.
//! Only dispatch; each command has its own file.

mod cli;
mod cluster;
mod completion;
mod dead_letters;
mod doctor;
mod output;
mod problem;
mod simulate;
mod staff;
mod status;
mod switch;
mod text;
mod why;

use std::process::ExitCode;

use clap::Parser;

use crate::{
    cli::{Cli, Command},
    cluster::Cluster,
    output::Output,
    switch::{Change, Pause},
};

/// How a command ended, where it did end: 0 and 1. What could not be done is 2, as clap has it for what it cannot read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Fine,
    /// The shop itself says that something is wrong.
    Unwell,
}

fn main() -> ExitCode {
    if completion::asked_by_kubectl() {
        completion::answer();
        return ExitCode::SUCCESS;
    }
    let cli = Cli::parse();
    cli.color.choose();
    match run(cli) {
        Ok(Verdict::Fine) => ExitCode::SUCCESS,
        Ok(Verdict::Unwell) => ExitCode::from(1),
        Err(error) => {
            anstream::eprintln!("{} {error:#}", text::toned(text::Tone::Bad, "error:"));
            ExitCode::from(2)
        }
    }
}

#[tokio::main(flavor = "current_thread")]
async fn run(cli: Cli) -> anyhow::Result<Verdict> {
    shop_runtime::install_tls_provider();
    let (reach, output) = (&cli.reach, Output { format: cli.output });
    match cli.command {
        Command::Simulate(args) => simulate::simulate(reach, output, &args).await?,
        Command::Completion { shell } => completion::script(shell),
        Command::Status { name, watch: false } => {
            status::once(&Cluster::connect(reach).await?, output, &name.name).await?;
        }
        Command::Status { name, watch: true } => {
            status::watch(&Cluster::connect(reach).await?, output, &name.name).await?;
        }
        Command::Why { name } => why::why(&Cluster::connect(reach).await?, output, &name.name).await?,
        Command::Doctor { name, staff } => {
            return doctor::doctor(&Cluster::connect(reach).await?, output, (&name.name, &staff)).await;
        }
        Command::DeadLetters(action) => dead_letters::run(&Cluster::connect(reach).await?, output, &action).await?,
        Command::Pause { name, scaling, scale_down } => {
            let pause = Pause::of(scaling, scale_down);
            switch::switch(&Cluster::connect(reach).await?, output, (&name.name, Change::Pause(pause))).await?;
        }
        Command::Resume { name } => {
            switch::switch(&Cluster::connect(reach).await?, output, (&name.name, Change::Resume)).await?;
        }
        Command::Suspend { name } => {
            switch::switch(&Cluster::connect(reach).await?, output, (&name.name, Change::Suspend)).await?;
        }
    }
    Ok(Verdict::Fine)
}
