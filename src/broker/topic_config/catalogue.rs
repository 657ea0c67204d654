//! Every topic configuration of Kafka 4.1: type, default, what is allowed, what it is for, and whether anything here
//! acts on it (`kafka.md` 3.7 and 6).

/// The type of a value, as clients are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConfigType {
    /// `true` or `false`.
    Boolean,
    /// Text.
    String,
    /// 32 bits.
    Int,
    /// 64 bits.
    Long,
    /// A decimal fraction.
    Double,
    /// Words separated by commas.
    List,
}

/// What a value may be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Allowed {
    /// Anything of the type.
    Any,
    /// A number from the first to the second.
    Between(i64, i64),
    /// A fraction from 0 to 1.
    Share,
    /// One of these words.
    OneOf(&'static [&'static str]),
    /// One or more of these words, none twice.
    SomeOf(&'static [&'static str]),
}

/// One configuration key.
#[derive(Debug, PartialEq)]
pub struct ConfigKey {
    /// Its name.
    pub name: &'static str,
    /// Its type.
    pub kind: ConfigType,
    /// What counts when nothing else is said.
    pub default: &'static str,
    /// What a value may be.
    pub allowed: Allowed,
    /// The key of the broker that says it for all topics.
    pub broker: Option<&'static str>,
    /// False: kept and shown, but nothing here depends on it.
    pub acts: bool,
    /// What it is for.
    pub about: &'static str,
}

const MAX: i64 = i64::MAX;
const INT: i64 = 2_147_483_647;
/// What is written for "never" in a key of 64 bits.
const NEVER: &str = "9223372036854775807";

const fn key(
    name: &'static str,
    (kind, default): (ConfigType, &'static str),
    allowed: Allowed,
    broker: &'static str,
    about: &'static str,
) -> ConfigKey {
    let broker = if broker.is_empty() { None } else { Some(broker) };
    ConfigKey { name, kind, default, allowed, broker, acts: true, about }
}

const fn idle(
    name: &'static str,
    value: (ConfigType, &'static str),
    allowed: Allowed,
    broker: &'static str,
    about: &'static str,
) -> ConfigKey {
    ConfigKey { acts: false, ..key(name, value, allowed, broker, about) }
}

use Allowed::{Any, Between, OneOf, Share, SomeOf};
use ConfigType::{Boolean, Double, Int, List, Long, String as Text};

/// In order of name.
pub const TOPIC_KEYS: [ConfigKey; 33] = [
    key(
        "cleanup.policy",
        (List, "delete"),
        SomeOf(&["delete", "compact"]),
        "log.cleanup.policy",
        "What becomes of old records: delete lets them go by age and size, compact keeps the newest of each key, both \
         do both.",
    ),
    idle(
        "compression.gzip.level",
        (Int, "-1"),
        Between(-1, 9),
        "compression.gzip.level",
        "Level for gzip where batches are compressed anew.",
    ),
    idle(
        "compression.lz4.level",
        (Int, "9"),
        Between(1, 17),
        "compression.lz4.level",
        "Level for lz4 where batches are compressed anew.",
    ),
    key(
        "compression.type",
        (Text, "producer"),
        OneOf(&["producer"]),
        "compression.type",
        "Batches are stored as the producer compressed them; compressing them anew is not offered.",
    ),
    idle(
        "compression.zstd.level",
        (Int, "3"),
        Between(-131_072, 22),
        "compression.zstd.level",
        "Level for zstd where batches are compressed anew.",
    ),
    key(
        "delete.retention.ms",
        (Long, "86400000"),
        Between(0, MAX),
        "log.cleaner.delete.retention.ms",
        "How long the mark of a deleted key stays in a compacted topic after it was first seen clean, for readers that \
         began before.",
    ),
    idle(
        "file.delete.delay.ms",
        (Long, "60000"),
        Between(0, MAX),
        "log.segment.delete.delay.ms",
        "Time before a file that is not needed any more is removed.",
    ),
    idle(
        "flush.messages",
        (Long, NEVER),
        Between(1, MAX),
        "log.flush.interval.messages",
        "Records after which the log is synced. Here an acknowledgement follows its own sync whatever is set.",
    ),
    idle(
        "flush.ms",
        (Long, NEVER),
        Between(0, MAX),
        "log.flush.interval.ms",
        "Time after which the log is synced. Here an acknowledgement follows its own sync whatever is set.",
    ),
    idle(
        "follower.replication.throttled.replicas",
        (List, ""),
        Any,
        "",
        "Copies whose followers are slowed down. There is one copy.",
    ),
    idle(
        "index.interval.bytes",
        (Int, "4096"),
        Between(0, INT),
        "log.index.interval.bytes",
        "Bytes between two entries of an index. Here every batch has one.",
    ),
    idle(
        "leader.replication.throttled.replicas",
        (List, ""),
        Any,
        "",
        "Copies whose leaders are slowed down. There is one copy.",
    ),
    idle(
        "local.retention.bytes",
        (Long, "-2"),
        Between(-2, MAX),
        "log.local.retention.bytes",
        "Bytes kept beside a tiered log. Nothing is tiered.",
    ),
    idle(
        "local.retention.ms",
        (Long, "-2"),
        Between(-2, MAX),
        "log.local.retention.ms",
        "Time kept beside a tiered log. Nothing is tiered.",
    ),
    key(
        "max.compaction.lag.ms",
        (Long, NEVER),
        Between(1, MAX),
        "log.cleaner.max.compaction.lag.ms",
        "The longest time a record of a compacted topic stays out of the cleaner's reach.",
    ),
    key(
        "max.message.bytes",
        (Int, "8388608"),
        Between(0, INT),
        "message.max.bytes",
        "The largest batch that is taken in, compressed, with its header.",
    ),
    key(
        "message.timestamp.after.max.ms",
        (Long, NEVER),
        Between(0, MAX),
        "log.message.timestamp.after.max.ms",
        "How far a record's time may lie past the clock. No bound as a default: replayed samples and wrong clocks are \
         ordinary here.",
    ),
    key(
        "message.timestamp.before.max.ms",
        (Long, NEVER),
        Between(0, MAX),
        "log.message.timestamp.before.max.ms",
        "How far a record's time may lie before the clock.",
    ),
    key(
        "message.timestamp.type",
        (Text, "CreateTime"),
        OneOf(&["CreateTime", "LogAppendTime"]),
        "log.message.timestamp.type",
        "Whose time a record carries: the producer's, or that of the append.",
    ),
    key(
        "min.cleanable.dirty.ratio",
        (Double, "0.5"),
        Share,
        "log.cleaner.min.cleanable.ratio",
        "Part of a compacted partition that has to be uncleaned before the cleaner takes it up.",
    ),
    key(
        "min.compaction.lag.ms",
        (Long, "0"),
        Between(0, MAX),
        "log.cleaner.min.compaction.lag.ms",
        "The shortest time a record of a compacted topic stays as it is.",
    ),
    idle(
        "min.insync.replicas",
        (Int, "1"),
        Between(1, INT),
        "min.insync.replicas",
        "Copies that have to be there for acks=all. There is one copy.",
    ),
    idle("preallocate", (Boolean, "false"), Any, "log.preallocate", "Reserves files ahead. Here that is always done."),
    idle("remote.log.copy.disable", (Boolean, "false"), Any, "", "Stops copying to a tier. Nothing is tiered."),
    idle(
        "remote.log.delete.on.disable",
        (Boolean, "false"),
        Any,
        "",
        "Deletes from a tier that is switched off. Nothing is tiered.",
    ),
    idle("remote.storage.enable", (Boolean, "false"), Any, "", "Keeps old records in a tier. Nothing is tiered."),
    key(
        "retention.bytes",
        (Long, "-1"),
        Between(-1, MAX),
        "log.retention.bytes",
        "Bytes of each partition above which its oldest batches are let go; -1 is no bound. The newest batch stays.",
    ),
    key(
        "retention.ms",
        (Long, "604800000"),
        Between(-1, MAX),
        "log.retention.ms",
        "Age at which batches are let go, by their largest time, but counted from the append at the latest; -1 is never.",
    ),
    key(
        "segment.bytes",
        (Int, "1073741824"),
        Between(14, INT),
        "log.segment.bytes",
        "Bytes of the newest records that stay out of the cleaner's reach, at most. The files of the log have a size of \
         their own.",
    ),
    idle(
        "segment.index.bytes",
        (Int, "10485760"),
        Between(4, INT),
        "log.index.size.max.bytes",
        "Size of an index file. The index here is one for all.",
    ),
    idle(
        "segment.jitter.ms",
        (Long, "0"),
        Between(0, MAX),
        "log.roll.jitter.ms",
        "Spreads the times at which files are closed. Files here are shared by all partitions.",
    ),
    key(
        "segment.ms",
        (Long, "604800000"),
        Between(1, MAX),
        "log.roll.ms",
        "Time the newest records stay out of the cleaner's reach, at most.",
    ),
    idle(
        "unclean.leader.election.enable",
        (Boolean, "false"),
        Any,
        "unclean.leader.election.enable",
        "Whether a copy that is behind may lead. There is one copy.",
    ),
];

/// The key of that name.
#[must_use]
pub fn topic_key(name: &str) -> Option<&'static ConfigKey> {
    TOPIC_KEYS.iter().find(|key| key.name == name)
}

impl ConfigKey {
    /// What a value has to be, when `value` is not that.
    ///
    /// # Errors
    /// The text that says it.
    pub fn check(&self, value: &str) -> Result<(), String> {
        let value = value.trim();
        let fits = match self.kind {
            Boolean => matches!(value.to_ascii_lowercase().as_str(), "true" | "false"),
            Int => value.parse::<i32>().is_ok_and(|number| self.allowed.holds(i64::from(number))),
            Long => value.parse::<i64>().is_ok_and(|number| self.allowed.holds(number)),
            Double => value.parse::<f64>().is_ok_and(|share| (0.0..=1.0).contains(&share)),
            Text | List => self.allowed.holds_text(value),
        };
        if fits { Ok(()) } else { Err(self.expected()) }
    }

    fn expected(&self) -> String {
        match (self.kind, self.allowed) {
            (Boolean, _) => "true or false".to_owned(),
            (_, Between(least, MAX)) => format!("a whole number of at least {least}"),
            (_, Between(least, most)) => format!("a whole number from {least} to {most}"),
            (_, Share) => "a number from 0 to 1".to_owned(),
            (_, OneOf(words)) => words.join(" or "),
            (_, SomeOf(words)) => format!("one or more of {}, separated by commas", words.join(" and ")),
            (_, Any) => "text".to_owned(),
        }
    }
}

impl Allowed {
    fn holds(self, number: i64) -> bool {
        match self {
            Between(least, most) => (least..=most).contains(&number),
            Any | Share | OneOf(_) | SomeOf(_) => true,
        }
    }

    fn holds_text(self, value: &str) -> bool {
        match self {
            OneOf(words) => words.contains(&value),
            SomeOf(words) => {
                let given: Vec<_> = words_of(value).collect();
                let once = |(place, word): (usize, &&str)| !given.iter().skip(place + 1).any(|other| other == word);
                !given.is_empty() && given.iter().enumerate().all(once) && given.iter().all(|word| words.contains(word))
            }
            Any | Between(..) | Share => true,
        }
    }
}

/// The words of a list.
pub(crate) fn words_of(value: &str) -> impl Iterator<Item = &str> {
    value.split(',').map(str::trim).filter(|word| !word.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_in_order_known_once_and_their_defaults_are_allowed() {
        assert!(TOPIC_KEYS.windows(2).all(|pair| pair[0].name < pair[1].name));
        for key in &TOPIC_KEYS {
            assert_eq!(key.check(key.default), Ok(()), "{}", key.name);
            assert!(key.about.ends_with('.') && !key.about.contains("  "), "{}", key.name);
            assert_eq!(topic_key(key.name).map(|found| found.name), Some(key.name));
        }
        assert_eq!(topic_key("retention.mss"), None);
    }

    #[test]
    fn what_is_not_allowed_is_named() {
        for (name, wrong, says) in [
            ("retention.ms", "-2", "a whole number of at least -1"),
            ("retention.ms", "x", "a whole number of at least -1"),
            ("retention.ms", "", "a whole number of at least -1"),
            ("segment.bytes", "13", "a whole number from 14 to 2147483647"),
            ("segment.bytes", "2147483648", "a whole number from 14 to 2147483647"),
            ("min.cleanable.dirty.ratio", "1.1", "a number from 0 to 1"),
            ("cleanup.policy", "keep", "one or more of delete and compact, separated by commas"),
            ("cleanup.policy", "", "one or more of delete and compact, separated by commas"),
            ("cleanup.policy", "compact,compact", "one or more of delete and compact, separated by commas"),
            ("message.timestamp.type", "createtime", "CreateTime or LogAppendTime"),
            ("compression.type", "zstd", "producer"),
            ("preallocate", "yes", "true or false"),
        ] {
            assert_eq!(topic_key(name).unwrap().check(wrong), Err(says.to_owned()), "{name}={wrong}");
        }
        for (name, right) in [
            ("cleanup.policy", "compact, delete"),
            ("retention.ms", "-1"),
            ("preallocate", "TRUE"),
            ("min.cleanable.dirty.ratio", "0.01"),
            ("leader.replication.throttled.replicas", "0:1,1:1"),
        ] {
            assert_eq!(topic_key(name).unwrap().check(right), Ok(()), "{name}={right}");
        }
    }
}
