//! The Avro binary encoding of the types that events are made of; [`super::avro`] puts them in schema order.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::Deref;

use super::json_text::JsonTextOf;
use super::timestamp::Timestamp;
use super::types::MODEL_VERSION;

/// Why bytes are no event; `at` is a byte offset.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AvroError {
    #[error("bytes end too early at offset {at}")]
    Truncated { at: usize },
    #[error("integer at offset {at} has more than 64 bits")]
    LongTooLong { at: usize },
    #[error("value {found} at offset {at} is out of range")]
    Range { at: usize, found: i64 },
    #[error("byte {found} at offset {at} is no boolean")]
    Bool { at: usize, found: u8 },
    #[error("block at offset {at} does not have the length it claims")]
    BlockLength { at: usize },
    #[error("{bytes} bytes left over at offset {at}")]
    Trailing { at: usize, bytes: usize },
    #[error("model_version {found} is not known")]
    Version { found: i64 },
    #[error("no events in {bytes} bytes")]
    NoEvents { bytes: usize },
}

/// Items that room is made for on the word of a count, at most.
const ITEMS_AT_ONCE: usize = 32;

/// A value with a fixed place in a schema.
pub trait Wire {
    /// Appends its bytes.
    fn write(&self, out: &mut Vec<u8>);
}

/// A value that is read from its place in a schema, and may borrow from the bytes there.
pub(super) trait Wired<'a>: Wire + Default {
    /// Replaces `self`, which is the default value before.
    fn read(&mut self, reader: &mut Reader<'a>) -> Result<(), AvroError>;
}

/// Bytes being read with the schemas of one version.
#[derive(Clone)]
pub(super) struct Reader<'a> {
    rest: &'a [u8],
    total: usize,
    version: u32,
    /// Whether everything so far is as it would be written.
    plain: bool,
}

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8], version: u32) -> Self {
        Self { rest: bytes, total: bytes.len(), version, plain: version == MODEL_VERSION }
    }

    pub(super) fn version(&self) -> u32 {
        self.version
    }

    pub(super) fn set_version(&mut self, version: u32) {
        self.version = version;
    }

    /// Whether what was read is, byte for byte, what writing it again would give.
    pub(super) fn is_plain(&self) -> bool {
        self.plain
    }

    /// The number of its model's version that an event begins with.
    pub(super) fn event_version(&mut self) -> Result<(), AvroError> {
        self.plain &= self.long()? == i64::from(MODEL_VERSION);
        Ok(())
    }

    fn at(&self) -> usize {
        self.total - self.rest.len()
    }

    /// Refuses bytes that are left over.
    pub(super) fn finish(&self) -> Result<(), AvroError> {
        if self.rest.is_empty() { Ok(()) } else { Err(AvroError::Trailing { at: self.at(), bytes: self.rest.len() }) }
    }

    fn byte(&mut self) -> Result<u8, AvroError> {
        let (byte, rest) = self.rest.split_first().ok_or(AvroError::Truncated { at: self.total })?;
        self.rest = rest;
        Ok(*byte)
    }

    fn fixed8(&mut self) -> Result<[u8; 8], AvroError> {
        let (bytes, rest) = self.rest.split_first_chunk::<8>().ok_or(AvroError::Truncated { at: self.total })?;
        self.rest = rest;
        Ok(*bytes)
    }

    /// A zigzag number of up to ten bytes.
    pub(super) fn long(&mut self) -> Result<i64, AvroError> {
        let at = self.at();
        let mut number = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                return Err(AvroError::LongTooLong { at });
            }
            number |= bits << shift;
            if byte & 0x80 == 0 {
                self.plain &= byte != 0 || shift == 0;
                return Ok((number >> 1).cast_signed() ^ -(number & 1).cast_signed());
            }
        }
        Err(AvroError::LongTooLong { at })
    }

    pub(super) fn bytes(&mut self) -> Result<&'a [u8], AvroError> {
        let at = self.at();
        let found = self.long()?;
        let length = usize::try_from(found).map_err(|_| AvroError::Range { at, found })?;
        let (bytes, rest) = self.rest.split_at_checked(length).ok_or(AvroError::Truncated { at: self.total })?;
        self.rest = rest;
        Ok(bytes)
    }

    /// The blocks of an array or map, one call per item. Both layouts: a positive count, or a negative one followed by
    /// the length of the block. Every item takes at least a byte, so the bytes at hand bound the work.
    pub(super) fn blocks(&mut self, mut item: impl FnMut(&mut Self) -> Result<(), AvroError>) -> Result<(), AvroError> {
        let mut blocks = 0_u32;
        loop {
            let at = self.at();
            let count = self.long()?;
            if count == 0 {
                return Ok(());
            }
            blocks = blocks.saturating_add(1);
            self.plain &= count > 0 && blocks == 1;
            let end = if count < 0 { Some(self.block_end()?) } else { None };
            for _ in 0..count.unsigned_abs() {
                item(self)?;
            }
            if end.is_some_and(|end| end != self.at()) {
                return Err(AvroError::BlockLength { at });
            }
        }
    }

    /// How many items to make room for before the blocks of an array are read.
    fn likely_items(&self) -> usize {
        let count = self.clone().long().ok().and_then(|count| usize::try_from(count).ok()).unwrap_or(0);
        count.min(ITEMS_AT_ONCE).min(self.rest.len())
    }

    fn block_end(&mut self) -> Result<usize, AvroError> {
        let at = self.at();
        let length = self.long()?;
        let end = usize::try_from(length).ok().and_then(|length| length.checked_add(self.at()));
        end.filter(|end| *end <= self.total).ok_or(AvroError::BlockLength { at })
    }

    fn text(&mut self) -> Result<Cow<'a, str>, AvroError> {
        let bytes = self.bytes()?;
        Ok(std::str::from_utf8(bytes).map(Cow::Borrowed).unwrap_or_else(|_| {
            // Upstream's reader does not insist on UTF-8 either, and its JSON has U+FFFD in these places.
            self.plain = false;
            String::from_utf8_lossy(bytes)
        }))
    }
}

pub(super) fn write_long(number: i64, out: &mut Vec<u8>) {
    let mut rest = ((number << 1) ^ (number >> 63)).cast_unsigned();
    while rest >= 0x80 {
        let [low, ..] = rest.to_le_bytes();
        out.push(low | 0x80);
        rest >>= 7;
    }
    let [low, ..] = rest.to_le_bytes();
    out.push(low);
}

pub(super) fn write_length(length: usize, out: &mut Vec<u8>) {
    write_long(i64::try_from(length).expect("nothing in memory has more than i64::MAX parts"), out);
}

fn write_bytes(bytes: &[u8], out: &mut Vec<u8>) {
    write_length(bytes.len(), out);
    out.extend_from_slice(bytes);
}

impl Wire for String {
    fn write(&self, out: &mut Vec<u8>) {
        write_bytes(self.as_bytes(), out);
    }
}

impl Wired<'_> for String {
    fn read(&mut self, reader: &mut Reader<'_>) -> Result<(), AvroError> {
        *self = reader.text()?.into_owned();
        Ok(())
    }
}

impl Wire for Cow<'_, str> {
    fn write(&self, out: &mut Vec<u8>) {
        write_bytes(self.as_bytes(), out);
    }
}

impl<'a> Wired<'a> for Cow<'a, str> {
    fn read(&mut self, reader: &mut Reader<'a>) -> Result<(), AvroError> {
        *self = reader.text()?;
        Ok(())
    }
}

impl<B: Deref<Target = [u8]>> Wire for JsonTextOf<B> {
    fn write(&self, out: &mut Vec<u8>) {
        write_bytes(self.as_bytes(), out);
    }
}

impl<'a, B: Deref<Target = [u8]> + Default + From<&'a [u8]>> Wired<'a> for JsonTextOf<B> {
    fn read(&mut self, reader: &mut Reader<'a>) -> Result<(), AvroError> {
        *self = Self::new(reader.bytes()?);
        Ok(())
    }
}

/// `long`
impl Wire for u32 {
    fn write(&self, out: &mut Vec<u8>) {
        write_long(i64::from(*self), out);
    }
}

impl Wired<'_> for u32 {
    fn read(&mut self, reader: &mut Reader<'_>) -> Result<(), AvroError> {
        let at = reader.at();
        let found = reader.long()?;
        *self = Self::try_from(found).map_err(|_| AvroError::Range { at, found })?;
        Ok(())
    }
}

/// `fixed(8)`, big-endian
impl Wire for u64 {
    fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.to_be_bytes());
    }
}

impl Wired<'_> for u64 {
    fn read(&mut self, reader: &mut Reader<'_>) -> Result<(), AvroError> {
        *self = Self::from_be_bytes(reader.fixed8()?);
        Ok(())
    }
}

/// `double`
impl Wire for f64 {
    fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.to_le_bytes());
    }
}

impl Wired<'_> for f64 {
    fn read(&mut self, reader: &mut Reader<'_>) -> Result<(), AvroError> {
        *self = Self::from_le_bytes(reader.fixed8()?);
        Ok(())
    }
}

impl Wire for bool {
    fn write(&self, out: &mut Vec<u8>) {
        out.push(u8::from(*self));
    }
}

impl Wired<'_> for bool {
    fn read(&mut self, reader: &mut Reader<'_>) -> Result<(), AvroError> {
        let at = reader.at();
        *self = match reader.byte()? {
            0 => false,
            1 => true,
            found => return Err(AvroError::Bool { at, found }),
        };
        Ok(())
    }
}

/// `timestamp-micros`
impl Wire for Timestamp {
    fn write(&self, out: &mut Vec<u8>) {
        write_long(self.micros(), out);
    }
}

impl Wired<'_> for Timestamp {
    fn read(&mut self, reader: &mut Reader<'_>) -> Result<(), AvroError> {
        *self = Self::from_micros(reader.long()?);
        Ok(())
    }
}

impl<T: Wire + Ord> Wire for BTreeMap<T, T> {
    fn write(&self, out: &mut Vec<u8>) {
        if !self.is_empty() {
            write_length(self.len(), out);
            for (key, value) in self {
                key.write(out);
                value.write(out);
            }
        }
        out.push(0);
    }
}

impl<'a, T: Wired<'a> + Ord> Wired<'a> for BTreeMap<T, T> {
    fn read(&mut self, reader: &mut Reader<'a>) -> Result<(), AvroError> {
        let mut sorted = true;
        reader.blocks(|reader| {
            let (mut key, mut value) = (T::default(), T::default());
            key.read(reader)?;
            value.read(reader)?;
            sorted &= self.last_key_value().is_none_or(|(last, _)| *last < key);
            self.insert(key, value);
            Ok(())
        })?;
        reader.plain &= sorted;
        Ok(())
    }
}

impl<T: Wire> Wire for Vec<T> {
    fn write(&self, out: &mut Vec<u8>) {
        if !self.is_empty() {
            write_length(self.len(), out);
            for item in self {
                item.write(out);
            }
        }
        out.push(0);
    }
}

impl<'a, T: Wired<'a>> Wired<'a> for Vec<T> {
    fn read(&mut self, reader: &mut Reader<'a>) -> Result<(), AvroError> {
        self.reserve(reader.likely_items());
        reader.blocks(|reader| {
            let mut item = T::default();
            item.read(reader)?;
            self.push(item);
            Ok(())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn longs_have_the_bytes_of_the_specification() {
        for (number, bytes) in [
            (0, vec![0x00]),
            (-1, vec![0x01]),
            (1, vec![0x02]),
            (-64, vec![0x7f]),
            (64, vec![0x80, 0x01]),
            (i64::MIN, vec![0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01]),
            (i64::MAX, vec![0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01]),
        ] {
            let mut out = Vec::new();
            write_long(number, &mut out);
            assert_eq!(out, bytes, "{number}");
            assert_eq!(Reader::new(&bytes, 6).long(), Ok(number));
        }
    }

    #[test]
    fn longs_beyond_64_bits_are_refused() {
        let mut bytes = [0xff; 10];
        assert_eq!(Reader::new(&bytes, 6).long(), Err(AvroError::LongTooLong { at: 0 }));
        bytes[9] = 0x02;
        assert_eq!(Reader::new(&bytes, 6).long(), Err(AvroError::LongTooLong { at: 0 }));
        assert_eq!(Reader::new(&[0x80, 0x80], 6).long(), Err(AvroError::Truncated { at: 2 }));
    }

    fn strings(bytes: &[u8]) -> Result<Vec<String>, AvroError> {
        let (mut list, mut reader) = (Vec::new(), Reader::new(bytes, 6));
        list.read(&mut reader)?;
        reader.finish().map(|()| list)
    }

    #[test]
    fn both_block_layouts_are_read() {
        let expected = Ok(vec!["a".to_owned(), "b".to_owned()]);
        assert_eq!(strings(&[4, 2, b'a', 2, b'b', 0]), expected);
        assert_eq!(strings(&[3, 8, 2, b'a', 2, b'b', 0]), expected);
        assert_eq!(strings(&[2, 2, b'a', 1, 4, 2, b'b', 0]), expected);
    }

    #[test]
    fn blocks_of_another_length_are_refused() {
        assert_eq!(strings(&[3, 6, 2, b'a', 2, b'b', 0]), Err(AvroError::BlockLength { at: 0 }));
        assert_eq!(strings(&[3, 1, 2, b'a', 2, b'b', 0]), Err(AvroError::BlockLength { at: 1 }));
        assert_eq!(strings(&[3, 80, 2, b'a', 2, b'b', 0]), Err(AvroError::BlockLength { at: 1 }));
    }

    #[test]
    fn counts_and_lengths_beyond_the_bytes_are_refused_without_reserving() {
        let mut bytes = Vec::new();
        write_long(i64::MAX, &mut bytes);
        assert_eq!(strings(&bytes), Err(AvroError::Truncated { at: bytes.len() }));
        assert_eq!(Reader::new(&bytes, 6).bytes(), Err(AvroError::Truncated { at: bytes.len() }));
        write_long(i64::MIN, &mut bytes);
        assert!(strings(&bytes).is_err());
        assert_eq!(Reader::new(&[1], 6).bytes(), Err(AvroError::Range { at: 0, found: -1 }));
    }

    fn is_plain<T: for<'a> Wired<'a>>(bytes: &[u8]) -> bool {
        let (mut value, mut reader) = (T::default(), Reader::new(bytes, 6));
        value.read(&mut reader).unwrap();
        reader.finish().unwrap();
        reader.is_plain()
    }

    #[test]
    fn only_what_would_be_written_so_is_plain() {
        assert!(is_plain::<u32>(&[0x80, 0x01]) && is_plain::<Vec<String>>(&[4, 2, b'a', 2, b'b', 0]));
        assert!(!is_plain::<u32>(&[0x80, 0x81, 0x00]), "a longer number than needed");
        assert!(!is_plain::<Vec<String>>(&[3, 8, 2, b'a', 2, b'b', 0]), "a block with its length");
        assert!(!is_plain::<Vec<String>>(&[2, 2, b'a', 2, 2, b'b', 0]), "two blocks");
        assert!(!is_plain::<String>(&[2, 0xff]), "no UTF-8");
        type Map = BTreeMap<String, String>;
        assert!(is_plain::<Map>(&[4, 2, b'a', 0, 2, b'b', 0, 0]));
        assert!(!is_plain::<Map>(&[4, 2, b'b', 0, 2, b'a', 0, 0]), "out of order");
        assert!(!is_plain::<Map>(&[4, 2, b'a', 0, 2, b'a', 0, 0]), "a name twice");
        let mut older = Reader::new(&[12], 5);
        older.event_version().unwrap();
        assert!(!older.is_plain(), "read with the schemas of another version");
        let mut inner = Reader::new(&[10], 6);
        inner.event_version().unwrap();
        assert!(!inner.is_plain(), "a version inside that would be written as 6");
    }

    #[test]
    fn strings_that_are_not_utf8_get_replacement_characters() {
        assert_eq!(strings(&[2, 4, b'a', 0xff, 0]), Ok(vec!["a\u{fffd}".to_owned()]));
    }

    #[test]
    fn integers_out_of_range_and_odd_booleans_are_refused() {
        let mut number = 0_u32;
        assert_eq!(number.read(&mut Reader::new(&[1], 6)), Err(AvroError::Range { at: 0, found: -1 }));
        let mut flag = false;
        assert_eq!(flag.read(&mut Reader::new(&[2], 6)), Err(AvroError::Bool { at: 0, found: 2 }));
    }
}
