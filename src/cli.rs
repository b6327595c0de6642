//! The command line: what can be asked, and what is printed when the answer is no.

pub mod log;
mod usage;

use std::{
    error::Error,
    io::{ErrorKind, Write},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use clap::{Parser, Subcommand};

use crate::{
    config::{self, ConfigError},
    demo, scrub, serve,
    workspace::WorkspaceId,
};

/// A private opencode agent for every Open WebUI user, behind one OpenAI-compatible URL.
#[derive(Debug, Parser)]
#[command(
    name = "open-persona",
    version,
    arg_required_else_help = true,
    after_help = "To try it without any key, in two terminals:\n  \
                  open-persona demo-model\n  \
                  DEFAULT_MAIN_MODEL=demo/demo open-persona serve"
)]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the gateway until SIGTERM or Ctrl-C.
    ///
    /// A saved change of the configuration takes effect at once; so does one after SIGHUP. What is
    /// wrong is logged and changes nothing.
    #[command(after_help = "Example:\n  open-persona serve --config conf/production.yaml")]
    Serve {
        /// The configuration file.
        #[arg(long, value_name = "FILE", default_value = DEFAULT_CONFIG)]
        config: PathBuf,
    },
    /// Check a configuration and print what is in effect, every secret as ***.
    ///
    /// Exits with 2 and says where and what when something is wrong. Starts nothing.
    #[command(after_help = "Example:\n  open-persona check --config conf/production.yaml")]
    Check {
        /// The configuration file.
        #[arg(long, value_name = "FILE", default_value = DEFAULT_CONFIG)]
        config: PathBuf,
    },
    /// Ask about workspaces, the users' private directories.
    #[command(subcommand, arg_required_else_help = true)]
    Workspace(Workspace),
    /// Print what users have used of the models: calls, tokens, dollars.
    ///
    /// Works while the gateway runs and when it does not, and changes nothing. Days are UTC's.
    #[command(after_help = "Example:\n  \
                            open-persona usage --from 2025-01-01 --to 2025-01-31 --by user --csv")]
    Usage(usage::Question),
    /// Run a DEMO model provider: OpenAI-compatible, with scripted answers, for trying things.
    ///
    /// It needs no key and is no model. conf/gateway.yaml has it as `demo/demo`.
    #[command(
        after_help = "Example:\n  open-persona demo-model --listen 127.0.0.1:8001 --delay 30ms"
    )]
    DemoModel {
        /// Where it listens.
        #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:8001")]
        listen: SocketAddr,
        /// How long it takes for each token.
        #[arg(long, value_name = "DURATION", default_value = "30ms", value_parser = delay)]
        delay: Duration,
    },
}

#[derive(Debug, Subcommand)]
enum Workspace {
    /// Print the id of a user's workspace: the first 16 hex digits of SHA-256(user id).
    #[command(after_help = "Example:\n  \
                            cat workspaces/$(open-persona workspace id testuser)/openwebui.config")]
    Id {
        /// The user id, as the front end gives it: 1 to 512 bytes, used as it is.
        #[arg(value_parser = user)]
        user: String,
    },
}

/// Does what was asked. The exit code is 0, 1 for a failure, or 2 for a wrong configuration.
pub fn run(arguments: Arguments) -> ExitCode {
    let done = match arguments.command {
        Command::Serve { config } => serve::run(&config),
        Command::Check { config } => check(&config),
        Command::Workspace(Workspace::Id { user }) => {
            print(&format!("{}\n", WorkspaceId::of(&user)))
        }
        Command::Usage(question) => usage::answer(question),
        Command::DemoModel { listen, delay } => demo_model(listen, delay),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => ExitCode::from(complain(&*e)),
    }
}

fn check(path: &Path) -> Result<(), Box<dyn Error>> {
    print(&config::load(path, &config::environment)?.to_yaml())
}

fn demo_model(listen: SocketAddr, delay: Duration) -> Result<(), Box<dyn Error>> {
    let runtime = tokio::runtime::Runtime::new()?;
    runtime.block_on(demo::serve(listen, delay)).map_err(|e| format!("{listen}: {e}").into())
}

fn print(text: &str) -> Result<(), Box<dyn Error>> {
    let mut out = std::io::stdout().lock();
    match out.write_all(scrub::known(text).as_bytes()).and_then(|()| out.flush()) {
        // As with `| head`: whoever reads has enough.
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        printed => Ok(printed?),
    }
}

fn warn(text: &str) {
    // With stderr closed there is nobody to tell.
    std::io::stderr().lock().write_all(scrub::known(text).as_bytes()).ok();
}

/// Says on stderr what went wrong and what to do, and returns the exit code.
fn complain(error: &(dyn Error + 'static)) -> u8 {
    let mut text = format!("error: {error}\n");
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str("  because: ");
        text.push_str(&error.to_string());
        text.push('\n');
        cause = error.source();
    }
    let config = error.downcast_ref::<ConfigError>();
    if let Some(e) = config {
        text.push_str("  hint: ");
        text.push_str(e.hint());
        text.push('\n');
    }
    warn(&text);
    if config.is_some() { 2 } else { 1 }
}

fn delay(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text)
        .ok()
        .filter(|delay| *delay <= Duration::from_mins(1))
        .ok_or_else(|| "write a duration of at most a minute, such as `30ms`".to_owned())
}

fn user(text: &str) -> Result<String, String> {
    match text.len() {
        1..=512 => Ok(text.to_owned()),
        _ => Err("a user id has 1 to 512 bytes".to_owned()),
    }
}

const DEFAULT_CONFIG: &str = "conf/gateway.yaml";

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_commands_hold_together_and_each_help_has_an_example() {
        let mut command = Arguments::command();
        command.clone().debug_assert();
        for path in [&["serve"][..], &["check"], &["workspace", "id"], &["usage"], &["demo-model"]]
        {
            let found = path
                .iter()
                .fold(&mut command, |command, name| command.find_subcommand_mut(name).expect(name));
            let help = found.render_long_help().to_string();
            assert!(help.contains("Example:\n  "), "{help}");
        }
    }

    #[test]
    fn wrong_arguments_are_refused() {
        for line in [
            "open-persona",
            "open-persona sreve",
            "open-persona serve --confg x",
            "open-persona workspace",
            "open-persona workspace id",
            "open-persona usage --from 1.1.2025",
            "open-persona usage --to 2025-02-29",
            "open-persona usage --model gemini",
            "open-persona usage --by team",
            "open-persona usage --by",
            "open-persona usage --state x --config y",
            "open-persona demo-model --delay 30",
            "open-persona demo-model --delay 2h",
            "open-persona demo-model --listen 8001",
        ] {
            assert!(Arguments::try_parse_from(line.split(' ')).is_err(), "{line}");
        }
        assert!(Arguments::try_parse_from(["open-persona", "workspace", "id", ""]).is_err());
        let long = "x".repeat(513);
        assert!(Arguments::try_parse_from(["open-persona", "workspace", "id", &long]).is_err());
    }

    #[test]
    fn the_configuration_has_a_default_place() {
        let arguments = Arguments::try_parse_from(["open-persona", "check"]).unwrap();
        let Command::Check { config } = arguments.command else { panic!("{arguments:?}") };
        assert_eq!(config, Path::new("conf/gateway.yaml"));
    }
}
