//! One stored record -> the event it becomes: today's model version, its key computed anew.

use std::collections::BTreeMap;

use serde_json::value::RawValue;
use sha2::{Digest, Sha256};

use crate::broker::{Offset, TopicPartition};
use crate::dispatcher::model::{self, Event, Model};

/// Versions of JSON events that can be brought up to date: what changed since is left out of them or ignored.
const UPGRADED: [u64; 2] = [4, 5];

/// The event that a value becomes.
///
/// Events that only JSON readers could not read are kept, as they are when they come through another door.
///
/// # Errors
/// What is wrong with it.
pub(super) fn convert(
    model: Model,
    value: &[u8],
    legacy_json: bool,
    place: (&TopicPartition, Offset),
) -> Result<Event, String> {
    let mut event = if value.first() == Some(&b'{') {
        if !legacy_json {
            return Err("JSON, which is taken only with legacy_json".to_owned());
        }
        from_json(model, value)?
    } else {
        let event = model::decode_avro(model, value).map_err(|error| error.to_string())?;
        match model::check_valid(&event) {
            Err(invalid) if invalid.rule != "unreadable" => return Err(invalid.to_string()),
            Ok(()) | Err(_) => event,
        }
    };
    let key = model::kafka_key(&event, instead_of_random(place)).map_err(|invalid| invalid.to_string())?;
    event.set_kafka_key(key);
    model::set_tracking(&mut event);
    Ok(event)
}

fn from_json(model: Model, value: &[u8]) -> Result<Event, String> {
    let not_json = |error: serde_json::Error| format!("not JSON: {error}");
    let mut members: BTreeMap<String, Box<RawValue>> = serde_json::from_slice(value).map_err(not_json)?;
    let version = members.get("model_version").map_or("", |version| version.get());
    if version.parse().is_ok_and(|version: u64| UPGRADED.contains(&version)) {
        let current = RawValue::from_string(model::MODEL_VERSION.to_string()).map_err(not_json)?;
        members.insert("model_version".to_owned(), current);
    }
    let text = serde_json::to_vec(&members).map_err(not_json)?;
    let element = model::decode_event_json(model, &text).map_err(|error| error.to_string())?;
    element.event.map_err(|invalid| invalid.to_string())
}

/// Keys that are random are the same again when a record is copied again after an interruption.
fn instead_of_random((place, offset): (&TopicPartition, Offset)) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update(place.topic.as_bytes());
    hash.update([0]);
    hash.update(place.partition.to_be_bytes());
    hash.update(offset.to_be_bytes());
    hash.finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn converted(model: Model, value: &[u8], legacy_json: bool) -> Result<Event, String> {
        let place = TopicPartition { topic: "t".to_owned(), partition: 0 };
        convert(model, value, legacy_json, (&place, 7))
    }

    fn example(name: &str) -> String {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/schemas/examples");
        std::fs::read_to_string(format!("{folder}/{name}.json")).unwrap()
    }

    #[test]
    fn json_of_older_versions_is_brought_up_to_date_when_asked_for() {
        let text = example("binary_extracted_two_node_path");
        let current: serde_json::Value = serde_json::from_str(&text).unwrap();
        for version in [4, 5, 6] {
            let mut old = current.clone();
            old["model_version"] = version.into();
            old["entity"]["file_format_legacy"] = "Text".into();
            let old = old.to_string();
            let event = converted(Model::Binary, old.as_bytes(), true).unwrap();
            assert_eq!(event.kafka_key(), "e94a64e7d9a5c9fa2956bb1537ba1c99", "version {version}");
            assert!(converted(Model::Binary, old.as_bytes(), false).unwrap_err().contains("legacy_json"));
        }
        for bad in [3, 7] {
            let mut old = current.clone();
            old["model_version"] = bad.into();
            assert!(converted(Model::Binary, old.to_string().as_bytes(), true).is_err(), "version {bad}");
        }
    }

    #[test]
    fn what_is_no_event_is_refused_with_a_reason() {
        for value in [&b""[..], b"\x0c", b"\x10rubbish", b"{", b"{}", b"{\"model_version\":6}"] {
            assert!(!converted(Model::Binary, value, true).unwrap_err().is_empty(), "{value:?}");
        }
    }

    #[test]
    fn a_record_that_is_copied_twice_gets_the_same_key() {
        let event = example("download_requested");
        let once = converted(Model::Download, event.as_bytes(), true).unwrap();
        let twice = converted(Model::Download, event.as_bytes(), true).unwrap();
        assert_eq!(once.kafka_key(), twice.kafka_key());
        let place = TopicPartition { topic: "t".to_owned(), partition: 1 };
        let other = convert(Model::Download, event.as_bytes(), true, (&place, 7)).unwrap();
        assert_ne!(once.kafka_key(), other.kafka_key());
    }
}
