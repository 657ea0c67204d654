//! Events as raw Avro: single events, as stored, and containers, as submitted and fetched (section 6).
//!
//! Written by hand against the schemas, which are fixed: version 6 is written, versions 4 to 6 are read and upgraded
//! on the way in. Reading is bounded by the bytes at hand: next to nothing is reserved on the word of a count or a
//! length, and no input makes it panic.

use super::avro_wire::{AvroError, Reader, Wire, Wired, write_length, write_long};
use super::text::Text;
use super::types::{
    AuthorOf, BinaryEntityOf, BinaryEventOf, DatastreamOf, DeleteAuthorOf, DeleteEntityOf, DeleteEventOf, DeleteIdsOf,
    DeleteLinkOf, DeleteSubmissionOf, DownloadEntityOf, DownloadEventOf, Event, EventIn, EventOf, FeatureOf, Flags,
    InsertEntityOf, InsertEventOf, MODEL_VERSION, Model, PathNodeOf, PluginEntityOf, PluginEventOf, PluginFeatureOf,
    RetrohuntEventOf, RetrohuntSourceOf, SourceOf, StatusEntityOf, StatusEventOf,
};

/// The oldest version that can be read.
const OLDEST_VERSION: u32 = 4;
/// A container of more bytes than this that yields no events is an error.
const EMPTY_CONTAINER_BYTES: usize = 10;

/// The event in version 6 as one Avro record, the value of a log record.
pub fn encode_avro<T: Text>(event: &EventOf<T>) -> Vec<u8> {
    let mut out = Vec::with_capacity(1024);
    write_avro(event, &mut out);
    out
}

/// Appends what [`encode_avro`] returns.
pub fn write_avro<T: Text>(event: &EventOf<T>, out: &mut Vec<u8>) {
    match event {
        EventOf::Binary(event) => event.write(out),
        EventOf::Delete(event) => event.write(out),
        EventOf::Download(event) => event.write(out),
        EventOf::Insert(event) => event.write(out),
        EventOf::Plugin(event) => event.write(out),
        EventOf::Retrohunt(event) => event.write(out),
        EventOf::Status(event) => event.write(out),
    }
}

/// The container of `model` with these events in version 6; two bytes when there are none.
///
/// Events of another model have no place in it and are left out.
pub fn encode_avro_bulk(model: Model, events: &[Event]) -> Vec<u8> {
    let fitting = events.iter().filter(|event| event.model() == model);
    let encoded: Vec<Vec<u8>> = fitting.map(encode_avro).collect();
    let mut out = avro_bulk_head(encoded.len());
    encoded.iter().for_each(|event| out.extend_from_slice(event));
    out.extend_from_slice(AVRO_BULK_TAIL);
    out
}

/// What the container of `count` events of one model begins with, before the events themselves as [`encode_avro`]
/// gives them; [`AVRO_BULK_TAIL`] ends it.
pub fn avro_bulk_head(count: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(64);
    write_long(i64::from(MODEL_VERSION), &mut out);
    if count > 0 {
        write_length(count, &mut out);
    }
    out
}

/// What a container ends with.
pub const AVRO_BULK_TAIL: &[u8] = &[0];

/// Reads one event of version 4, 5 or 6.
///
/// # Errors
/// [`AvroError`] when the version is another one, when the bytes do not follow its schema, or when some are left over.
pub fn decode_avro(model: Model, bytes: &[u8]) -> Result<Event, AvroError> {
    read_all(model, bytes).map(|(event, _)| event)
}

/// Reads one event as [`decode_avro`] does, without a copy of its texts. Also says whether the bytes are those that
/// [`encode_avro`] makes of it, so that they can be handed on in its place.
///
/// # Errors
/// As [`decode_avro`].
pub fn look_avro(model: Model, bytes: &[u8]) -> Result<(EventIn<'_>, bool), AvroError> {
    read_all(model, bytes)
}

fn read_all<'a, T: Text<Bytes: From<&'a [u8]>> + Wired<'a>>(
    model: Model,
    bytes: &'a [u8],
) -> Result<(EventOf<T>, bool), AvroError> {
    let claimed = Reader::new(bytes, MODEL_VERSION).long()?;
    let version = known_version(claimed).ok_or(AvroError::Version { found: claimed })?;
    let mut reader = Reader::new(bytes, version);
    let event = read_event(model, &mut reader)?;
    reader.finish()?;
    Ok((event, reader.is_plain()))
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

fn read_event<'a, T: Text<Bytes: From<&'a [u8]>> + Wired<'a>>(
    model: Model,
    reader: &mut Reader<'a>,
) -> Result<EventOf<T>, AvroError> {
    let found = reader.clone().long()?;
    if found > i64::from(MODEL_VERSION) || found < 0 {
        return Err(AvroError::Version { found });
    }
    match model {
        Model::Binary => boxed(reader).map(EventOf::Binary),
        Model::Delete => boxed(reader).map(EventOf::Delete),
        Model::Download => boxed(reader).map(EventOf::Download),
        Model::Insert => boxed(reader).map(EventOf::Insert),
        Model::Plugin => boxed(reader).map(EventOf::Plugin),
        Model::Retrohunt => boxed(reader).map(EventOf::Retrohunt),
        Model::Status => boxed(reader).map(EventOf::Status),
    }
}

fn boxed<'a, T: Wired<'a>>(reader: &mut Reader<'a>) -> Result<Box<T>, AvroError> {
    let mut event = Box::<T>::default();
    event.read(reader)?;
    Ok(event)
}

/// The fields of a record in the order of its schema. `#version` is the version number of an event, `#legacy` the
/// string that versions 4 and 5 have there, and a field after `#since5` is missing in version 4.
macro_rules! wire {
    ($type:ident: $($rest:tt)*) => {
        impl<T: Text> Wire for $type<T> {
            fn write(&self, out: &mut Vec<u8>) {
                wire!(@write self out $($rest)*);
            }
        }

        impl<'a, T: Text<Bytes: From<&'a [u8]>> + Wired<'a>> Wired<'a> for $type<T> {
            fn read(&mut self, reader: &mut Reader<'a>) -> Result<(), AvroError> {
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
        $r.event_version()?;
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

impl Wire for Flags {
    fn write(&self, out: &mut Vec<u8>) {
        [self.bypass_cache, self.expedite, self.retry].iter().for_each(|flag| flag.write(out));
    }
}

impl Wired<'_> for Flags {
    fn read(&mut self, reader: &mut Reader<'_>) -> Result<(), AvroError> {
        [&mut self.bypass_cache, &mut self.expedite, &mut self.retry].into_iter().try_for_each(|flag| flag.read(reader))
    }
}

wire!(AuthorOf: name version category security);
wire!(PathNodeOf: author action sha256 relationship timestamp #legacy file_format size filename language);
wire!(SourceOf: name references security path timestamp #since5 settings);
wire!(FeatureOf: name value feature_type label size offset);
wire!(DatastreamOf:
    identify_version label size sha512 sha256 sha1 md5 ssdeep tlsh mime magic #legacy file_format file_extension
    language
);
wire!(BinaryEntityOf:
    sha256 sha512 sha1 md5 ssdeep tlsh size mime magic #legacy file_format file_extension info features datastreams
);
wire!(BinaryEventOf:
    #version kafka_key timestamp author source entity action dequeued retries flags track_source_references track_links
    track_authors
);
wire!(StatusEventOf: #version kafka_key timestamp author entity);
wire!(StatusEntityOf: input status runtime error message results);
wire!(DownloadEventOf: #version kafka_key timestamp author source action entity);
wire!(DownloadEntityOf: hash direct_url direct_expiry pcap category category_quota metadata);
wire!(InsertEventOf: #version kafka_key timestamp author entity track_link track_author);
wire!(InsertEntityOf: original_source parent_sha256 child child_history);
wire!(PluginEventOf: #version kafka_key timestamp author entity);
wire!(PluginEntityOf: name version category contact description features security config);
wire!(PluginFeatureOf: name feature_type desc tags);
wire!(RetrohuntEventOf: #version kafka_key timestamp author entity action source);
wire!(RetrohuntSourceOf: submitter security timestamp);
wire!(DeleteEventOf: #version kafka_key timestamp author entity action);
wire!(DeleteEntityOf: reason submission author link ids);
wire!(DeleteSubmissionOf: track_source_references timestamp);
wire!(DeleteAuthorOf: track_author timestamp);
wire!(DeleteLinkOf: track_link);
wire!(DeleteIdsOf: ids);
