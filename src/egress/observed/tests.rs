use super::*;

/// Input, cached, cache write, output, reasoning.
fn tokens([input, cached, cache_write, output, reasoning]: [u64; 5]) -> Tokens {
    Tokens { input, cached, cache_write, output, reasoning }
}

type Seen = (Option<Tokens>, bool, u64, u64);

fn seen<'a>(endpoint: Endpoint, form: Form, pieces: impl Iterator<Item = &'a [u8]>) -> Seen {
    let mut observed = Observed::new(endpoint, form);
    pieces.for_each(|piece| observed.feed(piece));
    (observed.tokens(), observed.is_final(), observed.events(), observed.bytes())
}

/// What is seen of `text`, which must not depend on how it is cut or how its lines end.
fn of(endpoint: Endpoint, form: Form, text: &str) -> (Option<Tokens>, bool, u64) {
    let (tokens, is_final, events, bytes) = seen(endpoint, form, std::iter::once(text.as_bytes()));
    assert_eq!(bytes, text.len() as u64);
    for text in [text, &text.replace('\n', "\r\n"), &text.replace('\n', "\r")] {
        let expected = (tokens, is_final, events, text.len() as u64);
        assert_eq!(seen(endpoint, form, text.as_bytes().chunks(1)), expected);
        for cut in 0..=text.len() {
            let (head, tail) = text.as_bytes().split_at(cut);
            assert_eq!(seen(endpoint, form, [head, tail].into_iter()), expected, "cut at {cut}");
        }
    }
    (tokens, is_final, events)
}

fn chat(text: &str) -> (Option<Tokens>, bool, u64) {
    of(Endpoint::ChatCompletions, Form::Events, text)
}

/// The tokens that the document with this usage reports.
fn document(endpoint: Endpoint, usage: &str) -> Option<Tokens> {
    let text = format!(r#"{{"id":"x","usage":{usage},"object":"y"}}"#);
    let (tokens, is_final, events) = of(endpoint, Form::Json, &text);
    assert_eq!((is_final, events), (tokens.is_some(), 0));
    tokens
}

const CHAT: &str = r#"data: {"id":"c1","object":"chat.completion.chunk","created":1,"model":"m","choices":[{"index":0,"delta":{"role":"assistant","content":""},"finish_reason":null}],"usage":null}

: OPENROUTER PROCESSING

data: {"id":"c1","object":"chat.completion.chunk","created":1,"model":"m","choices":[{"index":0,"delta":{"content":"{\"usage\":{\"prompt_tokens\":9}}\\"},"finish_reason":null}],"usage":null}

data: {"id":"c1","object":"chat.completion.chunk","created":1,"model":"m","choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"function":{"arguments":"\"usage\": {\"completion_tokens\": 7}"}}],"usage":{"prompt_tokens":9}},"finish_reason":"stop"}],"usage":null}

data: {"id":"c1","object":"chat.completion.chunk","created":1,"model":"m","choices":[ ],"usage":{"prompt_tokens":1000,"completion_tokens":50,"total_tokens":1050,"prompt_tokens_details":{"cached_tokens":400,"audio_tokens":0},"completion_tokens_details":{"reasoning_tokens":20}}}

data: [DONE]

"#;

const RESPONSES: &str = r#"event: response.created
data: {"type":"response.created","sequence_number":0,"response":{"id":"r1","status":"in_progress","output":[],"tools":[{"parameters":{"usage":{"input_tokens":9}}}],"usage":null}}

event: response.output_text.delta
data: {"type":"response.output_text.delta","sequence_number":4,"item_id":"m1","delta":"{\"usage\":{\"input_tokens\":9}}"}

event: response.output_text.delta
data: {"type":"response.output_text.delta","sequence_number":5,"item_id":"m1","delta":" there"}

event: response.output_text.done
data: {"type":"response.output_text.done","sequence_number":6,"item_id":"m1","text":"Hi there"}

event: response.completed
data: {"type":"response.completed","sequence_number":7,"response":{"id":"r1","status":"completed","output":[{"type":"message","usage":{"input_tokens":9}}],"usage":{"input_tokens":81,"input_tokens_details":{"cached_tokens":64},"output_tokens":35,"output_tokens_details":{"reasoning_tokens":8},"total_tokens":116}}}

"#;

const MESSAGES: &str = r#"event: message_start
data: {"type":"message_start","message":{"id":"msg_1","type":"message","role":"assistant","content":[],"usage":{"input_tokens":25,"cache_creation_input_tokens":100,"cache_read_input_tokens":2000,"output_tokens":1}}}

event: content_block_start
data: {"type":"content_block_start","index":0,"content_block":{"type":"tool_use","input":{"usage":{"output_tokens":999}}}}

event: ping
data: {"type": "ping"}

event: content_block_delta
data: {"type":"content_block_delta","index":0,"delta":{"type":"input_json_delta","partial_json":"{\"usage\": {\"input_tokens\": 999}}"}}

event: content_block_stop
data: {"type":"content_block_stop","index":0}

event: message_delta
data: {"type":"message_delta","delta":{"stop_reason":"end_turn","stop_sequence":null},"usage":{"input_tokens":25,"cache_read_input_tokens":null,"output_tokens":15}}

event: message_stop
data: {"type":"message_stop"}

"#;

#[test]
fn a_stream_of_chat_completions_reports_at_its_end() {
    assert_eq!(chat(CHAT), (Some(tokens([600, 400, 0, 30, 20])), true, 3));
    let (head, _) = CHAT.split_at(CHAT.find("[ ]").unwrap());
    assert_eq!(chat(head), (None, false, 3));
}

#[test]
fn usage_may_come_with_the_last_words_or_with_each() {
    let chunk = |delta: &str, usage: &str| {
        format!("data: {{\"choices\":[{{\"delta\":{{{delta}}}}}],\"usage\":{usage}}}\n\n")
    };
    let last = chunk(r#""content":"a""#, "null")
        + &chunk("", r#"{"prompt_tokens":3,"completion_tokens":1}"#);
    assert_eq!(chat(&last), (Some(tokens([3, 0, 0, 1, 0])), true, 2));
    let each = chunk(r#""content":"a""#, r#"{"prompt_tokens":3,"completion_tokens":1}"#)
        + &chunk(r#""content":"b""#, r#"{"prompt_tokens":3,"completion_tokens":2}"#);
    assert_eq!(chat(&each), (Some(tokens([3, 0, 0, 2, 0])), true, 2));
    let more = each + &chunk(r#""content":"c""#, "null");
    assert_eq!(chat(&more), (Some(tokens([3, 0, 0, 2, 0])), false, 3));
    let before = "data: {\"usage\":{\"prompt_tokens\":3},\"choices\":[{}]}\n\n";
    assert_eq!(chat(before), (Some(tokens([3, 0, 0, 0, 0])), true, 1));
}

#[test]
fn a_stream_of_responses_reports_in_its_last_event() {
    let responses = |text: &str| of(Endpoint::Responses, Form::Events, text);
    assert_eq!(responses(RESPONSES), (Some(tokens([17, 64, 0, 27, 8])), true, 2));
    for end in ["incomplete", "failed"] {
        let text = RESPONSES.replace("completed", end);
        let pieces = text.as_bytes().chunks(7);
        let (tokens, is_final, ..) = seen(Endpoint::Responses, Form::Events, pieces);
        assert!(tokens.is_some() && is_final, "{end}");
    }
    let (head, _) = RESPONSES.split_at(RESPONSES.find("event: response.completed").unwrap());
    assert_eq!(responses(head), (None, false, 2));
}

#[test]
fn a_stream_of_messages_reports_at_its_start_and_at_its_end() {
    let messages = |text: &str| of(Endpoint::Messages, Form::Events, text);
    assert_eq!(messages(MESSAGES), (Some(tokens([25, 2000, 100, 15, 0])), true, 1));
    let (head, _) = MESSAGES.split_at(MESSAGES.find("event: message_delta").unwrap());
    assert_eq!(messages(head), (Some(tokens([25, 2000, 100, 1, 0])), false, 1));
    let (head, _) = MESSAGES.split_at(MESSAGES.find("event: content_block_start").unwrap());
    assert_eq!(messages(head), (Some(tokens([25, 2000, 100, 1, 0])), false, 0));
}

#[test]
fn documents_report_in_their_own_usage() {
    let chat = r#"{"id":"c","choices":[{"message":{"content":"\"usage\":","usage":{"prompt_tokens":9}}}],
        "usage":{"prompt_tokens":5,"completion_tokens":6,"total_tokens":11}}"#;
    assert_eq!(
        of(Endpoint::ChatCompletions, Form::Json, chat),
        (Some(tokens([5, 0, 0, 6, 0])), true, 0)
    );
    let responses = r#"{"input_tokens":81,"input_tokens_details":{"cached_tokens":64},
        "output_tokens":35,"output_tokens_details":{"reasoning_tokens":8}}"#;
    assert_eq!(document(Endpoint::Responses, responses), Some(tokens([17, 64, 0, 27, 8])));
    let messages = r#"{"input_tokens":25,"cache_creation_input_tokens":1,"cache_read_input_tokens":2,
        "cache_creation":{"ephemeral_5m_input_tokens":1},"output_tokens":15,"service_tier":"standard"}"#;
    assert_eq!(document(Endpoint::Messages, messages), Some(tokens([25, 2, 1, 15, 0])));
    assert_eq!(document(Endpoint::Other, messages), Some(tokens([25, 2, 1, 15, 0])));
    let embeddings = r#"{"prompt_tokens":8,"total_tokens":8}"#;
    assert_eq!(document(Endpoint::Embeddings, embeddings), Some(tokens([8, 0, 0, 0, 0])));
    assert_eq!(
        document(Endpoint::Embeddings, r#"{"total_tokens":8}"#),
        Some(tokens([8, 0, 0, 0, 0]))
    );
}

#[test]
fn what_other_providers_add_is_understood() {
    let chat = |usage| document(Endpoint::ChatCompletions, usage);
    let open_router = r#"{"prompt_tokens":194,"completion_tokens":2,"total_tokens":196,"cost":0.95,
        "prompt_tokens_details":{"cached_tokens":50,"cache_write_tokens":100},
        "completion_tokens_details":{"reasoning_tokens":null},"cost_details":{"upstream_inference_cost":19}}"#;
    assert_eq!(chat(open_router), Some(tokens([44, 50, 100, 2, 0])));
    let deep_seek = r#"{"prompt_tokens":30,"prompt_cache_hit_tokens":20,"prompt_cache_miss_tokens":10,
        "completion_tokens":5,"total_tokens":35}"#;
    assert_eq!(chat(deep_seek), Some(tokens([10, 20, 0, 5, 0])));
    let reasoning_beside = r#"{"prompt_tokens":32,"completion_tokens":9,"total_tokens":135,
        "completion_tokens_details":{"reasoning_tokens":94}}"#;
    assert_eq!(chat(reasoning_beside), Some(tokens([32, 0, 0, 9, 94])));
    let only_in_total = r#"{"prompt_tokens":10,"completion_tokens":5,"total_tokens":115}"#;
    assert_eq!(chat(only_in_total), Some(tokens([10, 0, 0, 5, 100])));
}

#[test]
fn numbers_that_count_nothing_are_left_out() {
    let chat = |usage| document(Endpoint::ChatCompletions, usage);
    assert_eq!(
        chat(r#"{"prompt_tokens":12.0,"completion_tokens":-3}"#),
        Some(tokens([12, 0, 0, 0, 0]))
    );
    assert_eq!(chat(r#"{"prompt_tokens":"12","completion_tokens":1e13}"#), None);
    assert_eq!(chat(r#"{"prompt_tokens":18446744073709551616,"completion_tokens":[1]}"#), None);
    let too_many = r#"{"prompt_tokens":1,"completion_tokens":2,"prompt_tokens_details":{"cached_tokens":3},
        "completion_tokens_details":{"reasoning_tokens":4}}"#;
    assert_eq!(chat(too_many), Some(tokens([0, 3, 0, 0, 4])));
    for nothing in ["null", "{}", "[]", "\"1\"", "{\"a\":1}", "{\"prompt_tokens\":null}"] {
        assert_eq!(chat(nothing), None, "{nothing}");
    }
    let endless = format!(r#"{{"usage":{{"prompt_tokens":1,"x":"{}"}}}}"#, "x".repeat(20_000));
    let pieces = endless.as_bytes().chunks(999);
    assert_eq!(seen(Endpoint::ChatCompletions, Form::Json, pieces).0, None);
}

#[test]
fn fields_comments_and_lines_are_told_apart() {
    let odd = ":data: {\"usage\":{\"prompt_tokens\":1}}\n\nid: 7\nretry: 10\ndat\ndata\ndatax: {\"usage\":{\"prompt_tokens\":2}}\n\
        event: data: {\"usage\":{\"prompt_tokens\":3}}\ndata:{\"usage\"\ndata:  :{\ndata: \"prompt_tokens\":\ndata\ndata:4}}\n\n\
        data: {\ndata: \"usage\"\n\n:{\"prompt_tokens\":5}}\n\ndata: [DONE]\n\n";
    assert_eq!(chat(odd), (Some(tokens([4, 0, 0, 0, 0])), true, 0));
    let unended = "data: {\"usage\":{\"prompt_tokens\":6}";
    assert_eq!(chat(unended).0, Some(tokens([6, 0, 0, 0, 0])));
}

#[test]
fn the_content_type_says_what_a_reply_is() {
    assert_eq!(Form::of("text/event-stream; charset=utf-8"), Form::Events);
    assert_eq!(Form::of("Application/JSON"), Form::Json);
    for other in ["", "text/html", "application/jsonl", "audio/mpeg"] {
        assert_eq!(Form::of(other), Form::Other);
        assert_eq!(of(Endpoint::ChatCompletions, Form::of(other), CHAT), (None, false, 0));
    }
}

proptest::proptest! {
    #[test]
    fn no_reply_makes_it_panic(
        pieces in proptest::collection::vec(proptest::prelude::any::<Vec<u8>>(), 0..9),
    ) {
        for form in [Form::Events, Form::Json] {
            let mut observed = Observed::new(Endpoint::Other, form);
            observed.feed(b"data:{\"usage\":");
            for piece in &pieces {
                observed.feed(piece);
            }
        }
    }
}
