//! The launcher `static`: one server that is there already and is shared by all workspaces.
//!
//! opencode keeps workspaces apart by its `directory` parameter, which is no boundary: this is for
//! people who trust each other.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use tokio::{
    net::{TcpStream, UnixStream},
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use super::{LaunchError, Launcher, Spec, probe};
use crate::{
    config::{Address, Dialect},
    egress::grant::Start,
    opencode::{self, client::ClientError},
    runner::{Backend, Runner},
    secret::Secret,
};

/// Hands out one server as everybody's runner. It never starts or ends anything: a server that is
/// gone is noticed by the turns that cannot reach it.
#[derive(Debug)]
pub struct SharedLauncher {
    address: Address,
    password: Option<Secret>,
}

impl SharedLauncher {
    /// A launcher for the server at `address`.
    pub fn new(address: Address, password: Option<Secret>) -> Self {
        Self { address, password }
    }
}

#[async_trait]
impl Launcher for SharedLauncher {
    async fn launch(&self, spec: &Spec, start: &Start) -> Result<Arc<Runner>, LaunchError> {
        let backend = match spec.dialect {
            Dialect::Opencode => Backend::Opencode(Arc::new(opencode::Client::new(
                self.address.clone(),
                self.password.clone(),
                &spec.directory,
            ))),
            Dialect::OpenAi => Backend::OpenAi,
        };
        let runner = Runner {
            workspace: spec.workspace.clone(),
            epoch: start.epoch,
            address: self.address.clone(),
            credential: self.password.clone(),
            directory: spec.directory.clone(),
            backend,
            // It has its own way to the providers.
            grant: None,
            ended: CancellationToken::new(),
        };
        timeout(spec.start_timeout, probe::until_ready(&runner))
            .await
            .map_err(|_| LaunchError::Timeout(spec.start_timeout))??;
        Ok(Arc::new(runner))
    }

    async fn stop(&self, _: &Runner) {}

    async fn sweep(&self) {}

    async fn close(&self) {}

    async fn check(&self) -> Result<(), LaunchError> {
        let connected = timeout(QUICK, async {
            match &self.address {
                Address::Tcp(host) => TcpStream::connect(host).await.map(drop),
                Address::Unix(path) => UnixStream::connect(path).await.map(drop),
            }
        });
        let connected = connected.await.map_err(|_| LaunchError::Timeout(QUICK))?;
        connected
            .map_err(|error| LaunchError::Spawn(format!("the server does not listen: {error}")))
    }

    /// Never: giving up a share of the server disturbs nobody's work in it.
    async fn is_busy(&self, _: &Runner) -> Result<bool, ClientError> {
        Ok(false)
    }
}

/// For a look at whether it is there.
const QUICK: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{egress::grant::Grants, launcher::probe::tests::answering, workspace::WorkspaceId};

    fn spec(dialect: Dialect) -> Spec {
        Spec {
            workspace: WorkspaceId::of("alice"),
            directory: "/workspaces/alice".into(),
            dialect,
            opencode_config: String::new(),
            opencode_overrides: String::new(),
            egress_url: String::new(),
            start_timeout: Duration::from_secs(20),
            stop_timeout: Duration::from_secs(1),
        }
    }

    fn start() -> Start {
        Arc::<Grants>::default().start(&WorkspaceId::of("alice"), 1)
    }

    #[tokio::test]
    async fn everybody_gets_the_one_server_with_a_directory_of_their_own() {
        let server = answering("HTTP/1.1 200 OK").await;
        let address = Address::Tcp(server.to_string());
        let launcher = SharedLauncher::new(address.clone(), Some(Secret::new("pw")));
        for dialect in [Dialect::Opencode, Dialect::OpenAi] {
            let runner = launcher.launch(&spec(dialect), &start()).await.unwrap();
            assert_eq!(runner.address, address);
            assert_eq!(runner.directory, spec(dialect).directory);
            launcher.stop(&runner).await;
            assert!(runner.is_alive(), "the server is not ours to stop");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_is_not_there_is_a_timeout() {
        // Port 1 of loopback: nothing listens, and nobody without privileges could.
        let launcher = SharedLauncher::new(Address::Tcp("127.0.0.1:1".to_owned()), None);
        let failed = launcher.launch(&spec(Dialect::OpenAi), &start()).await;
        assert!(matches!(failed, Err(LaunchError::Timeout(_))), "{failed:?}");
    }
}
