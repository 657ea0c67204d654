//! Keys and tracking strings: the ids by which events are replaced, followed and deleted (section 7).

use std::collections::{BTreeMap, BTreeSet};

use md5::{Digest, Md5};

use super::types::{Author, BinaryEvent, Event, InsertEvent, PathNode};
use super::valid::Invalid;

/// The `kafka_key` of the event: lower-case hex MD5, 32 characters, of its [`key_descriptor`].
///
/// `random` is used for models that are never deduplicated: delete, download and retrohunt.
///
/// # Errors
/// `path-empty` for a binary event without path nodes, which has no key.
pub fn kafka_key(event: &Event, random: [u8; 32]) -> Result<String, Invalid> {
    Ok(hex_md5(&key_descriptor(event, random)?))
}

/// The bytes that are hashed into the key.
///
/// # Errors
/// As [`kafka_key`].
pub fn key_descriptor(event: &Event, random: [u8; 32]) -> Result<Vec<u8>, Invalid> {
    match event {
        Event::Binary(event) => binary_descriptor(event),
        Event::Status(event) => Ok(joined(&[&event.entity.input.dequeued, &event.author.name])),
        Event::Plugin(event) => Ok(joined(&[&event.entity.name, &event.entity.version])),
        Event::Insert(event) => {
            let entity = &event.entity;
            Ok(joined(&[&entity.parent_sha256, &entity.child.sha256, &entity.child_history.author.name]))
        }
        Event::Delete(_) | Event::Download(_) | Event::Retrohunt(_) => Ok(random.to_vec()),
    }
}

fn joined(parts: &[&str]) -> Vec<u8> {
    parts.join(".").into_bytes()
}

/// The first node is left out on purpose, unless it is one of the last two: existing keys lack it.
fn binary_descriptor(event: &BinaryEvent) -> Result<Vec<u8>, Invalid> {
    let source = &event.source;
    let Some((last, before)) = source.path.split_last() else {
        return Err(Invalid::new("path-empty", "source.path is empty, at least one node is needed"));
    };
    let mut pieces = Pieces(Vec::with_capacity(512));
    pieces.add(&source.name);
    pieces.add(&source.security);
    pieces.add(source.timestamp.key_form().get(..19).unwrap_or_default());
    pieces.add_pairs(&source.references);
    pieces.add_pairs(&source.settings);
    let securities: BTreeSet<&str> = source.path.iter().map(|node| node.author.security.as_str()).collect();
    securities.into_iter().filter(|security| !security.is_empty()).for_each(|security| pieces.add(security));
    for node in before.last().into_iter().chain([last]) {
        pieces.add(&node.author.name);
        pieces.add(&node.action);
        pieces.add(&node.sha256);
    }
    Ok(pieces.0)
}

/// Texts, each followed by a dot.
struct Pieces(Vec<u8>);

impl Pieces {
    fn add(&mut self, piece: &str) {
        self.0.extend_from_slice(piece.as_bytes());
        self.0.push(b'.');
    }

    /// `key.value` of each entry, in the order of that whole text.
    fn add_pairs(&mut self, map: &BTreeMap<String, String>) {
        let mut pairs: Vec<String> = map.iter().map(|(key, value)| format!("{key}.{value}")).collect();
        pairs.sort_unstable();
        pairs.iter().for_each(|pair| self.add(pair));
    }
}

/// Fills in the tracking strings of a binary or insert event; other models have none.
pub fn set_tracking(event: &mut Event) {
    match event {
        Event::Binary(event) => track_binary(event),
        Event::Insert(event) => track_insert(event),
        Event::Delete(_) | Event::Download(_) | Event::Plugin(_) | Event::Retrohunt(_) | Event::Status(_) => {}
    }
}

fn track_binary(event: &mut BinaryEvent) {
    let source = &event.source;
    let mut references = Pieces(Vec::new());
    for (key, value) in &source.references {
        references.add(key);
        references.add(value);
    }
    event.track_source_references = format!("{}.{}", source.name, hex_md5(&references.0));
    event.track_authors = source.path.iter().map(|node| track_author(&node.author)).collect();
    let steps = source.path.iter().zip(source.path.iter().skip(1));
    event.track_links = steps.map(|(parent, node)| track_link(&parent.sha256, node)).collect();
}

fn track_insert(event: &mut InsertEvent) {
    let node = &event.entity.child_history;
    event.track_author = track_author(&node.author);
    event.track_link = track_link(&event.entity.parent_sha256, node);
}

fn track_author(author: &Author) -> String {
    format!("{}.{}.{}", author.category, author.name, author.version)
}

fn track_link(parent_sha256: &str, node: &PathNode) -> String {
    format!("{parent_sha256}.{}.{}.{}", node.sha256, node.timestamp.link_form(), track_author(&node.author))
}

fn hex_md5(bytes: &[u8]) -> String {
    const DIGITS: [char; 16] = ['0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'a', 'b', 'c', 'd', 'e', 'f'];
    let digit = |nibble: u8| DIGITS.get(usize::from(nibble)).copied().unwrap_or_default();
    Md5::digest(bytes).iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}
