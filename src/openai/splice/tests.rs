use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::*;

const DEPTH: usize = 64;

fn scan(body: &str) -> Result<Scan<'_>, ScanError> {
    Scan::of(body.as_bytes(), DEPTH)
}

fn rewritten(body: &str, model: &str, agent: Option<&str>) -> String {
    String::from_utf8(scan(body).unwrap().rewrite(model, agent)).unwrap()
}

#[test]
fn only_the_two_values_change() {
    let body = "\u{20}{ \"n\":1.0e+2, \"model\" :\t\"a\" ,\n\"x\":\"\\u00e9\\/\", \"agent\":{\"a\":[1]} }\n";
    assert_eq!(
        rewritten(body, "b\"c", Some("plan")),
        "\u{20}{ \"n\":1.0e+2, \"model\" :\t\"b\\\"c\" ,\n\"x\":\"\\u00e9\\/\", \"agent\":\"plan\" }\n"
    );
}

#[test]
fn a_missing_member_is_put_first() {
    assert_eq!(rewritten("{}", "m", None), r#"{"model":"m"}"#);
    assert_eq!(rewritten(" { } ", "m", Some("a")), r#" {"model":"m","agent":"a" } "#);
    assert_eq!(rewritten(r#"{ "model":"x"}"#, "m", Some("a")), r#"{"agent":"a", "model":"m"}"#);
    assert_eq!(
        rewritten(r#"{"agent":1,"b":2}"#, "m", Some("a")),
        r#"{"model":"m","agent":"a","b":2}"#
    );
}

#[test]
fn without_an_agent_the_callers_stays() {
    assert_eq!(rewritten(r#"{"agent":[],"model":""}"#, "m", None), r#"{"agent":[],"model":"m"}"#);
}

#[test]
fn the_members_are_read() {
    let body = r#"{"stream":true,"user":"al\u0069ce","model":"m","messages":[{"model":"no"}]}"#;
    let scan = scan(body).unwrap();
    assert_eq!((scan.model(), scan.user(), scan.stream()), (Some("m"), Some("alice"), true));
    let absent = Scan::of(br#"{"user":null,"stream":null}"#, 1).unwrap();
    assert_eq!((absent.model(), absent.user(), absent.stream()), (None, None, false));
}

#[test]
fn an_escaped_key_is_the_member_it_spells() {
    let body = r#"{"mod\u0065l":"a"}"#;
    assert_eq!(scan(body).unwrap().model(), Some("a"));
    assert_eq!(rewritten(body, "b", None), r#"{"mod\u0065l":"b"}"#);
    for member in ["model", "user", "stream", "agent"] {
        let escaped = format!("\\u{:04x}{}", member.as_bytes()[0], &member[1..]);
        let body = format!(r#"{{"{member}":null,"x":0,"{escaped}":null}}"#);
        assert_eq!(scan(&body).unwrap_err(), ScanError::Duplicate(CONTROL[index(member)]));
    }
}

fn index(member: &str) -> usize {
    CONTROL.iter().position(|control| *control == member).unwrap()
}

#[test]
fn keys_that_only_resemble_a_member_are_none() {
    let body = r#"{"Model":1,"model ":2,"\"model\"":3,"mod\ud800el":4,"":5,"model\u0000":6}"#;
    assert_eq!(scan(body).unwrap().model(), None);
}

#[test]
fn what_is_not_one_json_object_is_refused() {
    for body in [
        "",
        " ",
        "{",
        "{}x",
        "{} {}",
        "{\"a\":01}",
        "{\"a\":1,}",
        "{a:1}",
        "{'a':1}",
        "{\"a\":\"\t\"}",
        "\u{feff}{}",
        "{\"a\":NaN}",
        "{\"a\":\"\\x\"}",
        "{1:2}",
        "{}//",
        "{\"a\":.5}",
    ] {
        assert_eq!(scan(body).unwrap_err(), ScanError::NotJson, "{body:?}");
    }
    for body in ["[]", "null", "1", "\"model\"", "true"] {
        assert_eq!(scan(body).unwrap_err(), ScanError::NotAnObject, "{body:?}");
    }
    assert_eq!(Scan::of(b"{\"a\":\"\xff\"}", DEPTH).unwrap_err(), ScanError::NotUtf8);
}

#[test]
fn control_members_have_their_types() {
    for (body, member) in [
        (r#"{"model":1}"#, "model"),
        (r#"{"user":{}}"#, "user"),
        (r#"{"user":"\ud800"}"#, "user"),
        (r#"{"stream":"true"}"#, "stream"),
        (r#"{"stream":1}"#, "stream"),
    ] {
        let refusal = Refusal::from(scan(body).unwrap_err());
        assert_eq!((refusal.code, refusal.param.as_deref()), ("invalid_type", Some(member)));
    }
}

#[test]
fn lone_surrogates_elsewhere_pass_through() {
    let body = r#"{"\udfff":"\ud800","model":"m"}"#;
    assert_eq!(rewritten(body, "n", None), r#"{"\udfff":"\ud800","model":"n"}"#);
}

#[test]
fn depth_counts_brackets_outside_strings_only() {
    assert!(Scan::of(br#"{"a":[[1]],"b":"[[[[{{{{\"[[[","c":[[2]]}"#, 3).is_ok());
    assert_eq!(Scan::of(br#"{"a":[[[1]]]}"#, 3).unwrap_err(), ScanError::TooDeep(3));
    let bomb = "{\"a\":".repeat(1_000_000);
    assert_eq!(scan(&bomb).unwrap_err(), ScanError::TooDeep(DEPTH));
}

#[test]
fn a_refusal_does_not_repeat_the_body() {
    for body in ["{\"canary", "[\"canary\"]", r#"{"user":"canary","user":"canary"}"#] {
        let refusal = Refusal::from(scan(body).unwrap_err());
        assert_eq!(refusal.status, 400);
        assert!(!format!("{refusal:?}").contains("canary"));
    }
}

#[test]
fn a_body_cut_anywhere_is_refused() {
    let body = r#" {"model":"mö\n","a":[1.5e3,true,null,{"b":"\u00e9"}],"stream":false}"#;
    for end in 0..body.len() {
        assert!(Scan::of(&body.as_bytes()[..end], DEPTH).is_err(), "cut at {end}");
    }
}

/// Any JSON value of a few levels, with keys and strings that need escapes.
fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "[\\PC\"\\\\\n]{0,12}".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 40, 5, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            prop::collection::vec((".{0,6}", inner), 0..5)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

/// A request: random members, some of them ours.
fn request() -> impl Strategy<Value = Map<String, Value>> {
    let name = prop_oneof!["[a-z\"\\\\é]{0,5}", Just("modem".into()), Just("agents".into())];
    let ours = (any::<Option<bool>>(), prop::option::of(".{0,9}"), prop::option::of(value()));
    (prop::collection::vec((name, value()), 0..6), ours, prop::option::of(".{0,9}")).prop_map(
        |(others, (stream, user, agent), model)| {
            let mut members: Map<String, Value> = others.into_iter().collect();
            members.extend(stream.map(|stream| ("stream".into(), json!(stream))));
            members.extend(user.map(|user| ("user".into(), json!(user))));
            members.extend(agent.map(|agent| ("agent".into(), agent)));
            members.extend(model.map(|model| ("model".into(), json!(model))));
            members
        },
    )
}

/// `pretty` puts white space everywhere, so that spans are not accidentally right.
fn written(request: &Map<String, Value>, pretty: bool) -> String {
    let write = if pretty { serde_json::to_string_pretty } else { serde_json::to_string };
    write(request).unwrap()
}

proptest! {
    #[test]
    fn a_rewrite_changes_nothing_but_model_and_agent(
        request in request(), pretty: bool, model in ".{0,9}", agent in prop::option::of(".{0,9}"),
    ) {
        let body = written(&request, pretty);
        let out = Scan::of(body.as_bytes(), DEPTH).unwrap().rewrite(&model, agent.as_deref());
        let out = String::from_utf8(out).unwrap();

        let mut expected = request.clone();
        expected.insert("model".into(), json!(model));
        expected.extend(agent.as_ref().map(|agent| ("agent".into(), json!(agent))));
        // Both through the parser, which does not keep the last digit of every float.
        let expected = serde_json::from_str::<Value>(&written(&expected, false)).unwrap();
        prop_assert_eq!(serde_json::from_str::<Value>(&out).unwrap(), expected);

        // Undoing the change gives back every byte of a body that had both members.
        if let (Some(Value::String(old)), Some(Value::String(was))) =
            (request.get("model"), request.get("agent"))
        {
            let back = Scan::of(out.as_bytes(), DEPTH).unwrap().rewrite(old, Some(was));
            prop_assert_eq!(String::from_utf8(back).unwrap(), body);
        }
    }

    #[test]
    fn a_damaged_body_is_judged_as_serde_json_judges_it(
        request in request(), pretty: bool,
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..3),
    ) {
        let mut body = written(&request, pretty).into_bytes();
        for (at, byte) in damage {
            let at = at.index(body.len());
            body[at] = byte;
        }
        let valid = std::str::from_utf8(&body).is_ok()
            && serde_json::from_slice::<serde::de::IgnoredAny>(&body).is_ok();
        match Scan::of(&body, DEPTH) {
            Ok(scan) => {
                prop_assert!(valid);
                scan.rewrite("m", Some("a"));
            }
            Err(ScanError::NotUtf8 | ScanError::NotJson) => prop_assert!(!valid),
            Err(_) => {}
        }
    }

    #[test]
    fn random_bytes_never_panic(body in prop::collection::vec(
        prop_oneof![prop::sample::select(br#"{}[]":,\u0e1 modelntrufas"#.to_vec()), any::<u8>()], 0..60,
    )) {
        drop(Scan::of(&body, 3));
    }
}
