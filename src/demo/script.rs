//! What the demo model says to what.

use http::StatusCode;
use serde_json::{Value, json};

/// One answer: thoughts, text, and perhaps a tool call.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Answer {
    pub(super) reasoning: String,
    pub(super) text: String,
    /// Tool name and arguments.
    pub(super) call: Option<(&'static str, Value)>,
    /// How many messages came before this answer.
    pub(super) turn: usize,
}

/// What a line of the script is chosen by.
enum When {
    /// The message begins with the word.
    Begins(&'static str),
    /// The message contains the words.
    Says(&'static str),
    /// Open WebUI asks for a chore, whose result has this member.
    Chore(&'static str),
    Otherwise,
}

/// What happens then. `{}` stands for what the message says after the words it was chosen by.
enum Then {
    Say(&'static str),
    /// Thinks the first, says the second.
    Think(&'static str, &'static str),
    /// Says the words so many times.
    Repeat(&'static str, usize),
    /// Calls the first tool of the two, then says the text, where `{}` is the result.
    Call(fn(&str) -> (&'static str, Value), &'static str),
    /// Answers the HTTP status that the message names, or 500.
    Fail,
}

use self::{
    Then::{Call, Fail, Repeat, Say, Think},
    When::{Begins, Chore, Otherwise, Says},
};

/// The script. The first line that fits is played; letters match in either case.
const SCRIPT: [(When, Then); 10] = [
    (Chore("\"title\""), Say(r#"{"title": "Demo chat"}"#)),
    (Chore("\"tags\""), Say(r#"{"tags": ["General", "Demo"]}"#)),
    (Chore("\"follow_ups\""), Say(r#"{"follow_ups": ["List files", "Write a file"]}"#)),
    (Begins("echo "), Say("{}")),
    (Begins("fail"), Fail),
    (Begins("slow"), Repeat("This is a long answer, told slowly by the scripted demo model. ", 60)),
    (
        Begins("think"),
        Think(
            "The user wants to see me think. I am a script, so I pretend: first this, then that. ",
            "I thought about it, as far as a script can, and the answer is 42.",
        ),
    ),
    (Says("list files"), Call(list_files, "These are the files in your workspace:\n\n{}")),
    (
        Says("write a file"),
        Call(write_file, "I asked for the file to be written, and the tool answered:\n\n{}"),
    ),
    (
        Otherwise,
        Say(
            "Hello! I am the scripted demo model, so I understand nothing, but every part between \
             you and me is real. You said: \"{}\". Try \"list files\", \"write a file\" or \
             \"think\" next.",
        ),
    ),
];

fn list_files(_: &str) -> (&'static str, Value) {
    ("bash", json!({"command": "ls -la", "description": "Lists the files of the workspace"}))
}

/// Writes to the name that follows, as in `write a file notes.txt`.
fn write_file(rest: &str) -> (&'static str, Value) {
    let named = rest.split_whitespace().find(|word| word.contains('.')).unwrap_or_default();
    let plain = |char: char| char.is_ascii_alphanumeric() || "-_.".contains(char);
    let name = if named.starts_with(|char: char| char.is_ascii_alphanumeric())
        && named.chars().all(plain)
    {
        named.trim_end_matches('.')
    } else {
        "demo.txt"
    };
    ("write", json!({"filePath": name, "content": "Written by the scripted demo model.\n"}))
}

impl Answer {
    pub(super) fn finish_reason(&self) -> &'static str {
        if self.call.is_some() { "tool_calls" } else { "stop" }
    }
}

/// The answer to a chat completion request, or the HTTP status it asks to fail with.
pub(super) fn answer(request: &Value) -> Result<Answer, StatusCode> {
    let messages = request["messages"].as_array().map(Vec::as_slice).unwrap_or_default();
    let (asked, later) = question(messages);
    let chosen = aside(request, messages).unwrap_or_else(|| choose(&asked));
    let mut answer = Answer { turn: messages.len(), ..Answer::default() };
    match chosen {
        (Say(text), rest) => answer.text = text.replace("{}", rest),
        (Think(thought, text), _) => {
            answer.reasoning.push_str(thought);
            answer.text.push_str(text);
        }
        (Repeat(text, times), _) => answer.text = text.repeat(*times),
        (Call(call, text), rest) => {
            let (tool, arguments) = call(rest);
            let result = later.iter().rev().find(|message| message["role"] == "tool");
            if let Some(result) = result {
                answer.text = text.replace("{}", &said(result));
            } else if offers(request, tool) {
                answer.text.push_str("I will do that now. ");
                answer.call = Some((tool, arguments));
            } else {
                answer.text = format!("I would use the tool {tool}, but I was not given it.");
            }
        }
        (Fail, rest) => {
            let status = rest.split_whitespace().next().and_then(|word| word.parse().ok());
            let status = status.and_then(|status: u16| StatusCode::from_u16(status).ok());
            let failure =
                |status: &StatusCode| status.is_client_error() || status.is_server_error();
            return Err(status.filter(failure).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR));
        }
    }
    Ok(answer)
}

/// What opencode asks beside the chat: a title or a summary, with no tools to use.
fn aside(request: &Value, messages: &[Value]) -> Option<(&'static Then, &'static str)> {
    let has_tools = request["tools"].as_array().is_some_and(|tools| !tools.is_empty());
    let system = messages.first().filter(|message| message["role"] == "system").map(said)?;
    let system = system.to_lowercase();
    match (has_tools, system.contains("title generator"), system.contains("summar")) {
        (false, true, _) => Some((&Say("Demo chat"), "")),
        (false, _, true) => Some((&Say("The user tried the scripted demo model."), "")),
        _ => None,
    }
}

fn choose(asked: &str) -> (&'static Then, &str) {
    let lower = asked.to_ascii_lowercase();
    let rest = |when: &When| match when {
        Begins(word) => lower.starts_with(word).then_some(word.len()),
        Says(words) => lower.find(words).map(|at| at + words.len()),
        Chore(member) => (lower.starts_with("### task:") && lower.contains(member)).then_some(0),
        Otherwise => Some(0),
    };
    SCRIPT
        .iter()
        .find_map(|(when, then)| rest(when).map(|at| (then, &asked[at..])))
        .unwrap_or((&Say(""), ""))
}

/// The last user message, as the user wrote it, and the messages after it.
fn question(messages: &[Value]) -> (String, &[Value]) {
    match messages.iter().rposition(|message| message["role"] == "user") {
        Some(at) => (said(&messages[at]).trim().to_owned(), &messages[at + 1..]),
        None => (String::new(), messages),
    }
}

/// The text of a message: the last of its text parts that opencode did not add.
fn said(message: &Value) -> String {
    let content = &message["content"];
    let parts = content.as_array().map(Vec::as_slice).unwrap_or_default();
    let mut texts = parts.iter().filter_map(|part| part["text"].as_str());
    let own = |text: &&str| !text.trim_start().starts_with("<system-reminder>");
    content.as_str().or_else(|| texts.rfind(own)).unwrap_or_default().to_owned()
}

fn offers(request: &Value, tool: &str) -> bool {
    let tools = request["tools"].as_array().map(Vec::as_slice).unwrap_or_default();
    tools.iter().any(|offered| offered["function"]["name"] == tool)
}
