//! A small OpenAI-compatible model provider with scripted answers, to try the gateway without an
//! API key. A demo: it understands nothing, keeps nothing, and answers the same way every time.

mod script;

use std::{convert::Infallible, net::SocketAddr, time::Duration};

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited, StreamBody, combinators::UnsyncBoxBody};
use hyper::{
    body::{Body, Frame},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpListener,
    task::JoinSet,
};

use self::script::{Answer, answer};

/// The model to name in a request. Others are answered as well.
pub const MODEL: &str = "demo";

/// The largest request body, in bytes.
const LIMIT: usize = 64 << 20;
/// Fixed, so that an answer depends on nothing but its request.
const CREATED: u64 = 1_700_000_000;

type Reply = Response<UnsyncBoxBody<Bytes, Infallible>>;

/// Serves on `listen`, with a pause of `delay` between two words, until it fails or is dropped.
pub async fn serve(listen: SocketAddr, delay: Duration) -> std::io::Result<()> {
    serve_on(TcpListener::bind(listen).await?, delay).await
}

/// Serves on `listener`. Dropping the future ends its connections too.
pub async fn serve_on(listener: TcpListener, delay: Duration) -> std::io::Result<()> {
    log::info!("scripted demo model on http://{}/v1", listener.local_addr()?);
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                connections.spawn(connection(accepted?.0, delay));
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

/// Answers the requests on one connection until either side closes it.
async fn connection<S: AsyncRead + AsyncWrite + Unpin>(stream: S, delay: Duration) {
    let service =
        service_fn(move |request| async move { Ok::<_, Infallible>(reply(request, delay).await) });
    if let Err(error) = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await
    {
        // Mostly a caller that left, which is its right.
        log::debug!("demo connection ended early: {error}");
    }
}

async fn reply<B>(request: Request<B>, delay: Duration) -> Reply
where
    B: Body<Data: Send, Error: Into<Box<dyn std::error::Error + Send + Sync>>>,
{
    match (request.method(), request.uri().path()) {
        (&Method::GET, "/v1/models") => {
            let model = json!({"id": MODEL, "object": "model", "created": CREATED, "owned_by": "open-persona"});
            json_reply(StatusCode::OK, &json!({"object": "list", "data": [model]}))
        }
        (&Method::POST, "/v1/chat/completions") => {
            let Ok(body) = Limited::new(request.into_body(), LIMIT).collect().await else {
                return failure(StatusCode::PAYLOAD_TOO_LARGE);
            };
            match serde_json::from_slice(&body.to_bytes()) {
                Ok(request) => complete(&request, delay),
                Err(_) => failure(StatusCode::BAD_REQUEST),
            }
        }
        _ => failure(StatusCode::NOT_FOUND),
    }
}

/// The scripted answer to a chat completion `request`, streamed if it asks for that.
fn complete(request: &Value, delay: Duration) -> Reply {
    let answer = match answer(request) {
        Ok(answer) => answer,
        Err(status) => return failure(status),
    };
    if request["stream"] != true {
        return json_reply(StatusCode::OK, &whole(request, &answer));
    }
    let lines = chunks(request, &answer)
        .into_iter()
        .map(|chunk| format!("data: {chunk}\n\n"))
        .chain(["data: [DONE]\n\n".to_owned()]);
    let frames = stream::iter(lines).enumerate().then(move |(index, line)| async move {
        if index > 0 && !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
        Ok::<_, Infallible>(Frame::data(Bytes::from(line)))
    });
    let mut reply = Response::new(StreamBody::new(frames).boxed_unsync());
    reply.headers_mut().insert(header::CONTENT_TYPE, const_header("text/event-stream"));
    reply.headers_mut().insert(header::CACHE_CONTROL, const_header("no-cache"));
    reply
}

fn whole(request: &Value, answer: &Answer) -> Value {
    let mut message = json!({"role": "assistant", "content": answer.text});
    if !answer.reasoning.is_empty() {
        message["reasoning_content"] = json!(answer.reasoning);
    }
    if let Some(call) = tool_call(answer) {
        message["tool_calls"] = json!([call]);
    }
    let mut whole = envelope(request, "chat.completion");
    whole["choices"] =
        json!([{"index": 0, "message": message, "finish_reason": answer.finish_reason()}]);
    whole["usage"] = usage(request, answer);
    whole
}

fn chunks(request: &Value, answer: &Answer) -> Vec<Value> {
    let chunk = |delta: Value, finish: Option<&str>| {
        let mut chunk = envelope(request, "chat.completion.chunk");
        chunk["choices"] = json!([{"index": 0, "delta": delta, "finish_reason": finish}]);
        chunk
    };
    let words = |member: &'static str, text: &str| -> Vec<Value> {
        text.split_inclusive(' ').map(|word| chunk(json!({member: word}), None)).collect()
    };
    let mut chunks = vec![chunk(json!({"role": "assistant", "content": ""}), None)];
    chunks.extend(words("reasoning_content", &answer.reasoning));
    chunks.extend(words("content", &answer.text));
    chunks.extend(tool_call(answer).map(|call| chunk(json!({"tool_calls": [call]}), None)));
    chunks.push(chunk(json!({}), Some(answer.finish_reason())));
    if request["stream_options"]["include_usage"] == true {
        let mut last = envelope(request, "chat.completion.chunk");
        last["choices"] = json!([]);
        last["usage"] = usage(request, answer);
        chunks.push(last);
    }
    chunks
}

fn envelope(request: &Value, object: &str) -> Value {
    json!({
        "id": "chatcmpl-demo",
        "object": object,
        "created": CREATED,
        "model": request["model"].as_str().unwrap_or(MODEL),
    })
}

/// The call, if the answer makes one. Its id counts the messages so far: call ids must be unique
/// within a chat.
fn tool_call(answer: &Answer) -> Option<Value> {
    let (name, arguments) = answer.call.as_ref()?;
    let function = json!({"name": name, "arguments": arguments.to_string()});
    let id = format!("call_demo_{}", answer.turn);
    Some(json!({"index": 0, "id": id, "type": "function", "function": function}))
}

/// Four bytes a token for what was read, a word a token for what is written.
fn usage(request: &Value, answer: &Answer) -> Value {
    let words = |text: &str| text.split_whitespace().count();
    let thought = words(&answer.reasoning);
    let read = request["messages"].to_string().len() / 4;
    let written = words(&answer.text) + thought + 10 * usize::from(answer.call.is_some());
    json!({
        "prompt_tokens": read,
        "completion_tokens": written,
        "total_tokens": read + written,
        "completion_tokens_details": {"reasoning_tokens": thought},
    })
}

fn json_reply(status: StatusCode, body: &Value) -> Reply {
    let mut reply = Response::new(Full::from(body.to_string()).boxed_unsync());
    *reply.status_mut() = status;
    reply.headers_mut().insert(header::CONTENT_TYPE, const_header("application/json"));
    reply
}

fn failure(status: StatusCode) -> Reply {
    let message = format!("The scripted demo model answers {status}.");
    let (kind, code) = match status.as_u16() {
        401 => ("authentication_error", "invalid_api_key"),
        429 => ("rate_limit_error", "rate_limit_exceeded"),
        400..=499 => ("invalid_request_error", "demo_failure"),
        _ => ("server_error", "demo_failure"),
    };
    json_reply(
        status,
        &json!({"error": {"message": message, "type": kind, "param": null, "code": code}}),
    )
}

fn const_header(value: &'static str) -> http::HeaderValue {
    http::HeaderValue::from_static(value)
}

#[cfg(test)]
mod tests;
