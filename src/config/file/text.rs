//! What stands in the file, with its place: scalars as text, and mappings in their order.

use std::fmt;

use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{MapAccess, Visitor},
};
use serde_saphyr::Spanned;

/// A scalar as written, before anything is substituted, and where it stands.
#[derive(Clone)]
pub(in crate::config) struct Text {
    pub(in crate::config) written: String,
    line: u64,
    column: u64,
}

impl Text {
    /// A value that stands nowhere, for showing.
    pub(in crate::config) fn new(written: impl Into<String>) -> Self {
        Self { written: written.into(), line: 0, column: 0 }
    }

    /// Line and column, from 1.
    pub(in crate::config) fn position(&self) -> (u64, u64) {
        (self.line, self.column)
    }
}

/// It may be a secret in the wrong place.
impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<text at {}:{}>", self.line, self.column)
    }
}

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Spanned { value, referenced, .. } = Spanned::<String>::deserialize(deserializer)?;
        if value.len() > LONGEST {
            return Err(serde::de::Error::custom("the value is longer than 64 KiB"));
        }
        Ok(Self { written: value, line: referenced.line(), column: referenced.column() })
    }
}

impl Serialize for Text {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match (self.written.as_str(), self.written.parse::<u64>()) {
            ("true", _) => serializer.serialize_bool(true),
            ("false", _) => serializer.serialize_bool(false),
            (text, Ok(number)) if number.to_string() == text => serializer.serialize_u64(number),
            (text, _) => serializer.serialize_str(text),
        }
    }
}

/// A mapping whose keys the user chose, in the order they are written.
#[derive(Debug)]
pub(in crate::config) struct Entries<T>(pub(in crate::config) Vec<(Text, T)>);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Entries<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct InOrder<T>(std::marker::PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for InOrder<T> {
            type Value = Entries<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a mapping")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    entries.push(entry);
                }
                Ok(Entries(entries))
            }
        }

        deserializer.deserialize_map(InOrder(std::marker::PhantomData))
    }
}

impl<T: Serialize> Serialize for Entries<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(key, value)| (&key.written, value)))
    }
}

/// The longest value; aliases may repeat it.
const LONGEST: usize = 64 << 10;
