//! Real processes, small ones: `sh`, and Python's HTTP server in the place of opencode.

use std::{
    fs,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use futures_util::FutureExt;
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use super::*;
use crate::egress::grant::Grants;

struct World {
    launcher: ProcessLauncher,
    directory: TempDir,
}

impl World {
    fn new(command: &[&str]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir(directory.path().join("workspace")).unwrap();
        let launcher = ProcessLauncher::new(
            command.iter().map(ToString::to_string).collect(),
            &directory.path().join("data"),
            BTreeMap::from([("CONFIGURED".to_owned(), Secret::plain("configured"))]),
            std::env::var_os("PATH").unwrap(),
            State::in_memory().unwrap(),
        );
        Self { launcher: launcher.unwrap(), directory }
    }

    /// A world whose runners are `script`, run by Python.
    fn python(script: &str) -> Self {
        // `-S` and `-E` keep the start short; opencode's arguments are the script's to ignore.
        Self::new(&["python3", "-E", "-S", "-c", script])
    }

    fn spec(&self, dialect: Dialect) -> Spec {
        Spec {
            workspace: WorkspaceId::of("alice"),
            directory: self.directory.path().join("workspace"),
            dialect,
            opencode_config: r#"{"share":"disabled"}"#.to_owned(),
            opencode_overrides: r#"{"enabled_providers":[]}"#.to_owned(),
            egress_url: "http://127.0.0.1:8002".to_owned(),
            start_timeout: Duration::from_mins(1),
            stop_timeout: Duration::from_mins(1),
        }
    }

    async fn launch(&self, dialect: Dialect) -> Arc<Runner> {
        self.launcher.launch(&self.spec(dialect), &start()).await.unwrap()
    }

    /// Every process that came of this launcher and is alive.
    fn processes(&self) -> Vec<i32> {
        let mark = self.launcher.ledger.mark();
        let entries = fs::read_dir("/proc").unwrap().flatten();
        let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        pids.filter(|pid| procfs::is_marked(*pid, &mark)).collect()
    }

    fn leader(&self) -> Pid {
        let groups = self.processes();
        let leads = |pid: &&i32| procfs::stat(**pid).is_some_and(|stat| stat.group == **pid);
        Pid::from_raw(*groups.iter().find(leads).unwrap()).unwrap()
    }
}

fn start() -> Start {
    static EPOCHS: AtomicU64 = AtomicU64::new(1);
    let epoch = EPOCHS.fetch_add(1, Ordering::Relaxed);
    Arc::<Grants>::default().start(&WorkspaceId::of("alice"), epoch)
}

/// Answers as opencode does as far as a launch needs it; writes its environment down first.
const OPENCODE: &str = r#"
import base64, json, os, http.server
json.dump(dict(os.environ), open(os.environ["HOME"] + "/environment", "w"))
wanted = "Basic " + base64.b64encode(
    b"opencode:" + os.environ["OPENCODE_SERVER_PASSWORD"].encode()).decode()
class Health(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        allowed = self.headers["authorization"] == wanted
        health = b'{"healthy":true,"version":"0"}' if "health" in self.path else b"{}"
        body = health if allowed else b""
        self.send_response(200 if allowed else 401)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Health)
print("opencode server listening on http://127.0.0.1:%d" % server.server_port, flush=True)
"#;

fn serving(before: &str) -> String {
    format!("{OPENCODE}\n{before}\nserver.serve_forever()")
}

#[tokio::test]
async fn a_runner_has_a_clean_environment_and_a_home_of_its_own() {
    let world = World::python(&serving(""));
    let runner = world.launch(Dialect::Opencode).await;
    let home = world.directory.path().join("data").join(runner.workspace.as_str());
    let environment = fs::read_to_string(home.join("home/environment")).unwrap();
    let mut environment: BTreeMap<String, String> = serde_json::from_str(&environment).unwrap();
    for (name, directory) in [("HOME", "home"), ("TMPDIR", "tmp"), ("XDG_DATA_HOME", "data")] {
        assert_eq!(environment[name], home.join(directory).display().to_string());
    }
    assert!(environment["OPEN_PERSONA_EGRESS_TOKEN"].starts_with("opr-"));
    assert_eq!(environment["OPEN_PERSONA_EGRESS_URL"], "http://127.0.0.1:8002");
    assert_eq!(environment["OPENCODE_CONFIG_CONTENT"], r#"{"enabled_providers":[]}"#);
    assert_eq!(environment["CONFIGURED"], "configured");
    let password = environment.remove("OPENCODE_SERVER_PASSWORD").unwrap();
    assert_eq!(password.len(), 64);
    assert_eq!(runner.credential.as_ref().unwrap().expose(), password);
    let config = fs::read_to_string(&environment["OPENCODE_CONFIG"]).unwrap();
    assert_eq!(config, r#"{"share":"disabled"}"#);
    let ours = ["HOME", "LANG", "PATH", "TMPDIR", "CONFIGURED"];
    // A `python3` that is a shell script, as version switchers install it, adds the latter four.
    let prefixes = ["XDG_", "OPENCODE_", "OPEN_PERSONA_", "LC_", "PYENV_", "PWD", "SHLVL", "_"];
    let known = |name: &str| ours.contains(&name) || prefixes.iter().any(|p| name.starts_with(p));
    assert_eq!(environment.keys().find(|name| !known(name)), None);
    world.launcher.stop(&runner).await;
}

#[tokio::test]
async fn two_runners_never_share_a_port() {
    let world = World::python(&serving(""));
    let alice = world.spec(Dialect::Opencode);
    let bob = Spec { workspace: WorkspaceId::of("bob"), ..alice.clone() };
    let (one, two) = (start(), start());
    let (alice, bob) =
        tokio::join!(world.launcher.launch(&alice, &one), world.launcher.launch(&bob, &two));
    let (alice, bob) = (alice.unwrap(), bob.unwrap());
    assert_ne!(alice.address, bob.address);
    assert_ne!(alice.credential, bob.credential);
    tokio::join!(world.launcher.stop(&alice), world.launcher.stop(&bob));
    assert!(world.processes().is_empty());
}

#[tokio::test]
async fn a_runner_that_dies_at_start_fails_the_launch_with_its_last_line_and_no_secret() {
    let world = World::new(&["sh", "-c", "echo bad key $OPEN_PERSONA_EGRESS_TOKEN >&2; exit 3"]);
    let failed = world.launcher.launch(&world.spec(Dialect::Opencode), &start()).await;
    let Err(LaunchError::Died { status, last_line }) = failed else { panic!("{failed:?}") };
    assert_eq!((&status[..], &last_line[..]), ("exit status: 3", "bad key ***"));
}

#[tokio::test]
async fn a_program_that_is_not_there_is_named() {
    let world = World::new(&["no-such-program"]);
    let failed = world.launcher.launch(&world.spec(Dialect::Opencode), &start()).await;
    let Err(LaunchError::Spawn(cause)) = failed else { panic!("{failed:?}") };
    assert!(cause.contains("no-such-program"), "{cause}");
}

#[tokio::test]
async fn a_runner_that_is_not_ready_in_time_is_gone_when_the_launch_fails() {
    let world = World::new(&["sh", "-c", "trap '' TERM; setsid sleep 600 & sleep 600"]);
    let spec = Spec { start_timeout: Duration::from_millis(200), ..world.spec(Dialect::Opencode) };
    let failed = world.launcher.launch(&spec, &start()).await;
    assert!(matches!(failed, Err(LaunchError::Timeout(_))), "{failed:?}");
    assert!(world.processes().is_empty());
}

#[tokio::test]
async fn a_launch_that_is_dropped_leaves_nothing() {
    let world = World::new(&["sh", "-c", "echo started > $HOME/started; sleep 600"]);
    let spec = world.spec(Dialect::Opencode);
    let started = world.directory.path().join("data").join(spec.workspace.as_str());
    let start = start();
    let mut launch = Box::pin(world.launcher.launch(&spec, &start));
    while !started.join("home/started").exists() {
        assert!(launch.as_mut().now_or_never().is_none());
        tokio::task::yield_now().await;
    }
    assert!(!world.processes().is_empty());
    drop(launch);
    world.launcher.close().await;
    assert!(world.processes().is_empty());
}

#[tokio::test]
async fn stopping_ends_children_that_left_the_group_as_well() {
    let world = World::python(&serving(
        "import subprocess\nsubprocess.Popen(['sleep', '600'], start_new_session=True)",
    ));
    let runner = world.launch(Dialect::Opencode).await;
    while world.processes().len() < 2 {
        tokio::task::yield_now().await;
    }
    world.launcher.stop(&runner).await;
    assert!(!runner.is_alive());
    assert!(world.processes().is_empty());
    world.launcher.stop(&runner).await;
}

#[tokio::test]
async fn a_runner_that_ignores_sigterm_is_killed() {
    let world =
        World::python(&serving("import signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)"));
    let spec = Spec { stop_timeout: Duration::from_millis(100), ..world.spec(Dialect::Opencode) };
    let runner = world.launcher.launch(&spec, &start()).await.unwrap();
    world.launcher.stop(&runner).await;
    assert!(world.processes().is_empty());
}

#[tokio::test]
async fn a_killed_runner_is_noticed_and_takes_its_children_along() {
    let world = World::python(&serving("import subprocess\nsubprocess.Popen(['sleep', '600'])"));
    let runner = world.launch(Dialect::Opencode).await;
    kill_process(world.leader(), Signal::KILL).unwrap();
    runner.ended.cancelled().await;
    assert!(world.processes().is_empty());
}

#[tokio::test]
async fn a_runner_that_writes_without_end_is_not_held_up() {
    let world = World::python(&format!("print('x' * (1 << 20), flush=True)\n{}", serving("")));
    let runner = world.launch(Dialect::Opencode).await;
    world.launcher.stop(&runner).await;
}

/// Listens where its first argument says and asks for the key it was given.
const OPENAI: &str = r#"
import os, socket, sys
where = sys.argv[1]
family = socket.AF_UNIX if where.startswith("/") else socket.AF_INET
server = socket.socket(family)
server.bind(where if family == socket.AF_UNIX else ("127.0.0.1", int(where)))
server.listen()
while True:
    caller, _ = server.accept()
    request = caller.recv(4096).decode().lower()
    assert ("bearer " + os.environ["OPEN_PERSONA_RUNNER_KEY"]) in request, request
    caller.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}")
    caller.close()
"#;

#[tokio::test]
async fn an_openai_runner_listens_where_it_is_told() {
    for place in ["{port}", "{socket}"] {
        let world = World::new(&["python3", "-E", "-S", "-c", OPENAI, place, "{workspace}"]);
        let runner = world.launch(Dialect::OpenAi).await;
        match &runner.address {
            Address::Tcp(address) => assert!(address.starts_with("127.0.0.1:"), "{address}"),
            Address::Unix(path) => assert!(path.exists(), "{}", path.display()),
        }
        assert_eq!(matches!(runner.address, Address::Unix(_)), place == "{socket}");
        world.launcher.stop(&runner).await;
        assert!(world.processes().is_empty());
    }
}

#[tokio::test]
async fn an_openai_command_without_a_place_to_listen_is_refused() {
    let world = World::new(&["true"]);
    let failed = world.launcher.launch(&world.spec(Dialect::OpenAi), &start()).await;
    assert!(matches!(failed, Err(LaunchError::Spawn(_))), "{failed:?}");
}

#[tokio::test]
async fn a_port_that_somebody_has_is_taken() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = Listens::Port(listener.local_addr().unwrap().port());
    assert!(port.is_taken().await);
    drop(listener);
    assert!(!port.is_taken().await);
}

#[tokio::test]
async fn closing_ends_runners_that_nobody_stopped() {
    let world = World::python(&serving(""));
    let runner = world.launch(Dialect::Opencode).await;
    world.launcher.close().await;
    assert!(!runner.is_alive());
    assert!(world.processes().is_empty());
}

#[tokio::test]
async fn a_workspace_that_is_not_there_is_said_to_be_missing() {
    let world = World::python(&serving(""));
    let spec = Spec { directory: "/nowhere".into(), ..world.spec(Dialect::Opencode) };
    let failed = world.launcher.launch(&spec, &start()).await;
    let Err(LaunchError::Spawn(cause)) = failed else { panic!("{failed:?}") };
    assert!(cause.contains("workspace"), "{cause}");
}

#[tokio::test]
async fn a_program_that_is_not_there_is_found_out_before_anybody_asks_for_it() {
    let data = tempfile::tempdir().unwrap();
    let checked = async |program: &str| {
        let launcher = ProcessLauncher::new(
            vec![program.to_owned()],
            data.path(),
            BTreeMap::new(),
            std::env::var_os("PATH").unwrap(),
            State::in_memory().unwrap(),
        );
        launcher.unwrap().check().await
    };
    assert!(checked("sh").await.is_ok());
    assert!(checked("/bin/sh").await.is_ok());
    for missing in ["no-such-program", "/bin", "./sh", ""] {
        assert!(checked(missing).await.is_err(), "{missing:?}");
    }
}
