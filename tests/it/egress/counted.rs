//! What the egress writes down is what the provider counted, whenever runners leave.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use open_persona::{
    secret::Secret,
    usage::{Money, Tokens, Totals},
    workspace::WorkspaceId,
};
use parking_lot::Mutex;
use serde_json::json;
use tokio::task::JoinSet;

use super::{
    dialect::{STYLES, Style, piece, stream},
    provider::{Gate, Seen, Step},
    world::{Runner, World},
};

const USERS: u64 = 50;
const CALLS: u64 = 6;

/// Random numbers that are the same in every run.
struct Dice(u64);

impl Dice {
    /// Below `limit`.
    fn roll(&mut self, limit: u64) -> u64 {
        // SplitMix64.
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % limit
    }

    fn index(&mut self, length: usize) -> usize {
        usize::try_from(self.roll(length as u64)).unwrap()
    }
}

/// One call, and what its provider and its runner do, all of which follows from its number.
#[derive(Debug, Clone)]
struct Call {
    number: u64,
    style: Style,
    model: &'static str,
    streams: bool,
    tokens: Tokens,
    /// The parts of the answer's body.
    parts: Vec<String>,
    has_length: bool,
    leaves: Leaves,
}

/// When the runner leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Leaves {
    BeforeItsRequestEnds,
    /// Before the provider writes this part of its answer.
    Before(usize),
    Never,
}

impl Call {
    fn of(number: u64) -> Self {
        let mut dice = Dice(number);
        let style = STYLES[dice.index(3)];
        let (model, streams) = (["m1", "m2"][dice.index(2)], dice.roll(2) == 0);
        let mut count = |limit| dice.roll(limit);
        let tokens = Tokens {
            input: count(200_000),
            cached: count(3) * count(100_000),
            cache_write: count(2) * count(10_000),
            output: count(20_000),
            reasoning: if style == Style::Messages { 0 } else { count(2) * count(5_000) },
        };
        let pieces = 1 + dice.index(8);
        let parts =
            if streams { style.events(tokens, pieces) } else { style.document(tokens, pieces) };
        let leaves = match dice.roll(8) {
            0 => Leaves::BeforeItsRequestEnds,
            1 => Leaves::Before(0),
            2 | 3 => Leaves::Before(dice.index(pieces + 1)),
            4 | 5 => Leaves::Before(parts.len() - 1),
            _ => Leaves::Never,
        };
        let has_length = !streams && dice.roll(2) == 0;
        Self { number, style, model, streams, tokens, parts, has_length, leaves }
    }

    fn body(&self) -> String {
        let Self { number, model, streams, .. } = self;
        json!({"number": number, "messages": [], "stream": streams, "model": model}).to_string()
    }

    /// What the provider does; it waits at the `gate` for the runner to leave.
    fn steps(&self, gate: &Gate) -> Vec<Step> {
        let mut pieces = if self.has_length {
            let length: usize = self.parts.iter().map(String::len).sum();
            let head = format!(
                "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n"
            );
            let parts = self.parts.iter().cloned().map(String::into_bytes);
            std::iter::once(head.into_bytes()).chain(parts).collect()
        } else {
            stream(&self.parts)
        };
        if !self.streams {
            let head = String::from_utf8(pieces[0].clone()).unwrap();
            pieces[0] = head.replace("text/event-stream", "application/json").into_bytes();
        }
        let mut steps: Vec<_> = pieces.into_iter().map(Step::Send).collect();
        if let Leaves::Before(part) = self.leaves {
            // Before the first part there is the head, which is held back with it.
            steps.insert(if part == 0 { 0 } else { part + 1 }, Step::Wait(gate.clone()));
        }
        steps
    }

    /// Makes the call.
    async fn make(&self, world: &World, token: &str, gate: &Gate) {
        let request = self.style.request(world, token, &self.body());
        let mut client = world.connect().await;
        match self.leaves {
            Leaves::BeforeItsRequestEnds => {
                let most = request.len() - 1 - Dice(!self.number).index(self.body().len());
                client.send(&request[..most]).await;
            }
            Leaves::Before(part) => {
                client.send(&request).await;
                if let Some(before) = part.checked_sub(1) {
                    let is_piece = self.parts[before].contains(&piece(before));
                    let last = if is_piece { piece(before) } else { "usage\":{".to_owned() };
                    client.read_until(&last).await;
                } else {
                    let is_this =
                        |seen: &Seen| seen.is_whole && seen.json()["number"] == self.number;
                    world.provider.until(|seen| seen.iter().any(is_this)).await;
                }
            }
            Leaves::Never => {
                client.send(&request).await;
                let answer = client.answer().await;
                assert_eq!(answer.status, 200, "{answer:?}");
                assert_eq!(String::from_utf8(answer.body).unwrap(), self.parts.concat());
            }
        }
        drop(client);
        gate.open();
    }
}

/// What a model costs in thousandths of a billionth of a dollar: input, cached, cache write, output.
fn prices(model: &str) -> [u64; 4] {
    match model {
        "m1" => [1_250_000, 125_000, 1_500_000, 10_000_000],
        _ => [375, 100, 700, 2_900],
    }
}

/// What the provider counted, by key and model.
type Counted = Mutex<BTreeMap<(String, String), Totals>>;

fn count(counted: &Counted, seen: &Seen, call: &Call) {
    let key = match call.style {
        Style::Messages => seen.values("x-api-key")[0],
        _ => seen.values("authorization")[0].strip_prefix("Bearer ").unwrap(),
    };
    let model = format!("{}/{}", call.style.provider(), seen.json()["model"].as_str().unwrap());
    let Tokens { input, cached, cache_write, output, reasoning } = call.tokens;
    let [input_price, cached_price, cache_write_price, output_price] = prices(call.model);
    let cost = input * input_price
        + cached * cached_price
        + cache_write * cache_write_price
        + (output + reasoning) * output_price;
    *counted.lock().entry((key.to_owned(), model)).or_default() +=
        Totals { calls: 1, tokens: call.tokens, cost: Money((cost + 500) / 1_000), estimated: 0 };
}

/// The key of the user with this number, who has one at each provider.
fn key(world: &World, user: &str) -> String {
    let key = format!("sk-own-{user}");
    for style in STYLES {
        let workspace = WorkspaceId::of(user);
        world.keys.remember(&workspace, style.provider(), Secret::new(&*key)).unwrap();
    }
    key
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_users_use_what_the_provider_counted_to_the_token_whenever_they_leave() {
    let world = Arc::new(World::new().await);
    let (counted, gates) = (Arc::<Counted>::default(), Arc::new(gates()));
    let (counting, waiting) = (Arc::clone(&counted), Arc::clone(&gates));
    world.provider.script(move |seen| {
        let call = Call::of(seen.json()["number"].as_u64().unwrap());
        count(&counting, seen, &call);
        call.steps(&waiting[&call.number])
    });
    let (mut users, mut names) = (JoinSet::new(), HashMap::new());
    for user in 0..USERS {
        let name = format!("user-{user}");
        let runner = world.runner(&name);
        names.insert(key(&world, &name), name);
        let (world, gates) = (Arc::clone(&world), Arc::clone(&gates));
        users.spawn(async move {
            let Runner { token, start: _start } = &runner;
            for number in user * CALLS..(user + 1) * CALLS {
                Call::of(number).make(&world, token, &gates[&number]).await;
            }
        });
    }
    while let Some(done) = users.join_next().await {
        done.unwrap();
    }
    let counted = std::mem::take(&mut *counted.lock());
    let by_user = counted.into_iter().map(|((key, model), it)| ((names[&key].clone(), model), it));
    let counted: BTreeMap<_, Totals> = by_user.collect();
    let calls = |counted: &BTreeMap<_, Totals>| counted.values().map(|it| it.calls).sum::<u64>();
    let whole = |number: &u64| Call::of(*number).leaves != Leaves::BeforeItsRequestEnds;
    let expected = (0..USERS * CALLS).filter(whole).count() as u64;
    assert_eq!(calls(&counted), expected);
    assert_eq!(world.used().await, counted);
}

fn gates() -> HashMap<u64, Gate> {
    (0..USERS * CALLS).map(|number| (number, Gate::new())).collect()
}

#[test]
fn the_calls_leave_at_every_point_in_every_style() {
    let mut points = HashMap::<String, u32>::new();
    for call in (0..USERS * CALLS).map(Call::of) {
        let point = match call.leaves {
            Leaves::Before(part) if part + 1 == call.parts.len() => {
                "before the last part".to_owned()
            }
            Leaves::Before(0) => "before the first part".to_owned(),
            Leaves::Before(_) => "between".to_owned(),
            other => format!("{other:?}"),
        };
        *points.entry(format!("{:?} {} {point}", call.style, call.streams)).or_default() += 1;
    }
    assert_eq!(points.len(), 3 * 2 * 5, "{points:?}");
}
