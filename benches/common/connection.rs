//! A client's connection.

use std::net::SocketAddr;

use bytes::Bytes;
use http::{Response, header, request::Builder};
use http_body_util::{BodyExt, Full};
use hyper::{
    body::Incoming,
    client::conn::http1::{SendRequest, handshake},
};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

/// A kept connection.
pub(crate) struct Connection {
    sender: SendRequest<Full<Bytes>>,
    host: String,
}

impl Connection {
    pub(crate) async fn open(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.expect("it listens");
        stream.set_nodelay(true).expect("TCP");
        let (sender, connection) = handshake(TokioIo::new(stream)).await.expect("HTTP");
        #[expect(clippy::disallowed_methods, reason = "ends with the sender")]
        tokio::spawn(connection);
        Self { sender, host: address.to_string() }
    }

    /// The answer to `request`, once its head is there.
    pub(crate) async fn send(&mut self, request: Builder, body: Bytes) -> Response<Incoming> {
        let request = request
            .header(header::HOST, &self.host)
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::new(body))
            .expect("a request");
        self.sender.ready().await.expect("the connection was kept");
        let response = self.sender.send_request(request).await.expect("an answer");
        let status = response.status();
        if status.is_success() {
            return response;
        }
        panic!("{status}: {:?}", response.into_body().collect().await);
    }
}
