//! Plays recordings of a real opencode to a reply and writes down what a caller gets.

use std::{fs, io::Read, path::PathBuf, time::Duration};

use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Value, json, value::RawValue};
use sha2::{Digest, Sha256};

use crate::{
    config::ToolStyle,
    error::Refusal,
    openai::{
        chunk::{Chunks, ModelDetails},
        sse,
    },
    opencode::event::Event,
    turn::{
        ask::Ask,
        course::REFUSED,
        failure,
        reply::{Finish, Heard, Outcome, Reply, SETTLE},
        voice::{Form, Voice},
    },
};

/// One recording: the events, and the prompts sent meanwhile.
pub(super) struct Recording {
    pub(super) name: String,
    pub(super) events: Vec<Recorded>,
    pub(super) prompts: Vec<Prompt>,
    /// The Unix time at which the stream opened, in milliseconds.
    opened: f64,
}

/// An event and when it came, in milliseconds since the stream opened.
#[derive(Clone)]
pub(super) struct Recorded {
    pub(super) at: f64,
    pub(super) json: String,
}

impl Recorded {
    fn of(line: &str) -> Self {
        #[derive(Deserialize)]
        struct Line<'a> {
            t_ms: f64,
            #[serde(borrow)]
            data: &'a RawValue,
        }
        /// `/global/event` wraps its events; `/event`, which is what a gateway reads, does not.
        #[derive(Deserialize)]
        struct Wrapped<'a> {
            #[serde(borrow)]
            payload: &'a RawValue,
        }
        let line: Line<'_> = serde_json::from_str(line).unwrap();
        let wrapped = serde_json::from_str::<Wrapped<'_>>(line.data.get());
        let json = wrapped.map_or(line.data, |wrapped| wrapped.payload).get().to_owned();
        Self { at: line.t_ms, json }
    }
}

/// A prompt and when it was sent.
pub(super) struct Prompt {
    pub(super) session: String,
    pub(super) id: String,
    at: f64,
}

/// What a caller got of one turn.
pub(super) struct Played {
    pub(super) frames: Vec<Bytes>,
    /// What others than the caller were to do.
    pub(super) aside: Vec<(usize, String)>,
    pub(super) end: Result<Finish, Refusal>,
    /// Whether words of our own end the answer.
    own_words: bool,
    /// How many events it took.
    pub(super) heard: usize,
}

pub(super) const STREAM: Form = Form::Stream { include_usage: true };

fn directory() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/opencode")
}

/// All recordings, by name.
pub(super) fn all() -> Vec<Recording> {
    let files = fs::read_dir(directory().join("events")).unwrap();
    let mut names: Vec<String> = files
        .map(|file| file.unwrap().file_name().into_string().unwrap())
        .map(|file| file.split('.').next().unwrap().to_owned())
        .collect();
    names.sort();
    names.iter().map(|name| Recording::load(name)).collect()
}

impl Recording {
    pub(super) fn load(name: &str) -> Self {
        let plain = directory().join(format!("events/{name}.jsonl"));
        let mut lines = String::new();
        if plain.exists() {
            lines = fs::read_to_string(plain).unwrap();
        } else {
            let file = fs::File::open(directory().join(format!("events/{name}.jsonl.gz"))).unwrap();
            flate2::read::GzDecoder::new(file).read_to_string(&mut lines).unwrap();
        }
        let events: Vec<Recorded> = lines.lines().map(Recorded::of).collect();
        let opened = opened(&events);
        let prompts = prompts(name, &events);
        Self { name: name.to_owned(), events, prompts, opened }
    }

    pub(super) fn has_tools(&self) -> bool {
        self.events.iter().any(|event| event.json.contains(r#""callID""#))
    }

    /// The events from when `prompt` was sent.
    pub(super) fn since(&self, prompt: &Prompt) -> Vec<Recorded> {
        self.events.iter().filter(|event| event.at >= prompt.at).cloned().collect()
    }

    pub(super) fn play(&self, prompt: &Prompt, form: Form, style: ToolStyle) -> Played {
        self.play_events(prompt, &self.since(prompt), form, style)
    }

    /// Does what a turn does with `events`, in the time they took.
    pub(super) fn play_events(
        &self,
        prompt: &Prompt,
        events: &[Recorded],
        form: Form,
        style: ToolStyle,
    ) -> Played {
        let mut reply = Reply::new(&prompt.session, &prompt.id);
        let mut voice = Voice::new(Chunks::new("chatcmpl-1", 7, "open-persona/build"), form, style);
        let mut played = Played {
            frames: Vec::new(),
            aside: Vec::new(),
            end: Ok(Finish::Stop),
            own_words: false,
            heard: 0,
        };
        let mut settles_at = None;
        let outcome = 'turn: {
            for event in events {
                if settles_at.is_some_and(|time| event.at >= time) {
                    break 'turn Ok(reply.settled());
                }
                played.heard += 1;
                let heard = reply.hear(Event::parse(event.json.as_bytes()).unwrap());
                settles_at = reply
                    .is_settling()
                    .then(|| settles_at.unwrap_or(event.at + SETTLE.as_secs_f64() * 1000.0));
                let now = self.opened + event.at;
                if let Some(end) = heard.and_then(|heard| played.take(heard, &mut voice, now)) {
                    break 'turn end;
                }
            }
            Ok(if reply.is_settling() { reply.settled() } else { Outcome::Interrupted })
        };
        // Whatever comes later changes nothing.
        for event in &events[played.heard..] {
            assert!(
                outcome.is_err() || matches!(outcome, Ok(Outcome::Interrupted)) || {
                    reply.hear(Event::parse(event.json.as_bytes()).unwrap()).is_none()
                },
                "{} was heard after the end",
                event.json
            );
        }
        played.end = match outcome {
            Ok(Outcome::Finished(finish)) => Ok(finish),
            Ok(Outcome::Failed(failure)) => Err(failure::of_failure(&failure)),
            Ok(Outcome::Interrupted) => Err(Refusal::unavailable()),
            Err(refusal) => Err(refusal),
        };
        let last = match &played.end {
            Ok(finish) => {
                if *finish == Finish::Refused {
                    played.own_words = true;
                    let text = reply.refused().map_or(REFUSED.to_owned(), Ask::refusal);
                    played.frames.extend(voice.stop_short(&text));
                }
                voice.end(*finish, reply.tokens(), &details())
            }
            Err(_) => voice.broken_off(),
        };
        played.frames.extend(Some(last).filter(|last| !last.is_empty()));
        played
    }
}

impl Played {
    /// Passes on what was heard; gives the end if that was it.
    fn take(
        &mut self,
        heard: Heard<'_>,
        voice: &mut Voice,
        now: f64,
    ) -> Option<Result<Outcome, Refusal>> {
        let frame = match heard {
            Heard::Begin(strand) => {
                voice.begin(strand);
                None
            }
            Heard::Paragraph(strand, text) => {
                voice.begin(strand);
                voice.say(strand, &text)
            }
            Heard::Piece(strand, text) => voice.say(strand, &text),
            Heard::Tool(tool) => voice.tool(&tool),
            Heard::Ask(ask) => {
                self.aside.push((self.frames.len(), format!("(asked for {ask})")));
                None
            }
            Heard::Retry(retry) if retry.told => {
                return Some(Err(failure::cut_by_retry(&retry.reason)));
            }
            Heard::Retry(retry) => {
                #[expect(clippy::cast_precision_loss, reason = "a time of this century")]
                let wait = Duration::from_secs_f64((retry.next as f64 - now).max(0.0) / 1000.0);
                self.aside.push((self.frames.len(), "(keeps waiting for a retry)".to_owned()));
                let is_long = wait > Duration::from_secs(60);
                return is_long.then(|| Err(failure::wait_is_too_long(&retry.reason, wait)));
            }
            Heard::End(outcome) => return Some(Ok(outcome)),
        };
        self.frames.extend(frame);
        None
    }

    /// What the caller gets, one frame in a line.
    pub(super) fn written(&self) -> String {
        let mut lines = Vec::new();
        for (index, frame) in self.frames.iter().enumerate() {
            lines.extend(self.aside_at(index));
            let text = std::str::from_utf8(frame).unwrap();
            lines.extend(text.split_terminator("\n\n").map(line));
        }
        lines.extend(self.aside_at(self.frames.len()));
        if let Err(refusal) = &self.end {
            let when = if self.frames.is_empty() { "status" } else { "error frame" };
            let wait = refusal.retry_after.map(|wait| format!(", retry after {wait:.1?}"));
            lines.push(format!(
                "{when} {} {}: {}{}",
                refusal.status.as_u16(),
                refusal.code,
                refusal.message,
                wait.unwrap_or_default(),
            ));
            let event = sse::error(refusal);
            assert!(event.starts_with(b"data: {\"error\":{"), "{event:?}");
        }
        summed_up(&lines).join("\n")
    }

    fn aside_at(&self, index: usize) -> impl Iterator<Item = String> {
        self.aside.iter().filter(move |(at, _)| *at == index).map(|(_, text)| text.clone())
    }

    /// The frames' JSON, without `[DONE]`.
    pub(super) fn chunks(&self) -> Vec<Value> {
        let all = self.frames.iter().flat_map(|frame| frame.to_vec()).collect::<Vec<u8>>();
        let all = String::from_utf8(all).unwrap();
        let frames =
            all.split_terminator("\n\n").map(|frame| frame.strip_prefix("data: ").unwrap());
        let frames = frames.filter(|frame| *frame != "[DONE]");
        frames.map(|frame| serde_json::from_str(frame).unwrap()).collect()
    }

    /// The pieces of the answer's text.
    pub(super) fn pieces(&self) -> Vec<String> {
        let content =
            |chunk: &Value| Some(chunk["choices"][0]["delta"]["content"].as_str()?.to_owned());
        self.chunks().iter().filter_map(content).collect()
    }

    /// The pieces of the model's text.
    pub(super) fn answer(&self) -> Vec<String> {
        let mut pieces = self.pieces();
        if self.own_words {
            pieces.pop();
        }
        pieces
    }
}

/// A frame as it is shown. What every chunk has is checked, and not shown.
fn line(frame: &str) -> String {
    let data = frame.strip_prefix("data: ").unwrap_or_else(|| panic!("{frame:?} is no frame"));
    assert!(!data.contains('\n'), "{frame:?} has more than one line");
    let Ok(mut json) = serde_json::from_str::<Value>(data) else { return data.to_owned() };
    if json.get("item").is_some() {
        return shortened(format!("item {}", json["item"]));
    }
    assert_eq!(json["id"], "chatcmpl-1");
    assert_eq!((&json["created"], &json["model"]), (&json!(7), &json!("open-persona/build")));
    assert_eq!(json["object"], "chat.completion.chunk");
    if json["choices"] == json!([]) {
        return format!("usage {}", json["usage"]);
    }
    let choice = json["choices"][0].take();
    if !choice["finish_reason"].is_null() {
        assert_eq!((&choice["delta"], &json["model_details"]), (&json!({}), &json!(details())));
        return format!("finish {}", choice["finish_reason"]);
    }
    let (member, text) = choice["delta"].as_object().unwrap().iter().next().unwrap();
    shortened(format!("{member} {text}"))
}

fn shortened(line: String) -> String {
    if line.len() <= LONGEST {
        return line;
    }
    let cut = line.floor_char_boundary(LONGEST);
    format!("{}… {}", &line[..cut], digest(&line))
}

/// The same, with long runs of pieces in one line.
fn summed_up(lines: &[String]) -> Vec<String> {
    let kind = |line: &String| line.split(' ').next().unwrap_or_default().to_owned();
    let mut summed = Vec::new();
    for run in lines.chunk_by(|a, b| kind(a) == kind(b)) {
        if run.len() <= LONGEST_RUN {
            summed.extend_from_slice(run);
        } else {
            summed.extend_from_slice(&run[..2]);
            summed.push(format!(
                "… {} more {} {}",
                run.len() - 2,
                kind(&run[0]),
                digest(&run.concat())
            ));
        }
    }
    summed
}

fn digest(text: &str) -> String {
    format!("({} bytes, sha256 {})", text.len(), &hex::encode(Sha256::digest(text))[..12])
}

/// Bytes of a line that are shown.
const LONGEST: usize = 600;
/// Lines of one kind that are shown one by one.
const LONGEST_RUN: usize = 60;

fn details() -> ModelDetails {
    ModelDetails {
        model: "mock/m1".to_owned(),
        small_model: "mock/m2".to_owned(),
        resolved_from: "default".to_owned(),
    }
}

/// The Unix time at which the stream opened, as far as an event tells.
fn opened(events: &[Recorded]) -> f64 {
    let created = |event: &Recorded| {
        let json: Value = serde_json::from_str(&event.json).unwrap();
        Some(json["properties"]["info"]["time"]["created"].as_f64()? - event.at)
    };
    events.iter().find_map(created).unwrap_or_default()
}

/// The prompts that opencode took; without one, the first that its events tell of.
fn prompts(name: &str, events: &[Recorded]) -> Vec<Prompt> {
    let calls = fs::read_to_string(directory().join(format!("http/{name}.json"))).unwrap();
    let calls: Vec<Value> = serde_json::from_str(&calls).unwrap();
    let sent = calls.iter().filter_map(|call| {
        let path = call["path"].as_str()?.split('?').next()?;
        let session = path.strip_prefix("/session/")?.strip_suffix("/prompt_async")?;
        let id = call["body"]["messageID"].as_str()?.to_owned();
        Some(Prompt { session: session.to_owned(), id, at: call["t_ms"].as_f64()? })
    });
    let mut sent: Vec<Prompt> = sent.collect();
    if sent.is_empty() {
        let told = events.iter().filter_map(|event| {
            let json: Value = serde_json::from_str(&event.json).unwrap();
            let (properties, kind) = (&json["properties"], json["type"].as_str()?);
            (kind == "message.updated" && properties["info"]["role"] == "user").then(|| Prompt {
                session: properties["sessionID"].as_str().unwrap().to_owned(),
                id: properties["info"]["id"].as_str().unwrap().to_owned(),
                at: 0.0,
            })
        });
        for prompt in told {
            if sent.iter().all(|known| known.id != prompt.id) {
                sent.push(prompt);
            }
        }
    }
    sent
}
