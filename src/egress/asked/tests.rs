use super::*;

fn asked(body: &str) -> Asked {
    let mut asked = Asked::new();
    asked.feed(body.as_bytes()).unwrap();
    asked.finish().unwrap();
    for cut in (0..=body.len()).step_by(1 + body.len() / 500) {
        let (mut cut_up, (head, tail)) = (Asked::new(), body.as_bytes().split_at(cut));
        cut_up.feed(head).and_then(|()| cut_up.feed(tail)).unwrap();
        assert_eq!(format!("{:?}", cut_up.wish), format!("{:?}", asked.wish), "cut at {cut}");
        assert_eq!((cut_up.finish(), cut_up.bytes()), (Ok(()), body.len() as u64));
    }
    asked
}

/// The first fault, which must not depend on the pieces.
fn fault(body: &str) -> Fault {
    let fault = |size| {
        let (mut asked, mut pieces) = (Asked::new(), body.as_bytes().chunks(size));
        let fed = pieces.try_for_each(|piece| asked.feed(piece));
        fed.and_then(|()| asked.finish()).unwrap_err()
    };
    assert_eq!(fault(1), fault(body.len().max(1)), "{body}");
    fault(1)
}

#[test]
fn a_chat_completion_is_read() {
    let asked = asked(
        r#"{"model":"gpt-5.2","max_tokens":8192,"messages":[{"role":"system","content":"a \"model\": \\"},
        {"role":"user","content":[{"type":"text","text":"{\"model\":\"no\"}","model":"no","n":9}]}],
        "tools":[{"type":"function","function":{"name":"bash","parameters":{"properties":
        {"prompt":{"type":"string"},"max_tokens":{"type":"number"}}}}}],"tool_choice":"auto",
        "stream":true,"stream_options":{"include_usage":true}}"#,
    );
    assert_eq!(asked.model(), Some("gpt-5.2"));
    assert_eq!(asked.worst_output(), Some(8192));
    assert!(asked.streams() && !asked.refers_elsewhere() && !asked.in_background());
}

#[test]
fn the_model_is_known_as_soon_as_it_passed() {
    let mut asked = Asked::new();
    asked.feed(b"{\"stream\":false,\"mod\\u006").unwrap();
    asked.feed(b"5l\":\"vendor/m\\u00e9").unwrap();
    assert_eq!(asked.model(), None);
    asked.feed(b"\"").unwrap();
    assert_eq!(asked.model(), Some("vendor/mé"));
    assert!(!asked.streams());
    assert_eq!(asked.finish(), Err(Fault::Incomplete));
}

#[test]
fn the_worst_output_is_the_largest_that_any_member_allows() {
    let worst = |members: &str| asked(&format!(r#"{{"model":"m"{members}}}"#)).worst_output();
    assert_eq!(worst(""), None);
    assert_eq!(worst(r#","max_tokens":null,"n":2"#), None);
    assert_eq!(
        worst(r#","max_tokens":10,"max_completion_tokens":30,"max_output_tokens":20"#),
        Some(30)
    );
    assert_eq!(worst(r#","max_tokens":1e3,"n":2,"best_of":3"#), Some(3000));
    assert_eq!(worst(r#","max_tokens":0,"n":0"#), Some(0));
    assert_eq!(asked(r#"{"model":"m","n":4}"#).answers(), 4);
    // Providers that are lenient may find a number in these.
    for unreadable in ["-1", "\"8\"", "1e999", "[8]", "true", &format!("1.{}e9", "0".repeat(3000))]
    {
        assert_eq!(worst(&format!(r#","max_output_tokens":{unreadable}"#)), Some(u64::MAX));
        assert_eq!(worst(&format!(r#","max_tokens":9,"n":{unreadable}"#)), Some(u64::MAX));
    }
}

#[test]
fn input_that_the_provider_keeps_is_noticed() {
    let elsewhere =
        |members: &str| asked(&format!(r#"{{"model":"m",{members}}}"#)).refers_elsewhere();
    assert!(elsewhere(r#""previous_response_id":"resp_1""#));
    assert!(elsewhere(r#""conversation":{"id":"conv_1"}"#));
    assert!(elsewhere(&format!(r#""prompt":{{"id":"pmpt_1","x":"{}"}}"#, "x".repeat(5000))));
    let text = "x".repeat(5000);
    assert!(!elsewhere(&format!(
        r#""previous_response_id":null,"conversation":null,"prompt":"{text}""#
    )));
    assert!(asked(r#"{"background":true,"model":"m"}"#).in_background());
}

#[test]
fn a_control_member_appears_once() {
    for path in CONTROL {
        let name = path[0];
        let escaped = format!("\\u{:04X}{}", name.as_bytes()[0], &name[1..]);
        for other in [name, &name.to_uppercase(), &escaped, &name.replace('s', "\u{17f}")] {
            let first = if name == "model" { "\"m\"" } else { "null" };
            let body = format!(r#"{{"{name}":{first},"messages":[],"{other}":{first}}}"#);
            assert_eq!(fault(&body), Fault::Duplicate(name), "{body}");
        }
    }
}

#[test]
fn a_model_is_a_short_text() {
    let of = |value: &str| fault(&format!(r#"{{"model":{value}}}"#));
    for value in [
        "null",
        "1",
        "[\"m\"]",
        "{\"a\":\"m\"}",
        r#""\ud800""#,
        &format!("[{}]", "1,".repeat(3000)),
    ] {
        assert_eq!(of(value), Fault::Model("not a string"), "{value}");
    }
    assert_eq!(of("\"\""), Fault::Model("empty"));
    assert_eq!(of(r#""a\nb""#), Fault::Model("not printable"));
    assert_eq!(of("\"a\u{85}b\""), Fault::Model("not printable"));
    for length in [257, 10_000] {
        assert_eq!(
            of(&format!("\"{}\"", "m".repeat(length))),
            Fault::Model("longer than 256 bytes")
        );
    }
    let longest = format!(r#"{{"model":"{}"}}"#, "\\u006d".repeat(256));
    assert_eq!(asked(&longest).model().map(str::len), Some(256));
}

#[test]
fn a_body_is_one_whole_object_with_a_model() {
    for body in ["[]", "\u{feff}{}", "null", "{model:1}", "{/**/}", "\u{1f}\u{8b}"] {
        assert_eq!(fault(body), Fault::NotAnObject, "{body}");
    }
    for body in ["", " ", r#"{"model":"m""#, r#"{"model":"m","input":["#] {
        assert_eq!(fault(body), Fault::Incomplete, "{body}");
    }
    assert_eq!(fault(r#"{"model":"m"} {"model":"x"}"#), Fault::Trailing);
    assert_eq!(fault(r#"{"x":{"model":"m"}}"#), Fault::NoModel);
}

#[test]
fn a_fault_stays() {
    let mut asked = Asked::new();
    assert_eq!(asked.feed(br#"{"model":"","#), Err(Fault::Model("empty")));
    assert_eq!(asked.feed(br#""stream":true}"#), Err(Fault::Model("empty")));
    assert_eq!((asked.finish(), asked.model()), (Err(Fault::Model("empty")), None));
}
