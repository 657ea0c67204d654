//! The one thing the coordinator reads in members' metadata: the topics that a consumer subscribes to.

use std::collections::BTreeSet;

/// The protocol type of groups of consumers.
pub(super) const CONSUMER: &str = "consumer";

/// Topics of a subscription in Kafka's consumer protocol, any version: topics come first in all of them. `None` when it
/// does not read as one.
pub(super) fn topics(subscription: &[u8]) -> Option<BTreeSet<String>> {
    let (version, rest) = subscription.split_first_chunk::<2>()?;
    let (count, mut rest) = rest.split_first_chunk::<4>()?;
    let (version, count) = (i16::from_be_bytes(*version), i32::from_be_bytes(*count));
    if version < 0 || count < 0 {
        return None;
    }
    let mut topics = BTreeSet::new();
    for _ in 0..count {
        let (len, after) = rest.split_first_chunk::<2>()?;
        let (topic, after) = after.split_at_checked(usize::try_from(i16::from_be_bytes(*len)).ok()?)?;
        topics.insert(std::str::from_utf8(topic).ok()?.to_owned());
        rest = after;
    }
    Some(topics)
}

/// True when a static member that is back wants what it wanted before. What a consumer owned, and an assignor's own
/// data, differ after every restart and are not compared.
pub(super) fn is_unchanged(protocol_type: &str, before: &[u8], now: &[u8]) -> bool {
    if before == now {
        return true;
    }
    let same = |before: BTreeSet<String>| topics(now).is_some_and(|now| now == before);
    protocol_type == CONSUMER && topics(before).is_some_and(same)
}

#[cfg(test)]
pub(super) fn subscription(topics: &[&str], user_data: &[u8]) -> bytes::Bytes {
    let mut bytes = vec![0, 1];
    bytes.extend(i32::try_from(topics.len()).unwrap().to_be_bytes());
    for topic in topics {
        bytes.extend(i16::try_from(topic.len()).unwrap().to_be_bytes());
        bytes.extend(topic.as_bytes());
    }
    bytes.extend(i32::try_from(user_data.len()).unwrap().to_be_bytes());
    bytes.extend(user_data);
    bytes.extend([0; 4]);
    bytes.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topics_of_every_version_are_read_and_damage_is_not() {
        let golden = b"\x00\x03\x00\x00\x00\x02\x00\x01a\x00\x01b\xff\xff\xff\xffwhatever follows";
        assert_eq!(topics(golden), Some(BTreeSet::from(["a".to_owned(), "b".to_owned()])));
        (0..12).for_each(|len| assert_eq!(topics(&golden[..len]), None, "{len}"));
        assert_eq!(topics(b"\x00\x00\x7f\xff\xff\xff"), None, "a count without topics");
        assert_eq!(topics(b"\xff\xff\x00\x00\x00\x00"), None, "a negative version");
        assert_eq!(topics(b"\x00\x00\x00\x00\x00\x01\x00\x01\xff"), None, "not UTF-8");
    }

    #[test]
    fn user_data_makes_no_change_but_topics_do() {
        let (before, data) = (subscription(&["a", "b"], b""), subscription(&["b", "a"], b"sticky"));
        assert!(is_unchanged(CONSUMER, &before, &data));
        assert!(!is_unchanged("connect", &before, &data));
        assert!(!is_unchanged(CONSUMER, &before, &subscription(&["a"], b"")));
        assert!(is_unchanged("connect", b"x", b"x"));
        assert!(!is_unchanged(CONSUMER, b"x", b"y"));
    }
}
