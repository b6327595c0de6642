//! A launcher that does what a test says, and a world to test the pool in. Time is tokio's and
//! paused; nothing here waits for anything real.

use std::{
    collections::{HashMap, VecDeque},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use parking_lot::Mutex;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::Pool;
use crate::{
    config::{Address, Config, Dialect, Live},
    egress::grant::Start,
    launcher::{LaunchError, Launcher, Spec},
    opencode::client::ClientError,
    runner::{Backend, Runner},
    workspace::WorkspaceId,
};

/// How long a scripted launch takes.
pub(super) const LAUNCH: Duration = Duration::from_millis(100);
/// How long a scripted stop takes.
pub(super) const STOP: Duration = Duration::from_millis(50);
/// How long a scripted runner takes to say whether it is busy.
const ASK: Duration = Duration::from_millis(10);

/// The limits a test is about.
#[derive(Clone, Copy)]
pub(super) struct Limits {
    pub(super) max_running: usize,
    pub(super) max_starting: usize,
    pub(super) queue_timeout: Duration,
    pub(super) idle_after: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_running: 100,
            max_starting: 4,
            queue_timeout: Duration::from_secs(60),
            idle_after: Duration::from_secs(900),
        }
    }
}

/// What a runner says when it is asked whether it is busy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Says {
    Idle,
    Busy,
    Silent,
}

/// A pool and the launcher behind it.
pub(super) struct World {
    pub(super) pool: Arc<Pool>,
    launcher: Arc<Scripted>,
    config: Live,
}

impl World {
    pub(super) fn new(limits: Limits) -> Self {
        let launcher = Arc::new(Scripted { config: config(limits), ..Scripted::default() });
        let config = launcher.config.clone();
        let pool =
            Pool::new(Arc::clone(&launcher) as Arc<dyn Launcher>, config.clone(), Arc::default());
        Self { pool, launcher, config }
    }

    pub(super) fn reload(&self, limits: Limits) {
        self.config.swap(Config::clone(&config(limits).now()));
    }

    pub(super) fn say(&self, user: &str, says: Says) {
        self.launcher.script.lock().says.insert(WorkspaceId::of(user), says);
    }

    pub(super) fn fail_next(&self, times: usize) {
        let mut script = self.launcher.script.lock();
        for number in 1..=times {
            script.next.push_back(Next::Fail(format!("failure {number}")));
        }
    }

    pub(super) fn panic_next(&self) {
        self.launcher.script.lock().next.push_back(Next::Panic);
    }

    pub(super) fn crash(&self, user: &str) {
        if let Some(runner) = self.launcher.seen.lock().live.remove(&WorkspaceId::of(user)) {
            runner.ended.cancel();
        }
    }

    pub(super) fn launches(&self) -> usize {
        self.launcher.seen.lock().order.len()
    }

    pub(super) fn broken_off(&self) -> usize {
        self.launcher.broken_off.load(Ordering::Relaxed)
    }

    /// How often a launch began while the workspace had a runner, or with more runners than
    /// `max_running`, or with more starts than `max_starting`.
    pub(super) fn violations(&self) -> usize {
        self.launcher.seen.lock().violations
    }

    pub(super) fn live(&self) -> usize {
        self.launcher.seen.lock().live.len()
    }

    pub(super) fn most_starting(&self) -> usize {
        self.launcher.seen.lock().most_starting
    }

    /// The users in the order their launches began.
    pub(super) fn order(&self) -> Vec<String> {
        self.launcher.seen.lock().order.clone()
    }

    /// The users whose runners live, in alphabetical order.
    pub(super) fn running(&self) -> Vec<String> {
        let seen = self.launcher.seen.lock();
        let mut users: Vec<String> = seen.live.values().map(|runner| user_of(runner)).collect();
        users.sort();
        users
    }
}

/// Lets every task do what it can do without time going by.
pub(super) async fn settle() {
    for _ in 0..20 {
        tokio::task::yield_now().await;
    }
}

pub(super) fn spec(user: &str) -> Spec {
    Spec {
        workspace: WorkspaceId::of(user),
        directory: user.into(),
        dialect: Dialect::OpenAi,
        opencode_config: String::new(),
        opencode_overrides: String::new(),
        egress_url: String::new(),
        start_timeout: Duration::from_secs(60),
        stop_timeout: Duration::from_secs(5),
    }
}

pub(super) fn changed_spec(user: &str) -> Spec {
    Spec { opencode_config: "changed".to_owned(), ..spec(user) }
}

/// The same numbers in every run.
pub(super) struct Dice(pub(super) u64);

impl Dice {
    /// From zero to below `sides`.
    pub(super) fn roll(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % sides as u64).expect("below a usize")
    }

    pub(super) fn millis(&mut self, most: usize) -> Duration {
        Duration::from_millis(self.roll(most) as u64)
    }
}

#[derive(Debug)]
struct Scripted {
    config: Live,
    script: Mutex<Script>,
    seen: Mutex<Seen>,
    broken_off: AtomicUsize,
}

#[derive(Debug, Default)]
struct Script {
    next: VecDeque<Next>,
    says: HashMap<WorkspaceId, Says>,
}

#[derive(Debug)]
enum Next {
    Fail(String),
    Panic,
}

#[derive(Debug, Default)]
struct Seen {
    order: Vec<String>,
    starting: usize,
    most_starting: usize,
    live: HashMap<WorkspaceId, Arc<Runner>>,
    violations: usize,
}

impl Default for Scripted {
    fn default() -> Self {
        Self {
            config: config(Limits::default()),
            script: Mutex::default(),
            seen: Mutex::default(),
            broken_off: AtomicUsize::new(0),
        }
    }
}

/// Counts a launch that is dropped before its end.
struct Launching<'a>(&'a Scripted, bool);

impl Drop for Launching<'_> {
    fn drop(&mut self) {
        self.0.seen.lock().starting -= 1;
        if !self.1 {
            self.0.broken_off.fetch_add(1, Ordering::Relaxed);
        }
    }
}

#[async_trait]
impl Launcher for Scripted {
    async fn launch(&self, spec: &Spec, start: &Start) -> Result<Arc<Runner>, LaunchError> {
        let limits = self.config.now();
        let mut launching = {
            let mut seen = self.seen.lock();
            seen.order.push(spec.directory.display().to_string());
            seen.starting += 1;
            seen.most_starting = seen.most_starting.max(seen.starting);
            let there = seen.live.len() + seen.starting;
            if seen.live.contains_key(&spec.workspace)
                || seen.starting > limits.runners.max_starting
                || there > limits.runners.max_running
            {
                seen.violations += 1;
            }
            Launching(self, false)
        };
        sleep(LAUNCH).await;
        launching.1 = true;
        match self.script.lock().next.pop_front() {
            Some(Next::Panic) => panic!("as the test wants it"),
            Some(Next::Fail(last_line)) => {
                return Err(LaunchError::Died { status: "exit status: 1".to_owned(), last_line });
            }
            None => {}
        }
        let runner = Arc::new(Runner {
            workspace: spec.workspace.clone(),
            epoch: start.epoch,
            address: Address::Tcp("192.0.2.1:1".to_owned()),
            credential: None,
            directory: spec.directory.clone(),
            backend: Backend::OpenAi,
            grant: Some(Arc::clone(&start.grant)),
            ended: CancellationToken::new(),
        });
        let before = self.seen.lock().live.insert(spec.workspace.clone(), Arc::clone(&runner));
        assert!(before.is_none(), "two runners of one workspace");
        Ok(runner)
    }

    async fn stop(&self, runner: &Runner) {
        if runner.is_alive() {
            sleep(STOP).await;
            self.seen.lock().live.remove(&runner.workspace);
            runner.ended.cancel();
        }
    }

    async fn sweep(&self) {}

    async fn close(&self) {}

    async fn check(&self) -> Result<(), LaunchError> {
        Ok(())
    }

    async fn is_busy(&self, runner: &Runner) -> Result<bool, ClientError> {
        sleep(ASK).await;
        let says = self.script.lock().says.get(&runner.workspace).copied();
        match says.unwrap_or(Says::Idle) {
            Says::Idle => Ok(false),
            Says::Busy => Ok(true),
            Says::Silent => Err(ClientError::Unreachable("as the test wants it".to_owned())),
        }
    }
}

fn user_of(runner: &Runner) -> String {
    runner.directory.display().to_string()
}

fn config(limits: Limits) -> Live {
    let text = "
identity: {anonymous: true}
runners: {launcher: static, dialect: openai, static: {url: 'http://192.0.2.1:1'}}
";
    let mut config = crate::config::parse("x.yaml".as_ref(), text, &|_| None).unwrap();
    config.runners.max_running = limits.max_running;
    config.runners.max_starting = limits.max_starting;
    config.runners.queue_timeout = limits.queue_timeout;
    config.runners.idle_after = limits.idle_after;
    Live::new(config)
}
