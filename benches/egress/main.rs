//! A runner's call to a provider through the egress, Pingora and loopback sockets included: what it
//! adds to the time until the first delta and to each delta, and what work it is.
//!
//! Everything is measured on four ways in one run, taking turns, so that a busy machine slows them
//! alike and their ratios stay true: `direct` to the provider, through `pingora` with nothing on top,
//! through the `egress`, and through the egress with a `budget`. All go over kept connections.
//!
//! The callers have one thread, the provider another, and each proxy its own. The argument `call`,
//! `first`, `delta` or `work` asks for that part alone.

#[path = "../common/clock.rs"]
mod clock;
#[path = "../common/connection.rs"]
mod connection;
mod provider;
mod runner;
mod street;
mod style;
#[path = "../common/table.rs"]
mod table;
#[path = "../common/worker.rs"]
mod worker;

use futures_util::future::join_all;
use tokio::{
    runtime::Builder,
    time::{Duration, sleep},
};

use self::{
    provider::{Order, Pace},
    runner::{Call, Runner, Sample, Way},
    street::Street,
    style::Style,
    table::{Table, line, print},
};

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    // Without `--bench` it is `cargo test`, which only asks whether it runs.
    let scale: u32 = if arguments.iter().any(|argument| argument == "--bench") { 1 } else { 20 };
    let part = arguments.iter().find(|argument| !argument.starts_with('-'));
    let is_wanted = |name: &str| part.is_none_or(|part| part == name);
    street::start_log();
    let street = Street::open();
    let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        if is_wanted("call") {
            print(&whole_calls(&street, 40 / scale).await);
        }
        if is_wanted("first") {
            print(&first_deltas(&street, 40 / scale).await);
        }
        if is_wanted("delta") {
            print(&deltas(&street, 1, 200 / scale, Duration::from_millis(2)).await);
            print(&deltas(&street, 32, 100 / scale, Duration::from_millis(10)).await);
        }
        if is_wanted("work") {
            print(&work(&street, scale).await);
        }
    });
}

/// Small calls that are not streamed.
async fn whole_calls(street: &Street, calls: u32) -> String {
    let call = call(street, WHOLE, 1 << 10);
    let mut table = Table::new("a whole call, not streamed");
    for measured in measure(street, &call, Repeat { pause: PAUSE, ..Repeat::of(calls, 20) }).await {
        let times = measured.samples.iter().map(|sample| sample.whole).collect();
        table.row(measured.name, times, None);
    }
    table.text
}

/// Until a streamed answer begins.
async fn first_deltas(street: &Street, calls: u32) -> String {
    let order = Order { style: Style::Chat, pieces: 10, chunks: 1, pace: Pace::AtOnce };
    let call = call(street, order, 16 << 10);
    let measured = measure(street, &call, Repeat { pause: PAUSE, ..Repeat::of(calls, 20) }).await;
    let mut tables =
        ["time to the head of a streamed answer", "time to its first delta"].map(Table::new);
    for Measured { name, samples, .. } in &measured {
        tables[0].row(name, samples.iter().map(|sample| sample.head).collect(), None);
        tables[1].row(name, samples.iter().map(|sample| sample.first).collect(), None);
    }
    tables.map(|table| table.text).concat()
}

/// From the provider's write of a delta to the runner's read, and the CPU time for each.
async fn deltas(street: &Street, callers: u32, deltas: u32, pause: Duration) -> String {
    let pace = Pace::Each(pause);
    let order = Order { style: Style::Chat, pieces: deltas, chunks: 1, pace };
    let call = call(street, order, 1 << 10);
    let mut table = Table::new(&format!("age of a delta, {callers} at once, one each {pause:?}"));
    for measured in measure(street, &call, Repeat { callers, ..Repeat::of(1, 4) }).await {
        let cpu = measured.cpu().map(|cpu| cpu / u64::from(deltas));
        let ages = measured.samples.into_iter().flat_map(|sample| sample.ages);
        table.row(measured.name, ages.collect(), cpu);
    }
    table.text
}

/// The CPU time of the proxies.
async fn work(street: &Street, scale: u32) -> String {
    let columns = ["pingora", "egress", "budget", "more", "ratio"].map(|it| format!("{it:>10}"));
    let mut text = String::new();
    line(&mut text, &format!("\n{:44}{}", "CPU time of the proxy (µs)", columns.concat()));
    let repeat = Repeat::of(50 / scale, 20);
    let small = costs(street, &call(street, WHOLE, 1 << 10), repeat).await;
    text += &row("a small call", &small);
    let repeat = Repeat::of(20 / scale, 10);
    let large = costs(street, &call(street, WHOLE, 1 << 20), repeat).await;
    text += &row("a request that is 1 MiB larger", &more(&large, &small));
    for (name, style, chunks, calls) in [
        ("1 MiB of chat chunks, one in a write", Style::Chat, 1, 1),
        ("1 MiB of chat chunks, 64 in a write", Style::Chat, 64, 16),
        ("1 MiB of responses events, one in a write", Style::Responses, 1, 1),
        ("1 MiB of messages events, one in a write", Style::Messages, 1, 1),
    ] {
        let mut order = Order { style, pieces: 0, chunks, pace: Pace::Asked };
        let size = order.piece_size() * scale as usize;
        order.pieces = u32::try_from((1 << 20) / size).expect("not so many");
        let repeat = Repeat::of(calls, 6);
        let streamed = costs(street, &call(street, order, 1 << 10), repeat).await;
        text += &row(name, &more(&streamed, &small));
    }
    text
}

/// The CPU time of each way with a proxy, in nanoseconds, where Linux tells.
async fn costs(street: &Street, call: &Call<'_>, repeat: Repeat) -> Vec<Option<u64>> {
    let measured = measure(street, call, repeat).await;
    measured.iter().skip(1).map(Measured::cpu).collect()
}

fn more(large: &[Option<u64>], small: &[Option<u64>]) -> Vec<Option<u64>> {
    let more =
        |(large, small): (&Option<u64>, &Option<u64>)| Some((*large)?.saturating_sub((*small)?));
    large.iter().zip(small).map(more).collect()
}

#[expect(clippy::cast_precision_loss, reason = "for people to read")]
fn row(name: &str, costs: &[Option<u64>]) -> String {
    let Some(costs) = costs.iter().copied().collect::<Option<Vec<_>>>() else {
        return format!("{name:44}{:>10}\n", "-");
    };
    let micros = |nanos: u64| format!("{:>10.1}", nanos as f64 / 1000.0);
    let ratio = costs[1] as f64 / costs[0] as f64;
    let all: String = costs.iter().map(|cost| micros(*cost)).collect();
    format!("{name:44}{all}{}{ratio:>10.2}\n", micros(costs[1].saturating_sub(costs[0])))
}

/// How often a call is made on each way.
#[derive(Debug, Clone, Copy)]
struct Repeat {
    /// At the same time.
    callers: u32,
    /// By each, one after the other.
    calls: u32,
    rounds: u32,
    /// Before each.
    pause: Duration,
}

impl Repeat {
    fn of(calls: u32, rounds: u32) -> Self {
        Self { callers: 1, calls, rounds, pause: Duration::ZERO }
    }
}

/// What was measured on a way.
#[derive(Debug)]
struct Measured {
    name: &'static str,
    samples: Vec<Sample>,
    /// The proxy's CPU time for a call, of each round.
    cpu: Vec<u64>,
}

impl Measured {
    /// The CPU time for a call, usually.
    fn cpu(&self) -> Option<u64> {
        let mut cpu = self.cpu.clone();
        cpu.sort_unstable();
        cpu.get(cpu.len() / 2).copied()
    }
}

async fn measure(street: &Street, call: &Call<'_>, repeat: Repeat) -> Vec<Measured> {
    let ways = street.ways();
    street.provider.answer(call.order);
    let mut all = Vec::new();
    for way in &ways {
        let mut runners = Vec::new();
        for _ in 0..repeat.callers {
            runners.push(Runner::of(way).await);
        }
        // Whatever is done once.
        join_all(runners.iter_mut().map(|runner| runner.call(call))).await;
        all.push((way, runners, Measured { name: way.name, samples: Vec::new(), cpu: Vec::new() }));
    }
    for _ in 0..repeat.rounds {
        for (way, runners, measured) in &mut all {
            round(way, runners, call, repeat, measured).await;
        }
    }
    all.into_iter().map(|(_, _, measured)| measured).collect()
}

async fn round(
    way: &Way<'_>,
    runners: &mut [Runner<'_>],
    call: &Call<'_>,
    Repeat { callers, calls, pause, .. }: Repeat,
    measured: &mut Measured,
) {
    let before = way.cpu().await;
    let all = (0u32..).zip(runners).map(|(number, runner)| async move {
        // Models do not speak in step.
        if let Pace::Each(pause) = call.order.pace {
            sleep(pause * number / callers).await;
        }
        let mut samples = Vec::new();
        for _ in 0..calls {
            if !pause.is_zero() {
                sleep(pause).await;
            }
            samples.push(runner.call(call).await);
        }
        samples
    });
    measured.samples.extend(join_all(all).await.into_iter().flatten());
    let cpu = way.cpu().await.zip(before).map(|(after, before)| after - before);
    measured.cpu.extend(cpu.map(|cpu| cpu / u64::from(callers * calls)));
}

fn call(street: &Street, order: Order, size: usize) -> Call<'_> {
    Call { order, body: order.style.request(size), provider: &street.provider }
}

const WHOLE: Order = Order { style: Style::Whole, pieces: 0, chunks: 1, pace: Pace::AtOnce };
/// In which a proxy does what it does behind an answer: it is no part of the next one.
const PAUSE: Duration = Duration::from_millis(1);
