//! The provider itself is sound: what it says it was sent and has used is what happened.

mod client;

use std::{io::Read as _, time::Duration};

use http::Version;
use http_body_util::BodyExt;
use serde_json::{Value, json};

use self::client::{Client, KEY, argument_in, call, events, path_of, read_stream, read_whole};
use super::{Act, Authority, Provider, Reply, Style, script};

const SOON: Duration = Duration::from_secs(15);

async fn says_and_counts_the_same(provider: &Provider, client: &mut Client, version: Version) {
    let mut told = 0;
    for style in Style::ALL {
        let (path, asked) = (path_of(style), "Say [[echo all of this]], please.");
        let (status, streamed) = client.ask(&path, &call(style, asked, true)).await;
        assert_eq!(status, 200, "{streamed}");
        let (text, total) = read_stream(style, &events(&streamed));
        assert_eq!(text, "all of this", "{streamed}");
        told += total;

        let (status, whole) = client.ask(&path, &call(style, asked, false)).await;
        assert_eq!(status, 200, "{whole}");
        let (text, total) = read_whole(style, &json_of(&whole));
        assert_eq!(text, "all of this", "{whole}");
        told += total;
    }
    let ledger = provider.ledger();
    assert_eq!(ledger.of(KEY, "m1").tokens.total(), told);
    assert_eq!((ledger.of(KEY, "m1").calls, ledger.told, ledger.begun), (6, 6, 6));
    for seen in provider.seen() {
        assert_eq!((seen.connection, seen.version), (0, version));
        assert_eq!(seen.keys(), [("authorization", KEY)]);
        assert_eq!(seen.host(), provider.address.to_string());
    }
    assert_eq!(provider.connections(), 1);
}

fn json_of(text: &str) -> Value {
    serde_json::from_str(text).expect("JSON")
}

#[tokio::test(flavor = "multi_thread")]
async fn every_style_says_the_same_and_counts_the_same_over_http_1() {
    let provider = Provider::start().await;
    let mut client = Client::plain(&provider).await;
    says_and_counts_the_same(&provider, &mut client, Version::HTTP_11).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_style_says_the_same_and_counts_the_same_over_http_2_and_tls() {
    let authority = Authority::new();
    let provider = Provider::start_tls(&authority).await;
    let mut client = Client::tls_2(&provider, &authority).await;
    says_and_counts_the_same(&provider, &mut client, Version::HTTP_2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_style_says_the_same_and_counts_the_same_over_http_1_and_tls() {
    let authority = Authority::without_http2();
    let provider = Provider::start_tls(&authority).await;
    let mut client = Client::tls_1(&provider, &authority).await;
    says_and_counts_the_same(&provider, &mut client, Version::HTTP_11).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_of_a_tool_is_written_in_every_style() {
    let provider = Provider::start().await;
    let mut client = Client::plain(&provider).await;
    for style in Style::ALL {
        for stream in [true, false] {
            let call = call(style, "[[run echo a tool]]", stream);
            let (_, reply) = client.ask(&path_of(style), &call).await;
            assert!(reply.contains("bash"), "{reply}");
            let reply = if stream {
                let parts = events(&reply);
                parts.iter().filter_map(|event| argument_in(style, event)).collect()
            } else {
                reply.replace("\\\"", "\"")
            };
            assert!(reply.contains(r#""command":"echo a tool""#), "{style:?}: {reply}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_tools_returned_is_said_in_every_style() {
    let provider = Provider::start().await;
    let mut client = Client::plain(&provider).await;
    let earlier = json!({"role": "user", "content": "[[echo no]]"});
    let user = json!({"role": "user", "content": [{"type": "text", "text": "[[run x]]"}]});
    for (style, result) in [
        (Style::Responses, json!({"type": "function_call_output", "output": "it returned"})),
        (
            Style::Messages,
            json!({"role": "user", "content": [{"type": "tool_result",
                "content": [{"type": "text", "text": "it returned"}]}]}),
        ),
        (Style::Chat, json!({"role": "tool", "content": "it returned"})),
    ] {
        let list = if style == Style::Responses { "input" } else { "messages" };
        let mut asked = json!({"model": "m1"});
        asked[list] = json!([earlier, {"role": "assistant", "content": "No."}, user, result]);
        let (_, reply) = client.ask(&path_of(style), &asked).await;
        let reply = serde_json::from_str(&reply).unwrap();
        assert_eq!(read_whole(style, &reply).0, "it returned", "{style:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_held_reply_waits_and_one_whose_caller_leaves_is_not_counted() {
    let provider = Provider::start().await;
    let mut client = Client::plain(&provider).await;
    let held = call(Style::Chat, "[[hold one two three four]]", true);
    let mut answer = client.open(&path_of(Style::Chat), &held).await;
    provider.holds(1, SOON).await;
    let first = answer.frame().await.unwrap().unwrap();
    assert!(!String::from_utf8_lossy(first.data_ref().unwrap()).contains("four"));
    assert_eq!((provider.ledger().open(), provider.ledger().total().calls), (1, 0));
    provider.release(1);
    let rest = answer.collect().await.unwrap().to_bytes();
    assert!(String::from_utf8_lossy(&rest).contains("four"));
    assert_eq!((provider.ledger().open(), provider.ledger().total().calls), (0, 1));

    let answer = client.open(&path_of(Style::Chat), &held).await;
    provider.holds(1, SOON).await;
    drop((answer, client));
    provider.settles(SOON).await;
    let ledger = provider.ledger();
    assert_eq!((ledger.early, ledger.told, ledger.total().calls), (1, 1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_repeat_the_key_and_only_good_keys_are_let_in() {
    let provider = Provider::start().await;
    let mut client = Client::plain(&provider).await;
    provider.accept_only(&["another key"]);
    for style in Style::ALL {
        let (status, error) = client.ask(&path_of(style), &call(style, "Hello", true)).await;
        assert_eq!(status, 401, "{error}");
        assert!(error.contains(KEY), "{error}");
        let error: Value = serde_json::from_str(&error).unwrap();
        assert_eq!(error["type"] == "error", style == Style::Messages, "{error}");
    }
    provider.accept_only(&[KEY]);
    let chat = path_of(Style::Chat);
    let (status, _) = client.ask(&chat, &call(Style::Chat, "[[fail 503]]", true)).await;
    assert_eq!(status, 503);
    let asked = call(Style::Chat, "[[redirect http://127.0.0.1:1/x]]", true);
    let answer = client.open(&chat, &asked).await;
    assert_eq!(answer.status(), 307);
    assert_eq!(answer.headers()["location"], "http://127.0.0.1:1/x");
    assert_eq!((provider.ledger().refused, provider.ledger().begun), (5, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn usage_that_nobody_asked_for_or_that_is_withheld_is_not_counted() {
    let provider = Provider::start().await;
    let mut client = Client::plain(&provider).await;
    for style in Style::ALL {
        for stream in [true, false] {
            let asked = call(style, "[[unmetered one two]]", stream);
            client.ask(&path_of(style), &asked).await;
        }
    }
    let mut quiet = call(Style::Chat, "Hello", true);
    quiet["stream_options"] = Value::Null;
    client.ask(&path_of(Style::Chat), &quiet).await;
    let ledger = provider.ledger();
    assert_eq!((ledger.untold, ledger.told, ledger.total().calls), (7, 0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cut_reply_ends_early() {
    let provider = Provider::start().await;
    let mut client = Client::plain(&provider).await;
    let answer = client.open(&path_of(Style::Chat), &call(Style::Chat, "[[cut one]]", true)).await;
    assert!(answer.collect().await.is_err());
    assert_eq!(provider.ledger().early, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reply_is_compressed_for_those_who_can_read_it() {
    let provider = Provider::start().await;
    let mut client = Client::plain(&provider).await;
    let (path, asked) = (path_of(Style::Chat), call(Style::Chat, "[[gzip packed text]]", true));
    let (_, plain) = client.ask(&path, &asked).await;
    let answer = client.open_with(&path, &asked, "gzip, br").await;
    assert_eq!(answer.headers()["content-encoding"], "gzip");
    let packed = answer.collect().await.unwrap().to_bytes();
    let mut text = String::new();
    flate2::read::GzDecoder::new(&*packed).read_to_string(&mut text).unwrap();
    let texts = [plain, text].map(|text| read_stream(Style::Chat, &events(&text)).0);
    assert_eq!(texts, ["packed text", "packed text"]);
    assert_eq!(provider.ledger().told, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn models_and_embeddings_are_answered_and_tests_can_direct_the_rest() {
    let provider = Provider::directed(|asked| {
        Act::Reply(Reply::saying(&format!("{} for {}", asked.model, asked.key)))
    })
    .await;
    let mut client = Client::plain(&provider).await;
    let (status, models) = client.ask("/base/v1/models", &json!({})).await;
    assert_eq!(status, 200);
    assert!(models.contains("gpt-5"), "{models}");
    let asked = json!({"model": "embedder", "input": "x"});
    let (_, vectors) = client.ask("/base/v1/embeddings", &asked).await;
    let vectors: Value = serde_json::from_str(&vectors).unwrap();
    let used = provider.ledger().of(KEY, "embedder");
    assert_eq!(vectors["usage"]["total_tokens"].as_u64(), Some(used.tokens.total()));
    let (_, reply) = client.ask(&path_of(Style::Chat), &call(Style::Chat, "x", false)).await;
    assert!(reply.contains(&format!("m1 for {KEY}")), "{reply}");
    assert!(!reply.contains(script::DEFAULT), "{reply}");
}
