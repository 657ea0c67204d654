//! Reading one event from JSON text (section 2): the members of each model and how each type of member is read.
//!
//! Nothing here builds a tree: members go straight into the structs, unknown ones are skipped, free-form ones are kept
//! as text. Skipping does not recurse, so the depth of a body cannot exhaust the stack. Strictness that serde's derived
//! readers do not offer is the reason for the small readers below: `null` is no value at all, a repeated member
//! replaces the one before, integers have no fraction or exponent.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use serde::de::{Deserialize, DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::json_text::JsonText;
use super::timestamp::Timestamp;
use super::types::{
    Author, BinaryEntity, BinaryEvent, Datastream, DeleteAuthor, DeleteEntity, DeleteEvent, DeleteIds, DeleteLink,
    DeleteSubmission, DownloadEntity, DownloadEvent, Feature, Flags, InsertEntity, InsertEvent, PathNode, PluginEntity,
    PluginEvent, PluginFeature, RetrohuntEvent, RetrohuntSource, Source, StatusEntity, StatusEvent,
};
use super::valid::first_chars;

/// An event of a model as submitted, with the version it claims; 0 stands for absent.
#[derive(Default)]
pub(super) struct Submitted<T> {
    pub(super) model_version: u32,
    pub(super) event: T,
}

/// A type that can be read from a JSON value other than `null`.
trait JsonRead {
    /// Replaces `self` by the value.
    fn read<'de, D: Deserializer<'de>>(&mut self, value: D) -> Result<(), D::Error>;
}

/// A JSON object with known members.
trait Record: Default {
    /// Reads the value of the member `name`, or skips it when there is no such member.
    fn member<'de, A: MapAccess<'de>>(&mut self, name: &str, map: &mut A) -> Result<(), A::Error>;
}

/// Where the value of a member goes; `null` leaves the place as it is.
struct Slot<'a, T>(&'a mut T);

impl<'de, T: JsonRead> DeserializeSeed<'de> for Slot<'_, T> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_option(self)
    }
}

impl<'de, T: JsonRead> Visitor<'de> for Slot<'_, T> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value or null")
    }

    fn visit_none<E: Error>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        self.0.read(deserializer)
    }
}

/// The name of a member, borrowed from the text unless it has escapes.
struct Name<'de>(Cow<'de, str>);

impl<'de> Deserialize<'de> for Name<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct NameVisitor;
        impl<'de> Visitor<'de> for NameVisitor {
            type Value = Name<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a member name")
            }

            fn visit_borrowed_str<E: Error>(self, name: &'de str) -> Result<Self::Value, E> {
                Ok(Name(Cow::Borrowed(name)))
            }

            fn visit_str<E: Error>(self, name: &str) -> Result<Self::Value, E> {
                Ok(Name(Cow::Owned(name.to_owned())))
            }
        }
        deserializer.deserialize_str(NameVisitor)
    }
}

struct RecordVisitor<'a, T>(&'a mut T);

impl<'de, T: Record> Visitor<'de> for RecordVisitor<'_, T> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(Name(name)) = map.next_key()? {
            self.0.member(&name, &mut map).map_err(|error| A::Error::custom(format_args!("{name}: {error}")))?;
        }
        Ok(())
    }
}

impl<T: Record> JsonRead for T {
    fn read<'de, D: Deserializer<'de>>(&mut self, value: D) -> Result<(), D::Error> {
        *self = T::default();
        value.deserialize_map(RecordVisitor(self))
    }
}

impl<'de, T: Record> Deserialize<'de> for Submitted<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut submitted = Self::default();
        submitted.read(deserializer)?;
        Ok(submitted)
    }
}

impl<T: Record> Record for Submitted<T> {
    fn member<'de, A: MapAccess<'de>>(&mut self, name: &str, map: &mut A) -> Result<(), A::Error> {
        if name == "model_version" {
            map.next_value_seed(Slot(&mut self.model_version))
        } else {
            self.event.member(name, map)
        }
    }
}

/// The version an event claims, with everything else skipped.
pub(super) fn probe_version(text: &str) -> Result<u32, serde_json::Error> {
    serde_json::from_str::<Submitted<Nothing>>(text).map(|probe| probe.model_version)
}

/// A record none of whose members matter.
#[derive(Default)]
struct Nothing;

macro_rules! expecting {
    ($what:literal) => {
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str($what)
        }
    };
}

struct StringVisitor<'a>(&'a mut String);

impl Visitor<'_> for StringVisitor<'_> {
    type Value = ();

    expecting!("a string");

    fn visit_str<E: Error>(self, text: &str) -> Result<(), E> {
        self.0.clear();
        self.0.push_str(text);
        Ok(())
    }
}

impl JsonRead for String {
    fn read<'de, D: Deserializer<'de>>(&mut self, value: D) -> Result<(), D::Error> {
        value.deserialize_str(StringVisitor(self))
    }
}

struct TimeVisitor<'a>(&'a mut Timestamp);

impl Visitor<'_> for TimeVisitor<'_> {
    type Value = ();

    expecting!("an RFC 3339 time");

    fn visit_str<E: Error>(self, text: &str) -> Result<(), E> {
        *self.0 =
            Timestamp::parse(text).map_err(|error| E::custom(format_args!("{error}: {:?}", first_chars(text, 40))))?;
        Ok(())
    }
}

impl JsonRead for Timestamp {
    fn read<'de, D: Deserializer<'de>>(&mut self, value: D) -> Result<(), D::Error> {
        value.deserialize_str(TimeVisitor(self))
    }
}

struct BoolVisitor<'a>(&'a mut bool);

impl Visitor<'_> for BoolVisitor<'_> {
    type Value = ();

    expecting!("true or false");

    fn visit_bool<E: Error>(self, value: bool) -> Result<(), E> {
        *self.0 = value;
        Ok(())
    }
}

impl JsonRead for bool {
    fn read<'de, D: Deserializer<'de>>(&mut self, value: D) -> Result<(), D::Error> {
        value.deserialize_bool(BoolVisitor(self))
    }
}

struct U64Visitor<'a>(&'a mut u64);

impl Visitor<'_> for U64Visitor<'_> {
    type Value = ();

    expecting!("an integer from 0 to 18446744073709551615 without fraction or exponent");

    fn visit_u64<E: Error>(self, value: u64) -> Result<(), E> {
        *self.0 = value;
        Ok(())
    }
}

impl JsonRead for u64 {
    fn read<'de, D: Deserializer<'de>>(&mut self, value: D) -> Result<(), D::Error> {
        value.deserialize_u64(U64Visitor(self))
    }
}

struct U32Visitor<'a>(&'a mut u32);

impl Visitor<'_> for U32Visitor<'_> {
    type Value = ();

    expecting!("an integer from 0 to 4294967295 without fraction or exponent");

    fn visit_u64<E: Error>(self, value: u64) -> Result<(), E> {
        *self.0 = u32::try_from(value)
            .map_err(|_| E::invalid_value(serde::de::Unexpected::Unsigned(value), &"an integer up to 4294967295"))?;
        Ok(())
    }
}

impl JsonRead for u32 {
    fn read<'de, D: Deserializer<'de>>(&mut self, value: D) -> Result<(), D::Error> {
        value.deserialize_u32(U32Visitor(self))
    }
}

/// Read from its text, because that is exact to the last bit.
impl JsonRead for f64 {
    fn read<'de, D: Deserializer<'de>>(&mut self, value: D) -> Result<(), D::Error> {
        let text = <&RawValue>::deserialize(value)?.get();
        let number = text.parse::<f64>().ok().filter(|number| number.is_finite());
        *self =
            number.ok_or_else(|| D::Error::custom(format_args!("not a number in range: {}", first_chars(text, 40))))?;
        Ok(())
    }
}

impl JsonRead for JsonText {
    fn read<'de, D: Deserializer<'de>>(&mut self, value: D) -> Result<(), D::Error> {
        *self = Self::new(<&RawValue>::deserialize(value)?.get());
        Ok(())
    }
}

struct MapVisitor<'a>(&'a mut BTreeMap<String, String>);

impl<'de> Visitor<'de> for MapVisitor<'_> {
    type Value = ();

    expecting!("an object with strings as values");

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        self.0.clear();
        while let Some(key) = map.next_key::<String>()? {
            let mut value = String::new();
            map.next_value_seed(Slot(&mut value)).map_err(|error| A::Error::custom(format_args!("{key}: {error}")))?;
            self.0.insert(key, value);
        }
        Ok(())
    }
}

impl JsonRead for BTreeMap<String, String> {
    fn read<'de, D: Deserializer<'de>>(&mut self, value: D) -> Result<(), D::Error> {
        value.deserialize_map(MapVisitor(self))
    }
}

/// What to do with an element of a list; only lists of strings may hold `null`.
trait ListItem: JsonRead + Default {
    fn next<'de, A: SeqAccess<'de>>(seq: &mut A) -> Result<Option<Self>, A::Error>;
}

impl ListItem for String {
    fn next<'de, A: SeqAccess<'de>>(seq: &mut A) -> Result<Option<Self>, A::Error> {
        let mut item = Self::new();
        Ok(seq.next_element_seed(Slot(&mut item))?.map(|()| item))
    }
}

/// As [`Slot`], without the exception for `null`.
struct Value<'a, T>(&'a mut T);

impl<'de, T: JsonRead> DeserializeSeed<'de> for Value<'_, T> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        self.0.read(deserializer)
    }
}

impl<T: Record> ListItem for T {
    fn next<'de, A: SeqAccess<'de>>(seq: &mut A) -> Result<Option<Self>, A::Error> {
        let mut item = T::default();
        Ok(seq.next_element_seed(Value(&mut item))?.map(|()| item))
    }
}

struct ListVisitor<'a, T>(&'a mut Vec<T>);

impl<'de, T: ListItem> Visitor<'de> for ListVisitor<'_, T> {
    type Value = ();

    expecting!("a list");

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        self.0.clear();
        loop {
            let index = self.0.len();
            match T::next(&mut seq).map_err(|error| A::Error::custom(format_args!("[{index}]: {error}")))? {
                Some(item) => self.0.push(item),
                None => return Ok(()),
            }
        }
    }
}

impl<T: ListItem> JsonRead for Vec<T> {
    fn read<'de, D: Deserializer<'de>>(&mut self, value: D) -> Result<(), D::Error> {
        value.deserialize_seq(ListVisitor(self))
    }
}

/// Names the members of a record; a member whose name is not its field's name says so after `=>`.
macro_rules! record {
    ($type:ident { $($field:ident $(=> $name:literal)?),* $(,)? }) => {
        impl Record for $type {
            fn member<'de, A: MapAccess<'de>>(&mut self, name: &str, map: &mut A) -> Result<(), A::Error> {
                match name {
                    $(record!(@name $field $($name)?) => map.next_value_seed(Slot(&mut self.$field)),)*
                    _ => map.next_value::<IgnoredAny>().map(drop),
                }
            }
        }
    };
    (@name $field:ident) => { stringify!($field) };
    (@name $field:ident $name:literal) => { $name };
}

record!(Nothing {});
record!(Author { name, version, category, security });
record!(PathNode { author, action, sha256, relationship, timestamp, file_format, size, filename, language });
record!(Source { name, references, security, path, timestamp, settings });
record!(BinaryEntity {
    sha256,
    sha512,
    sha1,
    md5,
    ssdeep,
    tlsh,
    size,
    mime,
    magic,
    file_format,
    file_extension,
    info,
    features,
    datastreams
});
record!(Feature { name, value, feature_type => "type", label, size, offset });
record!(Datastream {
    identify_version,
    label,
    size,
    sha512,
    sha256,
    sha1,
    md5,
    ssdeep,
    tlsh,
    mime,
    magic,
    file_format,
    file_extension,
    language
});
record!(Flags { bypass_cache, expedite, retry });
record!(StatusEvent { kafka_key, timestamp, author, entity });
record!(StatusEntity { input, status, runtime, error, message, results });
record!(DownloadEvent { kafka_key, timestamp, author, source, action, entity });
record!(DownloadEntity { hash, direct_url, direct_expiry, pcap, category, category_quota, metadata });
record!(InsertEvent { kafka_key, timestamp, author, entity, track_link, track_author });
record!(InsertEntity { original_source, parent_sha256, child, child_history });
record!(PluginEvent { kafka_key, timestamp, author, entity });
record!(PluginEntity { name, version, category, contact, description, features, security, config });
record!(PluginFeature { name, feature_type => "type", desc, tags });
record!(RetrohuntEvent { kafka_key, timestamp, author, entity, action, source });
record!(RetrohuntSource { submitter, security, timestamp });
record!(DeleteEvent { kafka_key, timestamp, author, entity, action });
record!(DeleteEntity { reason, submission, author, link, ids });
record!(DeleteSubmission { track_source_references, timestamp });
record!(DeleteAuthor { track_author, timestamp });
record!(DeleteLink { track_link });
record!(DeleteIds { ids });

/// Written out because a nested event carries a version, which has to be one but is not looked at.
impl Record for BinaryEvent {
    fn member<'de, A: MapAccess<'de>>(&mut self, name: &str, map: &mut A) -> Result<(), A::Error> {
        match name {
            "model_version" => map.next_value_seed(Slot(&mut 0_u32)),
            "kafka_key" => map.next_value_seed(Slot(&mut self.kafka_key)),
            "timestamp" => map.next_value_seed(Slot(&mut self.timestamp)),
            "author" => map.next_value_seed(Slot(&mut self.author)),
            "source" => map.next_value_seed(Slot(&mut self.source)),
            "entity" => map.next_value_seed(Slot(&mut self.entity)),
            "action" => map.next_value_seed(Slot(&mut self.action)),
            "dequeued" => map.next_value_seed(Slot(&mut self.dequeued)),
            "retries" => map.next_value_seed(Slot(&mut self.retries)),
            "flags" => map.next_value_seed(Slot(&mut self.flags)),
            "track_source_references" => map.next_value_seed(Slot(&mut self.track_source_references)),
            "track_links" => map.next_value_seed(Slot(&mut self.track_links)),
            "track_authors" => map.next_value_seed(Slot(&mut self.track_authors)),
            _ => map.next_value::<IgnoredAny>().map(drop),
        }
    }
}
