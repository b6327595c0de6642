//! The command line and the environment of a child.

use std::{io, net::Ipv4Addr, os::unix::ffi::OsStrExt, path::PathBuf};

use tokio::{net::TcpListener, process::Command};

use super::{Home, LaunchError, ProcessLauncher};
use crate::{
    config::Dialect, egress::grant::Start, launcher::Spec, opencode::settings, secret::Secret,
};

/// Where a child is to listen.
#[derive(Debug)]
pub(super) enum Listens {
    /// On a port of its own choice, which it announces: no two ever get the same.
    Announced,
    /// On a port of ours.
    Port(u16),
    /// On a socket in its own directory.
    Socket(PathBuf),
}

impl Listens {
    /// Whether somebody else has the port that we chose.
    pub(super) async fn is_taken(&self) -> bool {
        match self {
            Self::Port(port) => {
                let bound = TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).await;
                bound.is_err_and(|error| error.kind() == io::ErrorKind::AddrInUse)
            }
            Self::Announced | Self::Socket(_) => false,
        }
    }
}

impl ProcessLauncher {
    /// Where the next child is to listen, by the placeholders in the command.
    pub(super) async fn listens(
        &self,
        dialect: Dialect,
        home: &Home,
    ) -> Result<Listens, LaunchError> {
        let names = |placeholder| self.command.iter().any(|word| word.contains(placeholder));
        if dialect == Dialect::Opencode {
            Ok(Listens::Announced)
        } else if names(SOCKET) {
            let path = home.socket();
            if path.as_os_str().as_bytes().len() > LONGEST_SOCKET {
                return Err(LaunchError::Spawn(format!(
                    "the path of its socket has more than {LONGEST_SOCKET} bytes; \
                     configure a shorter data directory"
                )));
            }
            Ok(Listens::Socket(path))
        } else if names(PORT) {
            let free = async { TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?.local_addr() };
            let address = free.await.map_err(|error| LaunchError::Spawn(error.to_string()))?;
            Ok(Listens::Port(address.port()))
        } else {
            Err(LaunchError::Spawn(format!("its command names neither {PORT} nor {SOCKET}")))
        }
    }

    /// The command of a runner that asks for `key`.
    pub(super) fn command(
        &self,
        spec: &Spec,
        start: &Start,
        listens: &Listens,
        home: &Home,
        key: &Secret,
    ) -> Result<Command, LaunchError> {
        let mut words = self.command.iter().map(|word| fill(word, spec, listens));
        let program = words.next().filter(|program| !program.is_empty());
        let program = program.ok_or_else(|| LaunchError::Spawn("its command is empty".into()))?;
        let mut command = Command::new(program);
        command.args(words).current_dir(&spec.directory).env_clear();
        for (name, secret) in &self.environment {
            command.env(name, secret.expose());
        }
        // Last, so that nothing configured takes their place.
        command.env("PATH", &self.path).envs(home.environment(spec.dialect));
        command.env(EGRESS_URL, &spec.egress_url).env(settings::TOKEN, start.token.expose());
        let (mark, value) = self.ledger.mark_of(&spec.workspace, start.epoch);
        command.env(mark, value);
        match spec.dialect {
            Dialect::Opencode => {
                command.args(["serve", "--hostname", "127.0.0.1", "--port", "0"]);
                command.env("OPENCODE_SERVER_PASSWORD", key.expose());
                // Whatever other files say, this is merged last.
                command.env("OPENCODE_CONFIG_CONTENT", &spec.opencode_overrides);
            }
            Dialect::OpenAi => {
                command.env("OPEN_PERSONA_RUNNER_KEY", key.expose());
            }
        }
        // Should the runtime go away before the keeper could do its work.
        command.kill_on_drop(true);
        Ok(command)
    }

    /// Everything that must not be seen of what a child writes.
    pub(super) fn known(&self, start: &Start, key: &Secret) -> Vec<Secret> {
        self.environment.values().chain([&start.token, key]).cloned().collect()
    }
}

fn fill(word: &str, spec: &Spec, listens: &Listens) -> String {
    let word = match listens {
        Listens::Announced => return word.to_owned(),
        Listens::Port(port) => word.replace(PORT, &port.to_string()),
        Listens::Socket(path) => word.replace(SOCKET, &path.to_string_lossy()),
    };
    word.replace("{workspace}", &spec.directory.to_string_lossy())
}

/// Where a program that is no opencode finds the way to the providers.
const EGRESS_URL: &str = "OPEN_PERSONA_EGRESS_URL";
const PORT: &str = "{port}";
const SOCKET: &str = "{socket}";
/// `sun_path` has 108 bytes, the last of them zero.
const LONGEST_SOCKET: usize = 107;
