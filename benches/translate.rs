//! What one token costs on its way: opencode's event in, a client's chunk out.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use open_persona::{
    openai::chunk::Chunks,
    opencode::event::{Event, Frames},
    turn::reply::{Heard, Reply},
};

const SESSION: &str = "ses_e028a759effeYPS5IphstZyZwN";
const MESSAGE: &str = "msg_1fd758aea001XtyUfnM1GRPpIR";

/// A reply in the middle of its text.
fn reply() -> Reply {
    let mut reply = Reply::new(SESSION, "msg_1");
    let said = [
        format!(
            r#"{{"type":"message.updated","properties":{{"sessionID":"{SESSION}","info":{{"id":"msg_1","role":"user"}}}}}}"#
        ),
        format!(
            r#"{{"type":"message.updated","properties":{{"sessionID":"{SESSION}","info":{{"id":"{MESSAGE}","role":"assistant","parentID":"msg_1"}}}}}}"#
        ),
        format!(
            r#"{{"type":"message.part.updated","properties":{{"part":{{"id":"prt_1","sessionID":"{SESSION}","messageID":"{MESSAGE}","type":"text","text":""}}}}}}"#
        ),
    ];
    for event in &said {
        drop(reply.hear(Event::parse(event.as_bytes()).expect("an event")));
    }
    reply
}

fn delta() -> String {
    format!(
        r#"{{"id":"evt_1fd758b7f001v1y0iZaQiM7KBd","type":"message.part.delta","properties":{{"sessionID":"{SESSION}","messageID":"{MESSAGE}","partID":"prt_1","field":"text","delta":" quick"}}}}"#
    )
}

fn translate(c: &mut Criterion) {
    let chunks = Chunks::new("chatcmpl-0123456789abcdef", 1_795_253_701, "open-persona/build");
    let (event, mut reply) = (delta(), reply());
    let frame = format!("data: {event}\n\n");
    let mut group = c.benchmark_group("a delta");
    group.throughput(Throughput::Elements(1));
    group.bench_function("from its frame to the chunk", |b| {
        let mut frames = Frames::default();
        b.iter(|| {
            frames.push(black_box(frame.as_bytes()));
            let json = frames.next_frame().expect("small").expect("whole");
            match reply.hear(Event::parse(&json).expect("an event")) {
                Some(Heard::Piece(_, text)) => chunks.content(&text),
                heard => panic!("{heard:?}"),
            }
        });
    });
    group.bench_function("taking its frame out of the stream", |b| {
        let mut frames = Frames::default();
        b.iter(|| {
            frames.push(black_box(frame.as_bytes()));
            frames.next_frame().expect("small")
        });
    });
    group.bench_function("parsing it", |b| {
        b.iter(|| drop(black_box(Event::parse(black_box(event.as_bytes())))));
    });
    group.bench_function("writing its chunk", |b| b.iter(|| chunks.content(black_box(" quick"))));
    group.finish();
}

criterion_group!(benches, translate);
criterion_main!(benches);
