//! Why a filter drops an event, in words: what the event has beside what the consumer wants.

use super::super::model::{BinaryEvent, Event, Source};
use super::super::params::GetParams;
use super::{Consumer, FilterKey, ageoff, consumer_rules, previously_deleted, security, too_deep, unreadable};

/// Values of one kind that are listed at most.
const LISTED: usize = 20;

/// The value and the limit behind a drop that [`super::verdicts`] names; empty for a stage that says it all by its name.
pub fn why(key: FilterKey, event: &Event, consumer: &Consumer<'_>) -> String {
    let binary = match event {
        Event::Binary(binary) => binary,
        Event::Status(status) => &status.entity.input,
        Event::Download(download) if key.stage == security::STAGE => return above(&download.source, consumer.params),
        Event::Delete(_) | Event::Download(_) | Event::Insert(_) | Event::Plugin(_) | Event::Retrohunt(_) => {
            return String::new();
        }
    };
    match key.stage {
        ageoff::STAGE => aged(binary, consumer),
        too_deep::STAGE => {
            let limit = if consumer.task { too_deep::TASK_LIMIT } else { too_deep::PASSIVE_LIMIT };
            format!("the path has {} nodes, at most {limit} are wanted", binary.source.path.len())
        }
        security::STAGE => above(&binary.source, consumer.params),
        consumer_rules::STAGE => rule(key.reason, binary, event, consumer.params),
        previously_deleted::STAGE => previously_deleted::check(consumer.purges, event)
            .map_or_else(String::new, |kind| format!("a delete event names it ({kind:?})").to_ascii_lowercase()),
        unreadable::STAGE => "readers of JSON could not read it; with avro-format=true it is handed out".to_owned(),
        _ => String::new(),
    }
}

fn above(source: &Source, params: &GetParams) -> String {
    format!("source.security is {:?}, the consumer may have {:?} (max-security)", source.security, params.max_security)
}

fn aged(binary: &BinaryEvent, consumer: &Consumer<'_>) -> String {
    let source = &binary.source;
    let days = consumer.sources.get(&source.name).and_then(|source| source.expiry_ms).map_or(0, |ms| ms / 86_400_000);
    let mut time = String::new();
    source.timestamp.push_rfc3339(&mut time);
    format!("source.timestamp is {time}, events of source {} are kept for {days} days", source.name)
}

fn rule(reason: &str, binary: &BinaryEvent, event: &Event, params: &GetParams) -> String {
    let sizes = || {
        let content = binary.entity.datastreams.iter().filter(|stream| stream.label == "content");
        listed(content.map(|stream| stream.size.to_string()))
    };
    let limit = |limit: Option<u64>| limit.map_or_else(|| "-".to_owned(), |limit| limit.to_string());
    match reason {
        "reject_source" => {
            format!("the source is {}, wanted is {} (r-source)", binary.source.name, listed(params.sources.iter()))
        }
        "reject_event_type" => format!(
            "the action is {}, wanted is {} (r-action, r-content), not wanted is {} (d-action)",
            binary.action,
            listed(params.actions.iter().map(|action| action.as_str())),
            listed(params.deny_actions.iter().map(|action| action.as_str())),
        ),
        "reject_self" => format!("the author is {} itself (d-self)", event.author().name),
        "reject_content_too_large" => {
            let most = limit(params.under_content_size);
            format!("the content has {} bytes, at most {most} are wanted (r-under-content-size)", sizes())
        }
        "reject_content_too_small" => {
            let least = limit(params.over_content_size);
            format!("the content has {} bytes, at least {least} are wanted (r-over-content-size)", sizes())
        }
        "reject_stream" | "reject_file_format" => {
            let has = binary.entity.datastreams.iter().map(|stream| format!("{},{}", stream.label, stream.file_format));
            let wanted = params.streams.iter().map(|(label, prefixes)| format!("{label},{}", prefixes.join(",")));
            format!("the streams are {}, wanted are {} (r-streams)", listed(has), listed(wanted))
        }
        "reject_no_content" => {
            "there is no content stream; r-content, r-under-content-size or r-over-content-size wants one".to_owned()
        }
        _ => String::new(),
    }
}

fn listed<T: AsRef<str>>(texts: impl Iterator<Item = T>) -> String {
    let mut texts: Vec<T> = texts.take(LISTED + 1).collect();
    let more = texts.len() > LISTED;
    texts.truncate(LISTED);
    let mut list = texts.iter().map(AsRef::as_ref).collect::<Vec<_>>().join(" ");
    match (list.is_empty(), more) {
        (true, _) => "-".clone_into(&mut list),
        (false, true) => list.push_str(" ..."),
        (false, false) => {}
    }
    list
}

#[cfg(test)]
mod tests {
    use super::super::super::model::{Datastream, Timestamp};
    use super::super::super::params::Limits;
    use super::super::super::purge::PurgeOrders;
    use super::super::super::sources::Sources;
    use super::super::verdicts;
    use super::*;
    use crate::dispatcher::labels::Labels;
    use crate::metrics::Metrics;

    #[test]
    fn value_and_limit_are_named() {
        let mut binary = BinaryEvent { action: "sourced".into(), ..BinaryEvent::default() };
        binary.source.name = "lab".into();
        binary.author.name = "amy".into();
        binary.entity.datastreams = vec![Datastream { label: "content".into(), size: 5, ..Datastream::default() }];
        let event = Event::Binary(Box::new(binary));
        for (name, value, want) in [
            ("r-under-content-size", "4", "the content has 5 bytes, at most 4 are wanted (r-under-content-size)"),
            ("r-over-content-size", "6", "the content has 5 bytes, at least 6 are wanted (r-over-content-size)"),
            ("r-source", "other", "the source is lab, wanted is other (r-source)"),
            ("r-streams", "pcap", "the streams are content,, wanted are pcap, (r-streams)"),
            ("d-self", "true", "the author is amy itself (d-self)"),
        ] {
            let query = [("name", "amy"), ("r-live", "1"), (name, value)];
            let query = query.map(|(name, value)| (name.to_owned(), value.to_owned()));
            let limits = Limits { fetch_limit: 1, default_wait_secs: 1 };
            let params = GetParams::parse("binary", &query, &limits).unwrap();
            let (sources, purges, labels) = (Sources::default(), PurgeOrders::default(), Labels::default());
            let consumer = Consumer {
                params: &params,
                task: true,
                sources: &sources,
                labels: &labels,
                purges: &purges,
                now: Timestamp::from_millis(0),
                duplicates: None,
                metrics: &Metrics::new(),
            };
            let keys = verdicts(&event, &consumer);
            assert_eq!(keys.len(), 1, "{name}");
            assert_eq!(why(keys[0], &event, &consumer), want);
        }
    }
}
