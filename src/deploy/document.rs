//! Objects as documents: fields in the order in which a person reads them, with comments where a field is not plain.
//! Written as YAML or JSON. Must not know Kubernetes.

use std::fmt::Write as _;

use serde::ser::{Serialize, SerializeMap as _, SerializeSeq as _, Serializer};

/// A value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Node {
    /// A string; quoted where a reader would take it for something else.
    Text(String),
    /// A number.
    Number(u64),
    /// `true` or `false`.
    Flag(bool),
    /// A list.
    List(Vec<Node>),
    /// An object.
    Map(Map),
}

/// An object: fields in the order in which they were added.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Map {
    fields: Vec<Field>,
    /// For the field that is added next.
    note: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Field {
    name: String,
    value: Node,
    note: Option<String>,
}

impl Map {
    /// An object without fields.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a field.
    #[must_use]
    pub fn with(mut self, name: impl Into<String>, value: impl Into<Node>) -> Self {
        let note = self.note.take();
        self.fields.push(Field { name: name.into(), value: value.into(), note });
        self
    }

    /// Adds a field that has a value; else its comment is dropped.
    #[must_use]
    pub fn maybe(mut self, name: &str, value: Option<impl Into<Node>>) -> Self {
        if let Some(value) = value {
            return self.with(name, value);
        }
        self.note = None;
        self
    }

    /// Adds a field that holds something, if it does; else its comment is dropped.
    #[must_use]
    pub fn filled(self, name: &str, value: impl Into<Node>) -> Self {
        let value = value.into();
        let is_empty = match &value {
            Node::List(items) => items.is_empty(),
            Node::Map(map) => map.is_empty(),
            Node::Text(text) => text.is_empty(),
            Node::Number(_) | Node::Flag(_) => false,
        };
        self.maybe(name, (!is_empty).then_some(value))
    }

    /// Says something about the field that is added next: words, lines apart by line feeds.
    #[must_use]
    pub fn note(mut self, words: impl Into<String>) -> Self {
        self.note = Some(words.into());
        self
    }

    /// Whether it has no field.
    pub fn is_empty(&self) -> bool {
        self.fields.is_empty()
    }
}

impl From<&str> for Node {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<String> for Node {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<u64> for Node {
    fn from(number: u64) -> Self {
        Self::Number(number)
    }
}

impl From<bool> for Node {
    fn from(flag: bool) -> Self {
        Self::Flag(flag)
    }
}

impl From<Map> for Node {
    fn from(map: Map) -> Self {
        Self::Map(map)
    }
}

impl<T: Into<Node>> From<Vec<T>> for Node {
    fn from(items: Vec<T>) -> Self {
        Self::List(items.into_iter().map(Into::into).collect())
    }
}

impl Serialize for Node {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Text(text) => serializer.serialize_str(text),
            Self::Number(number) => serializer.serialize_u64(*number),
            Self::Flag(flag) => serializer.serialize_bool(*flag),
            Self::List(items) => {
                let mut list = serializer.serialize_seq(Some(items.len()))?;
                items.iter().try_for_each(|item| list.serialize_element(item))?;
                list.end()
            }
            Self::Map(map) => {
                let mut object = serializer.serialize_map(Some(map.fields.len()))?;
                map.fields.iter().try_for_each(|field| object.serialize_entry(&field.name, &field.value))?;
                object.end()
            }
        }
    }
}

/// An object, and what is to be said before it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Document {
    /// Words, lines apart by line feeds; may be empty.
    pub preamble: String,
    /// The object.
    pub object: Map,
}

/// Stands for a comment until the document is written; its value is the comment's number.
const COMMENT: &str = "starcar-comment";
/// Columns that a comment takes at most.
const WIDTH: usize = 118;

/// The documents as one YAML stream, each begun by `---`.
///
/// # Errors
/// When the writer refuses a value.
pub fn yaml(documents: &[Document]) -> Result<String, serde_saphyr::SerializeError> {
    let mut text = String::new();
    for document in documents {
        text.push_str("---\n");
        comment("", &document.preamble, &mut text);
        let mut notes = Vec::new();
        let marked = marked(&document.object, &mut notes);
        // YAML 1.1 is what Kubernetes' reader understands: `on` and `1e3` are quoted. No folding: arguments stay
        // on a line.
        let options = serde_saphyr::ser_options! { folded_wrap_chars: usize::MAX };
        let body = serde_saphyr::to_string_with_options(&Node::Map(marked), options)?;
        uncover(&body, &notes, &mut text);
    }
    Ok(text)
}

/// The documents as one object, a Kubernetes list.
pub fn list(documents: Vec<Document>) -> Node {
    let items: Vec<Map> = documents.into_iter().map(|document| document.object).collect();
    Map::new().with("apiVersion", "v1").with("kind", "List").with("items", items).into()
}

/// `map` with a field before each that has a comment.
fn marked(map: &Map, notes: &mut Vec<String>) -> Map {
    let mut out = Map::new();
    for field in &map.fields {
        if let Some(note) = &field.note {
            out = out.with(COMMENT, notes.len() as u64);
            notes.push(note.clone());
        }
        out = out.with(field.name.clone(), marked_node(&field.value, notes));
    }
    out
}

fn marked_node(node: &Node, notes: &mut Vec<String>) -> Node {
    match node {
        Node::Map(map) => Node::Map(marked(map, notes)),
        Node::List(items) => Node::List(items.iter().map(|item| marked_node(item, notes)).collect()),
        other => other.clone(),
    }
}

/// Writes `body` with the comments in place of what stands for them.
fn uncover(body: &str, notes: &[String], text: &mut String) {
    let mut next = 0;
    // The dash of a list's item whose first field has a comment.
    let mut dash = false;
    for line in body.lines() {
        let content = line.trim_start();
        let indent = line.get(..line.len() - content.len()).unwrap_or_default();
        let field = content.strip_prefix("- ").unwrap_or(content);
        // They come in the order of their numbers; anything else is a text that looks like one.
        if field.strip_prefix(COMMENT) == Some(&format!(": {next}"))
            && let Some(note) = notes.get(next)
        {
            dash = field.len() != content.len();
            comment(indent, note, text);
            next += 1;
        } else if std::mem::take(&mut dash) {
            let shorter = indent.strip_suffix("  ").unwrap_or(indent);
            let _ = writeln!(text, "{shorter}- {content}");
        } else {
            text.push_str(line);
            text.push('\n');
        }
    }
}

/// Writes words as comment lines: each of their lines begins a new one, and long ones are wrapped, but for those that are
/// indented.
fn comment(indent: &str, words: &str, text: &mut String) {
    for line in words.lines() {
        let whole = line.starts_with("  ");
        let mut current = String::new();
        for word in line.split(' ') {
            // Escaped: names in comments are an image's.
            let word: String = word.escape_debug().filter(|letter| !letter.is_control()).collect();
            let word = word.replace("\\'", "'").replace("\\\"", "\"");
            if !whole && !current.is_empty() && indent.len() + current.len() + word.len() + 3 > WIDTH {
                let _ = writeln!(text, "{indent}# {current}");
                current.clear();
            }
            if whole || !current.is_empty() {
                current.push(' ');
            }
            current.push_str(&word);
        }
        let current = if whole { current.trim_end() } else { current.as_str() };
        // An indented line has its own space already.
        let space = if whole || current.is_empty() { "" } else { " " };
        let _ = writeln!(text, "{indent}#{space}{current}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(object: Map) -> String {
        yaml(&[Document { preamble: String::new(), object }]).unwrap()
    }

    #[test]
    fn what_yaml_1_1_takes_for_something_else_is_quoted() {
        let odd = [
            "1010",
            "on",
            "off",
            "no",
            "yes",
            "y",
            "N",
            "1e3",
            "0x1f",
            "0o17",
            "017",
            "1_000",
            "true",
            "null",
            "~",
            "",
            "1.5",
            ".5",
            ".inf",
            "+1",
            "12:30:45",
            "2001-01-01",
            "- a",
            "a: b",
            "a #b",
            "#a",
            "*a",
            "&a",
            "!a",
            "{a",
            "[a",
            "%a",
            "@a",
            "`a",
            "<<",
            "=",
            " a",
            "a ",
        ];
        for text in odd {
            let line = written(Map::new().with("a", text));
            let value = line.trim_start_matches("---\na: ").trim_end_matches('\n');
            assert!(value.starts_with(['"', '\'']), "{text}: {line}");
        }
        for text in ["abc", "a:b", "10Gi", "oci://r/a:v1@sha256:00", "/mnt/models", "--model"] {
            assert_eq!(written(Map::new().with("a", text)), format!("---\na: {text}\n"));
        }
    }

    #[test]
    fn comments_stand_before_their_fields() {
        let item = Map::new().note("first").with("name", "a").note("two\nlines").with("b", 1);
        let object = Map::new()
            .with("items", vec![item, Map::new().with("name", "b")])
            .note("dropped")
            .maybe("none", None::<&str>)
            .with("text", "one\nstarcar-comment: 0\n");
        insta::assert_snapshot!(written(object), @r"
        ---
        items:
        # first
        - name: a
          # two
          # lines
          b: 1
        - name: b
        text: |
          one
          starcar-comment: 0
        ");
    }

    #[test]
    fn long_arguments_stay_whole_and_comments_are_wrapped() {
        let long = "word ".repeat(60);
        let text = written(Map::new().note(long.trim()).with("a", format!("{long}end")));
        assert!(text.lines().filter(|line| line.starts_with('#')).all(|line| line.len() <= WIDTH), "{text}");
        assert!(text.ends_with(&format!("a: {long}end\n")), "{text}");
    }

    #[test]
    fn names_of_others_cannot_leave_a_comment() {
        let mut text = String::new();
        comment("", "a\u{1b}[31m\rb\u{85}c", &mut text);
        assert_eq!(text, "# a\\u{1b}[31m\\rb\\u{85}c\n");
    }
}
