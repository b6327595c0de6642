//! What a call is answered with when the prompt is to say. The first `[[word argument]]` in what
//! the user has said last decides:
//!
//! | | |
//! |---|---|
//! | `[[echo TEXT]]` | says TEXT |
//! | `[[words COUNT PAUSE_MS]]` | says that many words, with a pause before each |
//! | `[[hold TEXT]]` | says TEXT, and waits at the gate halfway |
//! | `[[run COMMAND]]` | has bash run COMMAND, then says what it printed |
//! | `[[run-held COMMAND]]` | the same, and what calls bash waits at the gate |
//! | `[[delegate WORD ARGUMENT]]` | has a sub-agent do that, then says what it said |
//! | `[[fail STATUS]]` | an error that repeats the key |
//! | `[[redirect URL]]` | a redirect |
//! | `[[unmetered TEXT]]` | says TEXT, and not what was used |
//! | `[[gzip TEXT]]` | says TEXT, compressed if the caller allows that |
//! | `[[cut TEXT]]` | says TEXT, and breaks the connection |

use std::time::Duration;

use serde_json::json;

use super::{Act, Asked, Reply, act::Quirk};

/// Said when the prompt does not say what to say.
pub(crate) const DEFAULT: &str = "All is well.";

/// Does what the prompt says.
pub(super) fn act(asked: &Asked) -> Act {
    let (word, argument) = directive(&asked.text).unwrap_or(("echo", DEFAULT));
    let says = Reply::saying(argument);
    Act::Reply(match word {
        "echo" => says,
        "words" => words(argument),
        "hold" => Reply { quirk: Quirk::Held, ..says },
        "unmetered" => Reply { quirk: Quirk::Unmetered, ..says },
        "gzip" => Reply { quirk: Quirk::Compressed, ..says },
        "cut" => Reply { quirk: Quirk::Cut, ..says },
        "run" | "run-held" | "delegate" if !asked.results.is_empty() => {
            Reply::saying(&asked.results.join("\n"))
        }
        "run" => run(argument),
        "run-held" => Reply { quirk: Quirk::Held, ..run(argument) },
        "delegate" => Reply::calling(
            "task",
            &json!({
                "description": "A part of it",
                "subagent_type": "general",
                "prompt": format!("[[{argument}]]"),
            }),
        ),
        "fail" => return Act::Fail(number(argument)),
        "redirect" => return Act::Redirect(argument.to_owned()),
        unknown => panic!("no such directive: {unknown}"),
    })
}

/// The first `[[word argument]]`.
fn directive(text: &str) -> Option<(&str, &str)> {
    let (_, begun) = text.split_once("[[")?;
    let (whole, _) = begun.split_once("]]")?;
    Some(whole.split_once(' ').unwrap_or((whole, DEFAULT)))
}

fn run(command: &str) -> Reply {
    Reply::calling("bash", &json!({"command": command, "description": "What was asked for"}))
}

fn words(argument: &str) -> Reply {
    let (count, pause) = argument.split_once(' ').unwrap_or((argument, "0"));
    Reply {
        pieces: (0..number::<usize>(count)).map(|count| format!("w{count} ")).collect(),
        pause: Duration::from_millis(number(pause)),
        ..Reply::saying("")
    }
}

fn number<N: std::str::FromStr>(text: &str) -> N {
    text.parse().ok().unwrap_or_else(|| panic!("not a number: {text}"))
}
