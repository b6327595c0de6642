//! The data of an event stream, in whatever pieces it comes.

use memchr::memchr2;

/// Takes an event stream apart and keeps nothing of it.
#[derive(Debug, Default)]
pub(super) struct Lines {
    line: Line,
    /// Whether the last byte was a carriage return, which a line feed may belong to.
    after_return: bool,
}

/// What a stream is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part<'a> {
    /// The next bytes of the event's data. Ends of lines are in it, which JSON does not mind.
    Data(&'a [u8]),
    /// The event is over.
    End,
}

/// Where in a line we are.
#[derive(Debug, Clone, Copy)]
enum Line {
    /// In the field's name, of which so much is as [`DATA`] has it.
    Name(usize),
    /// Behind the colon.
    Colon,
    /// In the data.
    Data,
    /// In anything else.
    Other,
}

impl Default for Line {
    fn default() -> Self {
        Self::Name(0)
    }
}

impl Lines {
    pub(super) fn feed(&mut self, mut piece: &[u8], mut take: impl FnMut(Part<'_>)) {
        while let Some((&first, rest)) = piece.split_first() {
            if std::mem::take(&mut self.after_return) && first == b'\n' {
                piece = rest;
                continue;
            }
            match self.line {
                Line::Name(same) => {
                    piece = rest;
                    match first {
                        b'\n' | b'\r' => {
                            if same == 0 {
                                take(Part::End);
                            }
                            self.end_line(first);
                        }
                        _ if first != DATA[same] => self.line = Line::Other,
                        b':' => self.line = Line::Colon,
                        _ => self.line = Line::Name(same + 1),
                    }
                }
                // JSON does not mind the space either.
                Line::Colon => self.line = Line::Data,
                Line::Data | Line::Other => {
                    let end = memchr2(b'\n', b'\r', piece);
                    let (part, rest) = piece.split_at(end.map_or(piece.len(), |end| end + 1));
                    if matches!(self.line, Line::Data) {
                        take(Part::Data(part));
                    }
                    if let Some(end) = end {
                        self.end_line(part[end]);
                    }
                    piece = rest;
                }
            }
        }
    }

    fn end_line(&mut self, with: u8) {
        self.line = Line::default();
        self.after_return = with == b'\r';
    }
}

const DATA: &[u8] = b"data:";
