//! Result events of a worker: built from the event that was worked on, checked, and cut to the limits.
//!
//! Pure. The dispatcher adds keys and tracking strings. Spec: workers.md 1.6 to 1.8, models.md 3.

use std::collections::BTreeMap;

use crate::dispatcher::model::{
    self, Author, BinaryEntity, BinaryEvent, Datastream, Event, Feature, Flags, Invalid, JsonText, PathNode,
    PluginEntity, PluginEvent, PluginFeature, Source, StatusEntity, StatusEvent, Timestamp,
};

/// Values of one feature in one event.
pub const FEATURE_VALUES_MAX: usize = 1_000;
/// Feature values in one event.
pub const VALUES_MAX: usize = 9_500;
/// Characters of one feature value.
pub const VALUE_CHARS_MAX: usize = 4_000;
/// Bytes of one event as JSON.
pub const EVENT_BYTES_MAX: usize = (2 << 20) - 512;
/// Nodes of `source.path` from which on an event is not worked on.
pub const DEPTH_MAX: usize = 10;

/// What a result derives from.
#[derive(Clone, Copy, Debug)]
pub struct Origin<'a> {
    /// The event that was worked on; or a child of it, for a child of that.
    pub input: &'a BinaryEvent,
    /// Who did it.
    pub author: &'a Author,
    /// When.
    pub now: Timestamp,
}

/// What is said about an entity.
#[derive(Clone, Debug, Default)]
pub struct Findings {
    /// In order of weight: when there are too many, the last ones are cut.
    pub features: Vec<Feature>,
    /// An object, or `Null` for none.
    pub info: serde_json::Value,
}

/// A new entity that was found in another.
#[derive(Clone, Debug, Default)]
pub struct Child {
    /// Its `content` stream as the upload answered.
    pub content: Datastream,
    /// Further streams, as uploads answered, each with its label.
    pub streams: Vec<Datastream>,
    /// Its name, may be empty.
    pub filename: String,
    /// How it derives from its parent, such as `action: extracted`.
    pub relationship: BTreeMap<String, String>,
    /// What is said about it.
    pub findings: Findings,
}

/// A value of a feature; `kind` is one of `model::FEATURE_TYPES`.
#[must_use]
pub fn feature(name: &str, kind: &str, value: impl Into<String>, label: impl Into<String>) -> Feature {
    Feature {
        name: name.to_owned(),
        value: value.into(),
        feature_type: kind.to_owned(),
        label: label.into(),
        ..Feature::default()
    }
}

/// An `extracted` event: a new entity below the input's.
///
/// # Errors
/// [`Invalid`], such as for a child without content.
pub fn child(origin: &Origin<'_>, child: Child) -> Result<BinaryEvent, Invalid> {
    let Child { content, streams, filename, relationship, findings } = child;
    let content = Datastream { label: "content".to_owned(), ..content };
    let node = PathNode {
        relationship,
        sha256: content.sha256.clone(),
        file_format: content.file_format.clone(),
        size: content.size,
        filename,
        language: content.language.clone(),
        ..node(origin, "extracted")
    };
    let entity = BinaryEntity {
        sha256: content.sha256.clone(),
        sha512: content.sha512.clone(),
        sha1: content.sha1.clone(),
        md5: content.md5.clone(),
        ssdeep: content.ssdeep.clone(),
        tlsh: content.tlsh.clone(),
        size: content.size,
        mime: content.mime.clone(),
        magic: content.magic.clone(),
        file_format: content.file_format.clone(),
        file_extension: content.file_extension.clone(),
        datastreams: std::iter::once(content).chain(streams).collect(),
        ..BinaryEntity::default()
    };
    result(origin, node, entity, findings)
}

/// An `enriched` event: more about the input's entity.
///
/// # Errors
/// [`Invalid`], such as for an input that is `enriched` itself.
pub fn enriched(origin: &Origin<'_>, findings: Findings) -> Result<BinaryEvent, Invalid> {
    about(origin, "enriched", Vec::new(), findings)
}

/// An `augmented` event: further streams of the input's entity, as uploads answered, each with its label.
///
/// # Errors
/// [`Invalid`], such as for an input without content.
pub fn augmented(origin: &Origin<'_>, streams: Vec<Datastream>, findings: Findings) -> Result<BinaryEvent, Invalid> {
    let content = origin.input.entity.datastreams.iter().filter(|stream| stream.label == "content");
    let streams = content.cloned().chain(streams).collect();
    about(origin, "augmented", streams, findings)
}

/// A `mapped` event: what somebody else knows about the input's entity.
///
/// # Errors
/// [`Invalid`], such as for a stream labelled `content`.
pub fn mapped(origin: &Origin<'_>, streams: Vec<Datastream>, findings: Findings) -> Result<BinaryEvent, Invalid> {
    about(origin, "mapped", streams, findings)
}

fn about(
    origin: &Origin<'_>,
    action: &str,
    datastreams: Vec<Datastream>,
    findings: Findings,
) -> Result<BinaryEvent, Invalid> {
    let sha256 = origin.input.entity.sha256.clone();
    let entity = BinaryEntity { datastreams, ..reduced_entity(&origin.input.entity) };
    result(origin, PathNode { sha256, ..node(origin, action) }, entity, findings)
}

fn node(origin: &Origin<'_>, action: &str) -> PathNode {
    PathNode { author: origin.author.clone(), action: action.to_owned(), timestamp: origin.now, ..PathNode::default() }
}

fn result(
    origin: &Origin<'_>,
    node: PathNode,
    entity: BinaryEntity,
    findings: Findings,
) -> Result<BinaryEvent, Invalid> {
    let Origin { input, author, now } = *origin;
    let action = node.action.clone();
    let path = input.source.path.iter().cloned().chain([node]).collect();
    let info = match findings.info {
        info if info.is_null() => JsonText::default(),
        info => JsonText::new(info.to_string().into_bytes()),
    };
    let event = BinaryEvent {
        kafka_key: PLACEHOLDER.to_owned(),
        timestamp: now,
        author: author.clone(),
        source: Source { path, ..input.source.clone() },
        entity: BinaryEntity { features: findings.features, info, ..entity },
        action,
        // The dispatcher puts the same ones into results of a status.
        flags: Flags { retry: false, ..input.flags },
        ..BinaryEvent::default()
    };
    check(&event)?;
    Ok(event)
}

/// What the dispatcher replaces by the event's key.
const PLACEHOLDER: &str = "runner-placeholder";

/// The checks that the dispatcher makes of a result.
///
/// # Errors
/// The first rule that fails.
pub fn check(event: &BinaryEvent) -> Result<(), Invalid> {
    model::check_valid(&Event::Binary(Box::new(event.clone())))
}

/// The entity without what an event adds to it.
fn reduced_entity(entity: &BinaryEntity) -> BinaryEntity {
    let BinaryEntity {
        sha256, sha512, sha1, md5, ssdeep, tlsh, size, mime, magic, file_format, file_extension, ..
    } = entity;
    BinaryEntity {
        sha256: sha256.clone(),
        sha512: sha512.clone(),
        sha1: sha1.clone(),
        md5: md5.clone(),
        ssdeep: ssdeep.clone(),
        tlsh: tlsh.clone(),
        size: *size,
        mime: mime.clone(),
        magic: magic.clone(),
        file_format: file_format.clone(),
        file_extension: file_extension.clone(),
        ..BinaryEntity::default()
    }
}

/// The event as statuses carry it: without features, streams and info.
#[must_use]
pub fn reduced(event: &BinaryEvent) -> BinaryEvent {
    BinaryEvent {
        kafka_key: event.kafka_key.clone(),
        timestamp: event.timestamp,
        author: event.author.clone(),
        source: event.source.clone(),
        entity: reduced_entity(&event.entity),
        action: event.action.clone(),
        dequeued: event.dequeued.clone(),
        retries: event.retries,
        flags: event.flags,
        track_source_references: event.track_source_references.clone(),
        track_links: event.track_links.clone(),
        track_authors: event.track_authors.clone(),
    }
}

/// A status about the input; `status` is one of `model::STATUSES`.
#[must_use]
pub fn status(origin: &Origin<'_>, status: &str, runtime_s: f64) -> StatusEvent {
    StatusEvent {
        kafka_key: PLACEHOLDER.to_owned(),
        timestamp: origin.now,
        author: origin.author.clone(),
        entity: StatusEntity {
            input: reduced(origin.input),
            status: status.to_owned(),
            runtime: runtime_s,
            ..StatusEntity::default()
        },
    }
}

/// A registration. `features` are name, type and description; values of `config` are JSON text and must hold no secrets.
#[must_use]
pub fn registration(
    author: &Author,
    description: &str,
    features: &[(&str, &str, &str)],
    config: BTreeMap<String, String>,
    now: Timestamp,
) -> PluginEvent {
    let Author { name, version, category, security } = author.clone();
    let feature = |&(name, kind, desc): &(&str, &str, &str)| PluginFeature {
        name: name.to_owned(),
        feature_type: kind.to_owned(),
        desc: desc.to_owned(),
        tags: Vec::new(),
    };
    let mut features: Vec<PluginFeature> = features.iter().map(feature).collect();
    features.sort_by(|a, b| a.name.cmp(&b.name));
    let description = description.to_owned();
    let entity =
        PluginEntity { name, version, category, security, description, features, config, ..PluginEntity::default() };
    PluginEvent { kafka_key: PLACEHOLDER.to_owned(), timestamp: now, author: author.clone(), entity }
}

/// Cuts an event to the limits of workers.md 1.6, the last values first, and says what was cut; empty when nothing was.
///
/// Values over their length are shortened at its limit, then those over the limit of one feature and of the event are
/// left out, and then, while the event is too large, its info and values from the end.
#[must_use]
pub fn cut(event: &mut BinaryEvent) -> Vec<String> {
    let mut told = Vec::new();
    told.extend(shorten(&mut event.entity.features));
    told.extend(limit_each(&mut event.entity.features));
    let values = event.entity.features.len();
    if values > VALUES_MAX {
        event.entity.features.truncate(VALUES_MAX);
        told.push(format!("{VALUES_MAX} of {values} feature values were kept"));
    }
    told.extend(shrink(event));
    told
}

fn shorten(features: &mut [Feature]) -> Option<String> {
    let mut shortened = 0usize;
    for feature in features {
        if let Some((end, _)) = feature.value.char_indices().nth(VALUE_CHARS_MAX) {
            feature.value.truncate(end);
            shortened += 1;
        }
    }
    (shortened > 0).then(|| format!("{shortened} feature values were shortened to {VALUE_CHARS_MAX} characters"))
}

fn limit_each(features: &mut Vec<Feature>) -> Vec<String> {
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    features.retain(|feature| match counts.get_mut(&feature.name) {
        Some(count) => {
            *count += 1;
            *count <= FEATURE_VALUES_MAX
        }
        None => {
            counts.insert(feature.name.clone(), 1);
            true
        }
    });
    let over = counts.into_iter().filter(|(_, count)| *count > FEATURE_VALUES_MAX);
    over.map(|(name, count)| format!("{FEATURE_VALUES_MAX} of {count} values of the feature {name} were kept"))
        .collect()
}

fn shrink(event: &mut BinaryEvent) -> Vec<String> {
    let size = |event: &BinaryEvent| model::to_json(&Event::Binary(Box::new(event.clone()))).len();
    let mut told = Vec::new();
    let whole = size(event);
    if whole <= EVENT_BYTES_MAX {
        return told;
    }
    let mut features = std::mem::take(&mut event.entity.features);
    // A small info leaves room for the features; where it takes half of all, they come first.
    if size(event) > EVENT_BYTES_MAX / 2 && !event.entity.info.is_empty() {
        let info = std::mem::take(&mut event.entity.info);
        told.push(format!("the info of {} bytes was left out: the event had {whole} bytes", info.as_bytes().len()));
    }
    let values = features.len();
    // As many of the first ones as have room.
    let (mut fit, mut over) = (0, values + 1);
    while fit + 1 < over {
        let count = fit + (over - fit) / 2;
        event.entity.features = features.iter().take(count).cloned().collect();
        if size(event) <= EVENT_BYTES_MAX {
            fit = count;
        } else {
            over = count;
        }
    }
    features.truncate(fit);
    event.entity.features = features;
    if fit < values {
        told.push(format!("{fit} of {values} feature values were kept: the event had {whole} bytes"));
    }
    told
}

#[cfg(test)]
mod tests {
    use super::*;

    fn input() -> BinaryEvent {
        let author = Author { name: "loader".into(), ..Author::default() };
        let content = Datastream { label: "content".into(), sha256: "aa".into(), size: 3, ..Datastream::default() };
        let other = Datastream { label: "text".into(), sha256: "bb".into(), ..Datastream::default() };
        let node = PathNode { author, action: "sourced".into(), sha256: "aa".into(), ..PathNode::default() };
        BinaryEvent {
            kafka_key: "k".into(),
            author: node.author.clone(),
            source: Source { name: "s".into(), path: vec![node], ..Source::default() },
            entity: BinaryEntity {
                sha256: "aa".into(),
                size: 3,
                mime: "m/m".into(),
                features: vec![feature("of", "string", "the loader", "")],
                info: JsonText::new(b"{}".to_vec()),
                datastreams: vec![content, other],
                ..BinaryEntity::default()
            },
            action: "sourced".into(),
            dequeued: "task".into(),
            flags: Flags { expedite: true, retry: true, bypass_cache: false },
            ..BinaryEvent::default()
        }
    }

    fn author() -> Author {
        Author { name: "w".into(), version: "1".into(), category: "plugin".into(), ..Author::default() }
    }

    fn with<T>(make: impl FnOnce(&Origin<'_>) -> T) -> T {
        make(&Origin { input: &input(), author: &author(), now: Timestamp::from_millis(5) })
    }

    #[test]
    fn an_enriched_event_says_more_about_the_same_entity() {
        let info = serde_json::json!({"a": 1});
        let findings = Findings { features: vec![feature("f", "string", "v", "l")], info };
        let event = with(|origin| enriched(origin, findings)).unwrap();
        assert_eq!((event.action.as_str(), event.source.path.len()), ("enriched", 2));
        let (entity, node) = (&event.entity, &event.source.path[1]);
        assert_eq!((entity.sha256.as_str(), entity.mime.as_str(), entity.datastreams.len()), ("aa", "m/m", 0));
        assert_eq!((entity.features.len(), entity.info.as_bytes()), (1, &br#"{"a":1}"#[..]));
        assert_eq!((node.author.name.as_str(), node.action.as_str(), node.sha256.as_str()), ("w", "enriched", "aa"));
        assert_eq!((event.dequeued.as_str(), event.flags.expedite, event.flags.retry), ("", true, false));
        let of_enriched = Origin { input: &event, author: &author(), now: Timestamp::zero() };
        assert_eq!(enriched(&of_enriched, Findings::default()).unwrap_err().rule, "enriched-not-leaf");
    }

    #[test]
    fn an_augmented_event_has_the_content_and_what_was_added() {
        let text = Datastream { label: "text".into(), sha256: "cc".into(), ..Datastream::default() };
        let event = with(|origin| augmented(origin, vec![text], Findings::default())).unwrap();
        let labels: Vec<_> = event.entity.datastreams.iter().map(|s| (s.label.as_str(), s.sha256.as_str())).collect();
        assert_eq!(labels, [("content", "aa"), ("text", "cc")]);
        let none = with(|origin| augmented(origin, Vec::new(), Findings::default()));
        assert_eq!(none.unwrap_err().rule, "second-label-needed");
    }

    #[test]
    fn a_child_is_a_new_entity_below_its_parent() {
        let content =
            Datastream { label: "x".into(), sha256: "dd".into(), size: 9, md5: "m".into(), ..Datastream::default() };
        let relationship = BTreeMap::from([("action".to_owned(), "extracted".to_owned())]);
        let made = Child { content, filename: "d/n".into(), relationship, ..Child::default() };
        let event = with(|origin| child(origin, made)).unwrap();
        let node = &event.source.path[1];
        assert_eq!((node.sha256.as_str(), node.size, node.filename.as_str()), ("dd", 9, "d/n"));
        assert_eq!(node.relationship["action"], "extracted");
        assert_eq!((event.entity.sha256.as_str(), event.entity.datastreams[0].label.as_str()), ("dd", "content"));
        let below = Origin { input: &event, author: &author(), now: Timestamp::zero() };
        let content = Datastream { sha256: "ee".into(), ..Datastream::default() };
        let deeper = child(&below, Child { content, ..Child::default() }).unwrap();
        assert_eq!(deeper.source.path.len(), 3);
        assert_eq!(with(|origin| child(origin, Child::default())).unwrap_err().rule, "node-sha256");
    }

    #[test]
    fn a_mapped_event_carries_no_content() {
        let content = Datastream { label: "content".into(), ..Datastream::default() };
        assert!(with(|origin| mapped(origin, Vec::new(), Findings::default())).is_ok());
        let refused = with(|origin| mapped(origin, vec![content], Findings::default()));
        assert_eq!(refused.unwrap_err().rule, "content-forbidden");
    }

    #[test]
    fn a_status_carries_the_input_without_what_is_large() {
        let event = with(|origin| status(origin, "heartbeat", 1.5));
        let input = &event.entity.input;
        assert_eq!((input.dequeued.as_str(), input.kafka_key.as_str(), input.source.path.len()), ("task", "k", 1));
        assert!(input.entity.features.is_empty() && input.entity.datastreams.is_empty());
        assert!(input.entity.info.is_empty());
        assert!(model::check_valid(&Event::Status(Box::new(event))).is_ok());
    }

    fn with_features(features: Vec<Feature>) -> BinaryEvent {
        with(|origin| enriched(origin, Findings { features, ..Findings::default() })).unwrap()
    }

    #[test]
    fn what_is_within_the_limits_is_left_alone() {
        let long = feature("f", "string", "\u{e4}".repeat(VALUE_CHARS_MAX), "");
        let mut event = with_features(vec![long]);
        let before = event.clone();
        assert!(cut(&mut event).is_empty());
        assert_eq!(event, before);
    }

    #[test]
    fn values_over_a_limit_are_cut_from_the_end_and_told() {
        let long = feature("long", "string", "\u{e4}".repeat(VALUE_CHARS_MAX + 1), "");
        let many =
            (0..12).flat_map(|f| (0..1001).map(move |n| feature(&format!("f{f:02}"), "integer", n.to_string(), "")));
        let mut event = with_features(std::iter::once(long).chain(many).collect());
        let told = cut(&mut event);
        assert_eq!(event.entity.features.len(), VALUES_MAX);
        assert_eq!(event.entity.features[0].value.chars().count(), VALUE_CHARS_MAX);
        assert_eq!(told[0], "1 feature values were shortened to 4000 characters");
        assert_eq!(told[1], "1000 of 1001 values of the feature f00 were kept");
        assert_eq!(told[13], "9500 of 12001 feature values were kept");
        assert!(check(&event).is_ok());
    }

    #[test]
    fn an_event_that_is_too_large_loses_its_info_and_then_its_last_values() {
        let value = |n: usize| feature(&format!("f{}", n % 20), "string", "x".repeat(3900), n.to_string());
        let mut event = with_features((0..1000).map(value).collect());
        event.entity.info = JsonText::new(format!("{:?}", "y".repeat(3_000_000)).into_bytes());
        let told = cut(&mut event);
        assert!(told[0].starts_with("the info of 3000002 bytes was left out"), "{told:?}");
        assert!(told[1].contains(" of 1000 feature values were kept"), "{told:?}");
        let kept = event.entity.features.len();
        assert!((450..545).contains(&kept), "{kept}");
        assert!(model::to_json(&Event::Binary(Box::new(event))).len() <= EVENT_BYTES_MAX);
    }

    #[test]
    fn a_small_info_stays_and_so_do_as_many_values_as_have_room() {
        let value = |n: usize| {
            let length = if (2000..3000).contains(&n) { 3900 } else { 4 };
            feature(&format!("f{}", n / 1000), "string", "x".repeat(length), n.to_string())
        };
        let mut event = with_features((0..9000).map(value).collect());
        event.entity.info = JsonText::new(br#"{"task_id":7}"#.to_vec());
        let told = cut(&mut event);
        assert_eq!((told.len(), event.entity.info.as_bytes()), (1, &br#"{"task_id":7}"#[..]), "{told:?}");
        let bytes = model::to_json(&Event::Binary(Box::new(event.clone()))).len();
        assert!(bytes <= EVENT_BYTES_MAX && bytes > EVENT_BYTES_MAX - 8_000, "{bytes}");
    }
}
