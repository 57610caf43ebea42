//! The table of messages, read from its text on first use.

use std::collections::HashMap;
use std::sync::LazyLock;

/// Messages by name, e.g. `core.Pod`.
pub(super) struct Messages(HashMap<&'static str, Vec<Field>>);

/// One field of a message.
#[derive(Debug)]
pub(super) struct Field {
    pub(super) number: u64,
    /// Its name in JSON; empty for a message whose fields are its parent's in JSON.
    pub(super) name: &'static str,
    pub(super) shape: Shape,
    pub(super) kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    /// Left out when zero.
    One,
    /// Kept when zero.
    Pointer,
    List,
    /// Keys are strings.
    Map,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    String,
    Bool,
    Integer,
    Double,
    /// Base64 in JSON.
    Bytes,
    /// Seconds in JSON.
    Time,
    /// Microseconds in JSON.
    MicroTime,
    Quantity,
    IntOrString,
    /// A message with JSON inside.
    Raw,
    /// A message with a list inside.
    Items,
    Message(&'static str),
}

impl Messages {
    pub(super) fn shared() -> &'static Messages {
        static SHARED: LazyLock<Messages> = LazyLock::new(|| Messages::read(include_str!("messages.txt")));
        &SHARED
    }

    /// The fields of a message; none for a name that the table does not have.
    pub(super) fn fields(&self, message: &str) -> &[Field] {
        self.0.get(message).map_or(&[], Vec::as_slice)
    }

    /// The name as the table spells it, if it has it.
    pub(super) fn name(&self, message: &str) -> Option<&'static str> {
        self.0.get_key_value(message).map(|(name, _)| *name)
    }

    #[cfg(test)]
    pub(super) fn names(&self) -> impl Iterator<Item = &'static str> {
        self.0.keys().copied()
    }

    fn read(table: &'static str) -> Messages {
        let lines = table.lines().filter(|line| !line.starts_with('#'));
        Messages(lines.map(message).collect())
    }
}

fn message(line: &'static str) -> (&'static str, Vec<Field>) {
    let mut words = line.split(' ');
    let name = words.next().expect("split yields something");
    (name, words.map(field).collect())
}

fn field(word: &'static str) -> Field {
    let mut parts = word.splitn(3, ':');
    let mut part = || parts.next().expect("a field of the table has three parts");
    let number = part().parse().expect("a field of the table has a number");
    let name = part();
    let (shape, kind) = shape(part());
    Field { number, name, shape, kind: self::kind(kind) }
}

fn shape(text: &'static str) -> (Shape, &'static str) {
    let prefixes = [("[]", Shape::List), ("{}", Shape::Map), ("*", Shape::Pointer)];
    prefixes
        .into_iter()
        .find_map(|(prefix, shape)| Some((shape, text.strip_prefix(prefix)?)))
        .unwrap_or((Shape::One, text))
}

fn kind(text: &'static str) -> Kind {
    match text {
        "string" => Kind::String,
        "bool" => Kind::Bool,
        "int" => Kind::Integer,
        "double" => Kind::Double,
        "bytes" => Kind::Bytes,
        "time" => Kind::Time,
        "microtime" => Kind::MicroTime,
        "quantity" => Kind::Quantity,
        "intorstring" => Kind::IntOrString,
        "raw" => Kind::Raw,
        "items" => Kind::Items,
        message => Kind::Message(message),
    }
}
