//! The launcher `process`: a child process for each workspace.
//!
//! Children are kept apart by their directories, environments and passwords, and nothing of them
//! outlives its runner unless it hides on purpose. They all run as the gateway's own user, so
//! this is no wall between people who would attack each other.

mod child;
mod command;
mod home;
mod ledger;
mod output;
mod procfs;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, HashMap},
    ffi::OsString,
    fs::Metadata,
    net::Ipv4Addr,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use async_trait::async_trait;
use parking_lot::Mutex;
use tokio::time::{Instant, sleep_until, timeout_at};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use self::{
    child::{Child, Nursery},
    command::Listens,
    home::Home,
    ledger::Ledger,
    output::Output,
};
use super::{LaunchError, Launcher, Spec, probe};
use crate::{
    config::{Address, Dialect},
    egress::grant::Start,
    opencode,
    runner::{Backend, Runner},
    secret::Secret,
    state::{State, StateError},
    workspace::WorkspaceId,
};

/// Starts each runner as a child of the gateway.
#[derive(Debug)]
pub struct ProcessLauncher {
    command: Vec<String>,
    data: PathBuf,
    environment: BTreeMap<String, Secret>,
    path: OsString,
    ledger: Ledger,
    /// The runners that were not stopped yet, by workspace and epoch.
    children: Mutex<HashMap<(WorkspaceId, u64), Arc<Child>>>,
    /// One task for each child, ending when nothing of the child is left.
    keepers: TaskTracker,
    /// Ends the children that are left.
    closing: CancellationToken,
}

impl ProcessLauncher {
    /// A launcher that runs `command`: for opencode the program and its arguments before `serve`;
    /// otherwise everything, with `{workspace}` and either `{port}` or `{socket}` in it. A socket
    /// is the safer choice: between our choice of a port and the runner's use of it, another
    /// process can take it.
    ///
    /// Each runner gets a directory below `data`, and nothing from the gateway's environment but
    /// `path` as its `PATH`; `environment` is added. Its process is remembered in `state`.
    pub fn new(
        command: Vec<String>,
        data: &Path,
        environment: BTreeMap<String, Secret>,
        path: OsString,
        state: State,
    ) -> Result<Self, StateError> {
        Ok(Self {
            command,
            // The child's working directory is another one. Fails only for an empty path.
            data: std::path::absolute(data).unwrap_or_else(|_| data.to_owned()),
            environment,
            path,
            ledger: Ledger::of(state)?,
            children: Mutex::default(),
            keepers: TaskTracker::new(),
            closing: CancellationToken::new(),
        })
    }

    async fn start(
        &self,
        spec: &Spec,
        birth: &Start,
        listens: &Listens,
        home: &Home,
        deadline: Instant,
    ) -> Result<Arc<Runner>, LaunchError> {
        let key = Secret::new(random_hex());
        let epoch = birth.epoch;
        let command = self.command(spec, birth, listens, home, &key)?;
        let nursery = Nursery {
            workspace: &spec.workspace,
            mark: {
                let (name, value) = self.ledger.mark_of(&spec.workspace, epoch);
                format!("{name}={value}")
            },
            stop_timeout: spec.stop_timeout,
            ledger: &self.ledger,
            keepers: &self.keepers,
            kill: self.closing.child_token(),
        };
        let output = Output::of(format!("workspace={}", spec.workspace), self.known(birth, &key));
        let program = command.as_std().get_program().to_owned();
        let child = Child::spawn(command, output, nursery)
            .map_err(|error| LaunchError::Spawn(format!("{}: {error}", program.display())))?;
        let guard = child.kill_on_drop();
        let ready = tokio::select! {
            biased;
            () = child.ended.cancelled() => Err(child.died()),
            ready = ready(spec, birth, listens, &child, key) => ready,
            () = sleep_until(deadline) => Err(LaunchError::Timeout(spec.start_timeout)),
        };
        if let Err(error) = ready {
            child.kill().await;
            return Err(error);
        }
        guard.disarm();
        self.children.lock().insert((spec.workspace.clone(), epoch), Arc::new(child));
        ready.map(Arc::new)
    }
}

#[async_trait]
impl Launcher for ProcessLauncher {
    async fn launch(&self, spec: &Spec, start: &Start) -> Result<Arc<Runner>, LaunchError> {
        let deadline = Instant::now() + spec.start_timeout;
        if !spec.directory.is_dir() {
            return Err(LaunchError::Spawn("its workspace is not there".to_owned()));
        }
        let (data, wanted) = (self.data.clone(), spec.clone());
        let home = tokio::task::spawn_blocking(move || Home::prepare(&data, &wanted));
        let home = timeout_at(deadline, home)
            .await
            .map_err(|_| LaunchError::Timeout(spec.start_timeout))?
            .map_err(|error| LaunchError::Spawn(error.to_string()))?
            .map_err(|error| LaunchError::Spawn(format!("its directory: {error}")))?;
        home.take_out_trash(&self.path);
        // Children are on this machine, and so is the egress they are told of.
        start.grant.bind(Ipv4Addr::LOCALHOST.into());
        let mut tries = 1;
        loop {
            let listens = self.listens(spec.dialect, &home).await?;
            match self.start(spec, start, &listens, &home, deadline).await {
                Err(LaunchError::Died { .. }) if tries < TRIES && listens.is_taken().await => {
                    tries += 1;
                }
                other => return other,
            }
        }
    }

    async fn stop(&self, runner: &Runner) {
        let key = (runner.workspace.clone(), runner.epoch);
        let child = self.children.lock().get(&key).cloned();
        if let Some(child) = child {
            child.stop().await;
            self.children.lock().remove(&key);
        }
    }

    async fn sweep(&self) {
        let ledger = self.ledger.clone();
        if let Err(error) = tokio::task::spawn_blocking(move || ledger.sweep()).await {
            log::error!("sweep cause={error}");
        }
    }

    async fn close(&self) {
        self.closing.cancel();
        self.keepers.close();
        self.keepers.wait().await;
    }

    async fn check(&self) -> Result<(), LaunchError> {
        let program = Path::new(self.command.first().map_or("", String::as_str));
        // As execvp looks for it: a name with a slash is a path, any other is searched for.
        let is_path = program.components().count() > 1;
        let is_there = |path: PathBuf| {
            let mode = path.metadata().ok().filter(Metadata::is_file);
            mode.is_some_and(|file| file.permissions().mode() & 0o111 != 0)
        };
        let found = if is_path {
            is_there(program.to_owned())
        } else {
            std::env::split_paths(&self.path).any(|directory| is_there(directory.join(program)))
        };
        found
            .then_some(())
            .ok_or_else(|| LaunchError::Spawn(format!("there is no program {}", program.display())))
    }
}

/// The runner that `child` is, once it answers.
async fn ready(
    spec: &Spec,
    start: &Start,
    listens: &Listens,
    child: &Child,
    key: Secret,
) -> Result<Runner, LaunchError> {
    let address = match listens {
        Listens::Announced => Address::Tcp(format!("127.0.0.1:{}", child.output.port().await)),
        Listens::Port(port) => Address::Tcp(format!("127.0.0.1:{port}")),
        Listens::Socket(path) => Address::Unix(path.clone()),
    };
    let backend = match spec.dialect {
        Dialect::Opencode => Backend::Opencode(Arc::new(opencode::Client::new(
            address.clone(),
            Some(key.clone()),
            &spec.directory,
        ))),
        Dialect::OpenAi => Backend::OpenAi,
    };
    let runner = Runner {
        workspace: spec.workspace.clone(),
        epoch: start.epoch,
        address,
        credential: Some(key),
        directory: spec.directory.clone(),
        backend,
        grant: Some(Arc::clone(&start.grant)),
        ended: child.ended.clone(),
    };
    probe::until_ready(&runner).await?;
    Ok(runner)
}

/// 32 random bytes in hex: nobody guesses it.
fn random_hex() -> String {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).expect("the system has random numbers");
    hex::encode(bytes)
}

/// How often a port may turn out to be taken.
const TRIES: u32 = 3;
