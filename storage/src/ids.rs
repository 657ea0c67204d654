//! The id types of the log, in the field's words and widths.

use std::fmt;

/// Offset of a record in a partition: 0 or more.
pub type Offset = i64;

/// Index of a partition in its topic: 0 or more.
pub type PartitionIndex = i32;

/// Number that stands for one (topic id, partition index) on disk; given once and never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PartitionNumber(pub u32);

/// Id of a topic: a random UUID that a topic of the same name made later does not share.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TopicId(pub [u8; 16]);

impl TopicId {
    /// An id that nobody else has.
    #[must_use]
    pub fn random() -> Self {
        let random = || crate::segments::random_u64().to_be_bytes();
        Self([random(), random()].concat().first_chunk().copied().unwrap_or([1; 16]))
    }
}

impl fmt::Display for TopicId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// Number of a segment file; later segments have higher numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SegmentNumber(pub u32);

impl fmt::Display for SegmentNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08}.seg", self.0)
    }
}

/// Number of a commit, counted from 1 over the life of the data directory.
pub type CommitNumber = u64;

/// One partition of one topic, by name.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TopicPartition {
    /// Name of the topic.
    pub topic: String,
    /// Index of the partition.
    pub partition: PartitionIndex,
}

impl fmt::Display for TopicPartition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.topic, self.partition)
    }
}

/// SHA-256 of a blob's plain bytes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Sha256(pub [u8; 32]);

impl Sha256 {
    /// Reads 64 hex digits of either case; anything else is `None`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        if text.len() != 64 {
            return None;
        }
        let mut bytes = [0; 32];
        for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks(2)) {
            let digit = |d: Option<&u8>| char::from(*d?).to_digit(16);
            let value = digit(pair.first())? * 16 + digit(pair.get(1))?;
            *byte = u8::try_from(value).ok()?;
        }
        Some(Self(bytes))
    }
}

impl fmt::Display for Sha256 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Sha256 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sha256({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hash_text_of_either_case_is_read_and_anything_else_is_not() {
        let text = "0123456789abcdefABCDEF0123456789abcdef0123456789abcdef0123456789";
        let hash = Sha256::parse(text).expect("64 hex digits");
        assert_eq!(hash.to_string(), text.to_lowercase());
        for bad in ["", "a", &text[1..], &format!("{text}0"), &text.replace('0', "g"), &"é".repeat(32)] {
            assert_eq!(Sha256::parse(bad), None, "{bad}");
        }
    }
}
