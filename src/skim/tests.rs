use proptest::prelude::*;
use serde::{Deserializer, de::Visitor};
use serde_json::value::RawValue;

use super::*;

const WANTED: &[Path] = &[&["model"], &["usage"], &["response", "usage"], &["n"]];

/// What was found, in the order of the document: path, text, whether again.
type Finds = Vec<(Path, String, bool)>;

fn skimmed<'a>(pieces: impl IntoIterator<Item = &'a [u8]>, keys: Keys) -> (Finds, Progress) {
    let (mut skim, mut finds) = (Skim::new(WANTED, keys, 1 << 20), Vec::new());
    for piece in pieces {
        skim.feed(piece, |found| {
            assert!(found.is_whole);
            let text = String::from_utf8(found.text.to_vec()).unwrap();
            finds.push((found.path, text, found.is_again));
        });
    }
    (finds, skim.progress())
}

fn texts(document: &str) -> Vec<String> {
    texts_with(document, Keys::Exact)
}

fn texts_with(document: &str, keys: Keys) -> Vec<String> {
    let (whole, progress) = skimmed([document.as_bytes()], keys);
    assert_eq!(progress, Progress::Whole, "{document}");
    let single = skimmed(document.as_bytes().chunks(1), keys);
    assert_eq!(single, (whole.clone(), progress), "{document}");
    whole.into_iter().map(|(_, text, _)| text).collect()
}

fn progress(document: &[u8]) -> Progress {
    let (_, progress) = skimmed([document], Keys::Exact);
    assert_eq!(skimmed(document.chunks(1), Keys::Exact).1, progress);
    progress
}

#[test]
fn values_of_all_kinds_are_found() {
    assert_eq!(texts(r#"{"model":"a\"\\b{"}"#), [r#""a\"\\b{""#]);
    assert_eq!(texts("{ \"n\" : -1.5e+2 , \"model\"\t:\nnull }\n"), ["-1.5e+2", "null"]);
    assert_eq!(texts(r#"{"n":1}"#), ["1"]);
    assert_eq!(
        texts(r#"{"n":[],"usage":{"a":[{"b":"]}"}], "c":{}}}"#),
        ["[]", r#"{"a":[{"b":"]}"}], "c":{}}"#]
    );
    assert_eq!(texts(r#"{"response":{"id":"x","usage":{"a":1}},"usage":0}"#), [r#"{"a":1}"#, "0"]);
}

#[test]
fn members_elsewhere_are_not_found() {
    for document in [
        r"{}",
        r#"{"x":{"model":1}}"#,
        r#"{"x":[{"usage":1},"usage",[]],"y":"\"usage\":1"}"#,
        r#"{"response":[{"usage":1}],"x":{"response":{"usage":1}}}"#,
        r#"{"response":{"x":{"usage":1},"model":"m","response":{"usage":2}},"y":{}}"#,
        r#"{"response":{},"x":{"usage":1}}"#,
        r#"{"response":"{\"usage\":1}","usag":1,"usages":2,"":3}"#,
        r#"{"models":"\\","model\u0000":1,"model\ud800":1,"Model":1}"#,
    ] {
        assert!(texts(document).is_empty(), "{document}");
    }
}

#[test]
fn keys_are_what_they_say() {
    assert_eq!(
        texts(r#"{"mod\u0065l":1,"\u006D\u006F\u0064\u0065\u006C":2,"m\/odel":3}"#),
        ["1", "2"]
    );
    let same = r#"{"MODEL":1,"mO\u0044el":2,"u\u017fage":3,"uſage":4,"usage\u0000":5,"Response":{"USAGE":6}}"#;
    assert_eq!(texts_with(same, Keys::AnyCase), ["1", "2", "3", "4", "6"]);
    assert!(texts(same).is_empty());
    assert!(Keys::AnyCase.are_same("to\u{212a}en".as_bytes(), "token"));
}

#[test]
fn every_occurrence_is_found() {
    let again = |document: &str| -> Vec<bool> {
        let (finds, _) = skimmed([document.as_bytes()], Keys::Exact);
        finds.into_iter().map(|(_, _, again)| again).collect()
    };
    assert_eq!(
        again(r#"{"model":1,"usage":1,"response":{"usage":1},"model":1,"model":1}"#),
        [false, false, false, true, true]
    );
    assert_eq!(again(r#"{"response":{"usage":1},"response":{"usage":1}}"#), [false, true]);
}

#[test]
fn what_is_longer_than_allowed_loses_its_end() {
    let document = br#"{"n":"1234567","model":"12345678","usage":[1]}"#;
    for size in [1, 2, 5, document.len()] {
        let (mut skim, mut found) = (Skim::new(WANTED, Keys::Exact, 9), Vec::new());
        for piece in document.chunks(size) {
            skim.feed(piece, |f| found.push((f.text.to_vec(), f.is_whole)));
        }
        assert_eq!(
            found,
            [
                (b"\"1234567\"".to_vec(), true),
                (b"\"12345678".to_vec(), false),
                (b"[1]".to_vec(), true)
            ]
        );
        assert!(skim.held.capacity() < 64);
    }
}

#[test]
fn a_document_without_end_takes_no_memory() {
    let mut skim = Skim::new(WANTED, Keys::Exact, 16);
    skim.feed(b"{\"model\":\"", |_| {});
    for _ in 0..1000 {
        skim.feed(&[b'x'; 1000], |_| {});
    }
    skim.feed(b"\",\"", |_| {});
    for _ in 0..1000 {
        skim.feed(&[b'x'; 1000], |_| {});
    }
    assert!(skim.held.capacity() < 256);
    skim.restart();
    skim.feed(b"{", |_| {});
    skim.feed(&b"\"x\":[{\"a\":".repeat(100_000), |_| {});
    assert_eq!(skim.progress(), Progress::Unfinished);
}

#[test]
fn it_knows_how_far_the_document_is() {
    for unfinished in ["", " \n", "{", r#"{"a"#, r#"{"a":"}"#, r#"{"a":{"b":1}"#, r#"{"a":1,"#] {
        assert_eq!(progress(unfinished.as_bytes()), Progress::Unfinished, "{unfinished}");
    }
    for whole in ["{}", " {} \r\n\t", r#"{"a":{"b":[1,{}]}}"#, r#"{"response":{"usage":{}}}"#] {
        assert_eq!(progress(whole.as_bytes()), Progress::Whole, "{whole}");
    }
    for followed in ["{}{}", "{} x", "{}]", "{}\0", "{},"] {
        assert_eq!(progress(followed.as_bytes()), Progress::Followed, "{followed}");
    }
    for other in ["[]", "\"{}\"", "1", "null", "\u{feff}{}", "\0{", "\u{b}{}", "}"] {
        assert_eq!(progress(other.as_bytes()), Progress::NotAnObject, "{other}");
    }
}

#[test]
fn what_other_dialects_would_read_differently_is_broken() {
    for broken in [
        r#"{/*"*/"model":"a"/*"*/}"#,
        "{//\"\n\"model\":\"a\"//\"\n}",
        r#"{'x':'","model":"a"'}"#,
        r#"{"x":['"'],"model":"a"}"#,
        r#"{"x":[1,#"]\n"#,
        r#"{model:"a"}"#,
        r#"{"model" "a"}"#,
        r#"{"n":1 "model":2}"#,
        r#"{"n":1]"#,
        r#"{"n":}"#,
        r#"{"n"}"#,
        "{\0\"\0n\0",
        "{\u{a0}}",
    ] {
        assert_eq!(progress(broken.as_bytes()), Progress::Broken, "{broken}");
    }
}

/// What serde finds: the members of an object in their order, duplicates included.
fn members(object: &str) -> Option<Vec<(String, Box<RawValue>)>> {
    struct Members;
    impl<'de> Visitor<'de> for Members {
        type Value = Vec<(String, Box<RawValue>)>;
        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("an object")
        }
        fn visit_map<A: serde::de::MapAccess<'de>>(
            self,
            mut map: A,
        ) -> Result<Self::Value, A::Error> {
            std::iter::from_fn(|| map.next_entry().transpose()).collect()
        }
    }
    let mut deserializer = serde_json::Deserializer::from_str(object);
    let members = deserializer.deserialize_map(Members).ok()?;
    deserializer.end().ok().map(|()| members)
}

fn expected(document: &str, keys: Keys) -> Vec<(Path, String)> {
    let is = |key: &str, name: &str| match keys {
        Keys::Exact => key == name,
        Keys::AnyCase => key.to_lowercase().replace('ſ', "s") == name,
    };
    let mut found = Vec::new();
    for (key, value) in members(document).unwrap() {
        for path in WANTED {
            if path.len() == 1 && is(&key, path[0]) {
                found.push((*path, value.get().to_owned()));
            }
        }
        if is(&key, "response") {
            for (_, value) in
                members(value.get()).into_iter().flatten().filter(|(key, _)| is(key, "usage"))
            {
                found.push((WANTED[2], value.get().to_owned()));
            }
        }
    }
    found
}

/// Strings with quotes around them, escaped in more ways than one.
fn string() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        any::<char>().prop_map(|c| {
            let quoted = serde_json::to_string(&c).unwrap();
            quoted[1..quoted.len() - 1].to_owned()
        }),
        any::<u16>()
            .prop_filter("surrogates come in pairs", |u| !(0xd800..0xe000).contains(u))
            .prop_map(|u| format!("\\u{u:04x}")),
        prop::sample::select(vec![
            "\\\"",
            "\\\\",
            "\\/",
            "{",
            "}",
            "[",
            "]",
            ",",
            ":",
            "\\ud83d\\ude00"
        ])
        .prop_map(str::to_owned),
    ];
    prop::collection::vec(piece, 0..6).prop_map(|pieces| format!("\"{}\"", pieces.concat()))
}

fn key() -> impl Strategy<Value = String> {
    let names =
        ["model", "usage", "response", "n", "Model", "uſage", "mod\\u0065l", "resp\\u004fnse"];
    prop_oneof![
        3 => prop::sample::select(names.to_vec()).prop_map(|name| format!("\"{name}\"")),
        1 => string(),
    ]
}

fn object(value: impl Strategy<Value = String>) -> impl Strategy<Value = String> {
    prop::collection::vec((space(), key(), space(), value, space()), 0..5).prop_map(|members| {
        let members: Vec<_> = members
            .iter()
            .map(|(a, key, b, value, c)| format!("{a}{key}{b}:{c}{value}{b}"))
            .collect();
        format!("{{{}}}", members.join(","))
    })
}

fn space() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec!["", "", "", " ", "\n", "\r\n\t "])
}

fn value() -> impl Strategy<Value = String> {
    let plain = prop_oneof![
        prop::sample::select(vec![
            "null",
            "true",
            "false",
            "0",
            "-1.5E-3",
            "[]",
            "{}",
            "12345678901234567890"
        ])
        .prop_map(str::to_owned),
        any::<f32>().prop_map(|number| serde_json::to_string(&number).unwrap()),
        string(),
    ];
    plain.prop_recursive(4, 32, 5, |value| {
        prop_oneof![
            2 => object(value.clone()),
            1 => prop::collection::vec(value, 0..4)
                .prop_map(|values| format!("[{}]", values.join(" ,"))),
        ]
    })
}

proptest! {
    #[test]
    fn it_finds_what_a_parser_finds(
        document in object(value()),
        before in space(),
        after in space(),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..8),
        any_case in any::<bool>(),
    ) {
        let document = format!("{before}{document}{after}");
        let keys = if any_case { Keys::AnyCase } else { Keys::Exact };
        let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(document.len() + 1)).collect();
        cuts.extend([0, document.len()]);
        cuts.sort_unstable();
        let pieces = cuts.windows(2).map(|cut| &document.as_bytes()[cut[0]..cut[1]]);
        let (found, progress) = skimmed(pieces, keys);
        prop_assert_eq!(progress, Progress::Whole);
        let found: Vec<_> = found.into_iter().map(|(path, text, _)| (path, text)).collect();
        prop_assert_eq!(found, expected(&document, keys));
    }

    #[test]
    fn nothing_makes_it_panic(
        begin in prop::sample::select(vec!["", "{", "{\"model\":", "{\"response\":{"]),
        pieces in prop::collection::vec(
            prop_oneof![
                prop::collection::vec(any::<u8>(), 0..9),
                prop::collection::vec(prop::sample::select(b"{}[]\",:\\ 1un".to_vec()), 0..9),
            ],
            0..20,
        ),
        largest in 0_usize..9,
    ) {
        let mut skim = Skim::new(WANTED, Keys::AnyCase, largest);
        skim.feed(begin.as_bytes(), |_| {});
        for piece in &pieces {
            skim.feed(piece, |found| assert!(found.text.len() <= largest));
        }
    }
}
