//! Which decoded events are acceptable (section 4), and which of the stored ones typed readers could not read (D10).

use std::borrow::Cow;
use std::ops::Deref;

use super::json_text::{JsonFault, JsonKind, JsonTextOf};
use super::text::Text;
use super::timestamp::Timestamp;
use super::types::{
    BINARY_ACTIONS, BinaryEntity, BinaryEntityOf, BinaryEvent, BinaryEventOf, DELETE_ACTIONS, DOWNLOAD_ACTIONS,
    Datastream, DownloadEvent, Event, EventOf, FEATURE_TYPES, InsertEvent, PathNode, PathNodeOf, RETROHUNT_ACTIONS,
    STATUSES, STREAM_LABELS, Source, SourceOf, StatusEvent, StatusEventOf,
};

/// Longest source name in characters.
pub const SOURCE_NAME_MAX_CHARS: usize = 120;

/// Why one event is refused; it is listed in `failures` and the others of its body go on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Invalid {
    /// Rule id of section 4.
    pub rule: &'static str,
    /// For the submitter: the field, its value and what is allowed.
    pub message: String,
}

impl Invalid {
    pub(super) fn new(rule: &'static str, message: impl Into<String>) -> Self {
        Self { rule, message: message.into() }
    }
}

/// The first thing in an event that strict typed readers would refuse.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field} {problem}")]
pub struct Unreadable {
    /// Path of the member, such as `entity.results[1].entity.info`.
    pub field: String,
    /// Short word for counters.
    pub reason: &'static str,
    /// What it is and what would be allowed.
    pub problem: String,
}

/// Checks an event against the rules of section 4, in their order; `unreadable` comes last.
///
/// # Errors
/// The first rule that fails.
pub fn check_valid(event: &Event) -> Result<(), Invalid> {
    match event {
        Event::Binary(event) => check_binary(event)?,
        Event::Status(event) => check_status(event)?,
        Event::Download(event) => check_download(event)?,
        Event::Insert(event) => check_insert(event)?,
        Event::Delete(_) | Event::Plugin(_) | Event::Retrohunt(_) => check_author(&event.author().name)?,
    }
    unreadable(event).map_or(Ok(()), |found| Err(Invalid::new("unreadable", found.to_string())))
}

/// True for a name that can stand in a topic name and be told apart there.
///
/// Letters, digits, `_` and `-`, at most [`SOURCE_NAME_MAX_CHARS`]. No dot, although topics may have some: consumers
/// find sources by "one or more characters other than a dot", so events of a dotted source would never be read.
pub fn is_source_name(name: &str) -> bool {
    (1..=SOURCE_NAME_MAX_CHARS).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'))
}

fn check_author(name: &str) -> Result<(), Invalid> {
    if name.is_empty() {
        return Err(Invalid::new("author-name", "event is missing 'author' field"));
    }
    Ok(())
}

/// The rules of a binary event, without `unreadable`; they also hold for each result of a status.
pub fn check_binary(event: &BinaryEvent) -> Result<(), Invalid> {
    check_author(&event.author.name)?;
    if event.action.is_empty() {
        return Err(Invalid::new("action-missing", "event is missing 'action' field"));
    }
    if event.source.path.is_empty() {
        return Err(Invalid::new("path-empty", "source.path is empty, at least one node is needed"));
    }
    check_source(&event.source)?;
    check_labels("entity", &event.entity)?;
    check_action(&event.action, &BINARY_ACTIONS)?;
    check_streams(&event.action, &event.entity.datastreams)?;
    check_leaf(&event.source.path)
}

fn check_action(action: &str, allowed: &[&str]) -> Result<(), Invalid> {
    if allowed.contains(&action) {
        return Ok(());
    }
    Err(Invalid::new("action-unknown", format!("action {}", not_one_of(action, allowed))))
}

fn check_source(source: &Source) -> Result<(), Invalid> {
    if source.name.is_empty() {
        return Err(Invalid::new("source-name", "event is missing 'source.name' field"));
    }
    if !is_source_name(&source.name) {
        let name = shortened(&source.name);
        let message = format!(
            "source.name {name:?} is not allowed: use 1 to {SOURCE_NAME_MAX_CHARS} letters, digits, '_' and '-'"
        );
        return Err(Invalid::new("source-name", message));
    }
    source.path.iter().enumerate().try_for_each(|(index, node)| check_node(index, node))
}

fn check_node(index: usize, node: &PathNode) -> Result<(), Invalid> {
    let field = format_args!("source.path[{index}]");
    if node.sha256.is_empty() {
        return Err(Invalid::new("node-sha256", format!("{field} is missing 'sha256' field")));
    }
    if node.action.is_empty() {
        return Err(Invalid::new("node-action", format!("{field} is missing 'action' field")));
    }
    if !BINARY_ACTIONS.contains(&node.action.as_str()) {
        let problem = not_one_of(&node.action, &BINARY_ACTIONS);
        return Err(Invalid::new("node-action", format!("{field}.action {problem}")));
    }
    if node.author.name.is_empty() {
        return Err(Invalid::new("node-author", format!("{field} is missing 'author' field")));
    }
    Ok(())
}

fn check_labels(field: &str, entity: &BinaryEntity) -> Result<(), Invalid> {
    let unknown = |stream: &Datastream| !STREAM_LABELS.contains(&stream.label.as_str());
    let Some((index, stream)) = entity.datastreams.iter().enumerate().find(|(_, stream)| unknown(stream)) else {
        return Ok(());
    };
    let problem = not_one_of(&stream.label, &STREAM_LABELS);
    Err(Invalid::new("stream-label", format!("{field}.datastreams[{index}].label {problem}")))
}

fn check_streams(action: &str, streams: &[Datastream]) -> Result<(), Invalid> {
    let has_content = streams.iter().any(|stream| stream.label == "content");
    let fails = |rule, what| Err(Invalid::new(rule, format!("entity.datastreams: action '{action}' {what}")));
    match action {
        "enriched" if !streams.is_empty() => fails("streams-forbidden", "must not have any stream"),
        "mapped" if has_content => fails("content-forbidden", "must not have a stream labelled 'content'"),
        "sourced" | "extracted" | "augmented" if !has_content => {
            fails("content-needed", "needs a stream labelled 'content'")
        }
        "augmented" if streams.iter().all(|stream| stream.label == "content") => {
            fails("second-label-needed", "needs a stream with a label other than 'content'")
        }
        _ => Ok(()),
    }
}

fn check_leaf(path: &[PathNode]) -> Result<(), Invalid> {
    let inner = path.split_last().map_or(path, |(_, inner)| inner);
    match inner.iter().position(|node| node.action == "enriched") {
        Some(index) => Err(Invalid::new(
            "enriched-not-leaf",
            format!("source.path[{index}].action is 'enriched', which only the last node may have"),
        )),
        None => Ok(()),
    }
}

fn check_status(event: &StatusEvent) -> Result<(), Invalid> {
    check_author(&event.author.name)?;
    if event.entity.input.dequeued.is_empty() {
        return Err(Invalid::new("dequeued-needed", "entity status missing entity.input.dequeued"));
    }
    for (index, result) in event.entity.results.iter().enumerate() {
        check_binary(result).map_err(|invalid| {
            Invalid::new("result-invalid", format!("entity.results[{index}]: {} ({})", invalid.message, invalid.rule))
        })?;
    }
    Ok(())
}

fn check_download(event: &DownloadEvent) -> Result<(), Invalid> {
    check_author(&event.author.name)?;
    check_action(&event.action, &DOWNLOAD_ACTIONS)?;
    check_source(&event.source)
}

fn check_insert(event: &InsertEvent) -> Result<(), Invalid> {
    check_author(&event.author.name)?;
    let entity = &event.entity;
    if entity.parent_sha256.is_empty() {
        return Err(Invalid::new("parent-needed", "event is missing 'entity.parent_sha256' field"));
    }
    let history = &entity.child_history;
    let needed = [("sha256", &history.sha256), ("action", &history.action), ("author.name", &history.author.name)];
    if let Some((name, _)) = needed.iter().find(|(_, value)| value.is_empty()) {
        let message = format!("event is missing 'entity.child_history.{name}' field");
        return Err(Invalid::new("history-incomplete", message));
    }
    check_labels("entity.child", &entity.child)
}

/// The first thing in the event that would make its JSON break the emit schema or strict typed readers.
///
/// Submitted events are refused for it by [`check_valid`]; those that arrive another way are kept, left out of JSON
/// answers and counted under the reason.
pub fn unreadable<T: Text>(event: &EventOf<T>) -> Option<Unreadable> {
    match Look::default().event(event) {
        Ok(()) => None,
        Err(found) => Some(*found),
    }
}

type Looked = Result<(), Box<Unreadable>>;

/// Where in the event the look is: a member, or one item of a list, inside another place. Paths are put together only
/// when something is found.
#[derive(Default)]
struct Look<'a> {
    outer: Option<&'a Look<'a>>,
    member: &'static str,
    index: Option<usize>,
}

impl Look<'_> {
    fn inside(&self, member: &'static str) -> Look<'_> {
        Look { outer: Some(self), member, index: None }
    }

    /// Each item of the list `member`, with its place.
    fn each<'s, T>(&'s self, member: &'static str, items: &'s [T]) -> impl Iterator<Item = (Look<'s>, &'s T)> {
        let place = move |index| Look { outer: Some(self), member, index: Some(index) };
        items.iter().enumerate().map(move |(index, item)| (place(index), item))
    }

    fn path(&self, member: &str) -> String {
        let Some(outer) = self.outer else {
            return member.to_owned();
        };
        let here = outer.path(self.member);
        match self.index {
            Some(index) => format!("{here}[{index}].{member}"),
            None => format!("{here}.{member}"),
        }
    }

    fn found(&self, member: &str, reason: &'static str, problem: impl Into<String>) -> Looked {
        Err(Box::new(Unreadable { field: self.path(member), reason, problem: problem.into() }))
    }

    fn one_of(&self, member: &str, reason: &'static str, value: &str, allowed: &[&str]) -> Looked {
        if allowed.contains(&value) {
            return Ok(());
        }
        self.found(member, reason, not_one_of(value, allowed))
    }

    fn time(&self, member: &str, time: Timestamp) -> Looked {
        if time.is_representable() {
            return Ok(());
        }
        self.found(member, "time_out_of_range", format!("{time} is outside of years 1 to 9999 in UTC"))
    }

    fn object<B: Deref<Target = [u8]>>(&self, member: &str, text: &JsonTextOf<B>, reason: &'static str) -> Looked {
        match self.json(member, text)? {
            JsonKind::Absent | JsonKind::Object => Ok(()),
            JsonKind::Other(what) => self.found(member, reason, format!("is {what}, only an object is allowed")),
        }
    }

    fn json<B: Deref<Target = [u8]>>(&self, member: &str, text: &JsonTextOf<B>) -> Result<JsonKind, Box<Unreadable>> {
        let fault = match text.kind() {
            Ok(kind) => return Ok(kind),
            Err(JsonFault::NotJson) => self.found(member, "not_json", "is not JSON"),
            Err(JsonFault::TooDeep) => self.found(member, "json_too_deep", "is nested too deeply"),
        };
        fault.map(|()| JsonKind::Absent)
    }

    fn event<T: Text>(&self, event: &EventOf<T>) -> Looked {
        match event {
            EventOf::Binary(event) => self.binary(event),
            EventOf::Status(event) => self.status(event),
            EventOf::Download(event) => {
                self.time("timestamp", event.timestamp)?;
                self.inside("source").source(&event.source)?;
                self.one_of("action", "unknown_action", &event.action, &DOWNLOAD_ACTIONS)?;
                let entity = self.inside("entity");
                entity.time("direct_expiry", event.entity.direct_expiry)?;
                entity.object("metadata", &event.entity.metadata, "metadata_not_object")
            }
            EventOf::Insert(event) => {
                self.time("timestamp", event.timestamp)?;
                self.inside("entity.child").entity(&event.entity.child)?;
                self.inside("entity.child_history").node(&event.entity.child_history)
            }
            EventOf::Plugin(event) => {
                self.time("timestamp", event.timestamp)?;
                self.each("entity.features", &event.entity.features)
                    .try_for_each(|(place, feature)| place.feature_type(&feature.feature_type))
            }
            EventOf::Retrohunt(event) => {
                self.time("timestamp", event.timestamp)?;
                self.json("entity", &event.entity)?;
                self.one_of("action", "unknown_action", &event.action, &RETROHUNT_ACTIONS)?;
                self.time("source.timestamp", event.source.timestamp)
            }
            EventOf::Delete(event) => {
                self.time("timestamp", event.timestamp)?;
                self.one_of("action", "unknown_action", &event.action, &DELETE_ACTIONS)?;
                self.time("entity.submission.timestamp", event.entity.submission.timestamp)?;
                self.time("entity.author.timestamp", event.entity.author.timestamp)
            }
        }
    }

    fn binary<T: Text>(&self, event: &BinaryEventOf<T>) -> Looked {
        self.time("timestamp", event.timestamp)?;
        self.inside("source").source(&event.source)?;
        self.inside("entity").entity(&event.entity)?;
        self.one_of("action", "unknown_action", &event.action, &BINARY_ACTIONS)
    }

    fn status<T: Text>(&self, event: &StatusEventOf<T>) -> Looked {
        self.time("timestamp", event.timestamp)?;
        let entity = self.inside("entity");
        entity.one_of("status", "unknown_status", &event.entity.status, &STATUSES)?;
        if !event.entity.runtime.is_finite() {
            entity.found("runtime", "runtime_not_finite", "is not a finite number")?;
        }
        entity.inside("input").binary(&event.entity.input)?;
        entity.each("results", &event.entity.results).try_for_each(|(place, result)| place.binary(result))
    }

    fn source<T: Text>(&self, source: &SourceOf<T>) -> Looked {
        self.time("timestamp", source.timestamp)?;
        self.each("path", &source.path).try_for_each(|(place, node)| place.node(node))
    }

    fn node<T: Text>(&self, node: &PathNodeOf<T>) -> Looked {
        self.one_of("action", "unknown_action", &node.action, &BINARY_ACTIONS)?;
        self.time("timestamp", node.timestamp)
    }

    fn entity<T: Text>(&self, entity: &BinaryEntityOf<T>) -> Looked {
        self.object("info", &entity.info, "info_not_object")?;
        for (place, feature) in self.each("features", &entity.features) {
            place.feature_type(&feature.feature_type)?;
        }
        self.each("datastreams", &entity.datastreams)
            .try_for_each(|(place, stream)| place.one_of("label", "unknown_label", &stream.label, &STREAM_LABELS))
    }

    fn feature_type(&self, value: &str) -> Looked {
        self.one_of("type", "unknown_feature_type", value, &FEATURE_TYPES)
    }
}

fn not_one_of(value: &str, allowed: &[&str]) -> String {
    format!("{:?} is not one of: {}", shortened(value), allowed.join(", "))
}

fn shortened(value: &str) -> Cow<'_, str> {
    first_chars(value, 80)
}

/// The text, or its beginning when it has more than `max_chars` characters, so that no error text grows with its cause.
pub(super) fn first_chars(text: &str, max_chars: usize) -> Cow<'_, str> {
    match text.char_indices().nth(max_chars).and_then(|(end, _)| text.get(..end)) {
        Some(beginning) => Cow::Owned(format!("{beginning}...")),
        None => Cow::Borrowed(text),
    }
}
