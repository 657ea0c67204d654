//! Events as raw Avro: single events, as stored, and containers, as submitted and fetched (section 6).
//!
//! Written by hand against the schemas, which are fixed: version 6 is written, versions 4 to 6 are read and upgraded
//! on the way in. Reading is bounded by the bytes at hand: nothing is reserved on the word of a count or a length, and
//! no input makes it panic.

use super::avro_wire::{AvroError, Reader, Wire, write_length, write_long};
use super::types::{
    Author, BinaryEntity, BinaryEvent, Datastream, DeleteAuthor, DeleteEntity, DeleteEvent, DeleteIds, DeleteLink,
    DeleteSubmission, DownloadEntity, DownloadEvent, Event, Feature, Flags, InsertEntity, InsertEvent, MODEL_VERSION,
    Model, PathNode, PluginEntity, PluginEvent, PluginFeature, RetrohuntEvent, RetrohuntSource, Source, StatusEntity,
    StatusEvent,
};

/// The oldest version that can be read.
const OLDEST_VERSION: u32 = 4;
/// A container of more bytes than this that yields no events is an error.
const EMPTY_CONTAINER_BYTES: usize = 10;

/// The event in version 6 as one Avro record, the value of a log record.
pub fn encode_avro(event: &Event) -> Vec<u8> {
    let mut out = Vec::with_capacity(1024);
    write_event(event, &mut out);
    out
}

/// The container of `model` with these events in version 6; two bytes when there are none.
///
/// Events of another model have no place in it and are left out.
pub fn encode_avro_bulk(model: Model, events: &[Event]) -> Vec<u8> {
    let fitting = events.iter().filter(|event| event.model() == model);
    avro_bulk_of(&fitting.map(encode_avro).collect::<Vec<_>>())
}

/// The container of events of one model that [`encode_avro`] has written.
pub fn avro_bulk_of(encoded: &[Vec<u8>]) -> Vec<u8> {
    let mut out = Vec::with_capacity(64 + encoded.iter().map(Vec::len).sum::<usize>());
    write_long(i64::from(MODEL_VERSION), &mut out);
    if !encoded.is_empty() {
        write_length(encoded.len(), &mut out);
        encoded.iter().for_each(|event| out.extend_from_slice(event));
    }
    out.push(0);
    out
}

/// Reads one event of version 4, 5 or 6.
///
/// # Errors
/// [`AvroError`] when the version is another one, when the bytes do not follow its schema, or when some are left over.
pub fn decode_avro(model: Model, bytes: &[u8]) -> Result<Event, AvroError> {
    let claimed = Reader::new(bytes, MODEL_VERSION).long()?;
    let version = known_version(claimed).ok_or(AvroError::Version { found: claimed })?;
    let mut reader = Reader::new(bytes, version);
    let event = read_event(model, &mut reader)?;
    reader.finish()?;
    Ok(event)
}

/// Reads a container of version 4, 5 or 6.
///
/// # Errors
/// [`AvroError`] when the bytes do not follow the schema, when some are left over, when an event claims a version above
/// 6, or when more than ten bytes hold no event.
pub fn decode_avro_bulk(model: Model, bytes: &[u8]) -> Result<Vec<Event>, AvroError> {
    let mut reader = Reader::new(bytes, MODEL_VERSION);
    let version = known_version(reader.long()?).unwrap_or(OLDEST_VERSION);
    if version == OLDEST_VERSION {
        // A container of version 4 has no number in front: the first long is the count of its first block.
        reader = Reader::new(bytes, version);
    } else {
        reader.set_version(version);
    }
    let mut events = Vec::new();
    reader.blocks(|reader| {
        events.push(read_event(model, reader)?);
        Ok(())
    })?;
    reader.finish()?;
    if events.is_empty() && bytes.len() > EMPTY_CONTAINER_BYTES {
        return Err(AvroError::NoEvents { bytes: bytes.len() });
    }
    Ok(events)
}

fn known_version(claimed: i64) -> Option<u32> {
    u32::try_from(claimed).ok().filter(|version| (OLDEST_VERSION..=MODEL_VERSION).contains(version))
}

fn write_event(event: &Event, out: &mut Vec<u8>) {
    match event {
        Event::Binary(event) => event.write(out),
        Event::Delete(event) => event.write(out),
        Event::Download(event) => event.write(out),
        Event::Insert(event) => event.write(out),
        Event::Plugin(event) => event.write(out),
        Event::Retrohunt(event) => event.write(out),
        Event::Status(event) => event.write(out),
    }
}

fn read_event(model: Model, reader: &mut Reader<'_>) -> Result<Event, AvroError> {
    let found = reader.clone().long()?;
    if found > i64::from(MODEL_VERSION) || found < 0 {
        return Err(AvroError::Version { found });
    }
    match model {
        Model::Binary => boxed(reader).map(Event::Binary),
        Model::Delete => boxed(reader).map(Event::Delete),
        Model::Download => boxed(reader).map(Event::Download),
        Model::Insert => boxed(reader).map(Event::Insert),
        Model::Plugin => boxed(reader).map(Event::Plugin),
        Model::Retrohunt => boxed(reader).map(Event::Retrohunt),
        Model::Status => boxed(reader).map(Event::Status),
    }
}

fn boxed<T: Wire>(reader: &mut Reader<'_>) -> Result<Box<T>, AvroError> {
    let mut event = Box::<T>::default();
    event.read(reader)?;
    Ok(event)
}

/// The fields of a record in the order of its schema. `#version` is the version number of an event, `#legacy` the
/// string that versions 4 and 5 have there, and a field after `#since5` is missing in version 4.
macro_rules! wire {
    ($type:ident: $($rest:tt)*) => {
        impl Wire for $type {
            fn write(&self, out: &mut Vec<u8>) {
                wire!(@write self out $($rest)*);
            }

            fn read(&mut self, reader: &mut Reader<'_>) -> Result<(), AvroError> {
                wire!(@read self reader $($rest)*);
                Ok(())
            }
        }
    };
    (@write $s:ident $o:ident) => {};
    (@write $s:ident $o:ident #version $($rest:tt)*) => {
        write_long(i64::from(MODEL_VERSION), $o);
        wire!(@write $s $o $($rest)*);
    };
    (@write $s:ident $o:ident #legacy $($rest:tt)*) => { wire!(@write $s $o $($rest)*); };
    (@write $s:ident $o:ident #since5 $($rest:tt)*) => { wire!(@write $s $o $($rest)*); };
    (@write $s:ident $o:ident $field:ident $($rest:tt)*) => {
        $s.$field.write($o);
        wire!(@write $s $o $($rest)*);
    };
    (@read $s:ident $r:ident) => {};
    (@read $s:ident $r:ident #version $($rest:tt)*) => {
        $r.long()?;
        wire!(@read $s $r $($rest)*);
    };
    (@read $s:ident $r:ident #legacy $($rest:tt)*) => {
        if $r.version() < 6 {
            $r.bytes()?;
        }
        wire!(@read $s $r $($rest)*);
    };
    (@read $s:ident $r:ident #since5 $field:ident $($rest:tt)*) => {
        if $r.version() >= 5 {
            $s.$field.read($r)?;
        }
        wire!(@read $s $r $($rest)*);
    };
    (@read $s:ident $r:ident $field:ident $($rest:tt)*) => {
        $s.$field.read($r)?;
        wire!(@read $s $r $($rest)*);
    };
}

wire!(Author: name version category security);
wire!(PathNode: author action sha256 relationship timestamp #legacy file_format size filename language);
wire!(Source: name references security path timestamp #since5 settings);
wire!(Feature: name value feature_type label size offset);
wire!(Datastream:
    identify_version label size sha512 sha256 sha1 md5 ssdeep tlsh mime magic #legacy file_format file_extension
    language
);
wire!(BinaryEntity:
    sha256 sha512 sha1 md5 ssdeep tlsh size mime magic #legacy file_format file_extension info features datastreams
);
wire!(Flags: bypass_cache expedite retry);
wire!(BinaryEvent:
    #version kafka_key timestamp author source entity action dequeued retries flags track_source_references track_links
    track_authors
);
wire!(StatusEvent: #version kafka_key timestamp author entity);
wire!(StatusEntity: input status runtime error message results);
wire!(DownloadEvent: #version kafka_key timestamp author source action entity);
wire!(DownloadEntity: hash direct_url direct_expiry pcap category category_quota metadata);
wire!(InsertEvent: #version kafka_key timestamp author entity track_link track_author);
wire!(InsertEntity: original_source parent_sha256 child child_history);
wire!(PluginEvent: #version kafka_key timestamp author entity);
wire!(PluginEntity: name version category contact description features security config);
wire!(PluginFeature: name feature_type desc tags);
wire!(RetrohuntEvent: #version kafka_key timestamp author entity action source);
wire!(RetrohuntSource: submitter security timestamp);
wire!(DeleteEvent: #version kafka_key timestamp author entity action);
wire!(DeleteEntity: reason submission author link ids);
wire!(DeleteSubmission: track_source_references timestamp);
wire!(DeleteAuthor: track_author timestamp);
wire!(DeleteLink: track_link);
wire!(DeleteIds: ids);
