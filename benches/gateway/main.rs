//! A whole request through the gateway, Pingora and loopback sockets included, to a stub runner:
//! how long it takes, when the first byte comes, and what each delta gains in latency on its way.
//!
//! Everything is measured on four ways in one run, taking turns, so that a busy machine slows them
//! alike and their ratios stay true: `direct` to the stub, through the gateway in the `openai` and
//! the `opencode` dialect, and `by hand`, which calls opencode's API as a turn does.
//!
//! The stub and the callers share one thread, each gateway has another.

mod client;
#[path = "../common/clock.rs"]
mod clock;
#[path = "../common/connection.rs"]
mod connection;
mod house;
mod stub;
#[path = "../common/table.rs"]
mod table;
#[path = "../common/worker.rs"]
mod worker;

use std::{net::SocketAddr, time::Duration};

use criterion::Criterion;
use open_persona::{cli, config};
use tokio::{
    runtime::{Builder, Runtime},
    sync::Mutex,
    task::JoinSet,
    time::sleep,
};

use self::{
    client::{ByHand, Client},
    house::House,
    stub::Order,
    table::{Table, print},
};

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    // Without `--bench` it is `cargo test`, which only asks whether it runs.
    let scale: u32 = if arguments.iter().any(|argument| argument == "--bench") { 1 } else { 20 };
    let filter = config::environment("RUST_LOG").unwrap_or_else(|| "off".to_owned());
    cli::log::start(Some(&filter));
    let street = Street::open();
    whole_requests(&street);
    let is_filtered = arguments.iter().any(|argument| !argument.starts_with('-'));
    if !is_filtered {
        print(&first_bytes(&street, 400 / scale));
        print(&deltas(&street, 1, 400 / scale, Duration::from_millis(2), 2));
        print(&deltas(&street, 32, 200 / scale, Duration::from_millis(10), 2));
    }
}

/// The stub and the gateways before it.
struct Street {
    runtime: Runtime,
    stub: SocketAddr,
    openai: House,
    opencode: House,
}

impl Street {
    fn open() -> Self {
        let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
        let stub = runtime.block_on(stub::start());
        // The probe of the first request finds the stub only while its runtime runs, which it does.
        let (openai, opencode) = (House::open("openai", stub), House::open("opencode", stub));
        Self { runtime, stub, openai, opencode }
    }

    /// The ways of a chat completion.
    fn ways(&self) -> [Way<'_>; 3] {
        [
            Way { name: "direct", address: self.stub, house: None },
            Way { name: "openai", address: self.openai.address, house: Some(&self.openai) },
            Way { name: "opencode", address: self.opencode.address, house: Some(&self.opencode) },
        ]
    }
}

/// A way of a chat completion to the stub.
#[derive(Clone, Copy)]
struct Way<'a> {
    name: &'static str,
    address: SocketAddr,
    house: Option<&'a House>,
}

/// A whole request that is not streamed, to a warm runner, over a kept connection.
fn whole_requests(street: &Street) {
    let mut criterion = Criterion::default().configure_from_args();
    let mut group = criterion.benchmark_group("whole request");
    group.sample_size(50).nresamples(10_000);
    group.warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(1));
    for way in street.ways() {
        let client = street.runtime.block_on(Client::of("whole".to_owned(), way.address));
        let client = Mutex::new(client);
        group.bench_function(way.name, |bench| {
            bench
                .to_async(&street.runtime)
                .iter(|| async { client.lock().await.whole(TEN_AT_ONCE).await });
        });
    }
    let by_hand = Mutex::new(street.runtime.block_on(ByHand::of(street.stub)));
    group.bench_function("by hand", |bench| {
        bench
            .to_async(&street.runtime)
            .iter(|| async { by_hand.lock().await.prompt(TEN_AT_ONCE).await });
    });
    group.finish();
    criterion.final_summary();
}

/// From sending a streamed request to its first delta, on a warm runner and a kept connection.
fn first_bytes(street: &Street, requests: u32) -> String {
    let order = TEN_AT_ONCE;
    let mut times: [Vec<u64>; 4] = Default::default();
    street.runtime.block_on(async {
        let mut clients = Vec::new();
        for way in street.ways() {
            let mut client = Client::of("first".to_owned(), way.address).await;
            client.streamed(order).await;
            clients.push(client);
        }
        let mut by_hand = ByHand::of(street.stub).await;
        for _ in 0..requests {
            for (client, times) in clients.iter_mut().zip(&mut times) {
                times.push(client.streamed(order).await.0);
            }
            times[3].push(by_hand.prompt(order).await);
        }
    });
    let names = street.ways().map(|way| way.name).into_iter().chain(["by hand"]);
    let mut table = Table::new("time to the first delta, warm runner");
    for (name, times) in names.zip(times) {
        table.row(name, times, None);
    }
    table.text
}

/// From the stub's write of a delta to the client's read, with `streams` users at once, and the
/// gateway's CPU time for each delta.
fn deltas(street: &Street, streams: usize, deltas: u32, pace: Duration, rounds: u32) -> String {
    let mut measured = street.ways().map(|way| (way, Vec::new(), Vec::new()));
    for _ in 0..rounds {
        for (way, ages, cpu) in &mut measured {
            let short = street.runtime.block_on(stream(*way, streams, Order { deltas: 1, pace }));
            let long = street.runtime.block_on(stream(*way, streams, Order { deltas, pace }));
            ages.extend(long.ages);
            // Without what a request costs that has a single delta.
            let more = long.cpu.zip(short.cpu).map(|(long, short)| long.saturating_sub(short));
            cpu.extend(more.map(|more| more / (u64::from(deltas - 1) * streams as u64)));
        }
    }
    let mut table =
        Table::new(&format!("added age of a delta, {streams} at once, one each {pace:?}"));
    for (way, ages, mut cpu) in measured {
        cpu.sort_unstable();
        table.row(way.name, ages, cpu.get(cpu.len() / 2).copied());
    }
    table.text
}

/// What a round measured.
struct Round {
    ages: Vec<u64>,
    cpu: Option<u64>,
}

/// One turn each of `streams` users, on runners that are warm.
async fn stream(way: Way<'_>, streams: usize, order: Order) -> Round {
    let mut clients = Vec::new();
    for number in 0..streams {
        let mut client = Client::of(format!("user-{number}"), way.address).await;
        client.streamed(Order { deltas: 1, pace: Duration::ZERO }).await;
        clients.push(client);
    }
    let before = way.house.and_then(House::cpu);
    let turns = (0u32..).zip(clients).map(|(number, mut client)| async move {
        // Models do not speak in step either.
        sleep(order.pace * number / u32::try_from(streams).unwrap_or(u32::MAX)).await;
        client.streamed(order).await.1
    });
    let ages = turns.collect::<JoinSet<_>>().join_all().await.concat();
    let cpu = way.house.and_then(House::cpu).zip(before).map(|(after, before)| after - before);
    Round { ages, cpu }
}

/// Ten deltas without a pause: the answer itself takes no time.
const TEN_AT_ONCE: Order = Order { deltas: 10, pace: Duration::ZERO };
