//! What one run submits: the source that its files belong to, and the event that announces each.
//!
//! Author of everything is [`AUTHOR`], category `loader`. `source.timestamp` is the time given with `--timestamp`, else
//! the start of the run, because sources with an expiry count from it: a file's own date says nothing about when it was
//! submitted. A second run over the same files therefore looks for an announcement that is the same but for its time,
//! unless a time was asked for: then for exactly that one.

use std::path::Path;

use crate::admin::identity;
use crate::cli::args::Ingest;
use crate::cli::output::Refusal;
use crate::dispatcher::model::{
    self, Author, BinaryEntity, BinaryEvent, Event, PathNode, SOURCE_NAME_MAX_CHARS, STREAM_LABELS, Source, Timestamp,
    is_source_name,
};
use crate::streams::{BlobRecord, Place};

/// `author.name` of every event that ingest makes.
pub(super) const AUTHOR: &str = "azulite-ingest";
const CATEGORY: &str = "loader";
const ACTION: &str = "sourced";
/// The one label of a `sourced` event.
const CONTENT: &str = "content";

/// See the module.
#[derive(Clone, Debug)]
pub(super) struct Submission {
    source: Source,
    dated: bool,
}

/// What makes two announcements the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Mark(u128);

impl Mark {
    /// From 32 hex digits.
    pub(super) fn parse(text: &str) -> Option<Self> {
        u128::from_str_radix(text, 16).ok().map(Self)
    }
}

impl Submission {
    /// Checks the flags; `now_ms` is the start of the run.
    ///
    /// # Errors
    /// Exit code 2 with what is wrong and what is allowed.
    pub(super) fn check(args: &Ingest, now_ms: i64) -> Result<Self, Refusal> {
        if !is_source_name(&args.source) {
            let allowed = format!("1 to {SOURCE_NAME_MAX_CHARS} letters, digits, '_' and '-'");
            return Err(Refusal::usage(format!("--source {:?}: allowed are {allowed}", args.source)));
        }
        if args.label != CONTENT {
            let known = if STREAM_LABELS.contains(&args.label.as_str()) { "" } else { " is no label, and" };
            return Err(Refusal::usage(format!(
                "--label {:?}:{known} a sourced event announces a stream labelled {CONTENT:?}",
                args.label
            )));
        }
        let timestamp = match &args.timestamp {
            None => Timestamp::from_millis(now_ms),
            Some(text) => {
                Timestamp::parse(text).ok().filter(|time| time.is_representable() && !time.is_zero()).ok_or_else(
                    || Refusal::usage(format!("--timestamp {text:?}: allowed is RFC 3339, 2026-01-02T03:04:05Z")),
                )?
            }
        };
        let source = Source {
            name: args.source.clone(),
            references: args.references.iter().cloned().collect(),
            security: args.security.clone().unwrap_or_default(),
            timestamp,
            ..Source::default()
        };
        Ok(Self { source, dated: args.timestamp.is_some() })
    }

    /// Where the bytes are stored.
    pub(super) fn place(&self) -> Place {
        Place::new(&*self.source.name, CONTENT)
    }

    /// Tells this submission from others in the name of a journal.
    pub(super) fn text(&self) -> String {
        let time = if self.dated { self.source.timestamp.key_form() } else { String::new() };
        format!("{:?}", (&self.source.name, &self.source.references, &self.source.security, time))
    }

    /// Which of an announcement's two keys counts for this run.
    pub(super) fn mark_of(&self, key: &str, identity: &str) -> Option<Mark> {
        Mark::parse(if self.dated { key } else { identity })
    }

    /// The mark that a file with this content would have.
    pub(super) fn mark(&self, sha256: &str) -> Option<Mark> {
        let event = BinaryEvent {
            source: self.source_of(PathNode { sha256: sha256.to_owned(), ..self.node() }),
            ..BinaryEvent::default()
        };
        if !self.dated {
            return Mark::parse(&identity(&event));
        }
        model::kafka_key(&Event::Binary(Box::new(event)), [0; 32]).ok().and_then(|key| Mark::parse(&key))
    }

    fn author() -> Author {
        let version = env!("CARGO_PKG_VERSION").to_owned();
        Author { name: AUTHOR.to_owned(), version, category: CATEGORY.to_owned(), security: String::new() }
    }

    fn node(&self) -> PathNode {
        let timestamp = self.source.timestamp;
        PathNode { author: Self::author(), action: ACTION.to_owned(), timestamp, ..PathNode::default() }
    }

    fn source_of(&self, node: PathNode) -> Source {
        Source { path: vec![node], ..self.source.clone() }
    }

    /// The event that announces a stored file, as JSON.
    pub(super) fn event(&self, record: &BlobRecord, name: &Path, now_ms: i64) -> Vec<u8> {
        let node = PathNode {
            sha256: record.sha256.clone(),
            file_format: record.file_format.clone(),
            size: record.size,
            filename: name.to_string_lossy().into_owned(),
            ..self.node()
        };
        let event = BinaryEvent {
            kafka_key: "tmp".to_owned(),
            timestamp: Timestamp::from_millis(now_ms),
            author: Self::author(),
            source: self.source_of(node),
            entity: entity(record),
            action: ACTION.to_owned(),
            ..BinaryEvent::default()
        };
        model::to_json(&Event::Binary(Box::new(event)))
    }
}

fn entity(record: &BlobRecord) -> BinaryEntity {
    let stream = record.clone().into_stream(CONTENT);
    BinaryEntity {
        sha256: stream.sha256.clone(),
        sha512: stream.sha512.clone(),
        sha1: stream.sha1.clone(),
        md5: stream.md5.clone(),
        ssdeep: stream.ssdeep.clone(),
        tlsh: stream.tlsh.clone(),
        size: stream.size,
        mime: stream.mime.clone(),
        magic: stream.magic.clone(),
        file_format: stream.file_format.clone(),
        file_extension: stream.file_extension.clone(),
        datastreams: vec![stream],
        ..BinaryEntity::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::args::{Cli, Command};
    use clap::Parser as _;

    const NOW_MS: i64 = 1_767_323_045_000;

    fn args(line: &str) -> Ingest {
        let line = format!("azulite ingest f --source lab {line}");
        let Command::Ingest(args) = Cli::parse_from(line.split_whitespace()).command else { panic!("no ingest") };
        args
    }

    fn submission(line: &str) -> Submission {
        Submission::check(&args(line), NOW_MS).unwrap()
    }

    fn record() -> BlobRecord {
        BlobRecord {
            identify_version: 2,
            size: 5,
            sha256: "a".repeat(64),
            sha512: "b".into(),
            sha1: "c".into(),
            md5: "d".into(),
            mime: "text/plain".into(),
            magic: "ASCII text".into(),
            ..BlobRecord::default()
        }
    }

    #[test]
    fn the_event_is_one_that_the_dispatcher_takes() {
        let json = submission("--ref user=amy --security S").event(&record(), Path::new("d/f"), NOW_MS);
        let elements = model::decode_body_json(model::Model::Binary, &json).unwrap();
        let event = elements.into_iter().next().unwrap().event.unwrap();
        model::check_valid(&event).unwrap();
        let Event::Binary(event) = event else { panic!("got {event:?}") };
        assert_eq!((event.source.path[0].filename.as_str(), event.author.name.as_str()), ("d/f", AUTHOR));
        assert_eq!(event.entity.datastreams[0].label, "content");
    }

    #[test]
    fn the_time_counts_only_when_it_was_asked_for() {
        let of = |line: &str, now_ms| Submission::check(&args(line), now_ms).unwrap().mark(&"a".repeat(64)).unwrap();
        assert_eq!(of("", NOW_MS), of("", NOW_MS + 86_400_000));
        assert_ne!(of("", NOW_MS), of("--ref k=v", NOW_MS));
        assert_ne!(of("", NOW_MS), of("--security S", NOW_MS));
        let dated = |time| of(&format!("--timestamp {time}"), NOW_MS);
        assert_eq!(dated("2026-01-02T03:04:05Z"), dated("2026-01-02T03:04:05Z"));
        assert_ne!(dated("2026-01-02T03:04:05Z"), dated("2026-01-02T03:04:06Z"));
    }

    #[test]
    fn the_mark_of_a_file_is_that_of_its_announcement() {
        for line in ["", "--timestamp 2026-01-02T03:04:05Z --ref a=b"] {
            let submission = submission(line);
            let json = submission.event(&record(), Path::new("f"), NOW_MS);
            let mut elements = model::decode_body_json(model::Model::Binary, &json).unwrap();
            let event = elements.remove(0).event.unwrap();
            let key = model::kafka_key(&event, [0; 32]).unwrap();
            let Event::Binary(event) = event else { panic!("got {event:?}") };
            let announced = submission.mark_of(&key, &identity(&event)).unwrap();
            assert_eq!(Some(announced), submission.mark(&record().sha256), "{line}");
        }
    }

    #[test]
    fn flags_that_no_event_could_carry_are_refused() {
        for (line, named) in [
            ("--label text", "text"),
            ("--label nonsense", "nonsense"),
            ("--timestamp yesterday", "yesterday"),
            ("--timestamp 0001-01-01T00:00:00Z", "0001"),
        ] {
            let refused = Submission::check(&args(line), NOW_MS).unwrap_err();
            assert!(refused.message().contains(named), "{line}: {}", refused.message());
        }
        let mut dotted = args("");
        dotted.source = "a.b".to_owned();
        assert!(Submission::check(&dotted, NOW_MS).unwrap_err().message().contains("--source"));
    }
}
