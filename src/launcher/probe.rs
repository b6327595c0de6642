//! Whether a runner answers yet.

use std::time::Duration;

use bytes::Bytes;
use http::{Request, header};
use http_body_util::Empty;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpStream, UnixStream},
    time::{sleep, timeout},
};

use super::LaunchError;
use crate::{
    config::Address,
    opencode::{Client, client::ClientError},
    runner::{Backend, Runner},
};

/// Asks `runner` until it answers: an opencode by its authenticated health, anything else by any
/// HTTP answer to `GET /v1/models`. Never gives up on one that is silent: who waits has a
/// deadline. Fails for an opencode that does not take its configuration.
pub async fn until_ready(runner: &Runner) -> Result<(), LaunchError> {
    let (mut pause, mut patience) = (FIRST_PAUSE, FIRST_PATIENCE);
    loop {
        match timeout(patience, is_ready(runner)).await {
            Ok(Ok(true)) => return Ok(()),
            Ok(Ok(false)) => {}
            Ok(Err(error)) => return Err(error),
            Err(_) => patience = (patience * 2).min(LAST_PATIENCE),
        }
        sleep(pause).await;
        pause = (pause * 2).min(LAST_PAUSE);
    }
}

async fn is_ready(runner: &Runner) -> Result<bool, LaunchError> {
    match (&runner.backend, &runner.address) {
        (Backend::Opencode(client), _) => opencode_is_ready(runner, client).await,
        (Backend::OpenAi, Address::Tcp(address)) => match TcpStream::connect(address).await {
            Ok(stream) => Ok(answers_http(runner, stream).await),
            Err(_) => Ok(false),
        },
        (Backend::OpenAi, Address::Unix(path)) => match UnixStream::connect(path).await {
            Ok(stream) => Ok(answers_http(runner, stream).await),
            Err(_) => Ok(false),
        },
    }
}

/// Healthy, and in working order for the directory. Health alone is good with a configuration
/// that does not load, and nothing but a restart gets opencode over one (observed with 1.18.33).
/// The second question also makes opencode open the directory, before a turn has to wait for it.
async fn opencode_is_ready(runner: &Runner, client: &Client) -> Result<bool, LaunchError> {
    let Ok(version) = client.health().await else { return Ok(false) };
    match client.is_busy().await {
        Ok(_) => {
            log::debug!("runner workspace={} version={version:?}", runner.workspace);
            Ok(true)
        }
        Err(error @ ClientError::Status { status: 400, .. }) => {
            Err(LaunchError::Spawn(format!("it does not take its configuration: {error}")))
        }
        Err(_) => Ok(false),
    }
}

/// A single request on a connection of its own, so that nothing is left open.
async fn answers_http(
    runner: &Runner,
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
) -> bool {
    let mut request = Request::get("/v1/models")
        .header(header::HOST, "localhost")
        .header(header::CONNECTION, "close");
    if let Some(credential) = &runner.credential {
        request = request.header(header::AUTHORIZATION, format!("Bearer {}", credential.expose()));
    }
    let Ok(request) = request.body(Empty::<Bytes>::new()) else { return false };
    let Ok((mut sender, connection)) = http1::handshake(TokioIo::new(stream)).await else {
        return false;
    };
    let mut answer = std::pin::pin!(sender.send_request(request));
    tokio::select! {
        biased;
        answer = &mut answer => answer.is_ok(),
        // It may end with a short answer read already.
        _ = connection => answer.await.is_ok(),
    }
}

/// Most of a start is over when a runner begins to listen, so the first tries are quick.
const FIRST_PAUSE: Duration = Duration::from_millis(5);
const LAST_PAUSE: Duration = Duration::from_millis(250);
/// For one try, growing with each that is in vain: opencode can take a connection just when it
/// begins to listen and never answer on it (observed with 1.18.33).
const FIRST_PATIENCE: Duration = Duration::from_secs(1);
const LAST_PATIENCE: Duration = Duration::from_secs(15);

#[cfg(test)]
pub(super) mod tests {
    use std::{net::SocketAddr, path::PathBuf, sync::Arc};

    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
    };
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::{opencode, secret::Secret, workspace::WorkspaceId};

    /// A server that answers every request with `head` and its own health, until the test ends.
    pub(in crate::launcher) async fn answering(head: &'static str) -> SocketAddr {
        answering_with(head, head).await
    }

    async fn answering_with(health: &'static str, directory: &'static str) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        #[expect(clippy::disallowed_methods, reason = "ends with the test's runtime")]
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut request = [0; 4096];
                if stream.read(&mut request).await.is_ok_and(|read| read > 0) {
                    let (head, body) = if request.starts_with(b"GET /session/status") {
                        (directory, "{}")
                    } else {
                        (health, r#"{"healthy":true,"version":"1"}"#)
                    };
                    let length = body.len();
                    let answer = format!(
                        "{head}\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}"
                    );
                    stream.write_all(answer.as_bytes()).await.unwrap();
                }
            }
        });
        address
    }

    fn runner(address: SocketAddr, speaks_opencode: bool) -> Runner {
        let address = Address::Tcp(address.to_string());
        let credential = Some(Secret::new("pw"));
        let directory = PathBuf::from("/w");
        let client = opencode::Client::new(address.clone(), credential.clone(), &directory);
        Runner {
            workspace: WorkspaceId::of("alice"),
            epoch: 1,
            address,
            credential,
            directory,
            backend: if speaks_opencode {
                Backend::Opencode(Arc::new(client))
            } else {
                Backend::OpenAi
            },
            grant: None,
            ended: CancellationToken::new(),
        }
    }

    #[tokio::test]
    async fn opencode_is_ready_when_its_health_says_so() {
        let healthy = answering("HTTP/1.1 200 OK").await;
        assert!(matches!(is_ready(&runner(healthy, true)).await, Ok(true)));
    }

    #[tokio::test]
    async fn opencode_that_refuses_our_password_is_not_ready() {
        // Somebody else's server on the port that was our runner's.
        let stranger = answering("HTTP/1.1 401 Unauthorized").await;
        assert!(matches!(is_ready(&runner(stranger, true)).await, Ok(false)));
    }

    #[tokio::test]
    async fn opencode_with_a_broken_configuration_is_given_up() {
        let broken = answering_with("HTTP/1.1 200 OK", "HTTP/1.1 400 Bad Request").await;
        let refused = is_ready(&runner(broken, true)).await;
        assert!(matches!(refused, Err(LaunchError::Spawn(_))), "{refused:?}");
    }

    #[tokio::test]
    async fn an_openai_runner_is_ready_with_any_http_answer() {
        let server = answering("HTTP/1.1 404 Not Found").await;
        assert!(matches!(is_ready(&runner(server, false)).await, Ok(true)));
        let no_server = answering("SSH-2.0-OpenSSH_9.9").await;
        assert!(matches!(is_ready(&runner(no_server, false)).await, Ok(false)));
    }

    #[tokio::test]
    async fn a_connection_that_is_never_answered_is_given_up_for_another() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let runner = runner(listener.local_addr().unwrap(), false);
        let server = async {
            let (_silent, _) = listener.accept().await.unwrap();
            let (mut answered, _) = listener.accept().await.unwrap();
            answered.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await.unwrap();
            std::future::pending::<()>().await;
        };
        tokio::select! {
            ready = until_ready(&runner) => ready.unwrap(),
            () = server => {}
        }
    }
}
