//! Consumer rules: what a request says about the events it wants.
//!
//! Contract events.md 5.5.4; the order of the rules is part of the contract, the first rejection counts.

use super::super::model::{BinaryEventOf, DatastreamOf, EventOf, Text};
use super::super::params::GetParams;
use super::super::topic::Action;

/// Stage name in counts and metrics.
pub const STAGE: &str = "FilterConsumerRules";

const CONTENT: &str = "content";
const ANY_LABEL: &str = "*";

/// Drops a binary, or a status by what its input is, that the request did not ask for.
pub fn check<T: Text>(params: &GetParams, event: &EventOf<T>) -> Option<&'static str> {
    match event {
        EventOf::Binary(binary) => origin(params, binary).or_else(|| streams(params, &binary.entity.datastreams)),
        EventOf::Status(status) => origin(params, &status.entity.input),
        EventOf::Delete(_) | EventOf::Download(_) | EventOf::Insert(_) | EventOf::Plugin(_) | EventOf::Retrohunt(_) => {
            None
        }
    }
}

/// Steps 1 to 4: source, action, author.
fn origin<T: Text>(params: &GetParams, binary: &BinaryEventOf<T>) -> Option<&'static str> {
    if !params.sources.is_empty() && !params.sources.iter().any(|source| *source == *binary.source.name) {
        return Some("reject_source");
    }
    let action_in = |actions: &[Action]| actions.iter().any(|action| action.as_str() == &*binary.action);
    if !params.actions.is_empty() && !action_in(&params.actions) {
        return Some("reject_event_type");
    }
    if action_in(&params.deny_actions) {
        return Some("reject_event_type");
    }
    (params.deny_self && *binary.author.name == params.name).then_some("reject_self")
}

/// Steps 5 to 7: each stream in order, then what is missing.
///
/// Hits count streams, not different labels, as upstream does: two `content` streams satisfy two wanted labels.
fn streams<T: Text>(params: &GetParams, datastreams: &[DatastreamOf<T>]) -> Option<&'static str> {
    let mut hits = 0_usize;
    let mut content_seen = false;
    for stream in datastreams {
        if &*stream.label == CONTENT {
            content_seen = true;
            if let Some(reason) = content_size(params, stream.size) {
                return Some(reason);
            }
        }
        if !params.streams.is_empty() {
            if let Some(reason) = label_and_format(params, stream) {
                return Some(reason);
            }
            hits += 1;
        }
    }
    if params.streams.len() > 1 && hits < params.streams.len() {
        return Some("reject_stream");
    }
    let content_needed =
        params.require_content || params.under_content_size.is_some() || params.over_content_size.is_some();
    (content_needed && !content_seen).then_some("reject_no_content")
}

fn content_size(params: &GetParams, size_bytes: u64) -> Option<&'static str> {
    if params.under_content_size.is_some_and(|most| size_bytes > most) {
        return Some("reject_content_too_large");
    }
    params.over_content_size.is_some_and(|least| size_bytes < least).then_some("reject_content_too_small")
}

fn label_and_format<T: Text>(params: &GetParams, stream: &DatastreamOf<T>) -> Option<&'static str> {
    let Some(prefixes) = params.streams.get(&*stream.label).or_else(|| params.streams.get(ANY_LABEL)) else {
        return Some("reject_stream");
    };
    let fits = prefixes.is_empty() || prefixes.iter().any(|prefix| stream.file_format.starts_with(prefix));
    (!fits).then_some("reject_file_format")
}

#[cfg(test)]
mod tests;
