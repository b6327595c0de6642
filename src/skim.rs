//! Finds a few members of a JSON document that passes by, without keeping the document.
//!
//! It follows the document's structure and does not validate it: of what a JSON parser accepts, it
//! sees the members that the parser sees. What no parser accepts it may follow anyhow, or give up.

use memchr::memchr2;

mod keys;

pub use keys::Keys;
use keys::unescape;

/// The names that lead to a member: one, or that of an object and one in it.
pub type Path = &'static [&'static str];

/// Looks for members in a document that comes in pieces, cut anywhere. It needs the memory of one
/// key and one value, and only while those are cut.
#[derive(Debug)]
pub struct Skim {
    wanted: &'static [Path],
    keys: Keys,
    largest: usize,
    /// No key that is written with more bytes can be one of the wanted.
    longest_key: usize,
    /// One bit for each length that a wanted name has.
    lengths: u64,
    state: State,
    /// Within a string, whether a backslash was the last byte.
    escaped: bool,
    /// How many arrays and objects are open that are not followed.
    deep: u64,
    /// The member whose object is followed, when it is not the document itself.
    parent: Option<&'static str>,
    /// The wanted member whose key was last.
    aim: Option<usize>,
    /// Whether what follows is to be followed if it is an object, and then under which name.
    way: Option<&'static str>,
    /// The beginning of a key or a value whose end has not come.
    held: Vec<u8>,
    /// One bit for each of the wanted.
    seen: u64,
}

/// A wanted member, as often as the document has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Found<'a> {
    /// Which.
    pub path: Path,
    /// Its value as it is written, without white space around it.
    pub text: &'a [u8],
    /// Whether `text` is all of it: what is longer than allowed has lost its end.
    pub is_whole: bool,
    /// Whether the document had this member before.
    pub is_again: bool,
}

/// How far the document is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// Its end has not come, and perhaps not even its beginning.
    Unfinished,
    /// It is an object that is complete, and at most white space followed.
    Whole,
    /// Something else than white space followed it.
    Followed,
    /// It is not an object. A byte order mark counts.
    NotAnObject,
    /// It began as an object, and is not JSON.
    Broken,
}

impl Skim {
    /// Looks for at most 64 members, none of which is in another, and hands out at most `largest`
    /// bytes of each.
    pub fn new(wanted: &'static [Path], keys: Keys, largest: usize) -> Self {
        debug_assert!(wanted.len() <= 64 && wanted.iter().all(|path| matches!(path.len(), 1 | 2)));
        let lengths = wanted.iter().flat_map(|path| path.iter()).map(|name| name.len());
        Self {
            wanted,
            keys,
            largest,
            longest_key: lengths.clone().max().unwrap_or_default() * LONGEST_ESCAPE,
            lengths: lengths.fold(0, |lengths, length| lengths | 1 << length.min(63)),
            state: State::Start,
            escaped: false,
            deep: 0,
            parent: None,
            aim: None,
            way: None,
            held: Vec::new(),
            seen: 0,
        }
    }

    /// Forgets the document: another one begins.
    pub fn restart(&mut self) {
        (self.state, self.escaped, self.deep, self.seen) = (State::Start, false, 0, 0);
        (self.parent, self.aim, self.way) = (None, None, None);
        self.held.clear();
    }

    /// How far the document is after the pieces so far.
    pub fn progress(&self) -> Progress {
        match self.state {
            State::End => Progress::Whole,
            State::Lost(how) => how,
            _ => Progress::Unfinished,
        }
    }

    /// Reads the next piece and says what was complete with it, in the order of the document.
    pub fn feed(&mut self, piece: &[u8], mut found: impl FnMut(Found<'_>)) {
        let (mut at, mut begin) = (0, 0);
        while let Some(&byte) = piece.get(at) {
            match self.state {
                State::Key if byte == b'"' => (self.state, begin) = (State::InKey, at + 1),
                State::InKey => match self.closing_quote(piece, at) {
                    Some(end) => {
                        self.take_key(&piece[begin..end]);
                        at = end;
                    }
                    None => break,
                },
                State::Value if !is_space(byte) => {
                    begin = at;
                    self.begin_value(byte);
                }
                State::Scalar => match piece[at..].iter().position(|byte| !is_scalar(*byte)) {
                    Some(length) => {
                        at += length;
                        self.end_value(&piece[begin..at], &mut found);
                        continue;
                    }
                    None => break,
                },
                State::Text => match self.closing_quote(piece, at) {
                    Some(end) if self.deep == 0 => {
                        self.end_value(&piece[begin..=end], &mut found);
                        at = end;
                    }
                    Some(end) => (self.state, at) = (State::Deep, end),
                    None => break,
                },
                State::Deep => match self.closing_bracket(piece, at) {
                    Some(end) => {
                        self.end_value(&piece[begin..=end], &mut found);
                        at = end;
                    }
                    None => break,
                },
                State::Lost(_) => return,
                _ => self.step(byte),
            }
            at += 1;
        }
        match self.state {
            State::InKey => self.hold(&piece[begin..], self.longest_key),
            State::Scalar | State::Text | State::Deep if self.aim.is_some() => {
                self.hold(&piece[begin..], self.largest);
            }
            _ => {}
        }
    }

    /// Follows a byte between the keys and values of an object that is followed.
    fn step(&mut self, byte: u8) {
        self.state = match (self.state, byte) {
            (state, byte) if is_space(byte) => state,
            (State::Start, b'{') | (State::After, b',') => State::Key,
            (State::Start, _) => State::Lost(Progress::NotAnObject),
            (State::Colon, b':') => State::Value,
            (State::Key | State::After, b'}') => match self.parent.take() {
                Some(_) => State::After,
                None => State::End,
            },
            (State::End, _) => State::Lost(Progress::Followed),
            _ => State::Lost(Progress::Broken),
        };
    }

    fn begin_value(&mut self, first: u8) {
        self.state = match (first, self.way.take()) {
            (b'{', Some(way)) => {
                self.parent = Some(way);
                State::Key
            }
            (b'{' | b'[', _) => {
                self.deep = 1;
                State::Deep
            }
            (b'"', _) => State::Text,
            _ if is_scalar(first) => State::Scalar,
            _ => State::Lost(Progress::Broken),
        };
    }

    /// The value that ends with `rest` is over.
    fn end_value(&mut self, rest: &[u8], found: &mut impl FnMut(Found<'_>)) {
        self.state = State::After;
        let Some(which) = self.aim.take() else { return };
        let text = if self.held.is_empty() {
            rest
        } else {
            self.hold(rest, self.largest);
            &self.held
        };
        found(Found {
            path: self.wanted[which],
            text: &text[..text.len().min(self.largest)],
            is_whole: text.len() <= self.largest,
            is_again: self.seen & (1 << which) != 0,
        });
        self.seen |= 1 << which;
        self.held.clear();
    }

    /// The key that ends with `rest` is over. It says what its value will be.
    fn take_key(&mut self, rest: &[u8]) {
        self.state = State::Colon;
        if self.held.is_empty() {
            (self.aim, self.way) = self.look_up(rest);
        } else {
            self.hold(rest, self.longest_key);
            (self.aim, self.way) = self.look_up(&self.held);
            self.held.clear();
        }
    }

    /// The wanted member that `key` is, or the object that it is the way into.
    fn look_up(&self, key: &[u8]) -> (Option<usize>, Option<&'static str>) {
        let is_plain = key.iter().all(|byte| byte.is_ascii() && *byte != b'\\');
        if key.len() > self.longest_key || is_plain && self.lengths >> key.len().min(63) & 1 == 0 {
            return (None, None);
        }
        let unescaped = if is_plain { None } else { unescape(key) };
        let key = unescaped.as_deref().map_or(key, str::as_bytes);
        let (mut aim, mut way) = (None, None);
        for (which, path) in self.wanted.iter().enumerate() {
            match (self.parent, path) {
                (None, [name]) if self.keys.are_same(key, name) => aim = Some(which),
                (None, [name, _]) if self.keys.are_same(key, name) => way = Some(*name),
                (Some(parent), [first, name])
                    if parent == *first && self.keys.are_same(key, name) =>
                {
                    aim = Some(which);
                }
                _ => {}
            }
        }
        (aim, way)
    }

    /// Keeps a part of a key or value, and at most one byte more than `most` altogether, which
    /// tells that there was more.
    fn hold(&mut self, part: &[u8], most: usize) {
        let room = (most + 1).saturating_sub(self.held.len());
        self.held.extend_from_slice(&part[..part.len().min(room)]);
    }

    /// The end of the array or object that `at` is in, if it is in this piece.
    fn closing_bracket(&mut self, piece: &[u8], mut at: usize) -> Option<usize> {
        while let Some(&byte) = piece.get(at) {
            match byte {
                b'"' => {
                    let Some(end) = self.closing_quote(piece, at + 1) else {
                        self.state = State::Text;
                        return None;
                    };
                    at = end;
                }
                b'{' | b'[' => self.deep += 1,
                b'}' | b']' if self.deep == 1 => {
                    self.deep = 0;
                    return Some(at);
                }
                b'}' | b']' => self.deep -= 1,
                b',' | b':' => {}
                _ if is_scalar(byte) || is_space(byte) => {}
                _ => {
                    self.state = State::Lost(Progress::Broken);
                    return None;
                }
            }
            at += 1;
        }
        None
    }

    /// The end of the string that `at` is in, if it is in this piece.
    fn closing_quote(&mut self, piece: &[u8], mut at: usize) -> Option<usize> {
        at += usize::from(std::mem::take(&mut self.escaped));
        while let Some(next) = piece.get(at..).and_then(|rest| memchr2(b'"', b'\\', rest)) {
            at += next;
            if piece[at] == b'"' {
                return Some(at);
            }
            at += 2;
        }
        self.escaped = at > piece.len();
        None
    }
}

/// What comes next, or what the document is in the midst of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// The document.
    Start,
    /// A key, or the end of the object.
    Key,
    /// A key's end.
    InKey,
    /// The colon behind a key.
    Colon,
    /// A value.
    Value,
    /// The end of a number or a literal.
    Scalar,
    /// The end of a string that is a value, or anywhere in one.
    Text,
    /// The end of an array or an object that is not followed.
    Deep,
    /// A comma, or the end of the object.
    After,
    /// Nothing.
    End,
    /// Anything: nothing is looked for any more.
    Lost(Progress),
}

/// JSON's white space, which is less than anybody else's.
fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\n' | b'\r' | b'\t')
}

/// What numbers and literals are made of, `NaN` and such included. It leaves out whatever begins a
/// comment or another kind of string somewhere.
fn is_scalar(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'+' | b'.')
}

/// `\u0061`. No character of a wanted name takes more.
const LONGEST_ESCAPE: usize = 6;

#[cfg(test)]
mod tests;
