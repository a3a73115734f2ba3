//! Owns YAML (and so JSON) as a tree that knows where each key and value stands; merges trees as `--config`,
//! environments and overrides do. Must not know what any key means.

use std::collections::HashMap;
use std::sync::Arc;

use granit_parser::{Event, Parser, ScalarStyle, Span};
use serde_json::{Map, Number, Value};

use super::mistake::{Mistake, Place, Source};

/// The most nodes a script may have once its aliases are expanded.
const MAX_NODES: usize = 500_000;

/// A value and its place.
#[derive(Debug, Clone)]
pub(crate) struct Node {
    pub(crate) place: Place,
    pub(crate) kind: Kind,
}

/// What a value is.
#[derive(Debug, Clone)]
pub(crate) enum Kind {
    /// Null, a boolean, a number or a text.
    Scalar(Value),
    List(Vec<Node>),
    Map(Vec<(Key, Node)>),
}

/// A key and its place.
#[derive(Debug, Clone)]
pub(crate) struct Key {
    pub(crate) text: String,
    pub(crate) place: Place,
}

impl Node {
    /// What it is, for messages.
    pub(crate) fn what(&self) -> String {
        match &self.kind {
            Kind::Scalar(Value::Null) => "nothing".to_owned(),
            Kind::Scalar(Value::String(s)) => format!("the text {s:?}"),
            Kind::Scalar(Value::Bool(b)) => format!("{b}"),
            Kind::Scalar(other) => format!("the number {other}"),
            Kind::List(_) => "a list".to_owned(),
            Kind::Map(_) => "a map".to_owned(),
        }
    }

    /// The value without places.
    pub(crate) fn value(&self) -> Value {
        match &self.kind {
            Kind::Scalar(v) => v.clone(),
            Kind::List(items) => Value::Array(items.iter().map(Node::value).collect()),
            Kind::Map(entries) => Value::Object(
                entries
                    .iter()
                    .map(|(k, v)| (k.text.clone(), v.value()))
                    .collect::<Map<_, _>>(),
            ),
        }
    }

    /// Lays `over` upon this one: maps key by key, lists as said, anything else replaced.
    pub(crate) fn merge(&mut self, over: Node, lists: Lists) {
        match (&mut self.kind, over.kind) {
            (Kind::Map(mine), Kind::Map(theirs)) => {
                for (key, value) in theirs {
                    match mine.iter_mut().find(|(k, _)| k.text == key.text) {
                        Some((_, slot)) => slot.merge(value, lists),
                        None => mine.push((key, value)),
                    }
                }
            }
            (Kind::List(mine), Kind::List(theirs)) if lists == Lists::ByPlace => {
                for (i, value) in theirs.into_iter().enumerate() {
                    match mine.get_mut(i) {
                        Some(slot) => slot.merge(value, lists),
                        None => mine.push(value),
                    }
                }
            }
            (_, kind) => {
                *self = Node {
                    place: over.place,
                    kind,
                };
            }
        }
    }

    /// Sets a key of a map; does nothing to anything else.
    pub(crate) fn set(&mut self, key: &str, value: Node) {
        if let Kind::Map(entries) = &mut self.kind {
            entries.retain(|(k, _)| k.text != key);
            let place = value.place.clone();
            let text = key.to_owned();
            entries.push((Key { text, place }, value));
        }
    }

    /// Changes every text in it for which `change` gives something else.
    pub(crate) fn map_texts(&mut self, change: &Change<'_>) -> Result<(), Mistake> {
        match &mut self.kind {
            Kind::Scalar(Value::String(s)) => {
                if let Some(value) = change(s, &self.place)? {
                    self.kind = Kind::Scalar(value);
                }
                Ok(())
            }
            Kind::Scalar(_) => Ok(()),
            Kind::List(items) => items.iter_mut().try_for_each(|n| n.map_texts(change)),
            Kind::Map(entries) => entries
                .iter_mut()
                .try_for_each(|(_, n)| n.map_texts(change)),
        }
    }

    /// The same value, every place in it this one: for values that come from the command line.
    pub(crate) fn from_value(value: &Value, place: &Place) -> Node {
        let kind = match value {
            Value::Array(items) => {
                Kind::List(items.iter().map(|v| Node::from_value(v, place)).collect())
            }
            Value::Object(map) => {
                let key = |text: &String| Key {
                    text: text.clone(),
                    place: place.clone(),
                };
                let entries = map.iter();
                Kind::Map(
                    entries
                        .map(|(k, v)| (key(k), Node::from_value(v, place)))
                        .collect(),
                )
            }
            scalar => Kind::Scalar(scalar.clone()),
        };
        let place = place.clone();
        Node { place, kind }
    }

    /// Takes a key out of a map.
    pub(crate) fn remove(&mut self, key: &str) -> Option<Node> {
        let Kind::Map(entries) = &mut self.kind else {
            return None;
        };
        let at = entries.iter().position(|(k, _)| k.text == key)?;
        Some(entries.remove(at).1)
    }
}

/// What becomes of a list that is laid upon a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lists {
    /// It takes its place.
    Replaced,
    /// Its first item is laid upon the first one, and so on; those beyond its end stay.
    ByPlace,
}

/// What a text becomes; none to leave it.
pub(crate) type Change<'a> = dyn Fn(&str, &Place) -> Result<Option<Value>, Mistake> + 'a;

/// Reads one YAML or JSON document.
pub(crate) fn parse(name: &str, text: &str) -> Result<Node, Mistake> {
    let source = Arc::new(Source {
        name: name.to_owned(),
        text: text.to_owned(),
    });
    let mut builder = Builder {
        source,
        anchors: HashMap::new(),
        nodes: 0,
    };
    let mut events = Vec::new();
    for event in Parser::new_from_str(text) {
        let event = event.map_err(|e| {
            let m = e.marker();
            let place = builder.point(m.line(), m.col() + 1, 1);
            Mistake::at(&place, e.info())
        })?;
        if !matches!(event.0, Event::Comment(..)) {
            events.push(event);
        }
    }
    let mut events = events.into_iter();
    let mut root = None;
    while let Some((event, span)) = events.next() {
        match event {
            Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => {}
            Event::DocumentStart(..) if root.is_some() => {
                let place = builder.place(&span);
                return Err(Mistake::at(
                    &place,
                    "a second document: a script is one document",
                ));
            }
            Event::DocumentStart(..) => {}
            event => root = Some(builder.node(event, span, &mut events)?),
        }
    }
    root.ok_or_else(|| Mistake::file(name, "the file is empty"))
}

struct Builder {
    source: Arc<Source>,
    anchors: HashMap<usize, Node>,
    nodes: usize,
}

type Events<'a> = std::vec::IntoIter<(Event<'a>, Span)>;

impl Builder {
    fn point(&self, line: usize, column: usize, width: usize) -> Place {
        Place {
            source: Arc::clone(&self.source),
            line,
            column,
            width,
        }
    }

    fn place(&self, span: &Span) -> Place {
        let (from, to) = (span.start, span.end);
        let width = if from.line() == to.line() {
            to.col().saturating_sub(from.col())
        } else {
            1
        };
        self.point(from.line(), from.col() + 1, width.max(1))
    }

    fn count(&mut self, place: &Place, more: usize) -> Result<(), Mistake> {
        self.nodes += more;
        if self.nodes > MAX_NODES {
            return Err(Mistake::at(
                place,
                format!("more than {MAX_NODES} values, aliases expanded"),
            ));
        }
        Ok(())
    }

    fn node(
        &mut self,
        event: Event<'_>,
        span: Span,
        events: &mut Events<'_>,
    ) -> Result<Node, Mistake> {
        let mut place = self.place(&span);
        self.count(&place, 1)?;
        let (anchor, kind) = match event {
            Event::Scalar(text, style, anchor, _) => {
                let value = if style == ScalarStyle::Plain {
                    plain(&text)
                } else {
                    Value::String(text.into_owned())
                };
                (anchor, Kind::Scalar(value))
            }
            Event::Alias(id) => {
                let Some(node) = self.anchors.get(&id).cloned() else {
                    return Err(Mistake::at(&place, "this alias refers to itself"));
                };
                self.count(&place, size(&node))?;
                return Ok(node);
            }
            Event::SequenceStart(_, anchor, _) => {
                place.width = 1;
                (anchor, Kind::List(self.list(events)?))
            }
            Event::MappingStart(_, anchor, _) => {
                place.width = 1;
                (anchor, Kind::Map(self.map(events)?))
            }
            other => {
                return Err(Mistake::at(&place, format!("not a value: {other:?}")));
            }
        };
        let node = Node { place, kind };
        if anchor != 0 {
            self.anchors.insert(anchor, node.clone());
        }
        Ok(node)
    }

    fn list(&mut self, events: &mut Events<'_>) -> Result<Vec<Node>, Mistake> {
        let mut items = Vec::new();
        while let Some((event, span)) = events.next() {
            if event == Event::SequenceEnd {
                break;
            }
            items.push(self.node(event, span, events)?);
        }
        Ok(items)
    }

    fn map(&mut self, events: &mut Events<'_>) -> Result<Vec<(Key, Node)>, Mistake> {
        let mut entries: Vec<(Key, Node)> = Vec::new();
        let mut merged = Vec::new();
        while let Some((event, span)) = events.next() {
            let place = self.place(&span);
            let text = match event {
                Event::MappingEnd => break,
                Event::Scalar(text, ..) => text.into_owned(),
                _ => return Err(Mistake::at(&place, "a key must be a word")),
            };
            let Some((event, span)) = events.next() else {
                break;
            };
            let value = self.node(event, span, events)?;
            if text == "<<" {
                match value.kind {
                    Kind::List(items) => merged.extend(items),
                    kind => merged.push(Node {
                        place: value.place,
                        kind,
                    }),
                }
                continue;
            }
            if let Some((first, _)) = entries.iter().find(|(k, _)| k.text == text) {
                return Err(
                    Mistake::at(&place, format!("the key {text:?} stands twice"))
                        .hint(format!("it is also on line {}", first.place.line)),
                );
            }
            entries.push((Key { text, place }, value));
        }
        for node in merged {
            let Kind::Map(more) = node.kind else {
                return Err(Mistake::at(&node.place, "<<: merges maps only"));
            };
            for (key, value) in more {
                if !entries.iter().any(|(k, _)| k.text == key.text) {
                    entries.push((key, value));
                }
            }
        }
        Ok(entries)
    }
}

fn size(node: &Node) -> usize {
    1 + match &node.kind {
        Kind::Scalar(_) => 0,
        Kind::List(items) => items.iter().map(size).sum(),
        Kind::Map(entries) => entries.iter().map(|(_, v)| size(v)).sum(),
    }
}

/// A plain scalar by YAML's core schema.
fn plain(text: &str) -> Value {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Value::Null,
        "true" | "True" | "TRUE" => return Value::Bool(true),
        "false" | "False" | "FALSE" => return Value::Bool(false),
        _ => {}
    }
    let radix = |prefix, radix| {
        let digits = text.strip_prefix(prefix)?;
        i64::from_str_radix(digits, radix).ok()
    };
    if let Some(n) = radix("0x", 16).or_else(|| radix("0o", 8)) {
        return n.into();
    }
    if let Ok(n) = text.parse::<i64>() {
        return n.into();
    }
    let numeric = text
        .bytes()
        .all(|b| b.is_ascii_digit() || b"+-.eE".contains(&b));
    if numeric
        && text.bytes().any(|b| b.is_ascii_digit())
        && let Ok(n) = text.parse::<f64>()
        && let Some(n) = Number::from_f64(n)
    {
        return Value::Number(n);
    }
    Value::String(text.to_owned())
}
