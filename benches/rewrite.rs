//! What it costs to set `model` and `agent` in a request body: by splicing, against `serde_json`
//! checking the same body without a tree, and against the round trip through a tree.

use std::{hint::black_box, time::Duration};

use criterion::{
    BenchmarkId, Criterion, SamplingMode, Throughput, criterion_group, criterion_main,
};
use open_persona::openai::splice::Scan;
use serde::de::IgnoredAny;
use serde_json::{Value, json};

const SIZES: [(&str, usize); 4] =
    [("1KB", 1 << 10), ("100KB", 100 << 10), ("1MB", 1 << 20), ("20MB", 20 << 20)];

/// A long chat of short messages: the most tokens for its size.
fn chat(size: usize) -> Vec<u8> {
    let turn = json!({"role": "user", "content": "Where is \"it\"?\nÜber there.", "t": 0.25});
    let turns = size / turn.to_string().len();
    body(&vec![turn; turns])
}

/// One message with a large image: nearly all of it one string.
fn image(size: usize) -> Vec<u8> {
    let url = format!("data:image/png;base64,{}", "iVBORw0KGgoA".repeat(size / 12));
    body(&[json!({"role": "user", "content": [{"type": "image_url", "image_url": {"url": url}}]})])
}

fn body(messages: &[Value]) -> Vec<u8> {
    json!({"stream": true, "model": "open-persona/build", "messages": messages, "seed": 7})
        .to_string()
        .into_bytes()
}

fn rewrite(criterion: &mut Criterion) {
    for (kind, of) in [("chat", chat as fn(usize) -> Vec<u8>), ("image", image)] {
        let mut group = criterion.benchmark_group(kind);
        group.sample_size(10).nresamples(10_000).sampling_mode(SamplingMode::Flat);
        group.warm_up_time(Duration::from_millis(200)).measurement_time(Duration::from_millis(500));
        for (name, size) in SIZES {
            let body = of(size);
            group.throughput(Throughput::Bytes(body.len() as u64));
            group.bench_with_input(BenchmarkId::new("splice", name), &body, |bench, body| {
                bench.iter(|| spliced(black_box(body)));
            });
            group.bench_with_input(BenchmarkId::new("check", name), &body, |bench, body| {
                bench.iter(|| serde_json::from_slice::<IgnoredAny>(black_box(body)).is_ok());
            });
            group.bench_with_input(BenchmarkId::new("tree", name), &body, |bench, body| {
                bench.iter(|| round_trip(black_box(body)));
            });
        }
    }
}

fn spliced(body: &[u8]) -> Option<Vec<u8>> {
    Some(Scan::of(body, 64).ok()?.rewrite("gpt-5-mini", Some("build")))
}

fn round_trip(body: &[u8]) -> Option<Vec<u8>> {
    let mut tree: Value = serde_json::from_slice(body).ok()?;
    tree["model"] = json!("gpt-5-mini");
    tree["agent"] = json!("build");
    serde_json::to_vec(&tree).ok()
}

criterion_group!(benches, rewrite);
criterion_main!(benches);
