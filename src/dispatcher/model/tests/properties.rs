//! Properties over made-up events and over bytes that are none.

use std::collections::BTreeMap;

use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use proptest::sample::select;
use serde::de::DeserializeOwned;

use super::super::json_read::Submitted;
use super::super::{
    Author, BINARY_ACTIONS, BinaryEntity, BinaryEvent, DELETE_ACTIONS, DOWNLOAD_ACTIONS, Datastream, DeleteAuthor,
    DeleteEntity, DeleteEvent, DeleteIds, DeleteLink, DeleteSubmission, DownloadEntity, DownloadEvent, Event,
    FEATURE_TYPES, Feature, Flags, InsertEntity, InsertEvent, JsonText, Model, PathNode, PluginEntity, PluginEvent,
    PluginFeature, RETROHUNT_ACTIONS, RetrohuntEvent, RetrohuntSource, STATUSES, STREAM_LABELS, Source, StatusEntity,
    StatusEvent, Timestamp, check_valid, decode_avro, decode_avro_bulk, decode_body_avro, decode_body_json,
    encode_avro, encode_avro_bulk, kafka_key, look_avro, set_tracking, to_json, unreadable,
};
use super::avro_walk::{schema, walk};
use super::emit_schema::problems;
use super::{example, fixture_json, json, model};

fn text() -> BoxedStrategy<String> {
    prop_oneof![3 => Just(String::new()), 5 => "[a-z.\"\\\\\n\u{0}é\u{2028}😀]{0,6}"].boxed()
}

fn map() -> BoxedStrategy<BTreeMap<String, String>> {
    btree_map(text(), text(), 0..3).boxed()
}

/// A word of the list, now and then another one.
fn word(allowed: &'static [&'static str]) -> BoxedStrategy<String> {
    prop_oneof![40 => select(allowed).prop_map(str::to_owned), 1 => text()].boxed()
}

fn size() -> BoxedStrategy<u64> {
    prop_oneof![Just(0), any::<u64>()].boxed()
}

/// Times that readers can represent, to the nanosecond, in all kinds of offsets.
fn time() -> BoxedStrategy<Timestamp> {
    let parts = (1970_u32..9000, 1_u32..=12, 1_u32..=28, 0_u32..86_400, 0_u32..1_000_000_000, -1439_i32..=1439);
    let written = parts.prop_map(|(year, month, day, second, nanos, offset)| {
        let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
        let (sign, offset) = (if offset < 0 { '-' } else { '+' }, offset.unsigned_abs());
        let zone = format!("{sign}{:02}:{:02}", offset / 60, offset % 60);
        let text = format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{nanos:09}{zone}");
        Timestamp::parse(&text).unwrap()
    });
    prop_oneof![Just(Timestamp::zero()), written].boxed()
}

/// Free-form JSON, now and then not an object.
fn free() -> BoxedStrategy<JsonText> {
    prop_oneof![
        20 => Just(JsonText::default()),
        20 => Just(JsonText::new("{ \"a\" : [1, \"x\"] }")),
        1 => Just(JsonText::new("[1]")),
    ]
    .boxed()
}

fn author() -> BoxedStrategy<Author> {
    (text(), text(), text(), text())
        .prop_map(|(name, version, category, security)| Author { name, version, category, security })
        .boxed()
}

fn node() -> BoxedStrategy<PathNode> {
    (author(), word(&BINARY_ACTIONS), text(), map(), time(), text(), size(), text(), text())
        .prop_map(|(author, action, sha256, relationship, timestamp, file_format, size, filename, language)| PathNode {
            author,
            action,
            sha256,
            relationship,
            timestamp,
            file_format,
            size,
            filename,
            language,
        })
        .boxed()
}

fn source() -> BoxedStrategy<Source> {
    (text(), map(), text(), vec(node(), 0..4), time(), map())
        .prop_map(|(name, references, security, path, timestamp, settings)| Source {
            name,
            references,
            security,
            path,
            timestamp,
            settings,
        })
        .boxed()
}

fn feature() -> BoxedStrategy<Feature> {
    (text(), text(), word(&FEATURE_TYPES), text(), size(), size())
        .prop_map(|(name, value, feature_type, label, size, offset)| Feature {
            name,
            value,
            feature_type,
            label,
            size,
            offset,
        })
        .boxed()
}

fn datastream() -> BoxedStrategy<Datastream> {
    ((any::<u32>(), word(&STREAM_LABELS), size()), vec(text(), 11))
        .prop_map(|((identify_version, label, size), mut texts)| {
            let mut next = || texts.pop().unwrap();
            Datastream {
                identify_version,
                label,
                size,
                sha512: next(),
                sha256: next(),
                sha1: next(),
                md5: next(),
                ssdeep: next(),
                tlsh: next(),
                mime: next(),
                magic: next(),
                file_format: next(),
                file_extension: next(),
                language: next(),
            }
        })
        .boxed()
}

fn entity() -> BoxedStrategy<BinaryEntity> {
    (size(), free(), vec(feature(), 0..3), vec(datastream(), 0..3), vec(text(), 10))
        .prop_map(|(size, info, features, datastreams, mut texts)| {
            let mut next = || texts.pop().unwrap();
            BinaryEntity {
                sha256: next(),
                sha512: next(),
                sha1: next(),
                md5: next(),
                ssdeep: next(),
                tlsh: next(),
                size,
                mime: next(),
                magic: next(),
                file_format: next(),
                file_extension: next(),
                info,
                features,
                datastreams,
            }
        })
        .boxed()
}

fn binary() -> BoxedStrategy<BinaryEvent> {
    let flags = any::<[bool; 3]>().prop_map(|[bypass_cache, expedite, retry]| Flags { bypass_cache, expedite, retry });
    let tail = (text(), any::<u32>(), flags, text(), vec(text(), 0..3), vec(text(), 0..3));
    ((text(), time(), author()), source(), entity(), word(&BINARY_ACTIONS), tail)
        .prop_map(|((kafka_key, timestamp, author), source, entity, action, tail)| {
            let (dequeued, retries, flags, track_source_references, track_links, track_authors) = tail;
            BinaryEvent {
                kafka_key,
                timestamp,
                author,
                source,
                entity,
                action,
                dequeued,
                retries,
                flags,
                track_source_references,
                track_links,
                track_authors,
            }
        })
        .boxed()
}

fn status() -> BoxedStrategy<StatusEvent> {
    let runtime = prop_oneof![Just(0.0), any::<f64>().prop_filter("finite", |number| number.is_finite())];
    let entity = (binary(), word(&STATUSES), runtime, text(), text(), vec(binary(), 0..3)).prop_map(
        |(input, status, runtime, error, message, results)| StatusEntity {
            input,
            status,
            runtime,
            error,
            message,
            results,
        },
    );
    (text(), time(), author(), entity)
        .prop_map(|(kafka_key, timestamp, author, entity)| StatusEvent { kafka_key, timestamp, author, entity })
        .boxed()
}

fn download() -> BoxedStrategy<DownloadEvent> {
    let entity = (text(), text(), time(), any::<bool>(), text(), any::<u32>(), free()).prop_map(
        |(hash, direct_url, direct_expiry, pcap, category, category_quota, metadata)| DownloadEntity {
            hash,
            direct_url,
            direct_expiry,
            pcap,
            category,
            category_quota,
            metadata,
        },
    );
    (text(), time(), author(), source(), word(&DOWNLOAD_ACTIONS), entity)
        .prop_map(|(kafka_key, timestamp, author, source, action, entity)| DownloadEvent {
            kafka_key,
            timestamp,
            author,
            source,
            action,
            entity,
        })
        .boxed()
}

fn insert() -> BoxedStrategy<InsertEvent> {
    let entity =
        (text(), text(), entity(), node()).prop_map(|(original_source, parent_sha256, child, child_history)| {
            InsertEntity { original_source, parent_sha256, child, child_history }
        });
    (text(), time(), author(), entity, text(), text())
        .prop_map(|(kafka_key, timestamp, author, entity, track_link, track_author)| InsertEvent {
            kafka_key,
            timestamp,
            author,
            entity,
            track_link,
            track_author,
        })
        .boxed()
}

fn plugin() -> BoxedStrategy<PluginEvent> {
    let feature = (text(), word(&FEATURE_TYPES), text(), vec(text(), 0..3))
        .prop_map(|(name, feature_type, desc, tags)| PluginFeature { name, feature_type, desc, tags });
    let entity = (vec(text(), 6), vec(feature, 0..3), map()).prop_map(|(mut texts, features, config)| {
        let mut next = || texts.pop().unwrap();
        PluginEntity {
            name: next(),
            version: next(),
            category: next(),
            contact: next(),
            description: next(),
            features,
            security: next(),
            config,
        }
    });
    (text(), time(), author(), entity)
        .prop_map(|(kafka_key, timestamp, author, entity)| PluginEvent { kafka_key, timestamp, author, entity })
        .boxed()
}

fn retrohunt() -> BoxedStrategy<RetrohuntEvent> {
    let source = (text(), text(), time()).prop_map(|(submitter, security, timestamp)| RetrohuntSource {
        submitter,
        security,
        timestamp,
    });
    (text(), time(), author(), free(), word(&RETROHUNT_ACTIONS), source)
        .prop_map(|(kafka_key, timestamp, author, entity, action, source)| RetrohuntEvent {
            kafka_key,
            timestamp,
            author,
            entity,
            action,
            source,
        })
        .boxed()
}

fn delete() -> BoxedStrategy<DeleteEvent> {
    let entity = (vec(text(), 4), time(), time(), vec(text(), 0..3)).prop_map(|(mut texts, first, second, ids)| {
        let mut next = || texts.pop().unwrap();
        DeleteEntity {
            reason: next(),
            submission: DeleteSubmission { track_source_references: next(), timestamp: first },
            author: DeleteAuthor { track_author: next(), timestamp: second },
            link: DeleteLink { track_link: next() },
            ids: DeleteIds { ids },
        }
    });
    (text(), time(), author(), entity, word(&DELETE_ACTIONS))
        .prop_map(|(kafka_key, timestamp, author, entity, action)| DeleteEvent {
            kafka_key,
            timestamp,
            author,
            entity,
            action,
        })
        .boxed()
}

fn event() -> BoxedStrategy<Event> {
    prop_oneof![
        4 => binary().prop_map(|event| Event::Binary(Box::new(event))),
        1 => delete().prop_map(|event| Event::Delete(Box::new(event))),
        1 => download().prop_map(|event| Event::Download(Box::new(event))),
        1 => insert().prop_map(|event| Event::Insert(Box::new(event))),
        1 => plugin().prop_map(|event| Event::Plugin(Box::new(event))),
        1 => retrohunt().prop_map(|event| Event::Retrohunt(Box::new(event))),
        2 => status().prop_map(|event| Event::Status(Box::new(event))),
    ]
    .boxed()
}

/// Reads an event back without the rules of validity.
fn read(model: Model, text: &[u8]) -> Event {
    fn inner<T>(text: &[u8]) -> Box<T>
    where
        Submitted<T>: DeserializeOwned,
    {
        let submitted = serde_json::from_slice::<Submitted<T>>(text).unwrap();
        assert_eq!(submitted.model_version, 6);
        Box::new(submitted.event)
    }
    match model {
        Model::Binary => Event::Binary(inner(text)),
        Model::Delete => Event::Delete(inner(text)),
        Model::Download => Event::Download(inner(text)),
        Model::Insert => Event::Insert(inner(text)),
        Model::Plugin => Event::Plugin(inner(text)),
        Model::Retrohunt => Event::Retrohunt(inner(text)),
        Model::Status => Event::Status(inner(text)),
    }
}

/// JSON never has the tags of plugin features.
fn without_tags(mut event: Event) -> Event {
    if let Event::Plugin(plugin) = &mut event {
        plugin.entity.features.iter_mut().for_each(|feature| feature.tags.clear());
    }
    event
}

proptest! {
    // No file of seeds in the source tree; a failure prints its smallest event.
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn json_comes_back_as_it_was(event in event()) {
        let text = to_json(&event);
        let again = read(event.model(), &text);
        prop_assert_eq!(&again, &without_tags(event));
        prop_assert_eq!(to_json(&again), text, "offsets too");
    }

    #[test]
    fn json_satisfies_the_emit_schema_exactly_when_nothing_is_unreadable(event in event()) {
        let problems = problems(event.model(), &json(&event));
        prop_assert_eq!(unreadable(&event).is_none(), problems.is_empty(), "{:?} {:?}", unreadable(&event), problems);
    }

    #[test]
    fn avro_comes_back_in_microseconds(event in event()) {
        let bytes = encode_avro(&event);
        let stored = decode_avro(event.model(), &bytes).unwrap();
        prop_assert_eq!(encode_avro(&stored), bytes.clone());
        prop_assert_eq!(decode_avro(event.model(), &bytes).unwrap(), stored.clone());
        prop_assert_eq!(stored.timestamp().to_string(), event.timestamp().stored().to_string());
        walk(&schema("v6", event.model().as_str()), &bytes);
        let container = encode_avro_bulk(event.model(), &[stored.clone(), stored.clone()]);
        prop_assert_eq!(decode_avro_bulk(event.model(), &container).unwrap(), vec![stored.clone(), stored]);
        walk(&schema("v6", &format!("{}.bulk", event.model())), &container);
    }

    #[test]
    fn a_look_sees_what_decoding_gives_and_hands_on_only_bytes_that_would_be_written_so(
        event in event(),
        at in any::<prop::sample::Index>(),
        byte in any::<u8>(),
    ) {
        let (model, mut bytes) = (event.model(), encode_avro(&event));
        prop_assert!(look_avro(model, &bytes).unwrap().1);
        let at = at.index(bytes.len());
        bytes[at] = byte;
        match (look_avro(model, &bytes), decode_avro(model, &bytes)) {
            (Ok((seen, plain)), Ok(decoded)) => {
                prop_assert_eq!(to_json(&seen), to_json(&decoded));
                prop_assert_eq!(unreadable(&seen), unreadable(&decoded));
                prop_assert_eq!(encode_avro(&seen), encode_avro(&decoded));
                prop_assert!(!plain || encode_avro(&decoded) == bytes, "changed at {at}");
            }
            (seen, decoded) => prop_assert_eq!(seen.err(), decoded.err()),
        }
    }

    #[test]
    fn storing_does_not_change_whether_an_event_is_valid(event in event()) {
        let stored = decode_avro(event.model(), &encode_avro(&event)).unwrap();
        prop_assert_eq!(check_valid(&stored), check_valid(&event));
    }

    #[test]
    fn keys_and_tracking_take_any_event(mut event in event()) {
        if let Ok(key) = kafka_key(&event, [1; 32]) {
            prop_assert!(key.len() == 32 && key.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')));
        }
        set_tracking(&mut event);
    }

    #[test]
    fn arbitrary_bytes_are_refused_calmly(bytes in vec(any::<u8>(), 0..300), version in 0_u8..20) {
        for model in Model::ALL {
            take(model, &bytes);
            let headed = [&[version][..], &bytes].concat();
            take(model, &headed);
        }
    }

    #[test]
    fn changed_bytes_are_read_or_refused_calmly(event in event(), at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        for mut bytes in [encode_avro(&event), encode_avro_bulk(event.model(), std::slice::from_ref(&event)), to_json(&event)] {
            let at = at.index(bytes.len());
            bytes[at] = byte;
            take(event.model(), &bytes);
            bytes.truncate(at);
            take(event.model(), &bytes);
        }
    }
}

/// Gives the bytes to every reader, and what they make of it to everything that takes events.
fn take(model: Model, bytes: &[u8]) {
    let mut events: Vec<Event> = decode_avro(model, bytes).into_iter().collect();
    events.extend(decode_avro_bulk(model, bytes).unwrap_or_default());
    let bodies = [decode_body_json(model, bytes), decode_body_avro(model, bytes)];
    events.extend(bodies.into_iter().flatten().flatten().filter_map(|element| element.event.ok()));
    for mut event in events {
        let text = to_json(&event);
        assert!(serde_json::from_slice::<serde_json::Value>(&text).is_ok());
        assert_eq!(unreadable(&event).is_some(), !problems_or_times(&event).is_empty());
        set_tracking(&mut event);
        drop(kafka_key(&event, [0; 32]));
        assert!(decode_avro(model, &encode_avro(&event)).is_ok());
    }
}

/// As [`problems`]; an event with times out of range, or with free-form text that is no JSON, is left to `unreadable`.
fn problems_or_times(event: &Event) -> Vec<String> {
    let reason = unreadable(event).map(|found| found.reason).unwrap_or_default();
    match reason {
        "time_out_of_range" | "not_json" | "json_too_deep" | "runtime_not_finite" => vec![reason.to_owned()],
        _ => problems(event.model(), &json(event)),
    }
}

#[test]
fn examples_with_a_byte_removed_anywhere_are_read_or_refused_calmly() {
    for entry in fixture_json("examples/index.json").as_array().unwrap().iter().take(30) {
        let text = example(entry["file"].as_str().unwrap().strip_suffix(".json").unwrap()).into_bytes();
        for at in (0..text.len()).step_by(7) {
            let torn = [&text[..at], &text[at + 1..]].concat();
            drop(decode_body_json(model(&entry["model"]), &torn));
        }
    }
}
