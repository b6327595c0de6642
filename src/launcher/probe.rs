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

use crate::{
    config::Address,
    runner::{Backend, Runner},
};

/// Asks `runner` until it answers: an opencode by its authenticated health, anything else by any
/// HTTP answer to `GET /v1/models`. Never gives up: who waits has a deadline.
pub async fn until_ready(runner: &Runner) {
    let mut pause = FIRST_PAUSE;
    while !timeout(PATIENCE, answers(runner)).await.unwrap_or(false) {
        sleep(pause).await;
        pause = (pause * 2).min(LAST_PAUSE);
    }
}

async fn answers(runner: &Runner) -> bool {
    match (&runner.backend, &runner.address) {
        (Backend::Opencode(client), _) => match client.health().await {
            Ok(version) => {
                log::debug!("runner workspace={} version={version:?}", runner.workspace);
                true
            }
            Err(_) => false,
        },
        (Backend::OpenAi, Address::Tcp(address)) => match TcpStream::connect(address).await {
            Ok(stream) => answers_http(runner, stream).await,
            Err(_) => false,
        },
        (Backend::OpenAi, Address::Unix(path)) => match UnixStream::connect(path).await {
            Ok(stream) => answers_http(runner, stream).await,
            Err(_) => false,
        },
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
/// For one try. A runner that took the connection but is still busy with itself is asked again.
const PATIENCE: Duration = Duration::from_secs(5);

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

    /// A server that answers every request with `head` and `body`, until the test ends.
    pub(in crate::launcher) async fn answering(head: &str, body: &str) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let answer = format!("{head}\r\ncontent-length: {}\r\n\r\n{body}", body.len());
        #[expect(clippy::disallowed_methods, reason = "ends with the test's runtime")]
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut request = [0; 4096];
                if stream.read(&mut request).await.is_ok_and(|read| read > 0) {
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
            ended: CancellationToken::new(),
        }
    }

    #[tokio::test]
    async fn opencode_is_ready_when_its_health_says_so() {
        let healthy = answering("HTTP/1.1 200 OK", r#"{"healthy":true,"version":"1"}"#).await;
        assert!(answers(&runner(healthy, true)).await);
    }

    #[tokio::test]
    async fn opencode_that_refuses_our_password_is_not_ready() {
        // Somebody else's server on the port that was our runner's.
        let stranger = answering("HTTP/1.1 401 Unauthorized", "").await;
        assert!(!answers(&runner(stranger, true)).await);
    }

    #[tokio::test]
    async fn an_openai_runner_is_ready_with_any_http_answer() {
        let server = answering("HTTP/1.1 404 Not Found", "").await;
        assert!(answers(&runner(server, false)).await);
        let no_server = answering("SSH-2.0-OpenSSH_9.9", "").await;
        assert!(!answers(&runner(no_server, false)).await);
    }
}
