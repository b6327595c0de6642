//! A gateway with everything it needs, in a directory and on ports of its own.

use std::{
    ffi::OsString,
    fs::{self, File},
    net::{Ipv4Addr, SocketAddr, TcpListener},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::atomic::{AtomicU16, Ordering},
    time::Duration,
};

use rustix::process::Signal;
use tempfile::TempDir;

use crate::{
    client::Caller,
    processes::{self, directory_of, is_runner, living_in},
    settings::Settings,
};

/// The program under test.
pub(crate) const OPEN_PERSONA: &str = env!("CARGO_BIN_EXE_open-persona");

/// How long a start or a stop of the gateway may take.
const PATIENCE: Duration = Duration::from_mins(1);

/// A running gateway. Dropping it ends every process it has started; when its test has failed it
/// also prints their logs.
#[derive(Debug)]
pub(crate) struct Stand {
    /// The gateway's URL, without `/v1`.
    pub(crate) url: String,
    /// Where runners find the model providers.
    pub(crate) egress: SocketAddr,
    /// Where the gateway runs: `conf/`, `workspaces/`, `state/`, logs.
    directory: TempDir,
    settings: Settings,
    port: u16,
    model: Option<Server>,
    gateway: Option<Server>,
}

/// A process that serves until it is ended.
#[derive(Debug)]
struct Server {
    child: Child,
}

impl Stand {
    /// Starts a gateway, and the demo model unless the settings name another provider.
    pub(crate) fn start(settings: Settings) -> Self {
        Self::start_on(free_port(), settings)
    }

    /// Starts a gateway on a port of the caller's choice.
    pub(crate) fn start_on(port: u16, settings: Settings) -> Self {
        let directory =
            tempfile::Builder::new().prefix("open-persona-").tempdir().expect("a directory");
        copy(&Path::new(env!("CARGO_MANIFEST_DIR")).join("conf"), &directory.path().join("conf"));
        let mut stand = Self {
            url: format!("http://127.0.0.1:{port}"),
            egress: (Ipv4Addr::LOCALHOST, free_port()).into(),
            directory,
            settings,
            port,
            model: None,
            gateway: None,
        };
        stand.start_model();
        stand.write_config();
        stand.start_gateway();
        stand
    }

    /// A caller without a key.
    pub(crate) fn caller(&self) -> Caller {
        Caller::of(&self.url)
    }

    /// Where everything of it is.
    pub(crate) fn directory(&self) -> &Path {
        self.directory.path()
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// The config file in use, relative to [`Stand::path`].
    pub(crate) fn config(&self) -> PathBuf {
        self.path("conf/gateway.yaml")
    }

    /// What the gateway has logged.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.path("gateway.log")).unwrap_or_default()
    }

    /// The provider's base URL.
    pub(crate) fn model_url(&self) -> &str {
        &self.settings.model_url
    }

    /// A command that runs where the gateway runs and with its environment.
    pub(crate) fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command
            .current_dir(self.directory.path())
            .env_clear()
            .env("PATH", search_path())
            .env("HOME", self.path("home"))
            .envs(self.settings.environment(self.port, self.egress.port()))
            .stdin(Stdio::null());
        command
    }

    /// Replaces the settings and the file, without telling the gateway.
    pub(crate) fn rewrite(&mut self, settings: Settings) {
        self.settings = settings;
        self.write_config();
    }

    /// The runners alive: process id and working directory.
    pub(crate) fn runners(&self) -> Vec<(i32, String)> {
        let runners = self.started().into_iter().filter(|pid| is_runner(*pid));
        runners.map(|pid| (pid, directory_of(pid))).collect()
    }

    /// Every process the gateway has started, directly or not.
    pub(crate) fn started(&self) -> Vec<i32> {
        let ours: Vec<i32> = [&self.gateway, &self.model]
            .into_iter()
            .flatten()
            .map(|server| processes::id_of(&server.child))
            .collect();
        let mut pids = living_in(self.directory.path());
        pids.retain(|pid| !ours.contains(pid));
        pids
    }

    /// Sends the gateway a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        let gateway = self.gateway.as_ref().expect("a gateway");
        processes::signal(processes::id_of(&gateway.child), signal);
    }

    /// Sends the gateway a signal and waits for its end.
    pub(crate) fn end(&mut self, signal: Signal) -> ExitStatus {
        self.signal(signal);
        let mut gateway = self.gateway.take().expect("a gateway");
        processes::wait(&mut gateway.child, PATIENCE).unwrap_or_else(|| {
            self.gateway = Some(gateway);
            panic!("the gateway has not ended {PATIENCE:?} after {signal:?}")
        })
    }

    /// Starts the gateway and returns when it is ready.
    pub(crate) fn start_gateway(&mut self) {
        let mut command = self.command(OPEN_PERSONA);
        command.args(["serve", "--config", "conf/gateway.yaml"]);
        self.gateway = Some(Server::start(command, &self.path("gateway.log")));
        self.await_answer(&format!("{}/readyz", self.url));
    }

    fn start_model(&mut self) {
        if self.settings.has_model() {
            return;
        }
        let port = free_port();
        let delay = format!("{}ms", self.settings.demo_delay_ms);
        let mut command = self.command(OPEN_PERSONA);
        command.args(["demo-model", "--listen", &format!("127.0.0.1:{port}"), "--delay", &delay]);
        self.model = Some(Server::start(command, &self.path("model.log")));
        self.settings.model_url = format!("http://127.0.0.1:{port}/v1");
        self.await_answer(&format!("{}/models", self.settings.model_url));
    }

    fn write_config(&self) {
        if let Some(text) = self.settings.yaml(self.port, self.egress.port()) {
            fs::write(self.config(), text).expect("the config file is written");
        }
    }

    /// Waits until `url` answers 200. Plain `curl` keeps this callable outside a runtime.
    fn await_answer(&mut self, url: &str) {
        let ready = processes::until(PATIENCE, || {
            let curl = Command::new("curl").args(["-fsS", "-o", "/dev/null", url]).output();
            if curl.expect("curl is installed").status.success() {
                return Some(true);
            }
            let newest = self.gateway.as_mut().or(self.model.as_mut()).expect("a server");
            newest.child.try_wait().expect("a child of ours").map(|_| false)
        });
        assert_eq!(ready, Some(true), "no answer at {url}");
    }
}

impl Drop for Stand {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.print_logs();
        }
        if let Some(mut gateway) = self.gateway.take() {
            processes::signal(processes::id_of(&gateway.child), Signal::TERM);
            gateway.end();
        }
        if let Some(mut model) = self.model.take() {
            drop(model.child.kill());
            drop(model.child.wait());
        }
        // A test may have killed the gateway, which then could not end its runners.
        for pid in living_in(self.directory.path()) {
            processes::signal(pid, Signal::KILL);
        }
    }
}

impl Stand {
    #[expect(clippy::print_stderr, reason = "what a developer needs when a test has failed")]
    fn print_logs(&self) {
        for name in ["model.log", "gateway.log"] {
            let log = fs::read_to_string(self.path(name)).unwrap_or_default();
            let last: Vec<&str> = log.lines().rev().take(60).collect();
            eprintln!("--- the end of {name}");
            last.iter().rev().for_each(|line| eprintln!("{line}"));
        }
    }
}

impl Server {
    fn start(mut command: Command, log: &Path) -> Self {
        let file = File::options().create(true).append(true).open(log).expect("a log file");
        let errors = file.try_clone().expect("a second handle");
        // A group of its own: a Ctrl-C meant for the tests is not meant for it.
        command.process_group(0).stdout(file).stderr(errors);
        let child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        Self { child }
    }

    /// Waits for the end that was asked for, then insists.
    fn end(&mut self) {
        if processes::wait(&mut self.child, Duration::from_secs(20)).is_none() {
            drop(self.child.kill());
            drop(self.child.wait());
        }
    }
}

/// `PATH`, with the tools of this repository first. Panics without opencode: a suite that skips
/// what it is for proves nothing.
fn search_path() -> OsString {
    let tools = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/tools/bin");
    let inherited = std::env::var_os("PATH").unwrap_or_default();
    let all: Vec<PathBuf> =
        std::iter::once(tools).chain(std::env::split_paths(&inherited)).collect();
    let found = |name: &str| all.iter().any(|directory| directory.join(name).is_file());
    assert!(found("opencode"), "opencode is not installed: run `make deps`");
    std::env::join_paths(all).expect("a search path")
}

/// A port that nobody uses and that no stand of this run was given. Below the range from which
/// the system picks ports for outgoing connections.
pub(crate) fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    const RANGE: u16 = 10_000;
    let offset = u16::try_from(std::process::id() % u32::from(RANGE)).expect("below the range");
    loop {
        let step = NEXT.fetch_add(1, Ordering::Relaxed);
        let port = 20_000 + offset.wrapping_add(step) % RANGE;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a directory");
    for entry in fs::read_dir(from).unwrap_or_else(|error| panic!("{}: {error}", from.display())) {
        let entry = entry.expect("an entry");
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).expect("a copy");
        }
    }
}
