//! The messages of a request, one after the other → a [`Prompt`].

use std::collections::HashMap;

use serde::Deserialize;
use serde_json::{Value, value::RawValue};

use super::{Ending, Entry, File, Part, Prompt, Refusal, Speaker, missing, read};

/// The messages heard so far.
#[derive(Debug, Default)]
pub(super) struct Conversation {
    system: Vec<String>,
    entries: Vec<Entry>,
    /// The user's message, while nobody but the system spoke after it.
    open: Option<Vec<Part>>,
    /// Tool call id → tool name.
    calls: HashMap<String, String>,
}

#[derive(Deserialize)]
struct Message<'a> {
    role: String,
    #[serde(borrow)]
    content: Option<&'a RawValue>,
    tool_calls: Option<Vec<Call>>,
    tool_call_id: Option<String>,
    name: Option<String>,
}

#[derive(Deserialize)]
struct Call {
    id: Option<String>,
    function: Option<Function>,
}

#[derive(Deserialize)]
struct Function {
    name: String,
    arguments: Option<Value>,
}

/// A content part of any type: `type` says which members it has.
#[derive(Deserialize)]
struct Content {
    r#type: String,
    text: Option<String>,
    refusal: Option<String>,
    image_url: Option<Image>,
    file: Option<Document>,
    file_data: Option<String>,
    filename: Option<String>,
}

/// `{"url": …}` in chat completions, the bare URL in OpenAI's newer `input_image`.
#[derive(Deserialize)]
#[serde(untagged)]
enum Image {
    Url(String),
    Object { url: String },
}

#[derive(Deserialize)]
struct Document {
    file_data: Option<String>,
    filename: Option<String>,
}

impl Conversation {
    /// Takes the next message, which is the request's member `param`.
    pub(super) fn hear(&mut self, message: &RawValue, param: &str) -> Result<(), Refusal> {
        let message: Message<'_> = read(message, param)?;
        let content = format!("{param}.content");
        let parts = message.content.map(|raw| parts(raw, &content)).transpose()?;
        match message.role.as_str() {
            "system" | "developer" => {
                let Entry { text, files, .. } = Entry::of(Speaker::User, parts.unwrap_or_default());
                if !files.is_empty() {
                    return Err(unsupported(&content, "A system message can only hold text."));
                }
                self.system.extend((!text.trim().is_empty()).then_some(text));
            }
            "user" => {
                let Some(parts) = parts.filter(|parts| !parts.is_empty()) else {
                    return Err(unsupported(&content, "A user message needs content."));
                };
                self.close();
                self.open = Some(parts);
            }
            "assistant" => {
                let said = Entry::of(Speaker::Assistant, parts.unwrap_or_default());
                let calls = message.tool_calls.unwrap_or_default();
                // An answer that never began is no answer: the user's message is still open.
                if !said.is_empty() {
                    self.close();
                    self.entries.push(said);
                }
                for call in calls {
                    self.call(call);
                }
            }
            "tool" | "function" => {
                self.close();
                let called = message.tool_call_id.and_then(|id| self.calls.get(&id).cloned());
                let name = called.or(message.name).unwrap_or_default();
                let speaker = Speaker::Tool(tame(&name));
                self.entries.push(Entry::of(speaker, parts.unwrap_or_default()));
            }
            _ => {
                let message = "A role is system, developer, user, assistant or tool.";
                return Err(unsupported(&format!("{param}.role"), message));
            }
        }
        Ok(())
    }

    /// What all of it asks for.
    pub(super) fn prompt(self) -> Result<Prompt, Refusal> {
        let ending = match (&self.open, self.entries.last().map(|entry| &entry.speaker)) {
            (Some(_), _) => Ending::User,
            (None, Some(Speaker::Tool(_))) => Ending::Tool,
            (None, Some(_)) => Ending::Assistant,
            (None, None) => {
                return Err(if self.system.is_empty() {
                    missing("messages")
                } else {
                    unsupported("messages", "The request needs a user message.")
                });
            }
        };
        Ok(Prompt {
            system: (!self.system.is_empty()).then(|| self.system.join("\n\n")),
            transcript: self.entries,
            parts: self.open.unwrap_or_else(|| vec![Part::Text(ending.cue().to_owned())]),
            ending,
        })
    }

    /// Somebody else speaks: the user's message becomes part of the transcript.
    fn close(&mut self) {
        let open = self.open.take();
        self.entries.extend(open.map(|parts| Entry::of(Speaker::User, parts)));
    }

    fn call(&mut self, call: Call) {
        let Some(Function { name, arguments }) = call.function else { return };
        self.close();
        let name = tame(&name);
        self.calls.extend(call.id.map(|id| (id, name.clone())));
        let text = match arguments {
            None => String::new(),
            Some(Value::String(text)) => text,
            Some(other) => other.to_string(),
        };
        self.entries.push(Entry { speaker: Speaker::Call(name), text, files: Vec::new() });
    }
}

/// Content is a string or an array of parts.
fn parts(raw: &RawValue, param: &str) -> Result<Vec<Part>, Refusal> {
    if raw.get().starts_with('"') {
        return Ok(vec![Part::Text(read(raw, param)?)]);
    }
    let parts: Vec<&RawValue> = read(raw, param)?;
    let part = |(index, raw)| part(raw, &format!("{param}.{index}"));
    parts.into_iter().enumerate().map(part).collect()
}

fn part(raw: &RawValue, param: &str) -> Result<Part, Refusal> {
    let content: Content = read(raw, param)?;
    let lacks = |member: &str| {
        let message = format!("A part of this type needs `{member}`.");
        unsupported(&format!("{param}.{member}"), &message)
    };
    match content.r#type.as_str() {
        "text" | "input_text" | "output_text" => {
            content.text.map(Part::Text).ok_or_else(|| lacks("text"))
        }
        "refusal" => content.refusal.map(Part::Text).ok_or_else(|| lacks("refusal")),
        "image_url" | "input_image" => match content.image_url {
            Some(Image::Url(url) | Image::Object { url }) => {
                File::of_url(url, content.filename, &format!("{param}.image_url")).map(Part::File)
            }
            None => Err(lacks("image_url")),
        },
        "file" | "input_file" => {
            let (data, name) = match content.file {
                Some(file) => (file.file_data, file.filename),
                None => (content.file_data, content.filename),
            };
            // Without the data it is a stored file's id or a URL, and we have neither store nor fetch.
            let data = data.ok_or_else(|| lacks("file_data"))?;
            File::of_data(data, name, &format!("{param}.file")).map(Part::File)
        }
        _ => {
            let message = "A content part is of type text, image_url or file.";
            Err(unsupported(&format!("{param}.type"), message))
        }
    }
}

/// A tool's name as it may stand outside of quoted text.
fn tame(name: &str) -> String {
    let plain = |char: &char| char.is_ascii_alphanumeric() || "_-.".contains(*char);
    let name: String = name.chars().filter(plain).take(64).collect();
    if name.is_empty() { "unknown".to_owned() } else { name }
}

fn unsupported(param: &str, message: &str) -> Refusal {
    Refusal::bad_request("unsupported_content", message.to_owned()).param(param.to_owned())
}
