//! Recordings of a real opencode, each translated to what a caller gets.
//!
//! The expected streams are beside the recordings, in `tests/fixtures/opencode/expected`.

mod stage;

use bytes::Bytes;
use proptest::prelude::*;
use serde_json::Value;

use self::stage::{Played, Prompt, Recorded, Recording, STREAM, all};
use super::voice::Form;
use crate::{
    config::ToolStyle,
    opencode::event::{Event, Frames},
};

#[test]
fn every_recording_translates_to_its_expected_stream() {
    let mut settings = insta::Settings::clone_current();
    settings.set_snapshot_path("../../tests/fixtures/opencode/expected");
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings.bind(|| {
        for recording in all() {
            let mut written = Vec::new();
            for prompt in &recording.prompts {
                let plain = recording.play(prompt, STREAM, ToolStyle::Plain);
                written.push(format!("── {} plain\n{}", prompt.id, plain.written()));
                if recording.has_tools() {
                    let native = recording.play(prompt, STREAM, ToolStyle::Native);
                    written.push(format!("── {} native\n{}", prompt.id, native.written()));
                }
            }
            if written.is_empty() {
                written.push("── no prompt was taken".to_owned());
            }
            insta::assert_snapshot!(recording.name.clone(), written.join("\n"));
        }
    });
}

#[test]
fn every_recorded_event_is_understood() {
    for recording in all() {
        for event in &recording.events {
            assert!(Event::parse(event.json.as_bytes()).is_ok(), "{}", event.json);
        }
    }
}

#[test]
fn the_pieces_of_an_answer_come_one_by_one_and_make_up_its_texts() {
    for (recording, prompt, played) in finished(ToolStyle::None) {
        let (texts, deltas) = answers(&recording, &prompt, played.heard);
        let texts: Vec<String> = texts.into_iter().filter(|text| !text.is_empty()).collect();
        let pieces = played.answer();
        assert_eq!(pieces.concat(), texts.join("\n\n"), "{}", recording.name);
        assert_eq!(pieces.len(), deltas, "{}", recording.name);
    }
}

#[test]
fn an_answer_says_the_same_streamed_and_whole() {
    for (recording, prompt, streamed) in finished(ToolStyle::Plain) {
        let whole = recording.play(&prompt, Form::Document, ToolStyle::Plain);
        let [document] = &whole.frames[..] else { panic!("{} is in pieces", recording.name) };
        let document: Value = serde_json::from_slice(document).unwrap();
        let choice = &document["choices"][0];
        assert_eq!(choice["message"]["content"], streamed.pieces().concat(), "{}", recording.name);
        let chunks = streamed.chunks();
        let [.., finish, usage] = &chunks[..] else { panic!("too few chunks") };
        assert_eq!(choice["finish_reason"], finish["choices"][0]["finish_reason"]);
        assert_eq!(document["usage"], usage["usage"]);
        assert_eq!(document["model_details"], finish["model_details"]);
    }
}

#[test]
fn every_native_call_gets_its_output_however_the_turn_ends() {
    for recording in all().iter().filter(|recording| recording.has_tools()) {
        for prompt in &recording.prompts {
            let events = recording.since(prompt);
            for cut in (0..=events.len()).rev().take(SOME) {
                let played =
                    recording.play_events(prompt, &events[..cut], STREAM, ToolStyle::Native);
                let ids = |kind: &str| {
                    let items = played.chunks().into_iter().map(|chunk| chunk["item"].clone());
                    let items = items.filter(|item| item["type"] == kind);
                    let mut ids: Vec<String> =
                        items.map(|item| item["call_id"].to_string()).collect();
                    ids.sort();
                    ids.dedup();
                    ids
                };
                assert_eq!(ids("function_call"), ids("function_call_output"), "{}", recording.name);
            }
        }
    }
}

#[test]
fn a_stream_that_is_cut_before_its_end_never_ends_well() {
    for (recording, prompt, whole) in finished(ToolStyle::None) {
        let events = recording.since(&prompt);
        for cut in (0..whole.heard).rev().take(SOME) {
            let played = recording.play_events(&prompt, &events[..cut], STREAM, ToolStyle::None);
            assert!(played.end.is_err(), "{} ended well after {cut} events", recording.name);
        }
    }
}

#[test]
fn an_event_that_is_lost_or_told_twice_never_changes_what_a_good_end_said() {
    for (recording, prompt, whole) in finished(ToolStyle::None) {
        let events = recording.since(&prompt);
        let said = whole.answer().concat();
        for index in (0..events.len()).filter(|_| events.len() <= 2 * SOME) {
            let mut lost = events.clone();
            lost.remove(index);
            let mut twice = events.clone();
            // A delta carries no number: told twice it is more text, which its part's end denies.
            twice.insert(index, events[index].clone());
            for changed in [lost, twice] {
                let played = recording.play_events(&prompt, &changed, STREAM, ToolStyle::None);
                if played.end.is_ok() {
                    let event = &events[index].json;
                    assert_eq!(played.answer().concat(), said, "{} {event}", recording.name);
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn the_stream_is_the_same_in_whatever_pieces_it_comes(sizes in prop::collection::vec(1..700usize, 1..50)) {
        let recording = Recording::load("unicode");
        let frames = recording.events.iter().map(|event| format!("data: {}\n\n", event.json));
        let stream = frames.collect::<Vec<String>>().concat();
        let (mut rest, mut sizes) = (stream.as_bytes(), sizes.iter().cycle());
        let (mut frames, mut found) = (Frames::default(), Vec::<Bytes>::new());
        while !rest.is_empty() {
            let (piece, after) = rest.split_at(rest.len().min(*sizes.next().unwrap()));
            frames.push(piece);
            rest = after;
            while let Some(frame) = frames.next_frame().unwrap() {
                found.push(frame);
            }
        }
        let events: Vec<Recorded> = std::iter::zip(&recording.events, &found)
            .map(|(event, frame)| Recorded {
                at: event.at,
                json: String::from_utf8(frame.to_vec()).unwrap(),
            })
            .collect();
        prop_assert_eq!(found.len(), recording.events.len());
        let prompt = &recording.prompts[0];
        let played = recording.play_events(prompt, &events, STREAM, ToolStyle::Plain);
        prop_assert_eq!(played.frames, recording.play(prompt, STREAM, ToolStyle::Plain).frames);
    }

    #[test]
    fn events_in_any_order_do_no_harm(
        name in prop::sample::select(vec!["tool_parallel", "compaction_overflow", "subagent",
            "error_stream_then_ok", "permission_doom_loop", "busy_second_prompt"]),
        swaps in prop::collection::vec((0..200usize, 0..200usize), 0..40),
        native in any::<bool>(),
    ) {
        let recording = Recording::load(name);
        let prompt = &recording.prompts[0];
        let mut events = recording.since(prompt);
        let times: Vec<f64> = events.iter().map(|event| event.at).collect();
        for (a, b) in swaps {
            let length = events.len();
            events.swap(a % length, b % length);
        }
        for (event, at) in events.iter_mut().zip(times) {
            event.at = at;
        }
        let style = if native { ToolStyle::Native } else { ToolStyle::Plain };
        let played = recording.play_events(prompt, &events, STREAM, style);
        let done = played.frames.last().is_some_and(|frame| frame.ends_with(b"data: [DONE]\n\n"));
        prop_assert_eq!(done, played.end.is_ok());
    }
}

/// As many events as are tried one by one, for the time it takes.
const SOME: usize = 40;

/// Every turn that ended well.
fn finished(style: ToolStyle) -> Vec<(Recording, Prompt, Played)> {
    let mut turns = Vec::new();
    for mut recording in all() {
        for prompt in std::mem::take(&mut recording.prompts) {
            let played = recording.play(&prompt, STREAM, style);
            if played.end.is_ok() {
                turns.push((Recording::load(&recording.name), prompt, played));
            }
        }
    }
    assert!(turns.len() > 40, "only {} turns ended well", turns.len());
    turns
}

/// The texts of the answers to `prompt`, as opencode stored them, and how many deltas told them.
fn answers(recording: &Recording, prompt: &Prompt, heard: usize) -> (Vec<String>, usize) {
    let events: Vec<Value> = recording.since(prompt)[..heard]
        .iter()
        .map(|event| serde_json::from_str(&event.json).unwrap())
        .collect();
    let of = |kind: &'static str| events.iter().filter(move |event| event["type"] == kind);
    let others: Vec<&str> = recording.prompts.iter().map(|other| other.id.as_str()).collect();
    let is_answer = |id: &Value| {
        of("message.updated").map(|event| &event["properties"]["info"]).any(|info| {
            let parent = info["parentID"].as_str().unwrap_or_default();
            info["id"] == *id
                && info["sessionID"] == prompt.session
                && info["summary"] != true
                && info["role"] == "assistant"
                && (parent == prompt.id || !others.contains(&parent))
        })
    };
    let parts = of("message.part.updated").map(|event| &event["properties"]["part"]);
    let texts: Vec<(String, String)> = parts
        .filter(|part| part["type"] == "text" && !part["time"]["end"].is_null())
        .filter(|part| is_answer(&part["messageID"]))
        .map(|part| {
            (part["id"].as_str().unwrap().to_owned(), part["text"].as_str().unwrap().to_owned())
        })
        .collect();
    let deltas = of("message.part.delta")
        .filter(|event| texts.iter().any(|(id, _)| event["properties"]["partID"] == **id))
        .count();
    (texts.into_iter().map(|(_, text)| text).collect(), deltas)
}
