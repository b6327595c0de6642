//! `open-persona`: arguments, logging, then what was asked.

use std::process::ExitCode;

use clap::Parser;
use open_persona::{cli, config};

fn main() -> ExitCode {
    let arguments = cli::Arguments::parse();
    cli::log::start(config::environment("RUST_LOG").as_deref());
    cli::run(arguments)
}
