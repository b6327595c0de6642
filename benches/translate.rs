//! What it costs to make opencode's events chunks: recorded streams through the frames, the events,
//! the reply and the voice, without any I/O. One element is one event.

use std::{collections::HashMap, fs, hint::black_box, path::Path, time::Duration};

use bytes::Bytes;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use open_persona::{
    config::ToolStyle,
    openai::chunk::{Chunks, ModelDetails},
    opencode::event::{Event, Frames},
    turn::{
        reply::{Finish, Heard, Reply},
        voice::{Form, Voice},
    },
};
use serde_json::Value;

const RECORDINGS: [&str; 3] = ["long_output", "reasoning", "tool_bash"];

/// A recorded turn as it came over the wire.
struct Recording {
    session: String,
    prompt: String,
    /// One frame each: opencode writes them one by one.
    pieces: Vec<Vec<u8>>,
    deltas: usize,
}

impl Recording {
    fn read(name: &str) -> Self {
        let path = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join(format!("tests/fixtures/opencode/events/{name}.jsonl"));
        let text = fs::read_to_string(&path).expect("the recordings are in the repository");
        let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
        let events: Vec<Value> = lines.map(|mut line| line["data"].take()).collect();
        let of = |kind: &'static str| events.iter().filter(move |event| event["type"] == kind);
        let made = of("session.created").next().expect("the recording makes a session");
        Self {
            session: made["properties"]["sessionID"].as_str().unwrap_or_default().to_owned(),
            prompt: format!("msg_{name}_1"),
            pieces: events.iter().map(|event| format!("data: {event}\n\n").into_bytes()).collect(),
            deltas: of("message.part.delta").count(),
        }
    }
}

/// What a turn keeps between two events.
struct Translator {
    frames: Frames,
    reply: Reply,
    voice: Voice,
}

impl Translator {
    fn of(recording: &Recording) -> Self {
        let chunks = Chunks::new(ID, CREATED, MODEL);
        Self {
            frames: Frames::default(),
            reply: Reply::new(&recording.session, &recording.prompt),
            voice: Voice::new(chunks, Form::Stream { include_usage: true }, ToolStyle::Native),
        }
    }

    /// As `turn/course.rs` does, without what it waits for.
    fn translate(&mut self, piece: &[u8]) -> Option<Bytes> {
        self.frames.push(piece);
        let json = self.frames.next_frame().ok()??;
        match self.reply.hear(Event::parse(&json).ok()?)? {
            Heard::Begin(strand) => {
                self.voice.begin(strand);
                None
            }
            Heard::Paragraph(strand, text) => {
                self.voice.begin(strand);
                self.voice.say(strand, &text)
            }
            Heard::Piece(strand, text) => self.voice.say(strand, &text),
            Heard::Tool(tool) => self.voice.tool(&tool),
            Heard::End(_) => Some(self.voice.end(Finish::Stop, self.reply.tokens(), &details())),
            _ => None,
        }
    }
}

/// The whole stream, and how many pieces it gave.
fn whole(recording: &Recording) -> usize {
    let mut translator = Translator::of(recording);
    recording.pieces.iter().filter_map(|piece| translator.translate(black_box(piece))).count()
}

fn parsed(recording: &Recording) -> usize {
    let mut frames = Frames::default();
    let parse = |piece: &Vec<u8>| {
        frames.push(black_box(piece));
        let json = frames.next_frame().ok()??;
        Some(black_box(Event::parse(&json)).is_ok())
    };
    recording.pieces.iter().filter_map(parse).count()
}

fn framed(recording: &Recording) -> usize {
    let mut frames = Frames::default();
    let frame = |piece: &Vec<u8>| {
        frames.push(black_box(piece));
        black_box(frames.next_frame()).ok().flatten()
    };
    recording.pieces.iter().filter_map(frame).count()
}

fn translate(criterion: &mut Criterion) {
    let recordings: HashMap<_, _> =
        RECORDINGS.iter().map(|name| (*name, Recording::read(name))).collect();
    let mut group = criterion.benchmark_group("translate");
    group.sample_size(20).nresamples(10_000);
    group.warm_up_time(Duration::from_millis(200)).measurement_time(Duration::from_millis(700));
    for name in RECORDINGS {
        let recording = &recordings[name];
        let said = whole(recording);
        assert!(said > recording.deltas, "{name}: {said} of {} deltas", recording.deltas);
        group.throughput(Throughput::Elements(recording.pieces.len() as u64));
        for (stage, run) in [
            ("1 frames", framed as fn(&Recording) -> usize),
            ("2 events", parsed),
            ("3 chunks", whole),
        ] {
            group.bench_with_input(BenchmarkId::new(stage, name), recording, |bench, recording| {
                bench.iter(|| run(recording));
            });
        }
    }
    group.finish();
    delta(criterion, &recordings["long_output"]);
}

/// One delta in the middle of an answer, and what takes how much of it.
fn delta(criterion: &mut Criterion, recording: &Recording) {
    let mut translator = Translator::of(recording);
    for piece in recording.pieces.iter().take(recording.pieces.len() / 2) {
        translator.translate(piece);
    }
    let is_delta = |piece: &&Vec<u8>| piece.windows(18).any(|part| part == b"message.part.delta");
    let piece = recording.pieces.iter().find(is_delta).expect("it has deltas");
    assert!(translator.translate(piece).is_some());
    let json = &piece[b"data: ".len()..];
    let mut group = criterion.benchmark_group("a delta");
    group.nresamples(10_000);
    group.warm_up_time(Duration::from_millis(200)).measurement_time(Duration::from_millis(700));
    group.bench_function("from its frame to the chunk", |bench| {
        bench.iter(|| translator.translate(black_box(piece)));
    });
    group.bench_function("taking its frame out of the stream", |bench| {
        let mut frames = Frames::default();
        bench.iter(|| {
            frames.push(black_box(piece));
            frames.next_frame().expect("small")
        });
    });
    group.bench_function("parsing it", |bench| {
        bench.iter(|| drop(black_box(Event::parse(black_box(json)))));
    });
    let chunks = Chunks::new(ID, CREATED, MODEL);
    group.bench_function("writing its chunk", |bench| {
        bench.iter(|| chunks.content(black_box(" quick")));
    });
}

const ID: &str = "chatcmpl-req_0123456789abcdef01234567";
const CREATED: u64 = 1_795_253_701;
const MODEL: &str = "open-persona/build";

fn details() -> ModelDetails {
    ModelDetails {
        model: "mock/m1".to_owned(),
        small_model: "mock/m1".to_owned(),
        resolved_from: "default".to_owned(),
    }
}

criterion_group!(benches, translate);
criterion_main!(benches);
